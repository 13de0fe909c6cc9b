"""Intervals and levels from a distribution: definitions, order, worst cases, planted faults."""

from itertools import pairwise

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf
from scipy import special

from pixeldp_fast.bounds import (
    distribution_interval,
    lemma2_interval,
    quantile_levels,
    tight_mean_interval,
    tight_parts_interval,
)
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise import Gaussian, Uniform
from tests.cases import MECHANISM_IDS, MECHANISMS
from tests.reference_values.exact import TRADEOFFS

each_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS, ids=MECHANISM_IDS)
EDGES = np.array([-1.0, -0.5, -0.25, 0.0, 0.25, 0.75, 1.5, 2.0])


@st.composite
def distributions(draw):
    """P(A > t) of an output on the edges, by cell, and its atoms' probabilities."""
    weights = np.array(draw(st.lists(st.floats(0, 1), min_size=8, max_size=8)))
    weights[draw(st.integers(0, 7))] += 0.01
    atoms = weights / weights.sum()
    exceed = np.clip(1 - np.cumsum(atoms)[:-1], 0, 1)
    return exceed, atoms


def exact_interval(mechanism, below, above, edges, shift):
    curve = TRADEOFFS[type(mechanism).__name__]
    r = mpf(shift) / mpf(mechanism.noise_scale)
    widths = [mpf(b) - mpf(a) for a, b in pairwise(edges)]
    lower = sum(w * curve(1 - mpf(p), r) for w, p in zip(widths, below, strict=True))
    upper = sum(w * curve(mpf(p), r) for w, p in zip(widths, above, strict=True))
    return mpf(edges[0]) + lower, mpf(edges[-1]) - upper


def check_outward(found, exact, slack=1e-9):
    assert 0 <= exact[0] - mpf(float(found[0])) <= slack
    assert 0 <= mpf(float(found[1])) - exact[1] <= slack


@each_mechanism
@settings(max_examples=25)
@given(distributions(), st.floats(0.01, 4), st.floats(0, 0.2))
def test_the_integral_is_the_definition_rounded_outward(mechanism, found, ratio, width):
    exceed = found[0]
    below, above = np.maximum(exceed - width, 0), np.minimum(exceed + width, 1)
    shift = ratio * mechanism.noise_scale
    with mpmath.workdps(40):
        exact = exact_interval(mechanism, below, above, EDGES, shift)
        interval = distribution_interval(mechanism, below, above, EDGES, shift)
        check_outward(interval, exact)
        inward = interval[0] + 2e-9, interval[1] - 2e-9
        with pytest.raises(AssertionError):  # the planted fault: both ends rounded inward
            check_outward(inward, exact)


@each_mechanism
@given(distributions(), st.floats(0.01, 4))
def test_with_the_exact_distribution_it_lies_within_all_others(mechanism, found, ratio):
    exceed, atoms = found
    shift = ratio * mechanism.noise_scale
    lower, upper = distribution_interval(mechanism, exceed, exceed, EDGES, shift)
    positive = float(atoms @ np.maximum(EDGES, 0))
    negative = float(atoms @ np.maximum(-EDGES, 0))
    for other in (
        tight_mean_interval(mechanism, positive - negative, -1, 2, shift),
        tight_parts_interval(mechanism, positive, negative, -1, 2, shift),
        lemma2_interval(mechanism, positive, negative, -1, 2, shift),
    ):
        assert other[0] - 1e-9 <= lower <= positive - negative + 1e-9
        assert positive - negative - 1e-9 <= upper <= other[1] + 1e-9


@each_mechanism
def test_the_ends_move_outward_with_the_shift_the_band_tau_and_slack(mechanism):
    exceed, shifts = np.linspace(0.9, 0.1, 7), np.linspace(0, 1.2, 20) * mechanism.noise_scale
    lower, upper = distribution_interval(mechanism, exceed, exceed, EDGES, shifts)
    assert lower.shape == upper.shape == (20,)
    assert np.all(np.diff(lower) <= 0)
    assert np.all(np.diff(upper) >= 0)
    wide = distribution_interval(mechanism, exceed - 0.05, exceed + 0.05, EDGES, shifts)
    assert np.all(wide[0] < lower)
    assert np.all(wide[1] > upper)
    moved = distribution_interval(mechanism, exceed, exceed, EDGES, shifts[:-1], slack=shifts[1])
    np.testing.assert_allclose(moved[0], lower[1:], atol=1e-9)
    np.testing.assert_allclose(moved[1], upper[1:], atol=1e-9)
    worse = distribution_interval(mechanism, exceed, exceed, EDGES, shifts, tau=0.01)
    assert np.all(worse[0] < lower)
    assert np.all(worse[1] > upper)


def test_examples_and_radii_broadcast_and_each_stands_alone():
    exceed = np.sort(np.random.default_rng(0).random((5, 7)))[:, ::-1]
    shifts = np.array([0.0, 0.1, 0.5])
    lower, upper = distribution_interval(
        Gaussian(0.5), exceed[:, None], exceed[:, None], EDGES, shifts
    )
    assert lower.shape == (5, 3)
    for b in range(5):
        for r in range(3):
            alone = distribution_interval(Gaussian(0.5), exceed[b], exceed[b], EDGES, shifts[r])
            assert (float(alone[0]), float(alone[1])) == (lower[b, r], upper[b, r])


