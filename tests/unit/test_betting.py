"""The betting bound: its capital in mpmath, its coverage summed exactly, its place among others."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf
from scipy import stats as laws

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.stats import (
    betting_lower,
    betting_upper,
    clopper_pearson_lower,
    empirical_bernstein_lower,
    hoeffding_lower,
)


def capital(m, scores, bets, stakes):
    """What the bettor truly owns, draw by draw: an upper bound of what the formula counts."""
    grown = [mpmath.fprod(1 + mpf(bet) * (mpf(x) - m) for x in scores) for bet in bets]
    return mpmath.fsum(mpf(s) * g for s, g in zip(stakes, grown, strict=True))


def planned(n, guess):
    bets = np.minimum(np.sqrt(2 * np.log(1000) / (n * guess)) * 2.0 ** np.arange(-3, 4), 1)
    return bets, 0.6 * 0.25 ** np.abs(np.arange(-3, 4))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=60), st.floats(1e-9, 0.5))
def test_the_bettors_true_capital_refutes_every_smaller_mean(scores, alpha):
    n, mean, variance = len(scores), np.mean(scores), np.var(scores, ddof=1)
    bound = float(betting_lower(min(mean, 1.0), variance, n, alpha, guess=0.1))
    assert 0 <= bound <= mean
    bets, stakes = planned(n, 0.1)
    assert stakes.sum() <= 1
    with mpmath.workdps(40):
        for m in (bound, bound / 2):
            if bound > 0:
                assert capital(mpf(m), scores, bets, stakes) >= (1 - mpf(10) ** -9) / mpf(alpha)


def test_a_bet_on_the_draws_themselves_would_be_caught():
    """The planted fault: capital counted without the price of the squares refutes too much."""
    scores = np.array([1.0, 0.0] * 20)
    bets, stakes = planned(40, 0.25)
    grown = np.exp(bets * (scores.sum() - 40 * 0.45)) @ stakes
    with mpmath.workdps(30):
        assert capital(mpf("0.45"), scores, bets, stakes) < grown


@pytest.mark.parametrize("n", [2, 10, 100, 400])
@pytest.mark.parametrize("alpha", [0.5, 0.05, 0.001])
@pytest.mark.parametrize("guess", [0.25, 1e-4])
def test_coverage_for_votes_is_never_below_nominal(n, alpha, guess):
    k = np.arange(n + 1)
    variance = k * (n - k) / (n * (n - 1))
    lower = betting_lower(k / n, variance, n, alpha, guess=guess)
    upper = betting_upper(k / n, variance, n, alpha, guess=guess)
    p = np.concatenate([np.linspace(0, 1, 201), np.nextafter(lower[lower > 0], 0)])
    chance = laws.binom.pmf(k, n, p[:, None])
    assert ((chance * (lower <= p[:, None])).sum(axis=1) >= 1 - alpha - 1e-12).all()
    assert ((chance * (upper >= 1 - p[:, None])[:, ::-1]).sum(axis=1) >= 1 - alpha - 1e-12).all()
    assert (lower <= clopper_pearson_lower(k, n, alpha) + 1e-12).all()


def test_it_is_narrower_than_the_others_where_the_guess_is_fair():
    for n, mean, variance in ((1000, 0.9, 0.02), (100_000, 0.8, 0.06), (100_000, 1.0, 0.0)):
        betting = betting_lower(mean, variance, n, 0.001, guess=variance + 0.25 / 100)
        assert betting > empirical_bernstein_lower(mean, variance, n, 0.001)
        assert betting > hoeffding_lower(mean, n, 0.001)


def test_bounds_at_two_levels_are_nested():
    lower = betting_lower(0.8, 0.05, 1000, np.logspace(-12, -0.1, 50), guess=0.05)
    assert (np.diff(lower) > 0).all()


def test_a_range_scales_the_bound():
    unit = betting_lower(0.7, 0.04, 500, 0.01, guess=0.05)
    wide = betting_lower(-2 + 4 * 0.7, 16 * 0.04, 500, 0.01, -2, 2, guess=16 * 0.05)
    assert wide == pytest.approx(-2 + 4 * unit, rel=1e-9)
    assert betting_upper(0.3, 0.04, 500, 0.01, guess=0.05) == pytest.approx(1 - unit, rel=1e-9)
    assert betting_lower(0.0, 0.0, 10, 0.01) == 0
    assert betting_lower(1.0, 0.0, 10**6, 0.01, guess=0.0) < 1


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((1.1, 0.1, 10, 0.05), "mean"),
        ((0.5, -0.1, 10, 0.05), "variance"),
        ((0.5, 0.1, 1, 0.05), "n"),
        ((0.5, 0.1, 10, 0.0), "alpha"),
        ((0.5, 0.1, 10, 0.05, 1.0, 1.0), "low"),
    ],
)
@pytest.mark.parametrize("bound", [betting_lower, betting_upper])
def test_arguments_are_checked(bound, arguments, name):
    with pytest.raises(InvalidArgument, match=f"`{name}`"):
        bound(*arguments)


def test_a_guess_that_is_no_variance_is_refused():
    with pytest.raises(InvalidArgument, match="`guess`"):
        betting_lower(0.5, 0.1, 10, 0.05, guess=-1)
