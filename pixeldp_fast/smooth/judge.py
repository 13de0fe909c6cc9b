"""From tallies to claims: the one place where statistics and bounds meet."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from pixeldp_fast.backends.tally import GRID, Tally
from pixeldp_fast.bounds.registry import radius_function
from pixeldp_fast.errors import InvalidArgument, RecordError
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.registry import mechanism_from_dict
from pixeldp_fast.noise.stream import checked_seed
from pixeldp_fast.smooth.inputs import checked_alpha, checked_count
from pixeldp_fast.stats.binomial import clopper_pearson_lower
from pixeldp_fast.stats.mean import empirical_bernstein_lower, hoeffding_lower
from pixeldp_fast.types import ABSTAIN, FloatArray, IntArray, Norm

SCORES = ("argmax", "softmax")
GUARANTEE = "real arithmetic"
COMPETITOR = "complement"
SPLITS = {  # how alpha is spent, by kind of score
    "argmax": "alpha on p_lower (Clopper-Pearson)",
    "softmax": "alpha/2 on p_lower by Hoeffding, alpha/2 by empirical Bernstein",
}


@dataclass(frozen=True)
class Terms:
    """What a certificate claims, and everything needed to re-run it and to judge it again.

    Parameters
    ----------
    sensitivities : tuple of (norm, value)
        Proved upper bounds of the prefix's sensitivity from each p-norm to the mechanism's norm.
    arithmetic : str
        Everything on which the last bits of a draw depend.
    competitor : str
        "complement": p_upper = 1 - p_lower, declared before the draws.
    stop : str
        "fixed": the numbers of draws were chosen before the first one.
    guarantee : str
        "real arithmetic": the theorems are applied to ideal noise; float rounding is not covered.
    """

    mechanism: AbstractMechanism
    norm: Norm
    bound: str
    scores: str
    alpha: float
    n0: int
    n: int
    sensitivities: tuple[tuple[str, float], ...]
    seed: int
    num_classes: int
    input_shape: tuple[int, ...]
    backend: str
    arithmetic: str
    model_fingerprint: str
    version: str
    competitor: str = COMPETITOR
    stop: str = "fixed"
    guarantee: str = GUARANTEE

    @property
    def sensitivity(self) -> float:
        """The sensitivity for `norm`."""
        found = dict(self.sensitivities).get(str(self.norm))
        if found is None:
            raise RecordError(
                f"The record holds no sensitivity for norm {self.norm}; it has "
                f"{', '.join(name for name, _ in self.sensitivities)}."
            )
        return found

    @property
    def split(self) -> str:
        """How alpha is spent."""
        return SPLITS[self.scores]

    def check(self) -> None:
        """Raise a `ValueError` that names the first field that no certificate could have."""
        for name, least in (("n0", 1), ("n", 1), ("num_classes", 2)):
            if type(getattr(self, name)) is not int:
                raise ValueError(f"`{name}` must be an integer")
            checked_count(name, getattr(self, name), least)
        for name in ("backend", "arithmetic", "model_fingerprint", "version"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"`{name}` must be text")
        if type(self.seed) is not int or not isinstance(self.alpha, float):
            raise ValueError("`seed` must be an integer and `alpha` a number")
        checked_seed(self.seed)
        checked_alpha(self.alpha)
        check_scores(self.scores)
        radius_function(self.bound)
        if not all(type(v) is float and 0 < v < math.inf for _, v in self.sensitivities):
            raise ValueError("`sensitivities` must be finite and above 0")
        for name, only in (
            ("guarantee", GUARANTEE),
            ("competitor", COMPETITOR),
            ("stop", "fixed"),
        ):
            if getattr(self, name) != only:
                raise ValueError(f"`{name}` must be {only!r}, the only one of this version")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the inverse of `from_dict`."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain["mechanism"] = self.mechanism.to_dict()
        plain["norm"] = str(self.norm)
        plain["split"] = self.split
        plain["sensitivities"] = dict(self.sensitivities)
        plain["input_shape"] = list(self.input_shape)
        return plain

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Terms:
        """Raises `RecordError` when a field is missing, unknown or of the wrong kind."""
        try:
            values = dict(record)
            values["mechanism"] = mechanism_from_dict(values["mechanism"])
            values["norm"] = Norm.parse(values["norm"])
            values["sensitivities"] = tuple(
                (str(k), float(v) if type(v) is int else v)
                for k, v in values["sensitivities"].items()
            )
            values["input_shape"] = tuple(int(v) for v in values["input_shape"])
            split = values.pop("split")
            terms = cls(**values)
            terms.check()
            if split != terms.split:
                raise ValueError(f"`split` must be {terms.split!r} for these scores")
            return terms
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RecordError(f"The record's terms are not valid: {error}") from error


@dataclass(frozen=True)
class Verdict:
    """The judged numbers of a batch of examples."""

    prediction: IntArray
    radius: FloatArray
    p_lower: FloatArray
    p_upper: FloatArray


def judge(terms: Terms, selection: Tally, estimation: Tally) -> Verdict:
    """Prediction, probability bounds and radius of every example.

    The class is the one with the largest selection score; its lower bound comes from the
    estimation draws alone; its competitor is the complement. Examples without p_lower > p_upper
    abstain, with radius 0.

    Guarantee
        For every example apart: with probability at least 1 - alpha over the draws, the smoothed
        classifier returns `prediction` on all inputs nearer than `radius` in `norm`, or abstained.
        p_lower and radius are rounded down, p_upper up.
    Source
        Cohen et al., ICML 2019, section 3.2.2 (the scheme); `stats` and `bounds` (the numbers).

    Raises
    ------
    RecordError
        When a tally does not hold exactly n0 and n draws: nothing is certified from a part.
    """
    for name, tally, draws in (
        ("selection", selection, terms.n0),
        ("estimation", estimation, terms.n),
    ):
        if np.any(tally.draws != draws):
            raise RecordError(f"The {name} tally is partial: {draws} draws per example are needed.")
        if tally.counts.shape[1] != terms.num_classes + 1:
            raise RecordError(f"The {name} tally does not have {terms.num_classes} classes.")
    chosen = class_scores(selection, terms.scores).argmax(axis=1)  # [B]
    rows = np.arange(len(chosen))
    if terms.scores == "argmax":
        p_lower = clopper_pearson_lower(estimation.counts[rows, chosen], terms.n, terms.alpha)
    else:
        p_lower = _soft_lower(estimation, rows, chosen, terms)
    p_upper = np.clip(np.nextafter(1.0 - p_lower, 2.0), 0.0, 1.0)
    claim = p_lower > p_upper
    radius = np.zeros(len(chosen))
    if claim.any():
        radius[claim] = radius_function(terms.bound)(
            terms.mechanism, p_lower[claim], p_upper[claim], terms.sensitivity
        )
    return Verdict(np.where(claim, chosen, ABSTAIN).astype(np.int64), radius, p_lower, p_upper)


def class_scores(tally: Tally, scores: str) -> IntArray:
    """The integers that rank the classes, int64 [B, K]: votes, or sums of softmax scores."""
    if scores == "argmax":
        return tally.counts[:, :-1]
    if tally.sums is None:
        raise RecordError("The tally holds no softmax sums; it was made with scores='argmax'.")
    return tally.sums


def _soft_lower(tally: Tally, rows: IntArray, chosen: IntArray, terms: Terms) -> FloatArray:
    """The better of Hoeffding and empirical Bernstein, at alpha/2 each."""
    assert tally.sums is not None
    assert tally.squares is not None
    n, half = terms.n, terms.alpha / 2
    # Python integers: n * squares reaches 2^84, and the variance is a difference of such numbers.
    total = [int(v) for v in tally.sums[rows, chosen]]
    square = [int(v) for v in tally.squares[rows, chosen]]
    mean = np.array([t / (n * GRID) for t in total])
    lower = hoeffding_lower(mean, n, half)
    if n < 2:
        return lower
    variance = np.array(
        [(n * s - t * t) / (n * (n - 1) * GRID * GRID) for t, s in zip(total, square, strict=True)]
    )
    return np.maximum(lower, empirical_bernstein_lower(mean, variance, n, half))


def check_scores(scores: str) -> None:
    """Refuse an unknown kind of score."""
    if scores not in SCORES:
        raise InvalidArgument(f"`scores` must be one of {', '.join(SCORES)}, got {scores!r}.")