def test_tau_is_paid_before_and_after():
    """T(. + tau) - tau, by hand, for uniform noise, whose curve is a line."""
    below = above = np.full(7, 0.5)
    plain = distribution_interval(Uniform(1.0), below, above, EDGES, 0.2)
    moved = distribution_interval(Uniform(1.0), below, above, EDGES, 0.2, tau=0.03)
    assert float(plain[0] - moved[0]) == pytest.approx(3 * 2 * 0.03, abs=1e-9)
    assert float(moved[1] - plain[1]) == pytest.approx(3 * 2 * 0.03, abs=1e-9)


def step_output(p, shift, sigma=1.0):
    """Probability of `high` after the attack on an output that is `high` on a half-line."""
    return special.ndtr(special.ndtri(p) + shift / sigma)


def test_the_worst_case_is_attained():
    p, shift = 0.2, 0.7
    exceed = np.array([p])
    found = distribution_interval(Gaussian(1.0), exceed, exceed, [0.0, 3.0], shift)
    assert float(found[1]) == pytest.approx(3 * step_output(p, shift), rel=1e-9)
    assert float(found[0]) == pytest.approx(3 * step_output(p, -shift), rel=1e-9)


def test_what_the_draws_did_not_show_is_counted():
    """The planted fault: an integral that ends at the largest sample.

    The output is 3 with probability 1e-3 and 0 else. No draw of 100 shows a 3; the attack makes it
    14 %.
    """
    p, shift = 1e-3, 2.0
    band = 0.195  # of 100 draws at alpha = 0.001
    above = np.array([band, band, band])  # no draw above 0
    _, upper = distribution_interval(Gaussian(1.0), np.zeros(3), above, [0.0, 1.0, 2.0, 3.0], shift)
    truth = 3 * step_output(p, shift)
    assert truth <= upper
    _, cut = distribution_interval(Gaussian(1.0), [0.0], [band], [0.0, 1e-9], shift)
    assert not truth <= cut


@given(st.floats(0, 6))
def test_levels_of_the_gaussian_median(ratio):
    low, high = quantile_levels(Gaussian(0.5), 0.5 * ratio)
    assert float(low) == pytest.approx(special.ndtr(-ratio), rel=1e-9, abs=1e-15)
    assert float(high) == pytest.approx(special.ndtr(ratio), rel=1e-9)
    assert low <= special.ndtr(-ratio)
    assert high >= special.ndtr(ratio)


@each_mechanism
@given(st.floats(0, 3), st.floats(0.02, 0.98), st.sampled_from([0.0, 1e-3]))
def test_levels_satisfy_their_inequalities(mechanism, ratio, quantile, tau):
    shift = ratio * mechanism.noise_scale
    low, high = (float(v) for v in quantile_levels(mechanism, shift, quantile, tau=tau))
    assert 0 <= low <= quantile <= high <= 1
    curve = TRADEOFFS[type(mechanism).__name__]
    with mpmath.workdps(40):
        r = mpf(shift) / mpf(mechanism.noise_scale)
        if low > 0:
            assert curve(mpf(low) + mpf(tau), r) - mpf(tau) > 1 - mpf(quantile)
        if high < 1:
            assert curve(1 - mpf(high) + mpf(tau), r) - mpf(tau) > mpf(quantile)


@each_mechanism
def test_levels_under_any_attack_and_with_slack(mechanism):
    assert quantile_levels(mechanism, np.inf) == (0, 1)
    shift = np.array([0.2, 0.5]) * mechanism.noise_scale
    plain = quantile_levels(mechanism, shift[1])
    moved = quantile_levels(mechanism, shift[0], slack=shift[1] - shift[0])
    np.testing.assert_allclose(moved, plain, rtol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "options", "name"),
    [
        (([0.5], [0.5], [0.0]), {}, "edges"),
        (([0.5], [0.5], [1.0, 0.0]), {}, "edges"),
        (([0.5], [0.5], ["a", "b"]), {}, "edges"),
        (([0.5], [0.5], [0.5, 1.0]), {}, "low"),
        (([0.5], [0.5], [0.0, np.inf]), {}, "high"),
        (([0.5, 0.5], [0.5], [0.0, 1.0]), {}, "exceed_lower"),
        (([1.5], [0.5], [0.0, 1.0]), {}, "exceed_lower"),
        (([0.5], [np.nan], [0.0, 1.0]), {}, "exceed_upper"),
        (([0.5], [0.5], [0.0, 1.0]), {"tau": -0.1}, "tau"),
        (([0.5], [0.5], [0.0, 1.0]), {"slack": np.inf}, "slack"),
    ],
)
def test_arguments_are_checked(arguments, options, name):
    with pytest.raises(InvalidArgument, match=f"`{name}`"):
        distribution_interval(Gaussian(0.5), *arguments, 0.1, **options)


@pytest.mark.parametrize("quantile", [0.0, 1.0, -1.0, np.nan])
def test_quantiles_are_checked(quantile):
    with pytest.raises(InvalidArgument, match="quantile"):
        quantile_levels(Gaussian(0.5), 0.1, quantile)
