"""Clopper-Pearson and the binomial test, without randomness: coverage is summed over all counts."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf
from scipy import special
from scipy import stats as laws

from bench.exact import smallest_coverage
from pixeldp_fast import rounding
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.stats import (
    binomial,
    binomial_test_rejects,
    clopper_pearson_lower,
    clopper_pearson_upper,
    largest_lower,
    smallest_n,
)
from tests.reference_values.exact import RELATIVE, binomial_tail


@pytest.mark.parametrize("n", [1, 2, 5, 10, 37, 100, 400])
@pytest.mark.parametrize("alpha", [0.5, 0.05, 0.001, 1e-6])
def test_coverage_is_never_below_nominal(n, alpha):
    k = np.arange(n + 1)
    lower, upper = clopper_pearson_lower(k, n, alpha), clopper_pearson_upper(k, n, alpha)
    assert smallest_coverage(lower, n) >= 1 - alpha - 1e-12
    assert smallest_coverage((1 - upper)[::-1], n) >= 1 - alpha - 1e-12


@pytest.mark.parametrize("n", [10, 100])
def test_coverage_of_a_narrower_bound_is_caught(n):
    """The planted fault: the quantile of Beta(k + 1/2, n - k + 1/2), which is not conservative."""
    k = np.arange(n + 1)
    jeffreys = np.where(k > 0, special.betaincinv(k + 0.5, n - k + 0.5, 0.05), 0)
    assert smallest_coverage(jeffreys, n) < 0.95 - 1e-3


EXTREME = [
    (n, k, alpha)
    for n in (1, 2, 3, 50, 1000, 10**5, 10**7)
    for k in sorted({1, 2, 3, 450, n // 1000, n // 4, n // 2, n - n // 9, n - 450, n - 1, n})
    if 1 <= k <= n
    for alpha in (1e-12, 1e-3, 0.05, 0.5)
    if n < 10**7 or (k in (1, 450, n // 2, n - 450, n - 1, n) and alpha != 0.05)
]


def check_lower(p_lower, k, n, alpha):
    """P(at least k hits) is at most alpha there, and no longer 1e-9 further up."""
    with mpmath.workdps(30):
        assert binomial_tail(k, n, float(p_lower)) <= mpf(alpha)
        assert binomial_tail(k, n, mpf(float(p_lower)) * (1 + mpf(RELATIVE))) >= mpf(alpha)


@pytest.mark.parametrize(("n", "k", "alpha"), EXTREME)
def test_lower_bound_at_extreme_arguments(n, k, alpha):
    check_lower(clopper_pearson_lower(k, n, alpha), k, n, alpha)


@pytest.mark.parametrize(("n", "k", "alpha"), EXTREME)
def test_upper_bound_at_extreme_arguments(n, k, alpha):
    """upper(n - k) is one minus lower(k); judged through 1 - upper, which is exact for mpmath."""
    upper = mpf(float(clopper_pearson_upper(n - k, n, alpha)))
    with mpmath.workdps(30):
        assert binomial_tail(k, n, 1 - upper) <= mpf(alpha)
        assert binomial_tail(k, n, 1 - upper * (1 - mpf(RELATIVE))) >= mpf(alpha)


def test_a_bound_rounded_the_wrong_way_is_caught():
    nearest = special.betaincinv(900, 101, 0.001)
    with pytest.raises(AssertionError):
        check_lower(nearest * (1 + 1e-13), 900, 1000, 0.001)
    with pytest.raises(AssertionError):
        check_lower(nearest * (1 - 2e-9), 900, 1000, 0.001)


def test_large_counts_agree_with_the_inverse_of_the_incomplete_beta_function():
    """The saddlepoint start and its one step, on both sides of where it takes over."""
    rng = np.random.default_rng(0)
    n = rng.integers(800, 10**7, 4000)
    k = rng.integers(1, n + 1)
    k[:1500] = np.minimum(n[:1500], rng.integers(380, 430, 1500))
    alpha = 10 ** rng.uniform(-12, np.log10(0.5), 4000)
    lower = clopper_pearson_lower(k, n, alpha)
    nearest = special.betaincinv(k, n - k + 1, alpha)
    assert np.all(lower < nearest)
    assert np.all(lower > nearest * (1 - 2 * binomial.margin(n)))


@given(st.integers(1, 3000), st.data())
def test_bounds_mirror_each_other_and_are_monotone(n, data):
    k = data.draw(st.integers(0, n - 1))
    alpha = data.draw(st.floats(1e-12, 0.9))
    lower, upper = clopper_pearson_lower(k, n, alpha), clopper_pearson_upper(k, n, alpha)
    assert upper == pytest.approx(1 - clopper_pearson_lower(n - k, n, alpha), rel=1e-10)
    assert 0 <= lower < clopper_pearson_lower(k + 1, n, alpha) < 1
    assert 0 < upper < clopper_pearson_upper(k + 1, n, alpha) <= 1
    assert lower <= clopper_pearson_lower(k, n, min(2 * alpha, 0.99))
    if alpha < 0.5:
        assert lower < k / n or k == 0


def test_no_hits_and_all_hits():
    n = np.array([1, 10, 10**7])
    np.testing.assert_array_equal(clopper_pearson_lower(0, n, 0.05), 0)
    np.testing.assert_array_equal(clopper_pearson_upper(n, n, 0.05), 1)
    np.testing.assert_allclose(largest_lower(n, 0.05), 0.05 ** (1 / n), rtol=2e-11)
    miss = 1 - clopper_pearson_lower(10**7, 10**7, 0.001)
    assert miss == pytest.approx(6.907752940135e-7, rel=1e-8)


def test_arguments_broadcast_and_large_batches_equal_single_calls():
    k, n = np.array([[3], [5000], [9999]]), np.array([10_000, 20_000])
    table = clopper_pearson_lower(k, n, 0.001)
    assert table.shape == (3, 2)
    for i in range(3):
        for j in range(2):
            assert table[i, j] == clopper_pearson_lower(int(k[i, 0]), int(n[j]), 0.001)
    assert clopper_pearson_lower(np.zeros(0, dtype=int), 10, 0.05).shape == (0,)


@pytest.mark.parametrize(
    ("k", "n", "alpha", "name"),
    [
        (-1, 10, 0.05, "k"),
        (11, 10, 0.05, "k"),
        (2.5, 10, 0.05, "k"),
        (float("nan"), 10, 0.05, "k"),
        ("many", 10, 0.05, "k"),
        (0, 0, 0.05, "n"),
        (1, 10.5, 0.05, "n"),
        (1, 2**33, 0.05, "n"),
        (1, 10, 0.0, "alpha"),
        (1, 10, 1.0, "alpha"),
        (1, 10, 1e-201, "alpha"),
        (1, 10, -0.1, "alpha"),
        (1, 10, float("nan"), "alpha"),
        (1, 10, [0.05, 1.5], "alpha"),
    ],
)
@pytest.mark.parametrize("bound", [clopper_pearson_lower, clopper_pearson_upper])
def test_arguments_are_checked(bound, k, n, alpha, name):
    with pytest.raises(InvalidArgument, match=f"`{name}`"):
        bound(k, n, alpha)


@given(st.floats(1e-9, 0.6), st.floats(0.01, 0.999))
def test_smallest_n(alpha, target):
    n = smallest_n(alpha, target)
    assert largest_lower(n, alpha) > target
    assert n == 1 or largest_lower(n - 1, alpha) <= target


def test_smallest_n_of_a_certificate():
    assert smallest_n(0.001) == 10
    assert Fraction(1, 2) ** 9 > Fraction(1, 1000) > Fraction(1, 2) ** 10
    with pytest.raises(InvalidArgument, match="target"):
        smallest_n(0.001, 1.0)
    with pytest.raises(InvalidArgument, match="2\\^32"):
        smallest_n(0.001, 1 - 1e-12)


@pytest.mark.parametrize("alpha", [0.3, 0.05, 0.001])
def test_the_binomial_test_equals_scipy(alpha):
    for total in [*range(1, 41), 100, 999]:
        first = np.arange(total + 1) if total < 50 else np.arange(total // 3, 2 * total // 3)
        ours = binomial_test_rejects(first, total - first, alpha)
        theirs = [laws.binomtest(int(k), total, 0.5).pvalue <= alpha for k in first]
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("total", [1, 7, 50, 1000])
def test_the_binomial_test_rejects_a_tie_at_most_alpha_of_the_time(total):
    k = np.arange(total + 1)
    chance = laws.binom.pmf(k, total, 0.5)
    for alpha in (0.5, 0.1, 0.05, 0.001, 1e-9):
        assert chance[binomial_test_rejects(k, total - k, alpha)].sum() <= alpha


def test_the_binomial_test_on_equal_and_missing_counts():
    np.testing.assert_array_equal(binomial_test_rejects([0, 5, 10**6], [0, 5, 10**6], 0.9), False)
    assert binomial_test_rejects(10**6, 9 * 10**5, 0.001)
    assert binomial_test_rejects(0, 100, 0.001)
    with pytest.raises(InvalidArgument, match="k2"):
        binomial_test_rejects(3, -1, 0.05)
    with pytest.raises(InvalidArgument, match="alpha"):
        binomial_test_rejects(3, 1, 0)


@pytest.mark.parametrize(("k", "n", "alpha"), [(16, 31, 1e-199), (3, 5, 1e-15), (20, 38, 1e-40)])
def test_a_tiny_bound_from_many_hits_keeps_its_digits(k, n, alpha):
    bound = mpf(float(clopper_pearson_lower(k, n, alpha)))
    with mpmath.workdps(60):
        assert binomial_tail(k, n, bound) <= mpf(alpha)
        assert binomial_tail(k, n, bound * (1 + mpf(1e-9))) > mpf(alpha)


# Of 40 000 draws of (n up to 10^7, hits, alpha) those at which SciPy's inverse is off the most.
HARD = [(9918822, 5, 0.05), (9737387, 14, 0.2), (9830078, 14, 0.3), (9661857, 37, 0.3)]


def _wrong_by(n, hits, alpha):
    """P(at most `hits`) at the upper bound, over alpha, less 1; in 40 digits."""
    with mpmath.workdps(40):
        p = mpmath.mpf(float(clopper_pearson_upper(hits, n, alpha)))
        term = total = (1 - p) ** n
        for i in range(1, hits + 1):
            term *= p / (1 - p) * (n - i + 1) / i
            total += term
        return float(total / mpmath.mpf(alpha) - 1)


def test_ten_million_draws_are_rounded_outward():
    assert all(-1e-7 < _wrong_by(*case) <= 0 for case in HARD)


def test_the_usual_margin_would_not_do_at_ten_million(monkeypatch):
    monkeypatch.setattr(binomial, "margin", lambda n: np.full(n.shape, rounding.MARGIN))
    assert any(_wrong_by(*case) > 0 for case in HARD)


# Where SciPy's own inverse is off by a multiple, hits and misses: (hits, n, alpha).
ASTRAY = [
    (1000, 10089, 0.77),
    (1000, 352672, 0.94),
    (16, 114843860, 0.39050469),
    (5000, 5500, 1e-150),
]


@pytest.mark.parametrize(("k", "n", "alpha"), ASTRAY)
def test_the_function_itself_confirms_its_inverse(k, n, alpha):
    check_lower(clopper_pearson_lower(k, n, alpha), k, n, alpha)
    with mpmath.workdps(60):
        rest = 1 - mpf(float(clopper_pearson_upper(n - k, n, alpha)))
        assert rest == 0 or binomial_tail(k, n, rest) <= mpf(alpha)


@pytest.mark.parametrize("factor", [0, 0.5, 1.001, 3, float("nan")])
@pytest.mark.parametrize("alpha", [0.001, 0.3, 0.9])
def test_a_wrong_inverse_is_found_out(monkeypatch, factor, alpha):
    k, n = np.array([1, 3, 50, 97, 100]), 100
    right = clopper_pearson_lower(k, n, alpha), clopper_pearson_upper(n - k, n, alpha)
    for name in ("betaincinv", "betainccinv"):
        inverse = getattr(special, name)
        monkeypatch.setattr(special, name, lambda *at, f=inverse: np.minimum(factor * f(*at), 1))
    wrong = clopper_pearson_lower(k, n, alpha), clopper_pearson_upper(n - k, n, alpha)
    np.testing.assert_allclose(wrong, right, rtol=1e-10)
