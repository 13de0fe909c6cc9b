"""Intervals for the mean of a real-valued output under attack, from its mean without one.

The output A lies in [low, high], low <= 0 <= high; A+ = max(0, A) and A- = max(0, -A). Every lower
end falls as `mean_positive` (or `mean`) falls and `mean_negative` rises; every upper end the other
way. So with measured means, call once with the ends that make the lower end weaker and once with
the others: alpha then covers the four (or two) one-sided bounds.

Noise from a table is `tau` away from the ideal law that the theorems are about. A mean of an output
in [0, h] differs by at most h tau between the two: once where it is measured, and once more where
the attacked output is served. What rounding adds to the shift of the centre is `slack`.
"""

from __future__ import annotations

import numpy as np

from pixeldp_fast import rounding
from pixeldp_fast.bounds.arguments import checked_discounts, checked_mechanism, real
from pixeldp_fast.bounds.search import maximise
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.types import ArrayLike, FloatArray

_FEW_STEPS = 1e-15  # relative; covers a subtraction and a division, or a product
_LARGEST_EPSILON = 500.0  # where e^epsilon times any range is still finite


def lemma2_interval(
    mechanism: AbstractMechanism,
    mean_positive: ArrayLike,
    mean_negative: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    shift: ArrayLike,
    epsilon: ArrayLike | None = None,
    *,
    tau: ArrayLike = 0.0,
    slack: ArrayLike = 0.0,
) -> tuple[FloatArray, FloatArray]:
    """Where the mean of the output lies under every attack, by differential privacy.

    E A(x+a) <= e^eps E A+ - e^-eps E A- + (high + e^-eps |low|) delta, and the mirror image.

    Parameters
    ----------
    mechanism : AbstractMechanism
    mean_positive, mean_negative : float [...]
        E A+ in [0, high] and E A- in [0, -low].
    low, high : float [...]
        Range of the output, finite, low <= 0 <= high, low < high.
    shift : float [...]
        Largest shift of the noise's centre (sensitivity times attack size), in the mechanism's norm
        and the units of its scale parameter, at least 0.
    epsilon : float [...] or None
        At least 0; None: the best for each side.
    tau : float [...]
        Total variation between the law that is sampled and the ideal one, in [0, 1].
    slack : float [...]
        What rounding can add to the shift, in its units. All broadcast.

    Returns
    -------
    lower, upper : float64 [...]
        Clipped to [low, high].

    Guarantee
        Holds for exact means at every attack that moves the centre by at most `shift`. Rounded
        outward; delta is the mechanism's exact profile at epsilon.
    Source
        Lecuyer et al., IEEE S&P 2019, appendix E, Lemma 2.
    """
    checked_mechanism(mechanism)
    a, b = checked_range(low, high)
    p = real("mean_positive", mean_positive, 0.0, b)
    m = real("mean_negative", mean_negative, 0.0, -a)
    off, mu = checked_shift(shift, tau, slack)
    eps = np.asarray(0.0 if epsilon is None else real("epsilon", epsilon, 0.0, _LARGEST_EPSILON))
    p, m, a, b, mu, eps, off = np.broadcast_arrays(p, m, a, b, mu, eps, off)
    shape = p.shape
    p, m, a, b, mu, eps, off = (v.ravel() for v in (p, m, a, b, mu, eps, off))
    fixed = None if epsilon is None else eps
    (p_low, p_high), (m_low, m_high) = moved(p, b * off, b), moved(m, -a * off, -a)
    upper = _lemma2_upper(mechanism, p_high, m_low, -a, b, mu, fixed)
    lower = -_lemma2_upper(mechanism, m_high, p_low, b, -a, mu, fixed)
    lower, upper = outward(lower, upper, (b - a) * off)
    return np.clip(lower, a, b).reshape(shape), np.clip(upper, a, b).reshape(shape)


def _lemma2_upper(
    mechanism: AbstractMechanism,
    positive: FloatArray,
    negative: FloatArray,
    depth: FloatArray,
    height: FloatArray,
    shift: FloatArray,
    epsilon: FloatArray | None,
) -> FloatArray:
    """The upper end before clipping, for outputs in [-depth, height]; float64 [N]."""

    def upper(eps: FloatArray) -> FloatArray:
        delta = mechanism.privacy_profile(eps, shift)
        growth, decay = np.exp(eps), np.exp(-eps)
        gain, loss = growth * positive, decay * negative
        leak = (height + decay * depth) * delta
        # Six operations, each within half a unit in the last place of its operands' size.
        return gain - loss + leak + 1e-14 * (gain + loss + leak)

    if epsilon is not None:
        return upper(epsilon)
    # From e^epsilon = (height + negative)/positive on, the end is above `height`.
    some = positive > 0  # and then height is
    useful = np.log(np.where(some, height + negative, 1.0)) - np.log(np.where(some, positive, 1.0))
    top = np.where(some, np.clip(useful, 0.0, _LARGEST_EPSILON), _LARGEST_EPSILON)
    best = maximise(lambda e: -upper(e), top, cells=80, steps=48)
    return upper(best)


