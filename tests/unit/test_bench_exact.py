"""Errors of the intervals, exactly: at most alpha, and above it for every planted fault."""

import numpy as np
import pytest
from scipy import special

from bench import exact
from bench.__main__ import MEASUREMENTS
from pixeldp_fast.stats import decision_tables

ROUNDING = 1e-12  # of sums of up to a thousand probabilities


@pytest.mark.parametrize("target", exact.TARGETS)
@pytest.mark.parametrize("alpha", exact.LEVELS)
def test_the_anytime_rule_is_ever_wrong_with_probability_at_most_alpha(target, alpha):
    tables = decision_tables(target, alpha, exact.LAST)
    assert 0 < exact.crossing_probability(target, tables) <= alpha


def test_forgetting_the_second_side_exceeds_alpha():
    """The planted fault: ln(1/(2 alpha)) as the limit of a two-sided rule."""
    tables = decision_tables(0.5, 2 * 0.05, exact.LAST)
    assert exact.crossing_probability(0.5, tables) > 0.05


def test_the_recursion_is_the_simulation():
    tables = decision_tables(0.7, 0.2, 60)
    draws = np.random.default_rng(0).random((20_000, 60)) < 0.7
    hits, t = draws.cumsum(axis=1), np.arange(1, 61)
    crossed = ((hits >= tables[0][t]) | (hits <= tables[1][t])).any(axis=1).mean()
    # Five standard errors: fails one time in a million.
    assert exact.crossing_probability(0.7, tables) == pytest.approx(crossed, abs=5 * 0.5 / 141)


@pytest.mark.parametrize("name", exact.BOUNDS)
@pytest.mark.parametrize("n", exact.DRAWS)
@pytest.mark.parametrize("alpha", exact.LEVELS)
def test_no_bound_covers_less_than_nominal(name, n, alpha):
    assert exact.worst_miss(exact.BOUNDS[name], n, alpha) <= alpha + ROUNDING


@pytest.mark.parametrize("n", exact.DRAWS)
def test_a_narrower_bound_is_caught(n):
    """The planted fault: the quantile of Beta(k + 1/2, n - k + 1/2), which is not conservative."""

    def jeffreys(k, n, alpha):
        return np.where(k > 0, special.betaincinv(k + 0.5, n - k + 0.5, alpha), 0)

    assert exact.worst_miss(jeffreys, n, 0.05) > 0.05 + 1e-3


@pytest.mark.parametrize("n", exact.DRAWS)
@pytest.mark.parametrize("alpha", exact.LEVELS)
def test_a_tie_is_decided_at_most_alpha_of_the_time(n, alpha):
    assert exact.tie_rejected(n, alpha) <= alpha


def test_the_rows_say_so():
    rows = {row.contender: row for row in [*exact.crossings(), *exact.stops()]}
    for name, row in rows.items():
        alpha = float(row.note.rsplit(" ", 1)[1])
        assert (row.value > alpha) == name.startswith("planted")
        assert row.unit == "probability"
    assert len(rows) == len(exact.TARGETS) * len(exact.LEVELS) + 1 + 2 * len(exact.TARGETS)
    assert "exact" in MEASUREMENTS
