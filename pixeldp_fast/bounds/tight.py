"""The tight radius: the best that p_lower and p_upper can prove, for any mechanism."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import special

from pixeldp_fast import rounding
from pixeldp_fast.bounds.arguments import (
    checked_discounts,
    checked_mechanism,
    checked_probabilities,
    in_input_units,
    less_tau,
    positive,
)
from pixeldp_fast.bounds.search import largest_holding
from pixeldp_fast.noise.gaussian import Gaussian
from pixeldp_fast.noise.laplace import Laplace
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.uniform import Uniform
from pixeldp_fast.types import ArrayLike, FloatArray


def tight_radius(
    mechanism: AbstractMechanism,
    p_lower: ArrayLike,
    p_upper: ArrayLike,
    sensitivity: ArrayLike = 1.0,
    *,
    tau: ArrayLike = 0.0,
    slack: ArrayLike = 0.0,
) -> FloatArray:
    """The supremum of the attack sizes at which the top class provably stays on top.

    Parameters
    ----------
    mechanism : AbstractMechanism
        Gaussian, Laplace and Uniform have closed forms; any other is bisected on its trade-off.
    p_lower : float [...]
        Lower bound of the top class's probability (or mean score), in [0, 1].
    p_upper : float [...]
        Upper bound of every other class's, in [0, 1]; min(p_upper, 1 - p_lower) is used.
    sensitivity : float [...]
        Upper bound of the prefix's sensitivity from the attack's norm to the mechanism's.
    tau : float [...]
        Total variation between the law that is sampled and the ideal one (`noise.lattice.tau`),
        paid for the measurement and again for what is served.
    slack : float [...]
        What rounding can add to the shift of the noise's centre, in noise units. All broadcast.

    Returns
    -------
    radius : float64 [...]
        In input units: the supremum of mu with
        T_mu(1 - p_lower + tau) - tau > 1 - T_mu(p_upper + tau) + tau, less the slack, divided by
        the sensitivity. 0 where p_lower <= p_upper; inf where the law allows it (Gaussian and
        Laplace at p_lower = 1 or p_upper = 0, tau = 0).

    Guarantee
        The claim is for attacks of norm below the radius. Rounded down.
    Source
        Gaussian: Cohen et al., ICML 2019, Theorem 1. Laplace: Teng et al., 2020. Uniform: Yang et
        al., ICML 2020. General: Dong, Roth and Su, 2019, on the trade-off function.
    """
    checked_mechanism(mechanism)
    lower, upper = checked_probabilities(p_lower, p_upper)
    delta = positive("sensitivity", sensitivity)
    off, rounded = checked_discounts(tau, slack)
    lower, upper, off = np.broadcast_arrays(*less_tau(lower, upper, off), off)
    claims = lower > upper
    # Where nothing is claimed, harmless numbers keep the formulas silent.
    lower, upper = np.where(claims, lower, 0.75), np.where(claims, upper, 0.25)
    closed_form = _CLOSED_FORMS.get(type(mechanism))
    if closed_form is None:
        shift = bisected_shift(mechanism, lower, upper, off)
    else:
        shift = mechanism.noise_scale * closed_form(lower, upper)
        if off.any():
            shift = np.where(off > 0, bisected_shift(mechanism, lower, upper, off), shift)
    return np.where(claims, in_input_units(shift, rounded, delta), 0.0)


def log_ratio(p_lower: FloatArray, p_upper: FloatArray) -> FloatArray:
    """ln(p_lower / p_upper) for p_lower > p_upper, accurate where they nearly agree; inf at 0."""
    positive_upper = np.where(p_upper > 0, p_upper, 1.0)
    far = p_lower > 2 * p_upper
    near_ratio = np.where(far, 0.0, (p_lower - p_upper) / np.where(far, 1.0, positive_upper))
    value = np.where(far, np.log(p_lower) - np.log(positive_upper), np.log1p(near_ratio))
    return np.where(p_upper > 0, value, np.inf)


def bisected_shift(
    mechanism: AbstractMechanism,
    p_lower: FloatArray,
    p_upper: FloatArray,
    tau: FloatArray | float = 0.0,
) -> FloatArray:
    """The supremum of mu with T_mu(1 - p_lower) + T_mu(p_upper) > 1 + 2 tau, for any mechanism.

    Guarantee
        Not above the exact value: the inequality was evaluated and held there, with curves that
        are rounded down and sums that round to at most 1 when they are at most 1: without tau no
        more is needed, and with it both sides are moved by a step.
    """
    least = np.where(np.asarray(tau) > 0, np.nextafter(np.nextafter(1 + 2 * tau, 2), 2), 1.0)
    miss = np.minimum(np.nextafter(1 - p_lower, 2), 1.0)

    def holds(mu: FloatArray) -> npt.NDArray[np.bool_]:
        return mechanism.tradeoff(miss, mu) + mechanism.tradeoff(p_upper, mu) > least

    scale = np.full(miss.shape, mechanism.noise_scale)
    return largest_holding(holds, np.zeros(miss.shape), scale)


def _gaussian(p_lower: FloatArray, p_upper: FloatArray) -> FloatArray:
    high = rounding.down(special.ndtri(p_lower), 1e-14)
    low = rounding.up(special.ndtri(p_upper), 1e-14)
    return (high - low) / 2


def _laplace(p_lower: FloatArray, p_upper: FloatArray) -> FloatArray:
    majority = p_lower > 0.5
    miss, rest = 2 * np.where(majority, 1 - p_lower, 0.5), 2 * p_upper  # both exact, at most 1
    impossible = (miss == 0) | (rest == 0)
    logs = np.log(np.where(impossible, 1.0, miss)) + np.log(np.where(impossible, 1.0, rest))
    return np.where(majority, np.where(impossible, np.inf, -logs), log_ratio(p_lower, p_upper)) / 2


def _uniform(p_lower: FloatArray, p_upper: FloatArray) -> FloatArray:
    return p_lower - p_upper


# In units of the scale, for arguments with p_lower > p_upper and p_upper <= 1 - p_lower.
_CLOSED_FORMS: dict[type[AbstractMechanism], Callable[[FloatArray, FloatArray], FloatArray]] = {
    Gaussian: _gaussian,
    Laplace: _laplace,
    Uniform: _uniform,
}