def tight_mean_interval(
    mechanism: AbstractMechanism,
    mean: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    shift: ArrayLike,
    *,
    tau: ArrayLike = 0.0,
    slack: ArrayLike = 0.0,
) -> tuple[FloatArray, FloatArray]:
    """The exact range of the mean under attack, given only the mean without one.

    Parameters
    ----------
    mechanism : AbstractMechanism
    mean : float [...]
        E A, in [low, high].
    low, high, shift, tau, slack
        As for `lemma2_interval`.

    Returns
    -------
    lower, upper : float64 [...]
        low + (high - low) T(1 - m) and low + (high - low) (1 - T(m)), m = (mean - low)/(high - low)
        and T the trade-off at `shift`.

    Guarantee
        As for `lemma2_interval`. The best possible from the mean alone.
    Source
        Dong, Roth and Su, 2019 (the trade-off function); Neyman and Pearson, 1933.
    """
    checked_mechanism(mechanism)
    a, b = checked_range(low, high)
    off, mu = checked_shift(shift, tau, slack)
    return _mean_interval(mechanism, real("mean", mean, a, b), a, b, mu, off)


def tight_parts_interval(
    mechanism: AbstractMechanism,
    mean_positive: ArrayLike,
    mean_negative: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    shift: ArrayLike,
    *,
    tau: ArrayLike = 0.0,
    slack: ArrayLike = 0.0,
) -> tuple[FloatArray, FloatArray]:
    """The exact ranges of E A+ and of E A- under attack, subtracted.

    Parameters
    ----------
    mechanism, mean_positive, mean_negative, low, high, shift, tau, slack
        As for `lemma2_interval`.

    Returns
    -------
    lower, upper : float64 [...]
        Clipped to [low, high].

    Guarantee
        As for `lemma2_interval`, and never wider than it at any epsilon (but for rounding).
    Source
        Lecuyer et al., IEEE S&P 2019, appendix E, with the trade-off function of Dong, Roth and
        Su, 2019, in place of (epsilon, delta).
    """
    checked_mechanism(mechanism)
    a, b = checked_range(low, high)
    p = real("mean_positive", mean_positive, 0.0, b)
    m = real("mean_negative", mean_negative, 0.0, -a)
    off, mu = checked_shift(shift, tau, slack)
    zero = np.zeros_like(a)
    lower_positive, upper_positive = _mean_interval(mechanism, p, zero, b, mu, off)
    lower_negative, upper_negative = _mean_interval(mechanism, m, zero, -a, mu, off)
    lower = np.nextafter(lower_positive - upper_negative, -np.inf)
    upper = np.nextafter(upper_positive - lower_negative, np.inf)
    return np.clip(lower, a, b), np.clip(upper, a, b)


def _mean_interval(
    mechanism: AbstractMechanism,
    mean: FloatArray,
    low: FloatArray,
    high: FloatArray,
    mu: FloatArray,
    tau: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Both ends, rounded outward and clipped; (low, low) where the range is a point."""
    width = high - low
    safe = np.where(width > 0, width, 1.0)
    share = _share(mean - low, safe, tau)
    share_missing = _share(high - mean, safe, tau)
    above = rounding.down(width * mechanism.tradeoff(share_missing, mu), _FEW_STEPS)
    below = rounding.down(width * mechanism.tradeoff(share, mu), _FEW_STEPS)
    lower, upper = np.nextafter(low + above, -np.inf), np.nextafter(high - below, np.inf)
    lower, upper = outward(lower, upper, width * tau)
    return np.clip(lower, low, high), np.clip(upper, low, high)


def _share(part: FloatArray, width: FloatArray, tau: FloatArray) -> FloatArray:
    """part/width + tau, rounded up, at most 1."""
    share = rounding.up(part / width, _FEW_STEPS)
    return np.minimum(np.where(tau > 0, np.nextafter(share + tau, 2.0), share), 1.0)


def moved(mean: FloatArray, by: FloatArray, top: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The ends of mean -+ by within [0, top], rounded outward; `mean` itself where by = 0."""
    lower, upper = outward(mean, mean, by)
    return np.clip(lower, 0.0, top), np.clip(upper, 0.0, top)


def outward(lower: FloatArray, upper: FloatArray, by: FloatArray) -> tuple[FloatArray, FloatArray]:
    """lower - by and upper + by, rounded outward; unchanged where by = 0."""
    some, more = by > 0, rounding.up(by, _FEW_STEPS)
    down, up = np.nextafter(lower - more, -np.inf), np.nextafter(upper + more, np.inf)
    return np.where(some, down, lower), np.where(some, up, upper)


def checked_shift(
    shift: ArrayLike, tau: ArrayLike, slack: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """`tau`, and the shift of the centre that the theorem is applied to: shift + slack, up."""
    off, more = checked_discounts(tau, slack)
    mu = real("shift", shift, 0.0, np.inf)
    return off, np.where(more > 0, np.nextafter(mu + more, np.inf), mu)


def checked_range(low: ArrayLike, high: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """`low` and `high` as float64, finite, low <= 0 <= high and low < high."""
    a, b = real("low", low, -np.inf, 0.0), real("high", high, 0.0, np.inf)
    if not np.all((a < b) & np.isfinite(b - a)):
        raise InvalidArgument(
            f"`low` and `high` must be finite with low <= 0 <= high and low < high; got "
            f"{low!r} and {high!r}. An unbounded output needs delta = 0, which only the ideal "
            "Laplace law has, and an exact mean, since without a range no confidence interval "
            "exists. Declare a range by clipping the output, and certify the clipped model."
        )
    return a, b
