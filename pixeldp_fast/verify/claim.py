"""What a record's terms claim, read by name: what is not known here is refused, never ignored."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pixeldp_fast._version import __version__
from pixeldp_fast.errors import RecordError
from pixeldp_fast.types import Norm
from pixeldp_fast.verify.laws import AbstractLaw, law_of
from pixeldp_fast.verify.radii import BOUNDS

SCORES = ("argmax", "softmax")
COMPETITORS = ("complement", "all")
STOPS = ("fixed", "loss", "decided")
MEAN_BOUNDS = ("hoeffding", "bernstein", "betting", "hoeffding+bernstein")
GUARANTEES = ("real arithmetic", "lattice")
INPUTS = ("lattice", "real attacks", "real")  # with a lattice: which inputs the claim is about
BACKENDS = ("triton", "native", "torch", "reference")
OF_A_PREFIX = "its inputs are 'real', its lattice a power of two of at least 4096"
# Where stop="loss" looks before its cap, and what of alpha the interval at the cap gets.
LOOKS_AT = tuple(Fraction(a, b) for a, b in ((1, 8), (1, 4), (7, 20), (1, 2), (7, 10)))
LAST_SHARE = Fraction(3, 4)
NORMS = tuple(str(norm) for norm in Norm)
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_LARGEST = 2**32  # what the counter of draws can address


@dataclass(frozen=True)
class Claim:
    """The terms that every example of a record shares.

    Parameters
    ----------
    terms : dict
        As stored; every name and value in it is known here.
    law : AbstractLaw
    sensitivity : float
        From the norm of the claim to the law's.
    """

    terms: dict[str, Any]
    law: AbstractLaw
    sensitivity: float

    @property
    def unit(self) -> float:
        """A shift of one noise scale, in input units."""
        return self.law.scale / self.sensitivity

    def __getitem__(self, name: str) -> Any:
        return self.terms[name] if name in self.terms else _UNSAID[name]

    @property
    def looks(self) -> dict[int, Fraction]:
        """The numbers of draws at which an example may end, each with its exact share of alpha."""
        alpha, cap = Fraction(self["alpha"]), self["n"]
        if self["stop"] == "fixed":
            return {cap: alpha}
        early = sorted({cap * part.numerator // part.denominator for part in LOOKS_AT} - {0, cap})
        if not early:
            return {cap: alpha}
        last = alpha * LAST_SHARE
        return {**dict.fromkeys(early, (alpha - last) / len(early)), cap: last}


def read_claim(terms: Any) -> Claim:
    """The claim that stored terms make.

    Raises
    ------
    RecordError
        Naming the version, where the record is another's; else the first term that is missing,
        unknown, or has a value that this verification does not know.
    """
    if not isinstance(terms, dict):
        raise RecordError("`terms` is missing or not a list of names and values.")
    _check_version(terms.get("version"))
    unknown = sorted(map(str, terms.keys() - _TERMS.keys()))
    if unknown:
        raise RecordError(
            f"`terms` has `{'`, `'.join(unknown)}`, which this verification does not know: it "
            "refuses the record rather than ignore a part of its claim."
        )
    stored, terms = terms, {**_UNSAID, **terms}
    for name, (fits, accepted) in _TERMS.items():
        if name not in terms:
            raise RecordError(f"`terms.{name}` is missing.")
        if not fits(terms[name]):
            raise RecordError(f"`terms.{name}` is {terms[name]!r}; known here: {accepted}.")
    law = law_of(terms["mechanism"])
    if terms["bound"] == "pixeldp-classical" and not law.classical:
        raise RecordError("`terms.bound` is 'pixeldp-classical', which is not proved for this law.")
    _check_rules(terms)
    _check_program(terms, law)
    claim = Claim(stored, law, _sensitivity(terms))
    words = split_in_words(claim)
    if terms["split"] != words:
        raise RecordError(
            f"`terms.split` is {terms['split']!r}, but the other terms say {words!r}."
        )
    return claim


def _check_version(version: Any) -> None:
    if not isinstance(version, str):
        raise RecordError("`terms.version` is missing or not text.")
    if version != __version__:
        raise RecordError(
            f"`terms.version`: the record was made by pixeldp_fast {version}, and this is "
            f"{__version__}, which may judge otherwise. Verify it with that version."
        )


def _check_rules(terms: dict[str, Any]) -> None:
    """Refuse combinations for which no rule is known."""
    votes = terms["scores"] == "argmax"
    if (terms["stop"] == "loss") != (terms["loss"] is not None):
        raise RecordError(f"`terms.loss` is {terms['loss']!r} with stop={terms['stop']!r}.")
    if votes and terms["mean_bound"] != MEAN_BOUNDS[-1]:
        raise RecordError(f"`terms.mean_bound` is {terms['mean_bound']!r}, which is not for votes.")
    if terms["stop"] != "fixed" and not votes:
        raise RecordError(f"`terms.stop` is {terms['stop']!r}, which is for votes alone.")
    if terms["stop"] == "decided" and terms["competitor"] != "complement":
        raise RecordError("`terms.competitor` of decisions is 'complement'.")


def _check_program(terms: dict[str, Any], law: AbstractLaw) -> None:
    """Refuse a guarantee that this noise cannot give."""
    expected = GUARANTEES[law.lattice is not None]
    if terms["guarantee"] != expected:
        raise RecordError(f"`terms.guarantee` of this mechanism is {expected!r}.")
    if law.lattice is not None:
        if terms["coordinates"] < 1:
            raise RecordError("`terms.coordinates` of noise on a lattice is at least 1.")
        if terms["input_range"] is not None and not may_have_prefix(terms, law):
            raise RecordError(f"`terms.input_range` is of a prefix: {OF_A_PREFIX}.")
        return
    for name in ("inputs", "coordinates", "tau", "slack", "input_range"):
        if terms[name] != _UNSAID[name]:
            raise RecordError(f"`terms.{name}` is {terms[name]!r}, but the noise has no lattice.")


def may_have_prefix(terms: dict[str, Any], law: AbstractLaw) -> bool:
    """Whether terms on a lattice can be those of noise behind a prefix."""
    levels = law.lattice or 1
    return terms["inputs"] == "real" and levels >= 2**12 and levels.bit_count() == 1


def split_in_words(claim: Claim) -> str:
    """How alpha is spent, as a record says it."""
    if claim["stop"] == "decided":
        return "alpha on both ends of the anytime interval (Krichevsky-Trofimov)"
    names = {
        "hoeffding": "Hoeffding",
        "bernstein": "empirical Bernstein",
        "betting": "betting, the bets planned by the selection draws",
        "hoeffding+bernstein": "the better of Hoeffding and empirical Bernstein at half of it each",
    }
    votes, alone = claim["scores"] == "argmax", claim["competitor"] == "complement"
    how = "alpha on p_lower" if alone else "alpha/2 on p_lower, alpha/2 shared by the other classes"
    how += f" ({'Clopper-Pearson' if votes else names[claim['mean_bound']]})"
    if alone and not votes and claim["mean_bound"] == "hoeffding+bernstein":
        how = "alpha/2 on p_lower by Hoeffding, alpha/2 by empirical Bernstein"
    alpha = Fraction(claim["alpha"])
    shares = [f"{float(level / alpha):g} of it at {n} draws" for n, level in claim.looks.items()]
    return how if len(shares) == 1 else f"{how}; {', '.join(shares)}"


def _sensitivity(terms: dict[str, Any]) -> float:
    found = terms["sensitivities"].get(terms["norm"])
    if found is None:
        raise RecordError(f"`terms.sensitivities` has none for the norm {terms['norm']}.")
    return float(found)


def is_number(value: Any) -> bool:
    """A JSON number that is neither true nor false, and finite."""
    return type(value) in (int, float) and math.isfinite(value)


def _whole(least: int, most: int) -> tuple[Callable[[Any], bool], str]:
    return lambda v: type(v) is int and least <= v <= most, f"integers in [{least}, {most}]"


def is_range(value: Any) -> bool:
    """Two finite numbers, the smaller first."""
    if not (isinstance(value, list) and len(value) == 2):
        return False
    return all(type(v) is float and math.isfinite(v) for v in value) and value[0] < value[1]


def _is_loss(value: Any) -> bool:
    return value is None or (type(value) is float and 0 < value < 1)


def _one_of(*accepted: str) -> tuple[Callable[[Any], bool], str]:
    return lambda v: isinstance(v, str) and v in accepted, ", ".join(map(repr, accepted))


def _are_sensitivities(value: Any) -> bool:
    return isinstance(value, dict) and all(
        norm in NORMS and is_number(size) and size > 0 for norm, size in value.items()
    )


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and v > 0 for v in value)


# What a record leaves out where it is so.
_UNSAID = {
    "loss": None,
    "mean_bound": MEAN_BOUNDS[-1],
    "inputs": "real",
    "coordinates": 0,
    "tau": 0.0,
    "slack": 0.0,
    "input_range": None,
}
# Every term: whether a value is known here, and what is.
_TERMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "version": (lambda v: isinstance(v, str), "text"),
    "mechanism": (lambda v: isinstance(v, dict), "a law and its parameter"),
    "norm": _one_of(*NORMS),
    "bound": _one_of(*BOUNDS),
    "scores": _one_of(*SCORES),
    "alpha": (lambda v: type(v) is float and 0 < v < 1, "numbers in (0, 1)"),
    "n0": _whole(1, _LARGEST),
    "n": _whole(1, _LARGEST),
    "sensitivities": (_are_sensitivities, f"finite numbers above 0 by norm ({', '.join(NORMS)})"),
    "seed": _whole(0, 2**64 - 1),
    "num_classes": _whole(2, _LARGEST),
    "input_shape": (_is_shape, "a list of sizes"),
    "backend": _one_of(*BACKENDS),
    "arithmetic": (lambda v: isinstance(v, str) and v != "", "text"),
    "model_fingerprint": (
        lambda v: isinstance(v, str) and _FINGERPRINT.fullmatch(v) is not None,
        "64 hexadecimal digits",
    ),
    "competitor": _one_of(*COMPETITORS),
    "stop": _one_of(*STOPS),
    "loss": (_is_loss, "null and numbers in (0, 1)"),
    "mean_bound": _one_of(*MEAN_BOUNDS),
    "guarantee": _one_of(*GUARANTEES),
    "inputs": _one_of(*INPUTS),
    "coordinates": _whole(0, 2**34),
    "tau": (lambda v: type(v) is float and 0 <= v < 1, "numbers in [0, 1)"),
    "slack": (lambda v: type(v) is float and 0 <= v < math.inf, "finite numbers from 0 on"),
    "input_range": (lambda v: v is None or is_range(v), "[low, high] with low < high"),
    "split": (lambda v: isinstance(v, str), "text"),
}
