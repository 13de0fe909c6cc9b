"""Hoeffding and empirical Bernstein against their formulas in mpmath, and their edges."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.stats import (
    empirical_bernstein_lower,
    empirical_bernstein_upper,
    hoeffding_lower,
    hoeffding_upper,
)

DRAWS = st.integers(2, 10**7)
ALPHA = st.floats(1e-12, 0.5)


def hoeffding_width(n, alpha, low, high):
    return (mpf(high) - mpf(low)) * mpmath.sqrt(-mpmath.log(mpf(alpha)) / (2 * n))


def bernstein_width(variance, n, alpha, low, high):
    log = mpmath.log(2 / mpf(alpha))
    spread = mpf(high) - mpf(low)
    return mpmath.sqrt(2 * mpf(variance) * log / n) + 7 * spread * log / (3 * (n - 1))


def check_interval(lower, upper, mean, width, low, high):
    """Both ends on their safe side, and within 1e-9 of the size of what was subtracted."""
    slack = 1e-9 * (abs(mpf(mean)) + width)
    exact_lower, exact_upper = max(mean - width, mpf(low)), min(mean + width, mpf(high))
    assert exact_lower - slack <= float(lower) <= exact_lower
    assert exact_upper <= float(upper) <= exact_upper + slack


@given(st.floats(0, 1), DRAWS, ALPHA, st.sampled_from([(0.0, 1.0), (-2.0, 0.7), (-1e-3, 1e3)]))
def test_hoeffding(share, n, alpha, limits):
    low, high = limits
    mean = min(max(low + share * (high - low), low), high)
    arguments = (mean, n, alpha, low, high)
    width = hoeffding_width(n, alpha, low, high)
    check_interval(hoeffding_lower(*arguments), hoeffding_upper(*arguments), mean, width, low, high)


@given(st.floats(0, 1), st.floats(0, 0.3), DRAWS, ALPHA)
def test_empirical_bernstein(mean, variance, n, alpha):
    width = bernstein_width(variance, n, alpha, 0, 1)
    arguments = (mean, variance, n, alpha)
    check_interval(
        empirical_bernstein_lower(*arguments),
        empirical_bernstein_upper(*arguments),
        mean,
        width,
        0,
        1,
    )


def test_a_width_rounded_the_wrong_way_is_caught():
    width = hoeffding_width(1000, 0.001, 0, 1)
    narrow = float(width) * (1 - 1e-15)
    with pytest.raises(AssertionError):
        check_interval(0.5 - narrow, 0.5 + narrow, 0.5, width, 0, 1)


def test_ends_are_clipped_to_the_range():
    assert hoeffding_lower(0.01, 10, 0.001) == 0
    assert hoeffding_upper(0.99, 10, 0.001) == 1
    assert empirical_bernstein_lower(0.0, 0.0, 10, 0.001, -0.5, 1) == -0.5
    assert empirical_bernstein_upper(1.0, 0.0, 10, 0.001, -0.5, 1) == 1


def test_bernstein_is_narrower_than_hoeffding_for_small_variance_and_many_draws():
    assert empirical_bernstein_lower(0.9, 1e-4, 10_000, 0.001) > hoeffding_lower(0.9, 10_000, 0.001)
    assert empirical_bernstein_lower(0.9, 0.09, 100, 0.001) < hoeffding_lower(0.9, 100, 0.001)


def test_arguments_broadcast():
    mean, n = np.array([[0.2], [0.8]]), np.array([10, 100, 1000])
    table = hoeffding_lower(mean, n, 0.05)
    assert table.shape == (2, 3)
    assert table[1, 2] == hoeffding_lower(0.8, 1000, 0.05)
    assert np.all(np.diff(table[1]) > 0)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((1.1, 10, 0.05), "mean"),
        ((float("nan"), 10, 0.05), "mean"),
        ((0.5, 0, 0.05), "n"),
        ((0.5, 2.5, 0.05), "n"),
        ((0.5, 10, 0.0), "alpha"),
        ((0.5, 10, 1.0), "alpha"),
        ((0.5, 10, 0.05, 1.0, 1.0), "low"),
        ((0.5, 10, 0.05, 0.0, float("inf")), "low"),
    ],
)
@pytest.mark.parametrize("bound", [hoeffding_lower, hoeffding_upper])
def test_hoeffding_arguments_are_checked(bound, arguments, name):
    with pytest.raises(InvalidArgument, match=f"`{name}`"):
        bound(*arguments)


@pytest.mark.parametrize(
    ("variance", "n", "name"),
    [(-1e-9, 10, "variance"), (float("nan"), 10, "variance"), (float("inf"), 10, "variance"),
     (0.1, 1, "n")],
)  # fmt: skip
@pytest.mark.parametrize("bound", [empirical_bernstein_lower, empirical_bernstein_upper])
def test_bernstein_arguments_are_checked(bound, variance, n, name):
    with pytest.raises(InvalidArgument, match=f"`{name}`"):
        bound(0.5, variance, n, 0.05)
