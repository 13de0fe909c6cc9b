"""Intervals for real-valued outputs: formulas in mpmath, order, edges and attained worst cases."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf
from scipy import special

from pixeldp_fast.bounds import lemma2_interval, tight_mean_interval, tight_parts_interval
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise import Gaussian, Laplace, Uniform
from tests.cases import MECHANISM_IDS, MECHANISMS
from tests.reference_values.exact import PROFILES, TRADEOFFS

each_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS, ids=MECHANISM_IDS)


@st.composite
def problems(draw):
    """Means of both parts, a range, and a shift in units of the scale."""
    low = -draw(st.sampled_from([0.0, 0.7, 5.0]))
    high = draw(st.sampled_from([0.3, 1.0, 4.0]))
    share = draw(st.floats(0, 1))
    positive = high * share * draw(st.floats(0, 1))
    negative = -low * (1 - share) * draw(st.floats(0, 1))
    return positive, negative, low, high, draw(st.floats(0.001, 6))


def check_end(got, exact, outward, slack):
    """On the outer side of the exact end, by at most `slack`."""
    assert 0 <= outward * (mpf(float(got)) - exact) <= slack


def exact_lemma2(mechanism, positive, negative, low, high, shift, epsilon):
    r = mpf(shift) / mpf(mechanism.noise_scale)
    delta = PROFILES[type(mechanism).__name__](mpf(epsilon), r)
    growth, decay = mpmath.exp(mpf(epsilon)), mpmath.exp(-mpf(epsilon))
    lower = decay * positive - growth * negative - decay * high * delta + low * delta
    upper = growth * positive - decay * negative + high * delta - decay * low * delta
    return max(lower, mpf(low)), min(upper, mpf(high))


def exact_mean(mechanism, mean, low, high, shift):
    curve = TRADEOFFS[type(mechanism).__name__]
    r = mpf(shift) / mpf(mechanism.noise_scale)
    if high == low:
        return mpf(0), mpf(0)
    width = mpf(high) - mpf(low)
    share = (mpf(mean) - mpf(low)) / width
    return low + width * curve(1 - share, r), low + width * (1 - curve(share, r))


@each_mechanism
@given(problems(), st.floats(0, 4))
def test_lemma2(mechanism, problem, epsilon):
    *means, low, high, ratio = problem
    shift = ratio * mechanism.noise_scale
    with mpmath.workdps(60):
        exact = exact_lemma2(mechanism, *means, low, high, shift, epsilon)
        slack = mpf(1e-9) * (high - low) * 100
    found = lemma2_interval(mechanism, *means, low, high, shift, epsilon)
    check_end(found[0], exact[0], -1, slack)
    check_end(found[1], exact[1], 1, slack)


@each_mechanism
@given(problems())
def test_tight_mean(mechanism, problem):
    positive, negative, low, high, ratio = problem
    shift, mean = ratio * mechanism.noise_scale, positive - negative
    with mpmath.workdps(60):
        exact = exact_mean(mechanism, mean, low, high, shift)
    found = tight_mean_interval(mechanism, mean, low, high, shift)
    check_end(found[0], exact[0], -1, 1e-9 * (high - low))
    check_end(found[1], exact[1], 1, 1e-9 * (high - low))


@each_mechanism
@given(problems())
def test_tight_parts(mechanism, problem):
    positive, negative, low, high, ratio = problem
    shift = ratio * mechanism.noise_scale
    with mpmath.workdps(60):
        first = exact_mean(mechanism, positive, 0, high, shift)
        second = exact_mean(mechanism, negative, 0, -low, shift)
        exact = max(first[0] - second[1], mpf(low)), min(first[1] - second[0], mpf(high))
    found = tight_parts_interval(mechanism, positive, negative, low, high, shift)
    check_end(found[0], exact[0], -1, 1e-9 * (high - low))
    check_end(found[1], exact[1], 1, 1e-9 * (high - low))


def test_an_end_rounded_inward_is_caught():
    exact = exact_mean(Uniform(0.8), 0.2, -1, 1, 0.1)
    found = tight_mean_interval(Uniform(0.8), 0.2, -1, 1, 0.1)
    check_end(found[0], exact[0], -1, 1e-9)
    with pytest.raises(AssertionError):
        check_end(float(found[0]) + 1e-10, exact[0], -1, 1e-9)


@each_mechanism
@settings(max_examples=25)
@given(problems())
def test_parts_lie_within_lemma2_at_every_epsilon(mechanism, problem):
    *means, low, high, ratio = problem
    shift = ratio * mechanism.noise_scale
    epsilon = np.concatenate([np.linspace(0, 5, 101), [10.0, 40.0]])
    parts = tight_parts_interval(mechanism, *means, low, high, shift)
    fixed = lemma2_interval(mechanism, *means, low, high, shift, epsilon)
    best = lemma2_interval(mechanism, *means, low, high, shift)
    rounding = 1e-9 * (high - low)
    assert fixed[0].max() - rounding <= best[0] <= parts[0] + rounding
    assert fixed[1].min() + rounding >= best[1] >= parts[1] - rounding
    mean = means[0] - means[1]
    assert low <= best[0] <= mean + rounding
    assert mean - rounding <= best[1] <= high


@each_mechanism
def test_no_attack_and_every_attack(mechanism):
    means = 0.25, 0.1, -0.5, 1.0
    for function in (lemma2_interval, tight_parts_interval):
        lower, upper = function(mechanism, *means, 0.0)
        assert lower == pytest.approx(0.15, abs=1e-9)
        assert upper == pytest.approx(0.15, abs=1e-9)
        assert lower < 0.15 < upper
        assert function(mechanism, *means, np.inf) == (-0.5, 1.0)
    lower, upper = tight_mean_interval(mechanism, 0.15, -0.5, 1.0, 0.0)
    assert 0.15 - 1e-9 <= lower < 0.15 < upper <= 0.15 + 1e-9
    assert tight_mean_interval(mechanism, 0.15, -0.5, 1.0, np.inf) == (-0.5, 1.0)


@each_mechanism
def test_intervals_widen_with_the_shift_and_broadcast(mechanism):
    shift = np.linspace(0.001, 3, 40) * mechanism.noise_scale
    positive = np.array([0.0, 0.2, 1.0])[:, None]
    for found in (
        lemma2_interval(mechanism, positive, 0.1, -0.5, 1.0, shift),
        lemma2_interval(mechanism, positive, 0.1, -0.5, 1.0, shift, 0.7),
        tight_parts_interval(mechanism, positive, 0.1, -0.5, 1.0, shift),
        tight_mean_interval(mechanism, positive, -0.5, 1.0, shift),
    ):
        for side, end in zip((-1, 1), found, strict=True):
            assert end.shape == (3, 40)
            assert np.all(side * np.diff(end, axis=1) >= -1e-9)
            assert np.all(np.diff(end, axis=0) >= -1e-9)


@each_mechanism
def test_negating_the_output_mirrors_the_interval(mechanism):
    shift = 0.7 * mechanism.noise_scale
    for function in (lemma2_interval, tight_parts_interval):
        lower, upper = function(mechanism, 0.3, 0.1, -0.5, 1.0, shift)
        mirrored = function(mechanism, 0.1, 0.3, -1.0, 0.5, shift)
        np.testing.assert_allclose((-upper, -lower), mirrored, rtol=1e-9)


def test_the_worst_case_of_the_mean_is_attained():
    """An output that is `high` on a half-line of the noise and `low` elsewhere, moved along it."""
    low, high, sigma, shift, cut = -0.5, 2.0, 0.4, 0.3, 0.1
    before = low + (high - low) * special.ndtr(cut / sigma)
    after = [low + (high - low) * special.ndtr((cut + s) / sigma) for s in (-shift, shift)]
    found = tight_mean_interval(Gaussian(sigma), before, low, high, shift)
    np.testing.assert_allclose(found, after, rtol=1e-9)
    assert found[0] <= after[0]
    assert found[1] >= after[1]


def test_one_sided_ranges():
    lower, upper = tight_parts_interval(Laplace(0.3), 0.4, 0.0, 0.0, 1.0, 0.1)
    same = tight_mean_interval(Laplace(0.3), 0.4, 0.0, 1.0, 0.1)
    np.testing.assert_allclose((lower, upper), same, rtol=1e-9)
    lower, upper = tight_parts_interval(Laplace(0.3), 0.0, 0.4, -1.0, 0.0, 0.1)
    np.testing.assert_allclose((lower, upper), (-same[1], -same[0]), rtol=1e-9)


def every_bound(mechanism, shift, **options):
    """All bounds of one output in [-0.5, 1] with E A+ = 0.3 and E A- = 0.1."""
    yield lemma2_interval(mechanism, 0.3, 0.1, -0.5, 1.0, shift, **options)
    yield lemma2_interval(mechanism, 0.3, 0.1, -0.5, 1.0, shift, 0.4, **options)
    yield tight_parts_interval(mechanism, 0.3, 0.1, -0.5, 1.0, shift, **options)
    yield tight_mean_interval(mechanism, 0.2, -0.5, 1.0, shift, **options)


@each_mechanism
def test_slack_is_more_shift(mechanism):
    unit = mechanism.noise_scale
    for moved, plain in zip(
        every_bound(mechanism, 0.2 * unit, slack=0.1 * unit),
        every_bound(mechanism, 0.3 * unit),
        strict=True,
    ):
        np.testing.assert_allclose(moved, plain, rtol=1e-9)


@each_mechanism
@given(problems(), st.sampled_from([1e-12, 1e-3, 0.05]))
def test_tau_moves_means_before_and_after(mechanism, problem, tau):
    """The definition: means moved outward, the interval of the ideal law, and moved again."""
    positive, negative, low, high, ratio = problem
    shift, width = ratio * mechanism.noise_scale, high - low
    ends = [
        (max(positive - high * tau, 0), min(positive + high * tau, high)),
        (max(negative + low * tau, 0), min(negative - low * tau, -low)),
    ]
    rounding = 1e-9 * width
    arguments = low, high, shift
    lower = lemma2_interval(mechanism, ends[0][0], ends[1][1], *arguments)[0] - width * tau
    upper = lemma2_interval(mechanism, ends[0][1], ends[1][0], *arguments)[1] + width * tau
    found = lemma2_interval(mechanism, positive, negative, *arguments, tau=tau)
    assert found[0] == pytest.approx(max(lower, low), abs=rounding)
    assert found[1] == pytest.approx(min(upper, high), abs=rounding)
    zero = np.zeros(2)  # a part of an empty range
    above = tight_mean_interval(mechanism, positive, 0.0, high, shift, tau=tau)
    below = tight_mean_interval(mechanism, negative, 0.0, -low, shift, tau=tau) if low else zero
    parts = tight_parts_interval(mechanism, positive, negative, *arguments, tau=tau)
    assert parts[0] == pytest.approx(above[0] - below[1], abs=rounding)
    assert parts[1] == pytest.approx(above[1] - below[0], abs=rounding)
    assert found[0] - rounding <= parts[0]
    assert parts[1] <= found[1] + rounding
    mean = positive - negative
    lower = tight_mean_interval(mechanism, max(mean - width * tau, low), low, high, shift)[0]
    upper = tight_mean_interval(mechanism, min(mean + width * tau, high), low, high, shift)[1]
    found = tight_mean_interval(mechanism, mean, low, high, shift, tau=tau)
    assert found[0] == pytest.approx(max(lower - width * tau, low), abs=rounding)
    assert found[1] == pytest.approx(min(upper + width * tau, high), abs=rounding)


def test_tau_is_enough_for_a_law_at_that_distance():
    """A table's law at distance tau from the ideal one, that favours the attacker both times."""
    sigma, shift, tau, p = 0.5, 0.4, 0.01, 0.3
    ideal_before, ideal_after = p, special.ndtr(special.ndtri(p) + shift / sigma)
    measured, served = ideal_before - tau, ideal_after + tau
    found = tight_mean_interval(Gaussian(sigma), measured, 0.0, 1.0, shift, tau=tau)
    assert served <= found[1] <= served + 1e-9
    once = tight_mean_interval(Gaussian(sigma), measured + tau, 0.0, 1.0, shift)
    assert not served <= once[1]  # the planted fault: tau paid for the measurement alone


