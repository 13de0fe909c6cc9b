"""The radius of the PixelDP paper (Proposition 2), with its own or the exact privacy profile."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pixeldp_fast import rounding
from pixeldp_fast.bounds.arguments import (
    checked_discounts,
    checked_mechanism,
    checked_probabilities,
    in_input_units,
    less_tau,
    positive,
)
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
    tau: ArrayLike = 0.0,
    slack: ArrayLike = 0.0,
) -> FloatArray:
    """The largest attack size that differential privacy proves harmless.

    Robust where (p_lower - tau - delta) - e^epsilon tau >
    e^{2 epsilon} (p_upper + tau) + e^epsilon delta + e^epsilon tau; without tau, where
    p_lower > e^{2 epsilon} p_upper + (1 + e^epsilon) delta.

    Parameters
    ----------
    mechanism : AbstractMechanism
        "classical" knows Gaussian and Laplace only.
    p_lower, p_upper, sensitivity, tau, slack
        As for `tight_radius`.
    profile : {"exact", "classical"}
        "exact": delta is the mechanism's privacy profile, any epsilon in
        [0, the largest that leaves room]. "classical": what the paper and its code used, Laplace at
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
    off, rounded = checked_discounts(tau, slack)
    lower, upper, off = np.broadcast_arrays(*less_tau(lower, upper, off), off)
    claims = lower - upper > 2 * off
    shift = np.zeros(claims.shape)
    if claims.any():
        distinct, where = np.unique(
            np.stack([lower[claims], upper[claims], off[claims]]), axis=1, return_inverse=True
        )
        solve = _exact if profile == "exact" else _classical
        shift[claims] = solve(mechanism, _Room(*distinct))[where.ravel()]
    return in_input_units(shift, rounded, delta)


class _Room:
    """p_lower - 2 e^epsilon tau - e^{2 epsilon} p_upper: what is left for (1 + e^epsilon) delta.

    Parameters
    ----------
    p_lower, p_upper : float64 [N]
        Of the ideal law: tau is taken off and added.
    tau : float64 [N]

    With g = e^epsilon it is p_lower (1 - g/g1) (1 + g/g2), where -g2 < 0 < g1 are the roots:
    g1 g2 = p_lower/p_upper and g2 - g1 = 2 tau/p_upper. So it keeps its digits near the root, and
    rounding g1 down and g2 up makes it smaller.
    """

    def __init__(self, p_lower: FloatArray, p_upper: FloatArray, tau: FloatArray) -> None:
        self.p_lower, self.p_upper, self.tau = p_lower, p_upper, tau
        half = log_ratio(p_lower, p_upper) / 2  # ln sqrt(g1 g2); inf at p_upper = 0
        safe = np.where(tau > 0, p_lower * p_upper, 1.0)
        lean = np.arcsinh(tau / np.sqrt(safe))  # ln(g2/g1)/2
        # Each rounded before they meet: of a small difference a relative margin would be none.
        self.top = np.maximum(rounding.down(half) - rounding.up(lean), 0.0)  # ln g1
        self.bottom = rounding.up(half) + rounding.up(lean)  # ln g2

    def of(self, rows: npt.NDArray[np.bool_]) -> _Room:
        """The room of some of the pairs."""
        return _Room(self.p_lower[rows], self.p_upper[rows], self.tau[rows])

    def allowed_delta(self, epsilon: FloatArray) -> FloatArray:
        """The room over 1 + e^epsilon, rounded down; 0 at the largest epsilon."""
        first = -np.expm1(np.minimum(epsilon - self.top, 0.0))
        second = 1 + np.exp(np.minimum(epsilon - self.bottom, 0.0))
        return rounding.down(self.p_lower * first * second / (1 + np.exp(epsilon)), 1e-13)


def _classical(mechanism: AbstractMechanism, room: _Room) -> FloatArray:
    return mechanism.noise_scale * _CLASSICAL[type(mechanism)](room)


def _classical_laplace(room: _Room) -> FloatArray:
    return room.top


def _classical_gaussian(room: _Room) -> FloatArray:
    def radius(epsilon: FloatArray) -> FloatArray:
        delta = room.allowed_delta(epsilon)
        log = np.log(1.25) - np.log(np.where(delta > 0, delta, 1.0))
        return np.where(delta > 0, epsilon / np.sqrt(2 * log), 0.0)

    return radius(maximise(radius, np.minimum(room.top, _CLASSICAL_EPSILON)))


_CLASSICAL: dict[type[AbstractMechanism], Callable[[_Room], FloatArray]] = {
    Gaussian: _classical_gaussian,
    Laplace: _classical_laplace,
}

# Mechanisms that are (epsilon, 0)-DP at the shift epsilon * scale: one end of the search is closed.
_PURE = (Laplace,)
# Mechanisms for which (1 + e^epsilon) delta vanishes at every shift as epsilon grows.
_ALL_SHIFTS_AT_ZERO = (Gaussian, Laplace)


def _exact(mechanism: AbstractMechanism, room: _Room) -> FloatArray:
    """The supremum of mu at which some epsilon satisfies the inequality; float64 [N]."""
    shift = np.full(room.p_upper.shape, np.inf)
    finite = room.p_upper > 0 if type(mechanism) in _ALL_SHIFTS_AT_ZERO else room.p_upper >= 0
    shift[finite] = _searched(mechanism, room.of(finite))
    return shift


def _searched(mechanism: AbstractMechanism, room: _Room) -> FloatArray:
    """Alternates between the best epsilon at a shift and the largest shift at that epsilon.

    Both only ever improve on a pair that holds, so stopping early errs on the safe side.
    """
    search_top = np.minimum(room.top, _LARGEST_EPSILON)
    scale = np.full(search_top.shape, mechanism.noise_scale)

    def largest_shift(epsilon: FloatArray, start: FloatArray) -> FloatArray:
        allowed = room.allowed_delta(epsilon)
        return largest_holding(
            lambda mu: mechanism.privacy_profile(epsilon, mu) < allowed, start, scale
        )

    zero = np.zeros(search_top.shape)
    mu = np.maximum(largest_shift(zero, zero), largest_shift(search_top * _NEAR_TOP, zero))
    if type(mechanism) in _PURE:
        mu = np.maximum(mu, _classical(mechanism, room))
    improving = np.ones(search_top.shape, dtype=bool)  # each pair stops by itself
    for _ in range(_ROUNDS):
        at = mu

        def spare_room(epsilon: FloatArray, at: FloatArray = at) -> FloatArray:
            spare = room.allowed_delta(epsilon) - mechanism.privacy_profile(epsilon, at)
            return np.asarray(spare * (1 + np.exp(epsilon)))

        mu = np.where(improving, largest_shift(maximise(spare_room, search_top), mu), mu)
        improving &= mu > at * (1 + 1e-12)
        if not improving.any():
            break
    return mu
