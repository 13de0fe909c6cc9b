"""The confidence sequence: its ends in mpmath, and its tables."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.stats import clopper_pearson_lower, confidence_sequence, decision_tables
from tests.reference_values.exact import RELATIVE


def log_mixture(h, t, p):
    """ln W(p): how much more likely the mixture makes the counts than p does."""
    half = mpf(1) / 2
    mixture = mpmath.loggamma(h + half) + mpmath.loggamma(t - h + half) - mpmath.loggamma(t + 1)
    return mixture - mpmath.log(mpmath.pi) - h * mpmath.log(p) - (t - h) * mpmath.log1p(-p)


def check_ends(h, t, alpha, lower, upper):
    """Both ends are outside {ln W < ln(1/alpha)}, and no longer 1e-9 further in."""
    with mpmath.workdps(40):
        limit = -mpmath.log(mpf(alpha))
        low, high = mpf(float(lower)), mpf(float(upper))
        if h == 0:
            assert low == 0
        else:
            assert log_mixture(h, t, low) >= limit
            assert log_mixture(h, t, low * (1 + mpf(RELATIVE))) <= limit
        if h == t:
            assert high == 1
        else:
            assert log_mixture(h, t, high) >= limit
            assert log_mixture(h, t, high * (1 - mpf(RELATIVE))) <= limit


@pytest.mark.parametrize("t", [1, 2, 15, 16, 17, 1000, 10**5, 10**7])
@pytest.mark.parametrize("alpha", [1e-12, 0.001, 0.05, 0.5])
def test_ends_at_extreme_arguments(t, alpha):
    for h in sorted({0, 1, 2, 15, 16, t // 100, t // 2, t - t // 7, t - 1, t}):
        if 0 <= h <= t:
            check_ends(h, t, alpha, *confidence_sequence(h, t, alpha))


@given(st.integers(1, 10**7), st.data())
def test_ends_anywhere(t, data):
    h = data.draw(st.integers(0, t))
    alpha = data.draw(st.floats(1e-12, 0.9))
    lower, upper = confidence_sequence(h, t, alpha)
    check_ends(h, t, alpha, lower, upper)
    assert 0 <= lower < upper <= 1
    mirrored = confidence_sequence(t - h, t, alpha)
    assert lower == pytest.approx(1 - mirrored[1], rel=1e-9, abs=1e-15)


def test_an_end_rounded_the_wrong_way_is_caught():
    lower, upper = confidence_sequence(90, 100, 0.001)
    with pytest.raises(AssertionError):
        check_ends(90, 100, 0.001, lower * (1 + 2e-11), upper)
    with pytest.raises(AssertionError):
        check_ends(90, 100, 0.001, lower, upper * (1 - 1e-10))


def test_shapes_broadcast_and_the_fixed_interval_is_narrower():
    h, t = np.array([[50], [60]]), np.array([100, 1000, 10_000])
    lower, upper = confidence_sequence(h, t, 0.05)
    assert lower.shape == upper.shape == (2, 3)
    assert lower[1, 2] == confidence_sequence(60, 10_000, 0.05)[0]
    assert np.all(lower < clopper_pearson_lower(h, t, 0.025))


@pytest.mark.parametrize("target", [0.03, 0.5, 0.9, 0.999])
def test_tables_agree_with_the_intervals(target):
    size, alpha = 300, 0.01
    least, greatest = decision_tables(target, alpha, size)
    assert least[0] == 1
    assert greatest[0] == -1
    t, h = np.meshgrid(np.arange(1, size + 1), np.arange(size + 1), indexing="ij")
    possible = h <= t
    lower, upper = confidence_sequence(np.minimum(h, t), t, alpha)
    np.testing.assert_array_equal((h >= least[1:, None])[possible], (lower > target)[possible])
    np.testing.assert_array_equal((h <= greatest[1:, None])[possible], (upper < target)[possible])


def test_tables_at_many_draws():
    least, greatest = decision_tables(0.7, 0.001, 10**5)
    t = np.array([1000, 31_623, 10**5])
    for count, side, step in ((least[t], 0, -1), (greatest[t], 1, 1)):
        decided = confidence_sequence(count, t, 0.001)[side]
        one_less = confidence_sequence(count + step, t, 0.001)[side]
        assert np.all((decided - 0.7) * -step > 0)
        assert np.all((one_less - 0.7) * -step <= 0)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((0, 0, 0.05), "n"), ((3, 2, 0.05), "k"), ((1, 2, 1.0), "alpha"), ((0.5, 2, 0.1), "k")],
)
def test_arguments_are_checked(arguments, name):
    with pytest.raises(InvalidArgument, match=f"`{name}`"):
        confidence_sequence(*arguments)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((0.0, 0.05, 10), "target"),
        ((1.0, 0.05, 10), "target"),
        ((float("nan"), 0.05, 10), "target"),
        ((0.5, 0.0, 10), "alpha"),
        ((0.5, 0.05, 0), "n_max"),
        ((0.5, 0.05, 1.5), "n_max"),
    ],
)
def test_table_arguments_are_checked(arguments, name):
    with pytest.raises(InvalidArgument, match=f"`{name}`"):
        decision_tables(*arguments)
