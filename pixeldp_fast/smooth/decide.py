"""Deciding asked radii with as few draws as it takes: one anytime interval answers them all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pixeldp_fast.bounds.tight import tight_radius
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.stats.sequential import confidence_sequence
from pixeldp_fast.types import ABSTAIN, ArrayLike, FloatArray, IntArray

CERTIFIED, UNDECIDED, REFUTED = 1, 0, -1
FIRST_LOOK = 32  # draws; at alpha = 0.001 fewer decide nothing
GROWTH = 1.15  # from look to look: on average 7 % of the draws come after the decision
# By how much a radius must be missed to be refuted, above all rounding: of itself, of the scale.
SLACK, ABSOLUTE_SLACK = 1e-8, 1e-12

Statuses = npt.NDArray[np.int8]
Hits = Callable[[IntArray, int, int], IntArray]  # (rows, first draw, n) -> hits, int64 [rows]


@dataclass(frozen=True, eq=False)
class Decisions:
    """What was decided about every example and asked radius.

    Parameters
    ----------
    radii : float64 [R]
        As asked, in input units.
    status : int8 [B, R]
        1 certified: the smoothed classifier gives `prediction` on all inputs nearer than the
        radius. -1 refuted: the radius that its exact probability proves is smaller. 0 undecided at
        the cap.
    prediction : int64 [B]
        The selected class; ABSTAIN = -1 where nothing is certified for it.
    draws : int64 [B]
        Estimation draws used.
    hits : int64 [B]
        Those that voted for the selected class.
    radius : float64 [B]
        The anytime radius at the stop, 0 where abstained.

    Guarantee
        For every example apart: with probability at least 1 - alpha over the draws all of its
        statuses and its radius are right at once, whenever and for whatever reason the draws
        stopped.
    """

    radii: FloatArray
    status: Statuses
    prediction: IntArray
    draws: IntArray
    hits: IntArray
    radius: FloatArray

    def __len__(self) -> int:
        return len(self.status)


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


def checked_radii(
    radii: ArrayLike, mechanism: AbstractMechanism, sensitivity: float, alpha: float, cap: int
) -> FloatArray:
    """`radii` as float64 [R], each one that `cap` unanimous draws would prove.

    Raises
    ------
    InvalidArgument
        For negative or non-finite radii, and for those beyond the reach of the cap.
    """
    asked = np.atleast_1d(np.asarray(radii, dtype=np.float64))
    if asked.ndim != 1 or not asked.size or not np.all(np.isfinite(asked) & (asked >= 0)):
        raise InvalidArgument(
            f"`radii` must be finite numbers of at least 0, in input units, got {radii!r}."
        )
    best = float(confidence_sequence(cap, cap, alpha)[0])
    reach = float(_radius(mechanism, np.array(best), sensitivity))
    if asked.max() > reach:
        raise InvalidArgument(
            f"No {cap} draws can prove a radius of {asked.max():g}: unanimous ones prove "
            f"{reach:.6g} at alpha = {alpha:g}. Ask for less, raise `n_max`, or train with more "
            "noise."
        )
    return asked


def decide(
    hits: Hits,
    examples: int,
    radii: FloatArray,
    mechanism: AbstractMechanism,
    sensitivity: float,
    *,
    alpha: float,
    cap: int,
    granularity: int = 1,
) -> tuple[Statuses, IntArray, IntArray, FloatArray]:
    """Draw in growing rounds for the examples that still have an undecided radius.

    Parameters
    ----------
    hits : callable
        Asked with the undecided rows and the next range of draws.
    radii : float64 [R]
        From `checked_radii`.
    granularity : int
        Draws that cost the engine no more than one.

    Returns
    -------
    status : int8 [B, R]
    draws, total : int64 [B]
        Draws used, and their hits.
    p_lower : float64 [B]
        The anytime lower bound at the stop.

    Guarantee
        See `Decisions`: every look uses the same two-sided confidence sequence at level alpha,
        which contains the true probability at all numbers of draws at once.
    Source
        Ville, 1939; Robbins, 1970; for certificates Voracek, 2024.
    """
    status = np.zeros((examples, len(radii)), dtype=np.int8)
    total, drawn = np.zeros(examples, dtype=np.int64), np.zeros(examples, dtype=np.int64)
    p_lower = np.zeros(examples)
    rows, done = np.arange(examples), 0
    least = ABSOLUTE_SLACK * mechanism.noise_scale / sensitivity
    for look in looks(cap, granularity):
        if not rows.size:
            break
        total[rows] += hits(rows, done, look - done)
        drawn[rows] = done = look
        p_lower[rows], p_upper = confidence_sequence(total[rows], look, alpha)
        # The competitor is the complement, so every radius needs p above 1/2.
        proved = _radius(mechanism, p_lower[rows], sensitivity)
        possible = _radius(mechanism, p_upper, sensitivity) * (1 + SLACK) + least
        now = status[rows]
        now[(proved[:, None] >= radii) & (p_lower[rows] > 0.5)[:, None] & (now == 0)] = CERTIFIED
        refuted = (possible[:, None] < radii) | (p_upper < 0.5)[:, None]
        now[refuted & (now == 0)] = REFUTED
        status[rows] = now
        rows = rows[(now == UNDECIDED).any(axis=1)]
    return status, drawn, total, p_lower


def decisions(
    selected: IntArray,
    radii: FloatArray,
    outcome: tuple[Statuses, IntArray, IntArray, FloatArray],
    mechanism: AbstractMechanism,
    sensitivity: float,
) -> Decisions:
    """The record of what `decide` found about the selected classes, int64 [B]."""
    status, drawn, total, p_lower = outcome
    claims = p_lower > 0.5
    radius = np.where(claims, _radius(mechanism, p_lower, sensitivity), 0.0)
    prediction = np.where(claims, selected, ABSTAIN).astype(np.int64)
    return Decisions(radii, status, prediction, drawn, total, radius)


def _radius(mechanism: AbstractMechanism, p: FloatArray, sensitivity: float) -> FloatArray:
    """The tight radius of probability p against its complement."""
    return tight_radius(mechanism, p, np.clip(np.nextafter(1.0 - p, 2.0), 0.0, 1.0), sensitivity)
