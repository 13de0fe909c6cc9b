"""Intervals under attack from the whole distribution of a real-valued output, not only its mean."""

from __future__ import annotations

import numpy as np

from pixeldp_fast import rounding
from pixeldp_fast.bounds.arguments import checked_mechanism, real
from pixeldp_fast.bounds.regression import checked_range, checked_shift
from pixeldp_fast.bounds.search import largest_holding
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.types import ArrayLike, FloatArray


def distribution_interval(
    mechanism: AbstractMechanism,
    exceed_lower: ArrayLike,
    exceed_upper: ArrayLike,
    edges: ArrayLike,
    shift: ArrayLike,
    *,
    tau: ArrayLike = 0.0,
    slack: ArrayLike = 0.0,
) -> tuple[FloatArray, FloatArray]:
    """Where the mean of the output lies under every attack, from a band around P(A > t).

    E A(x+a) in [low + int T(1 - P_lower(t)) dt, low + int (1 - T(P_upper(t))) dt], both integrals
    over all of [low, high]: what the draws did not show may still happen.

    Parameters
    ----------
    mechanism : AbstractMechanism
    exceed_lower, exceed_upper : float [..., M]
        In [0, 1]: bounds of P(A > t) for every t of a cell [edges[i], edges[i+1]) at once.
    edges : float [M + 1]
        Ascending; the first is `low` <= 0, the last `high` >= 0: the range of the output.
    shift, tau, slack : float [...]
        As for `lemma2_interval`; broadcast with the leading axes.

    Returns
    -------
    lower, upper : float64 [...]
        In [low, high].

    Guarantee
        Holds at every attack that moves the centre by at most `shift` if the band holds; rounded
        outward. With the exact distribution never wider than `tight_parts_interval` or
        `tight_mean_interval` (but for rounding): T is convex.
    Source
        Dong, Roth and Su, 2019 (the trade-off function), applied to every level of the output.
    """
    checked_mechanism(mechanism)
    grid = checked_edges(edges)
    below = real("exceed_lower", exceed_lower, 0.0, 1.0)
    above = real("exceed_upper", exceed_upper, 0.0, 1.0)
    cells = len(grid) - 1
    if below.shape[-1:] != (cells,) or above.shape[-1:] != (cells,):
        raise InvalidArgument(
            f"`exceed_lower` and `exceed_upper` must end in an axis of {cells} cells, one fewer "
            f"than the edges; got shapes {below.shape} and {above.shape}."
        )
    off, mu = np.broadcast_arrays(*checked_shift(shift, tau, slack))
    gained = _integrals(mechanism, np.nextafter(1 - below, 2.0), mu, off, grid)
    lost = _integrals(mechanism, above, mu, off, grid)
    low, high = grid[0], grid[-1]
    lower, upper = np.nextafter(low + gained, -np.inf), np.nextafter(high - lost, np.inf)
    return np.clip(lower, low, high), np.clip(upper, low, high)


def quantile_levels(
    mechanism: AbstractMechanism,
    shift: ArrayLike,
    quantile: float = 0.5,
    *,
    tau: ArrayLike = 0.0,
    slack: ArrayLike = 0.0,
) -> tuple[FloatArray, FloatArray]:
    """Which levels of the distribution without an attack enclose a quantile under every attack.

    Parameters
    ----------
    mechanism : AbstractMechanism
    shift, tau, slack : float [...]
        As for `lemma2_interval`.
    quantile : float
        In (0, 1); 0.5 is the median.

    Returns
    -------
    p_lower, p_upper : float64 [...]
        Every `quantile`-quantile of A(x+a) is at least l if P(A < l) <= p_lower, and at most u if
        P(A <= u) >= p_upper. Gaussian median: Phi(-shift/sigma) and Phi(shift/sigma). 0 and 1,
        exactly, where only the ends of the output's range are certain.

    Guarantee
        The inequalities T(p_lower) > 1 - quantile and T(1 - p_upper) > quantile were evaluated and
        held, with T rounded down.
    Source
        Chiang et al., NeurIPS 2020 (median smoothing, Gaussian); any law by its trade-off function.
    """
    checked_mechanism(mechanism)
    if not 0 < quantile < 1:
        raise InvalidArgument(
            f"`quantile` must lie in (0, 1), got {quantile!r}; 0.5 is the median."
        )
    off, mu = np.broadcast_arrays(*checked_shift(shift, tau, slack))
    rest = quantile if quantile == 0.5 else np.nextafter(1 - quantile, 2.0)
    miss = _largest_size(mechanism, mu, off, quantile)
    return _largest_size(mechanism, mu, off, rest), np.minimum(np.nextafter(1 - miss, 2.0), 1.0)


def _largest_size(
    mechanism: AbstractMechanism, mu: FloatArray, off: FloatArray, level: float
) -> FloatArray:
    """The largest test size found whose type II error is above `level`; 0 where none is."""
    flat_mu, flat_off = mu.ravel(), off.ravel()
    found = largest_holding(
        lambda size: _curve(mechanism, np.minimum(size, 1.0), flat_mu, flat_off) > level,
        np.zeros(flat_mu.shape),
        np.full(flat_mu.shape, 0.25),
    )
    return found.reshape(mu.shape)


def _curve(
    mechanism: AbstractMechanism, size: FloatArray, mu: FloatArray, off: FloatArray
) -> FloatArray:
    """T(size + tau) - tau, rounded down, not below 0: the curve of the law that is sampled."""
    asked = np.where(off > 0, np.nextafter(size + off, 2.0), size)
    ideal = mechanism.tradeoff(np.minimum(asked, 1.0), mu)
    sampled = np.where(off > 0, np.nextafter(ideal - off, -1.0), ideal)
    return np.maximum(sampled, 0.0)


def _integrals(
    mechanism: AbstractMechanism,
    sizes: FloatArray,
    mu: FloatArray,
    off: FloatArray,
    edges: FloatArray,
) -> FloatArray:
    """The integral of the curve at `sizes` [..., M], rounded down; float64 [...].

    Of n draws there are n + 1 sizes at most, and few shifts: the curve is evaluated once for each.
    """
    lead = np.broadcast_shapes(sizes.shape[:-1], mu.shape)
    distinct, where = np.unique(sizes, return_inverse=True)
    where = np.broadcast_to(where.reshape(sizes.shape), (*lead, sizes.shape[-1]))
    mu, off = np.broadcast_to(mu, lead), np.broadcast_to(off, lead)
    widths, found = np.diff(edges), np.empty(lead)
    for one_mu, one_off in set(zip(mu.ravel().tolist(), off.ravel().tolist(), strict=True)):
        rows = (mu == one_mu) & (off == one_off)
        curve = _curve(mechanism, distinct, np.array(one_mu), np.array(one_off))
        found[rows] = (curve[where[rows]] * widths).sum(axis=-1)
    # A width, a product and a sum of M terms of at least 0: each within half a step, relative.
    return rounding.down(found, (len(edges) + 4) * 1.2e-16)


def checked_edges(edges: ArrayLike) -> FloatArray:
    """`edges` as float64 [M + 1], finite and ascending from low <= 0 to high >= 0."""
    try:
        grid = np.asarray(edges, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidArgument(f"`edges` must be numbers [M + 1], got {edges!r}.") from None
    if grid.ndim != 1 or len(grid) < 2 or not np.all(np.diff(grid) > 0):
        raise InvalidArgument(
            f"`edges` must be at least two ascending numbers, got shape {grid.shape}."
        )
    checked_range(grid[0], grid[-1])
    return grid
