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
from pixeldp_fast.smooth.inputs import InputRange, checked_alpha, checked_count
from pixeldp_fast.smooth.probability import (
    COMPETITORS,
    MEAN_BOUNDS,
    probabilities,
    split_in_words,
)
from pixeldp_fast.smooth.soundness import REAL_ARITHMETIC, check_recorded, plain_range, stored_range
from pixeldp_fast.stats.levels import planned_looks
from pixeldp_fast.types import ABSTAIN, FloatArray, IntArray, Norm

SCORES = ("argmax", "softmax")
STOPS = ("fixed", "loss", "decided")
MEAN_BOUND = "hoeffding+bernstein"  # of records that do not say; no other was made then


@dataclass(frozen=True)
class Terms:
    """What a certificate claims, and everything needed to re-run it and to judge it again.

    Parameters
    ----------
    sensitivities : tuple of (norm, value)
        Proved upper bounds of the prefix's sensitivity from each p-norm to the mechanism's norm.
    arithmetic : str
        Everything on which the last bits of a draw depend.
    competitor : {"complement", "all"}
        Declared before the draws. "complement": p_upper = 1 - p_lower. "all": p_upper is the
        largest of the other classes' upper bounds, and at most that.
    stop : {"fixed", "loss", "decided"}
        "fixed": every example has `n` estimation draws. "loss": each stopped at the first of
        `looks` at which its radius was predicted to be within `loss`, relative, of that of n draws.
        "decided": each stopped, at n draws at most, when the asked radii were decided; such draws
        make `Decisions`, never certificates.
    loss : float or None
        Of stop="loss".
    mean_bound : str
        Of softmax scores; declared before the draws.
    guarantee, inputs, coordinates, tau, slack, input_range
        For which program the claim holds, and what that costs: see `Soundness`.
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
    competitor: str = "complement"
    stop: str = "fixed"
    guarantee: str = REAL_ARITHMETIC
    loss: float | None = None
    mean_bound: str = MEAN_BOUND
    inputs: str = "real"
    coordinates: int = 0
    tau: float = 0.0
    slack: float = 0.0
    input_range: InputRange | None = None

    @property
    def sound(self) -> str:
        """`lattice`: the claim is about the program that runs; or `real arithmetic`."""
        return self.guarantee

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
        return split_in_words(self)

    @property
    def looks(self) -> tuple[tuple[int, float], ...]:
        """The numbers of draws at which an example may end, each with its share of alpha."""
        if self.stop == "decided":
            raise RecordError(
                "Draws that stopped at a decision are judged by their anytime interval alone: read "
                "them with Decisions.from_jsonl."
            )
        return (
            ((self.n, self.alpha),) if self.stop == "fixed" else planned_looks(self.alpha, self.n)
        )

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
        check_recorded(
            self.mechanism,
            self.guarantee,
            self.inputs,
            self.coordinates,
            self.tau,
            self.slack,
            self.input_shape,
            self.input_range,
        )
        check_rules(self.scores, self.competitor, self.stop, self.loss, self.mean_bound)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the inverse of `from_dict`."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain["mechanism"] = self.mechanism.to_dict()
        plain["norm"] = str(self.norm)
        plain["split"] = self.split
        plain["sensitivities"] = dict(self.sensitivities)
        plain["input_shape"] = list(self.input_shape)
        silent = () if self.mechanism.lattice else ("inputs", "coordinates", "tau", "slack")
        for name in (*silent, *(() if self.stop == "loss" else ("loss",))):
            del plain[name]
        if self.mean_bound == MEAN_BOUND:
            del plain["mean_bound"]
        return plain_range(plain)

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
            values |= stored_range(values)
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
    estimation draws alone; its competitor is the declared one. Examples without p_lower > p_upper
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
        When a tally does not hold exactly the draws that the terms declare: nothing is certified
        from a part.
    """
    check_tallies(terms, selection, estimation)
    chosen = selected_classes(terms, selection)
    p_lower, p_upper = probabilities(terms, selection, estimation, chosen)
    claim = p_lower > p_upper
    radius = np.zeros(len(chosen))
    if claim.any():
        radius[claim] = radius_of(terms, p_lower[claim], p_upper[claim])
    return Verdict(np.where(claim, chosen, ABSTAIN).astype(np.int64), radius, p_lower, p_upper)


