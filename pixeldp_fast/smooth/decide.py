"""Deciding asked radii with as few draws as it takes: one anytime interval answers them all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.smooth.judge import Terms, radius_of, selected_classes
from pixeldp_fast.smooth.stopping import AbstractRule, Mask
from pixeldp_fast.stats.sequential import confidence_sequence
from pixeldp_fast.types import ArrayLike, FloatArray, IntArray

CERTIFIED, UNDECIDED, REFUTED = 1, 0, -1
FIRST_LOOK = 32  # draws; at alpha = 0.001 fewer decide nothing
GROWTH = 1.15  # from look to look: on average 7 % of the draws come after the decision
# By how much a radius must be missed to be refuted, above all rounding: of itself, of the scale.
SLACK, ABSOLUTE_SLACK = 1e-8, 1e-12

Statuses = npt.NDArray[np.int8]
RadiusAt = Callable[[FloatArray], FloatArray]  # of a probability against its complement


def looks(cap: int, granularity: int) -> Iterator[int]:
    """Growing numbers of draws at which to look, whole multiples of `granularity`, ending at cap.

    The schedule is fixed before the first draw; it decides only when the interval is looked at,
    which the interval does not mind.
    """
    now = FIRST_LOOK
    while True:
        rounded = min(-(-now // granularity) * granularity, cap)
        yield rounded
        if rounded == cap:
            return
        now = max(math.ceil(rounded * GROWTH), rounded + 1)


def radius_at(terms: Terms) -> RadiusAt:
    """The radius of a probability against its complement, under the terms; 0 up to one half."""

    def radius(p: FloatArray) -> FloatArray:
        rest = np.clip(np.nextafter(1.0 - p, 2.0), 0.0, 1.0)
        return np.where(p > rest, radius_of(terms, p, rest), 0.0)

    return radius


def as_radii(radii: ArrayLike) -> FloatArray:
    """`radii` as float64 [R], finite and at least 0."""
    try:
        asked = np.atleast_1d(np.asarray(radii, dtype=np.float64))
    except (TypeError, ValueError):
        asked = np.zeros(0)
    if asked.ndim != 1 or not asked.size or not np.all(np.isfinite(asked) & (asked >= 0)):
        raise InvalidArgument(
            f"`radii` must be finite numbers of at least 0, in input units, got {radii!r}."
        )
    return asked


def checked_radii(radii: ArrayLike, radius: RadiusAt, alpha: float, cap: int) -> FloatArray:
    """`radii` as float64 [R], each one that `cap` unanimous draws would prove.

    Raises
    ------
    InvalidArgument
        For negative or non-finite radii, and for those beyond the reach of the cap.
    """
    asked = as_radii(radii)
    best = confidence_sequence(cap, cap, alpha)[0]
    reach = float(radius(np.array(best)))
    if not best > 0.5:
        raise InvalidArgument(
            f"{cap} draws decide nothing at alpha = {alpha:g}, even if all of them agree: raise "
            "`n_max`; 100 000 are customary."
        )
    if asked.max() > reach:
        raise InvalidArgument(
            f"No {cap} draws can prove a radius of {asked.max():g}: unanimous ones prove "
            f"{reach:.6g} at alpha = {alpha:g}. Ask for less, raise `n_max`, or train with more "
            "noise."
        )
    return asked


def statuses(
    radii: FloatArray, p_lower: FloatArray, p_upper: FloatArray, radius: RadiusAt, least: float
) -> Statuses:
    """What an interval for the probability says of every radius, int8 [B, R].

    Parameters
    ----------
    least : float
        What a radius may be missed by before it counts as refuted: above the rounding error.

    Guarantee
        Where the interval contains the probability both answers are right. An empty one, which at
        most alpha of the intervals are, decides nothing.
    """
    proved, possible = radius(p_lower), radius(p_upper) * (1 + SLACK) + least
    certified = (proved[:, None] >= radii) & (p_lower > 0.5)[:, None]
    refuted = (possible[:, None] < radii) | (p_upper < 0.5)[:, None]
    found = certified.astype(np.int8) - refuted.astype(np.int8)
    found[p_lower > p_upper] = UNDECIDED
    return found


class DecisionRule(AbstractRule):
    """Stops an example when every asked radius is decided, and keeps the best of its interval.

    The intervals of all looks hold at once, so their intersection does: its ends are the largest
    lower and the least upper one, and the counts that gave them are kept.

    Parameters
    ----------
    selected : int64 [B]
    radii : float64 [R]
        From `checked_radii`.
    radius : function
    alpha : float
    ends : tuple of int
        Where it looks, such as `looks` gives.
    least : float
        As for `statuses`.

    Guarantee
        For every example apart: with probability at least 1 - alpha over the draws the interval
        contains the probability of the selected class at every look at once.
    Source
        Ville, 1939; Robbins, 1970; for certificates Voracek, 2024.
    """

    def __init__(
        self,
        selected: IntArray,
        radii: FloatArray,
        radius: RadiusAt,
        *,
        alpha: float,
        ends: tuple[int, ...],
        least: float = 0.0,
    ) -> None:
        self._selected, self._radii, self._radius = selected, radii, radius
        self._alpha, self._least = alpha, least
        self._ends = ends
        self._lower, self._upper = np.zeros(len(selected)), np.ones(len(selected))
        self.status: Statuses = np.zeros((len(selected), len(radii)), dtype=np.int8)
        self.lower_at = np.zeros((len(selected), 2), dtype=np.int64)  # hits, draws
        self.upper_at = np.zeros((len(selected), 2), dtype=np.int64)

    @property
    def ends(self) -> tuple[int, ...]:
        return self._ends

    def look(self, rows: IntArray, estimation: Tally) -> Mask:
        draws = estimation.draws
        hits = estimation.counts[np.arange(len(rows)), self._selected[rows]]
        lower, upper = confidence_sequence(hits, draws, self._alpha)
        counts = np.stack([hits, draws], axis=1)
        unseen = self.lower_at[rows, 1] == 0
        higher, tighter = (lower > self._lower[rows]) | unseen, (upper < self._upper[rows]) | unseen
        self._lower[rows] = np.maximum(lower, self._lower[rows])
        self._upper[rows] = np.minimum(upper, self._upper[rows])
        self.lower_at[rows[higher]] = counts[higher]
        self.upper_at[rows[tighter]] = counts[tighter]
        self.status[rows] = statuses(
            self._radii, self._lower[rows], self._upper[rows], self._radius, self._least
        )
        return np.asarray((self.status[rows] == UNDECIDED).any(axis=1))


def decision_rule(
    terms: Terms, selection: Tally, radii: FloatArray, ends: tuple[int, ...]
) -> DecisionRule:
    """The rule of these terms for the classes that the selection draws chose."""
    return DecisionRule(
        selected_classes(terms, selection),
        radii,
        radius_at(terms),
        alpha=terms.alpha,
        ends=ends,
        least=least_missed(terms),
    )


def least_missed(terms: Terms) -> float:
    """What a radius may be missed by before it counts as refuted."""
    return ABSOLUTE_SLACK * terms.mechanism.noise_scale / terms.sensitivity
