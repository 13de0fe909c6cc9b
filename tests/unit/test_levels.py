"""Shares of alpha never sum above it, in exact arithmetic."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixeldp_fast.bounds import tight_radius
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise import Gaussian
from pixeldp_fast.stats import (
    FINAL_SHARE,
    bonferroni,
    clopper_pearson_lower,
    group_sequential,
)

ALPHA = st.floats(1e-12, 0.9)


@given(ALPHA, st.integers(1, 100_000))
def test_bonferroni_never_exceeds_alpha(alpha, parts):
    level = bonferroni(alpha, parts)
    assert Fraction(level) * parts <= Fraction(alpha)
    assert level == pytest.approx(alpha / parts, rel=1e-15)


def test_plain_division_would_exceed_alpha():
    """The planted fault: nearest rounding is above alpha for some number of parts."""
    excess = [n for n in range(1, 200) if Fraction(0.001 / n) * n > Fraction(0.001)]
    assert excess
    assert all(Fraction(bonferroni(0.001, n)) * n <= Fraction(0.001) for n in excess)


@given(ALPHA, st.floats(1e-6, 1 - 1e-6))
def test_group_sequential_never_exceeds_alpha(alpha, share):
    final, peeks = group_sequential(alpha, share)
    assert final > 0
    assert peeks > 0
    assert Fraction(final) + Fraction(peeks) <= Fraction(alpha)
    assert final + peeks == pytest.approx(alpha, rel=1e-15)


@pytest.mark.parametrize(
    ("hits", "draws", "largest_cost"), [(10**5, 10**5, 0.001), (1000, 1000, 0.003)]
)
def test_the_stated_cost_of_the_default_share(hits, draws, largest_cost):
    whole, part = (
        tight_radius(Gaussian(1), p, 1 - p)
        for p in (clopper_pearson_lower(hits, draws, a) for a in (0.001, 0.001 * FINAL_SHARE))
    )
    assert 0 < 1 - part / whole < largest_cost


@pytest.mark.parametrize("parts", [0, -1, 1.5, float("nan"), "x"])
def test_parts_are_checked(parts):
    with pytest.raises(InvalidArgument, match="parts"):
        bonferroni(0.05, parts)


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_share_is_checked(share):
    with pytest.raises(InvalidArgument, match="share"):
        group_sequential(0.05, share)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, float("nan")])
def test_alpha_is_checked(alpha):
    with pytest.raises(InvalidArgument, match="alpha"):
        bonferroni(alpha, 2)
    with pytest.raises(InvalidArgument, match="alpha"):
        group_sequential(alpha)
