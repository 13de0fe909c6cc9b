"""Ranks and bands: coverage summed exactly over the binomial law, and planted faults."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf
from scipy import stats

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.stats import dkw_width, lower_rank, upper_rank

DRAWS = st.integers(1, 400)
LEVELS = st.sampled_from([0.05, 0.01, 0.001])


def miss_above(n, p, rank):
    """Probability that less than a share p of a continuous law lies up to the draw of this rank."""
    return 0.0 if rank > n else float(stats.binom.sf(rank - 1, n, p))


def miss_below(n, p, rank):
    """Probability that more than a share p lies below the draw of this rank."""
    return 0.0 if rank < 1 else float(stats.binom.cdf(rank - 1, n, p))


@given(DRAWS, st.floats(0, 1), LEVELS)
def test_ranks_cover_and_are_the_best(n, p, alpha):
    low, high = int(lower_rank(n, p, alpha)), int(upper_rank(n, p, alpha))
    assert 0 <= low <= n
    assert 1 <= high <= n + 1
    assert miss_below(n, p, low) <= alpha * (1 + 1e-9)
    assert miss_above(n, p, high) <= alpha * (1 + 1e-9)
    if 1e-6 < p < 1 - 1e-6:  # one rank nearer would miss too often
        assert miss_below(n, p, low + 1) > alpha * (1 - 1e-6)
        assert high == 1 or miss_above(n, p, high - 1) > alpha * (1 - 1e-6)


def exact_miss_of_both(n, alpha, p=0.5):
    """Both ends of the interval of the median, summed over the number of draws below it."""
    low, high = int(lower_rank(n, p, alpha)), int(upper_rank(n, p, alpha))
    with mpmath.workdps(40):
        law = [mpmath.binomial(n, k) * mpf(p) ** k * (1 - mpf(p)) ** (n - k) for k in range(n + 1)]
        # k draws lie below the median: the interval misses it where k < low or k >= high.
        return float(sum(q for k, q in enumerate(law) if k < low or k >= high))


def test_both_ends_together_miss_at_most_alpha_if_it_is_split():
    for n in (20, 100, 333):
        assert exact_miss_of_both(n, 0.05 / 2) <= 0.05


def test_an_alpha_that_is_not_split_is_caught():
    """The planted fault: each end at all of alpha."""
    assert any(exact_miss_of_both(n, 0.05) > 0.05 for n in (20, 100, 333))


def test_ranks_of_a_discrete_law_err_on_the_safe_side():
    """A coin's draws: the median is 0 or 1, and the claims are about P(A < X) and P(A <= X)."""
    n, p, alpha, q = 40, 0.5, 0.05, 0.45  # P(A = 1) = q
    low, high = int(lower_rank(n, p, alpha)), int(upper_rank(n, p, alpha))
    ones = np.arange(n + 1)
    law = stats.binom.pmf(ones, n, q)
    below = np.where(low > n - ones, 1 - q, 0.0)  # P(A < X_low): X_low is 1 or 0
    reached = np.where(high > n - ones, 1.0, 1 - q)
    assert law[below > p].sum() <= alpha
    assert law[reached < p].sum() <= alpha


def test_ranks_broadcast_and_reach_the_ends():
    assert lower_rank(100, [0.0, 0.5, 1.0], 0.01).tolist()[0] == 0
    assert upper_rank(100, [0.0, 0.5, 1.0], 0.01).tolist() == [1, 63, 101]
    assert lower_rank(100, [0.0, 0.5, 1.0], 0.01).tolist() == [0, 38, 100]
    assert lower_rank(5, 0.5, 0.001) == 0
    assert upper_rank(5, 0.5, 0.001) == 6


@given(st.integers(1, 10**6), st.floats(1e-6, 0.9))
def test_the_band_is_its_formula_rounded_up(n, alpha):
    with mpmath.workdps(40):
        exact = mpmath.sqrt(mpmath.log(2 / mpf(alpha)) / (2 * n))
        found = mpf(float(dkw_width(n, alpha)))
        assert 0 <= found - exact <= 1e-9 * exact


def test_the_band_covers_exactly():
    """Of 30 uniform draws the largest distance from the line, by SciPy's exact law."""
    width = float(dkw_width(30, 0.05))
    assert stats.kstwo.sf(width, 30) <= 0.05
    one_sided_width = math.sqrt(math.log(1 / 0.05) / 60)  # the planted fault: ln(1/alpha)
    assert stats.kstwo.sf(one_sided_width, 30) > 0.05


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (dkw_width, (0, 0.1)),
        (dkw_width, (10, 0.0)),
        (dkw_width, (10, 1.0)),
        (lower_rank, (0, 0.5, 0.1)),
        (lower_rank, (10, 1.5, 0.1)),
        (upper_rank, (10, np.nan, 0.1)),
        (upper_rank, (10, 0.5, 2.0)),
        (upper_rank, (10.5, 0.5, 0.1)),
    ],
)
def test_arguments_are_checked(function, arguments):
    with pytest.raises(InvalidArgument):
        function(*arguments)
