"""Vectorised one-dimensional searches, for curves without a closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pixeldp_fast.types import FloatArray

Predicate = Callable[[FloatArray], npt.NDArray[np.bool_]]
Objective = Callable[[FloatArray], FloatArray]

_DOUBLINGS = 60  # up to 1e18 times the scale: beyond, the last value that held is returned
_HALVINGS = 120  # usually 45: down to a relative width of
_WIDTH = 1e-13
_GOLDEN = (np.sqrt(5) - 1) / 2


def largest_holding(holds: Predicate, start: FloatArray, scale: FloatArray) -> FloatArray:
    """The largest value found at which `holds`, a predicate that once false stays false.

    Parameters
    ----------
    holds : function of float64 [N] to bool [N]
    start : float64 [N]
        Where it is known, or taken, to hold.
    scale : float64 [N]
        First step upward, above 0.

    Returns
    -------
    value : float64 [N]
        `start`, or a value at which `holds` was evaluated and true.
    """
    low, high = start, start + scale
    for _ in range(_DOUBLINGS):
        yes = holds(high)
        if not yes.any():
            break
        low = np.where(yes, high, low)
        high = np.where(yes, start + 2 * (high - start), high)
    for _ in range(_HALVINGS):
        middle = low + (high - low) / 2
        # Each element stops by itself, so that its result does not depend on the others.
        wide = high - low > _WIDTH * high
        if not wide.any():
            break
        yes = holds(middle)
        low, high = np.where(wide & yes, middle, low), np.where(wide & ~yes, middle, high)
    return low


def maximise(objective: Objective, top: FloatArray, cells: int = 40, steps: int = 28) -> FloatArray:
    """Where in [0, `top`] the objective is largest: a grid, then golden sections around its best.

    Parameters
    ----------
    objective : function of float64 [..., N] to float64 [..., N]
    top : float64 [N]
        Finite, at least 0; both ends are tried.
    cells, steps : int
        The grid, and how often its best cell is narrowed by 0.618. Near a smooth maximum 28 times
        make the value exact; at a kink the value is as good as the point.

    Returns
    -------
    at : float64 [N]
        The best point that was evaluated.
    """
    unit = (np.arange(cells + 1) / cells) ** 2  # finer near 0, where the maximum usually is
    values = objective(unit[:, None] * top)  # [cells + 1, N]
    best = np.argmax(values, axis=0)
    at: FloatArray = unit[best] * top
    value = np.max(values, axis=0)
    low, high = unit[np.maximum(best - 1, 0)] * top, unit[np.minimum(best + 1, cells)] * top
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = objective(left), objective(right)
    for _ in range(steps):
        go_left = at_left >= at_right
        better = np.maximum(at_left, at_right)
        at = np.where(better > value, np.where(go_left, left, right), at)
        value = np.maximum(value, better)
        low, high = np.where(go_left, low, left), np.where(go_left, right, high)
        fresh = np.where(go_left, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
        at_fresh = objective(fresh)
        left, right = np.where(go_left, fresh, right), np.where(go_left, left, fresh)
        at_left, at_right = (
            np.where(go_left, at_fresh, at_right),
            np.where(go_left, at_left, at_fresh),
        )
    return at
