"""Radii by their definitions: the inequality that must hold at every smaller shift."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from pixeldp_fast.verify.arithmetic import Real, mp
from pixeldp_fast.verify.laws import AbstractLaw, LaplaceLaw

_CLASSICAL_EPSILON = 1  # the classical Gaussian mechanism is proved up to here only
_CELLS = 64  # of the search for an epsilon
_NARROWINGS = 48  # each by 0.618, of its best cell; the best value is flat, or a point tried apart

# (law, p_lower, p_upper, r, tau) -> whether attacks that move the noise's centre by r scales are
# proved harmless; tau is how far the noise is from its ideal law, in total variation.
Holds = Callable[[AbstractLaw, float, float, Real, Real], bool]


def tight_holds(law: AbstractLaw, p_lower: float, p_upper: float, r: Real, tau: Real) -> bool:
    """T_r(1 - p_lower + tau) - tau >= 1 - T_r(p_upper + tau) + tau, strictly for every smaller r.

    Source
        Dong, Roth and Su, 2019 (the trade-off function); Cohen et al., ICML 2019.
    """
    lower, upper = _pair(p_lower, p_upper, tau)
    if not lower > upper:
        return False
    return bool(law.tradeoff(1 - lower, r) - tau >= 1 - law.tradeoff(upper, r) + tau)


def pixeldp_holds(law: AbstractLaw, p_lower: float, p_upper: float, r: Real, tau: Real) -> bool:
    """The paper's condition for some epsilon >= 0, with the exact delta_r(epsilon).

    p_lower - tau - delta - e^epsilon tau >=
    e^{2 epsilon} (p_upper + tau) + e^epsilon delta + e^epsilon tau.

    Source
        Lecuyer et al., IEEE S&P 2019, Proposition 2; Balle and Wang, ICML 2018.
    """
    m = mp()
    lower, upper = _pair(p_lower, p_upper, tau)
    if not lower - upper > 2 * tau:
        return False

    def room(epsilon: Real) -> Real:
        growth, delta = m.exp(epsilon), law.profile(epsilon, r)
        kept = lower - delta - growth * tau
        return kept - (growth * growth * upper + growth * delta + growth * tau)

    top = _largest_epsilon(lower, upper, tau)
    candidates = [m.mpf(0), top] + ([r] if r <= top else [])  # Laplace: delta is 0 from r on
    return any(room(e) >= 0 for e in candidates) or room(_best(room, top)) >= 0


def classical_holds(law: AbstractLaw, p_lower: float, p_upper: float, r: Real, tau: Real) -> bool:
    """The paper's own condition: Laplace at delta = 0, Gaussian by sqrt(2 ln(1.25/delta)).

    Source
        Lecuyer et al., IEEE S&P 2019; Dwork and Roth, 2014, Theorem A.1 (epsilon at most 1).
    """
    m = mp()
    lower, upper = _pair(p_lower, p_upper, tau)
    if not lower - upper > 2 * tau:
        return False
    top = _largest_epsilon(lower, upper, tau)
    if isinstance(law, LaplaceLaw):
        return bool(r <= top)

    def shift(epsilon: Real) -> Real:
        growth = m.exp(epsilon)
        delta = (lower - 2 * growth * tau - growth * growth * upper) / (1 + growth)
        return epsilon / m.sqrt(2 * m.log(1.25 / delta)) if delta > 0 else m.mpf(0)

    end = min(top, m.mpf(_CLASSICAL_EPSILON))
    return bool(shift(end) >= r or shift(_best(shift, end)) >= r)


BOUNDS: dict[str, Holds] = {
    "tight": tight_holds,
    "pixeldp": pixeldp_holds,
    "pixeldp-classical": classical_holds,
}


def _pair(p_lower: float, p_upper: float, tau: Real) -> tuple[Real, Real]:
    """What measured bounds say of the ideal law; the competitor is among the rest."""
    m = mp()
    lower = m.mpf(p_lower)
    return lower - tau, min(m.mpf(p_upper), 1 - lower) + tau


def _largest_epsilon(lower: Real, upper: Real, tau: Real) -> Real:
    """Where lower - 2 e^epsilon tau - e^{2 epsilon} upper is 0: beyond it no delta is allowed."""
    m = mp()
    return m.log((m.sqrt(tau * tau + lower * upper) - tau) / upper)


def _best(value: Callable[[Real], Real], end: Real) -> Real:
    """Where in [0, end] `value` is largest: a grid, then golden sections around its best point."""
    grid = [end * i * i / _CELLS**2 for i in range(_CELLS + 1)]
    values = [value(e) for e in grid]
    at = values.index(max(values))
    low, high = grid[max(at - 1, 0)], grid[min(at + 1, _CELLS)]
    golden = _golden()
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = value(left), value(right)
    for _ in range(_NARROWINGS):
        if at_left >= at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = value(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = value(right)
    return left if at_left >= at_right else right


@cache
def _golden() -> Real:
    return (mp().sqrt(5) - 1) / 2
