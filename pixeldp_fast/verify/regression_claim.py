"""What a file of intervals claims, field by field, without the code that wrote it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pixeldp_fast.errors import RecordError
from pixeldp_fast.verify.claim import OF_A_PREFIX, is_range, may_have_prefix
from pixeldp_fast.verify.laws import AbstractLaw, law_of

BOUNDS = ("lemma2", "mean", "parts", "distribution", "quantile")
MEAN_BOUNDS = ("betting", "bernstein", "hoeffding")
INPUTS = ("lattice", "real attacks", "real")
_NUMBERS = ("alpha", "low", "high", "non_finite", "quantile", "tau", "slack")
_TEXTS = ("backend", "arithmetic", "model_fingerprint", "version", "split", "norm", "inputs")
_OTHERS = (
    "mechanism", "radii", "bound", "mean_bound", "n", "clip", "bins", "sensitivities", "seed",
    "input_shape", "stop", "guarantee", "coordinates", "one_radius",
)  # fmt: skip
_KNOWN = {*_NUMBERS, *_TEXTS, *_OTHERS}
_RANGE = "input_range"  # left out where there is no prefix or no lattice


@dataclass(frozen=True)
class IntervalClaim:
    """The terms of a file, checked; `terms` as stored."""

    terms: dict[str, Any]
    law: AbstractLaw

    def __getattr__(self, name: str) -> Any:
        if name in _KNOWN:
            return self.terms[name]
        raise AttributeError(name)

    def __getitem__(self, name: str) -> Any:
        return self.terms.get(name) if name == _RANGE else self.terms[name]

    @property
    def level(self) -> Fraction:
        """Each one-sided bound's share of alpha (of a band around a distribution: all of it)."""
        if self.bound == "distribution":
            shares = 1
        elif self.bound == "quantile":
            shares = 2 * len(self.radii)
        else:
            shares = 4 if self.bound != "mean" and self.low < 0 < self.high else 2
        return Fraction(self.alpha) / shares

    def ratio(self, r: int) -> Fraction:
        """The shift of the centre at a radius, in units of the noise's scale."""
        moved = Fraction(self.radii[r]) * Fraction(self.sensitivities[self.norm])
        return (moved + Fraction(self.slack)) / Fraction(self.law.scale)


def read_interval_claim(terms: Any) -> IntervalClaim:
    """The claim of a record's terms.

    Raises
    ------
    RecordError
        Naming the first field that is missing, unknown, or that no result could have.
    """
    if not isinstance(terms, dict):
        raise RecordError("`terms` are missing.")
    odd = sorted(map(str, (terms.keys() - {_RANGE}) ^ _KNOWN))
    if odd:
        raise RecordError(f"`terms` have missing or unknown fields: {', '.join(odd)}.")
    law = law_of(terms["mechanism"])
    for name in _NUMBERS:
        _need(name, type(terms[name]) is float and math.isfinite(terms[name]), "a finite number")
    for name in _TEXTS:
        _need(name, isinstance(terms[name], str), "text")
    for name, least in (("n", 1), ("bins", 1), ("seed", 0), ("coordinates", 0)):
        _need(name, type(terms[name]) is int and terms[name] >= least, f"at least {least}")
    _need("bound", terms["bound"] in BOUNDS, f"one of {', '.join(BOUNDS)}")
    _need("mean_bound", terms["mean_bound"] in MEAN_BOUNDS, f"one of {', '.join(MEAN_BOUNDS)}")
    _need("alpha", 0 < terms["alpha"] < 1, "in (0, 1)")
    _need("quantile", 0 < terms["quantile"] < 1, "in (0, 1)")
    _need("low", terms["low"] <= 0 <= terms["high"] != terms["low"], "a range that holds 0")
    _need("non_finite", terms["low"] <= terms["non_finite"] <= terms["high"], "within the range")
    _need("clip", type(terms["clip"]) is bool, "true or false")
    _need("one_radius", type(terms["one_radius"]) is bool, "true or false")
    _need("stop", terms["stop"] == "fixed", "'fixed'")
    shape = terms["input_shape"]
    sizes_only = isinstance(shape, list) and all(type(v) is int and v >= 1 for v in shape)
    _need("input_shape", sizes_only, "a list of sizes")
    _check_program(terms, law)
    radii, sizes = terms["radii"], terms["sensitivities"]
    several = isinstance(radii, list) and len(radii) > 0
    several = several and all(type(v) is float and 0 <= v < math.inf for v in radii)
    _need("radii", several, "finite numbers of at least 0")
    size = sizes.get(terms["norm"]) if isinstance(sizes, dict) else None
    _need("sensitivities", type(size) is float and 0 < size < math.inf, "of the norm")
    return IntervalClaim(terms, law)


def _need(name: str, holds: bool, what: str) -> None:
    if not holds:
        raise RecordError(f"`terms.{name}` must be {what}.")


def _check_program(terms: dict[str, Any], law: AbstractLaw) -> None:
    """Refuse a guarantee, and costs of it, that this noise cannot have."""
    own = "real arithmetic" if law.lattice is None else "lattice"
    _need("guarantee", terms["guarantee"] == own, f"{own!r} for this mechanism")
    if law.lattice is None:
        for name, only in (("tau", 0.0), ("slack", 0.0), ("coordinates", 0), ("inputs", "real")):
            _need(name, terms[name] == only, f"{only!r} for noise without a lattice")
        _need(_RANGE, _RANGE not in terms, "left out for noise without a lattice")
        return
    _need("inputs", terms["inputs"] in INPUTS, f"one of {', '.join(INPUTS)}")
    _need("coordinates", terms["coordinates"] >= 1, "at least 1 for noise on a lattice")
    _need("tau", 0 <= terms["tau"] < 1, "in [0, 1)")
    _need("slack", terms["slack"] >= 0, "at least 0")
    if _RANGE in terms:
        _need(_RANGE, is_range(terms[_RANGE]), "[low, high] with low < high")
        _need(_RANGE, may_have_prefix(terms, law), f"of a prefix: {OF_A_PREFIX}")