@pytest.mark.parametrize("name", ["tau", "slack"])
@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_tau_and_slack_are_checked(name, value):
    options = {name: value}
    for function in (lemma2_interval, tight_parts_interval):
        with pytest.raises(InvalidArgument, match=f"`{name}`"):
            function(Gaussian(0.5), 0.3, 0.1, -0.5, 1.0, 0.2, **options)
    with pytest.raises(InvalidArgument, match=f"`{name}`"):
        tight_mean_interval(Gaussian(0.5), 0.2, -0.5, 1.0, 0.2, **options)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((0.3, 0.1, 0.1, 1.0, 0.2), "low"),
        ((0.3, 0.1, -1.0, -0.1, 0.2), "high"),
        ((0.0, 0.0, 0.0, 0.0, 0.2), "low"),
        ((0.3, 0.1, -np.inf, 1.0, 0.2), "low"),
        ((0.3, 0.1, -1.0, np.nan, 0.2), "high"),
        ((1.1, 0.1, -1.0, 1.0, 0.2), "mean_positive"),
        ((-0.1, 0.1, -1.0, 1.0, 0.2), "mean_positive"),
        ((0.3, 1.1, -1.0, 1.0, 0.2), "mean_negative"),
        ((0.3, np.nan, -1.0, 1.0, 0.2), "mean_negative"),
        ((0.3, 0.1, -1.0, 1.0, -0.2), "shift"),
        ((0.3, 0.1, -1.0, 1.0, np.nan), "shift"),
    ],
)
@pytest.mark.parametrize("function", [lemma2_interval, tight_parts_interval])
def test_arguments_are_checked(function, arguments, name):
    with pytest.raises(InvalidArgument, match=f"`{name}`"):
        function(Gaussian(0.5), *arguments)


def test_more_arguments_are_checked():
    with pytest.raises(InvalidArgument, match="`mean`"):
        tight_mean_interval(Gaussian(0.5), 1.5, -1.0, 1.0, 0.2)
    with pytest.raises(InvalidArgument, match="`low`"):
        tight_mean_interval(Gaussian(0.5), 0.5, 0.1, 1.0, 0.2)
    with pytest.raises(InvalidArgument, match="`epsilon`"):
        lemma2_interval(Gaussian(0.5), 0.3, 0.1, -1.0, 1.0, 0.2, -0.1)
    with pytest.raises(InvalidArgument, match="`mechanism`"):
        lemma2_interval("gaussian", 0.3, 0.1, -1.0, 1.0, 0.2)
