"""The radius of the PixelDP paper (Proposition 2), with its own or the exact privacy profile."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pixeldp_fast import rounding
from pixeldp_fast.bounds.arguments import checked_mechanism, checked_probabilities, positive
from pixeldp_fast.bounds.search import largest_holding, maximise
from pixeldp_fast.bounds.tight import log_ratio
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.gaussian import Gaussian
from pixeldp_fast.noise.laplace import Laplace
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.types import ArrayLike, FloatArray

PROFILES = ("exact", "classical")
_LARGEST_EPSILON = 300.0  # e^epsilon and its square stay finite; reached only at p_upper < 1e-260
_ROUNDS = 40  # of the exact search; it converges quadratically, usually in 4
_NEAR_TOP = 1 - 1e-10  # of the largest epsilon: where next to no delta is allowed
_CLASSICAL_EPSILON = 1.0  # the classical Gaussian mechanism is proved up to here only


def pixeldp_radius(
    mechanism: AbstractMechanism,
    p_lower: ArrayLike,
    p_upper: ArrayLike,
    sensitivity: ArrayLike = 1.0,
    *,
    profile: str = "exact",
) -> FloatArray:
    """The largest attack size that differential privacy proves harmless.

    Robust where p_lower > e^{2 epsilon} p_upper + (1 + e^epsilon) delta.

    Parameters
    ----------
    mechanism : AbstractMechanism
        "classical" knows Gaussian and Laplace only.
    p_lower, p_upper, sensitivity
        As for `tight_radius`.
    profile : {"exact", "classical"}
        "exact": delta is the mechanism's privacy profile, any epsilon in
        [0, ln(p_lower/p_upper)/2]. "classical": what the paper and its code used, Laplace at
        delta = 0 and Gaussian at sigma = shift sqrt(2 ln(1.25/delta))/epsilon with epsilon <= 1.

    Returns
    -------
    radius : float64 [...]
        In input units; 0 where p_lower <= p_upper. At p_upper = 0 inf for Laplace, and for
        Gaussian with the exact profile: (1 + e^epsilon) delta vanishes as epsilon grows.

    Guarantee
        The claim is for attacks of norm below the radius. Rounded down; with the exact profile
        every finite radius was found at an (epsilon, shift) at which the inequality was evaluated
        with delta rounded up, and held. Never above `tight_radius`.
    Source
        Lecuyer et al., IEEE S&P 2019, Proposition 2. Exact profile: Balle and Wang, ICML 2018.
        Classical Gaussian: Dwork and Roth, 2014, Theorem A.1.
    Cost
        Exact: some 0.3 ms per distinct pair without a closed form; equal pairs are solved once.
    """
    checked_mechanism(mechanism)
    if profile not in PROFILES:
        raise InvalidArgument(f"`profile` must be one of {PROFILES}, got {profile!r}.")
    if profile == "classical" and type(mechanism) not in _CLASSICAL:
        raise InvalidArgument(
            f"`profile='classical'` is proved for Gaussian and Laplace noise, not for "
            f"{mechanism!r}; use profile='exact' (bound 'pixeldp') or bound 'tight'."
        )
    lower, upper = checked_probabilities(p_lower, p_upper)
    delta = positive("sensitivity", sensitivity)
    claims = lower > upper
    shift = np.zeros(claims.shape)
    if claims.any():
        pairs, where = np.unique(
            np.stack([lower[claims], upper[claims]]), axis=1, return_inverse=True
        )
        solve = _exact if profile == "exact" else _classical
        shift[claims] = solve(mechanism, pairs[0], pairs[1])[where.ravel()]
    return rounding.down(shift / delta)


def _largest_epsilon(p_lower: FloatArray, p_upper: FloatArray) -> FloatArray:
    """ln(p_lower / p_upper)/2, rounded down: at a larger epsilon no delta is allowed."""
    return rounding.down(log_ratio(p_lower, p_upper) / 2)


def _allowed_delta(p_lower: FloatArray, top: FloatArray, epsilon: FloatArray) -> FloatArray:
    """(p_lower - e^{2 epsilon} p_upper) / (1 + e^epsilon), rounded down, 0 at epsilon = top.

    Written with p_upper = p_lower e^{-2 top}: the difference keeps its digits, and rounding `top`
    down makes it smaller.
    """
    difference = -p_lower * np.expm1(2 * np.minimum(epsilon - top, 0.0))
    return rounding.down(difference / (1 + np.exp(epsilon)), 1e-13)


def _classical(
    mechanism: AbstractMechanism, p_lower: FloatArray, p_upper: FloatArray
) -> FloatArray:
    return mechanism.noise_scale * _CLASSICAL[type(mechanism)](p_lower, p_upper)


def _classical_laplace(p_lower: FloatArray, p_upper: FloatArray) -> FloatArray:
    return log_ratio(p_lower, p_upper) / 2


def _classical_gaussian(p_lower: FloatArray, p_upper: FloatArray) -> FloatArray:
    top = _largest_epsilon(p_lower, p_upper)

    def radius(epsilon: FloatArray) -> FloatArray:
        delta = _allowed_delta(p_lower, top, epsilon)
        log = np.log(1.25) - np.log(np.where(delta > 0, delta, 1.0))
        return np.where(delta > 0, epsilon / np.sqrt(2 * log), 0.0)

    return radius(maximise(radius, np.minimum(top, _CLASSICAL_EPSILON)))


_CLASSICAL: dict[type[AbstractMechanism], Callable[[FloatArray, FloatArray], FloatArray]] = {
    Gaussian: _classical_gaussian,
    Laplace: _classical_laplace,
}

# Mechanisms that are (epsilon, 0)-DP at the shift epsilon * scale: one end of the search is closed.
_PURE = (Laplace,)
# Mechanisms for which (1 + e^epsilon) delta vanishes at every shift as epsilon grows.
_ALL_SHIFTS_AT_ZERO = (Gaussian, Laplace)


def _exact(mechanism: AbstractMechanism, p_lower: FloatArray, p_upper: FloatArray) -> FloatArray:
    """The supremum of mu at which some epsilon satisfies the inequality; float64 [N]."""
    shift = np.full(p_lower.shape, np.inf)
    finite = p_upper > 0 if type(mechanism) in _ALL_SHIFTS_AT_ZERO else p_upper >= 0
    shift[finite] = _searched(mechanism, p_lower[finite], p_upper[finite])
    return shift


def _searched(mechanism: AbstractMechanism, p_lower: FloatArray, p_upper: FloatArray) -> FloatArray:
    """Alternates between the best epsilon at a shift and the largest shift at that epsilon.

    Both only ever improve on a pair that holds, so stopping early errs on the safe side.
    """
    top = _largest_epsilon(p_lower, p_upper)
    search_top = np.minimum(top, _LARGEST_EPSILON)
    scale = np.full(p_lower.shape, mechanism.noise_scale)

    def largest_shift(epsilon: FloatArray, start: FloatArray) -> FloatArray:
        allowed = _allowed_delta(p_lower, top, epsilon)
        return largest_holding(
            lambda mu: mechanism.privacy_profile(epsilon, mu) < allowed, start, scale
        )

    zero = np.zeros(p_lower.shape)
    mu = np.maximum(largest_shift(zero, zero), largest_shift(search_top * _NEAR_TOP, zero))
    if type(mechanism) in _PURE:
        mu = np.maximum(mu, _classical(mechanism, p_lower, p_upper))
    improving = np.ones(p_lower.shape, dtype=bool)  # each pair stops by itself
    for _ in range(_ROUNDS):
        at = mu

        def room(epsilon: FloatArray, at: FloatArray = at) -> FloatArray:
            spare = _allowed_delta(p_lower, top, epsilon) - mechanism.privacy_profile(epsilon, at)
            return np.asarray(spare * (1 + np.exp(epsilon)))

        mu = np.where(improving, largest_shift(maximise(room, search_top), mu), mu)
        improving &= mu > at * (1 + 1e-12)
        if not improving.any():
            break
    return mu