def radius_of(
    terms: Terms, p_lower: FloatArray, p_upper: FloatArray, bound: str | None = None
) -> FloatArray:
    """The radius that p_lower > p_upper prove, by the bound of the terms or another."""
    bounded_by = radius_function(bound or terms.bound)
    return bounded_by(
        terms.mechanism, p_lower, p_upper, terms.sensitivity, tau=terms.tau, slack=terms.slack
    )


def check_tallies(terms: Terms, selection: Tally, estimation: Tally) -> None:
    """Refuse tallies of other classes, and numbers of draws that are none of the terms'."""
    ends = [draws for draws, _ in terms.looks]
    for name, tally, allowed in (
        ("selection", selection, [terms.n0]),
        ("estimation", estimation, ends),
    ):
        if tally.counts.shape[1] != terms.num_classes + 1:
            raise RecordError(f"The {name} tally does not have {terms.num_classes} classes.")
        if not np.isin(tally.draws, allowed).all():
            needed = " or ".join(map(str, allowed))
            raise RecordError(
                f"The {name} tally is partial: {needed} draws per example are needed."
            )
        if not _scores_add_up(tally):
            raise RecordError(f"The {name} tally holds sums of scores that no draws give.")


def _scores_add_up(tally: Tally) -> bool:
    """Whether a draw's scores can be at most 1 in all, which "complement" relies on."""
    if tally.sums is None or tally.squares is None:
        return tally.sums is None and tally.squares is None
    most = (tally.draws - tally.counts[:, -1]) * GRID  # non-finite outputs score 0
    steps = -(-tally.squares // GRID)  # a square is at most its score
    each = (tally.sums <= most[:, None]) & (tally.squares >= 0) & (steps <= tally.sums)
    return bool(each.all() and (tally.sums.sum(axis=1) <= most).all())


def selected_classes(terms: Terms, selection: Tally) -> IntArray:
    """The class that an example is certified for, int64 [B]: ties go to the lowest."""
    found: IntArray = class_scores(selection, terms.scores).argmax(axis=1)
    return found


def class_scores(tally: Tally, scores: str) -> IntArray:
    """The integers that rank the classes, int64 [B, K]: votes, or sums of softmax scores."""
    if scores == "argmax":
        return tally.counts[:, :-1]
    if tally.sums is None:
        raise RecordError("The tally holds no softmax sums; it was made with scores='argmax'.")
    return tally.sums


def check_scores(scores: str) -> None:
    """Refuse an unknown kind of score."""
    if scores not in SCORES:
        raise InvalidArgument(f"`scores` must be one of {', '.join(SCORES)}, got {scores!r}.")


def check_rules(scores: str, competitor: str, stop: str, loss: Any, mean_bound: str) -> None:
    """Refuse an unknown way to spend alpha or to stop, and combinations that make no sense."""
    if competitor not in COMPETITORS:
        raise InvalidArgument(
            f"`competitor` must be one of {', '.join(COMPETITORS)}, got {competitor!r}."
        )
    if mean_bound not in MEAN_BOUNDS:
        raise InvalidArgument(
            f"`mean_bound` must be one of {', '.join(MEAN_BOUNDS)}, got {mean_bound!r}."
        )
    if scores == "argmax" and mean_bound != MEAN_BOUND:
        raise InvalidArgument(
            "`mean_bound` is for scores='softmax'; votes have the exact Clopper-Pearson bound."
        )
    if stop not in STOPS:
        raise InvalidArgument(f"`stop` must be one of {', '.join(STOPS)}, got {stop!r}.")
    if stop == "loss" and scores != "argmax":
        raise InvalidArgument("`stop='loss'` is for votes: scores='argmax'.")
    if stop == "decided" and (scores, competitor) != ("argmax", "complement"):
        raise InvalidArgument("Decisions are about votes against the complement.")
    if stop != "loss" and loss is not None:
        raise InvalidArgument("`loss` is for stop='loss'; a fixed number of draws loses nothing.")
    if stop == "loss" and not (type(loss) is float and 0 < loss < 1):
        raise InvalidArgument(
            f"`loss`, the part of the radius that stopping early may cost, must lie in (0, 1), got "
            f"{loss!r}. Try 0.01."
        )
