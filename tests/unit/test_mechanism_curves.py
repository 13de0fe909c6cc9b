"""The two curves of every mechanism: against the definitions in mpmath, at ordinary and at extreme
arguments, against brute-force optimal tests, and against each other."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf
from scipy import stats as laws

from pixeldp_fast.errors import InvalidArgument
from tests.cases import MECHANISM_IDS, MECHANISMS
from tests.reference_values.exact import PROFILES, TRADEOFFS, check_above, check_below

each_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS, ids=MECHANISM_IDS)

SHIFTS = [1e-300, 1e-12, 1e-6, 1e-3, 0.1, 0.3, 1, 3, 12, 37, 210, 1e3, 1e6]
EPSILONS = [0, 1e-300, 1e-12, 1e-6, 1e-3, 0.1, 1, 5, 30, 300, 700, 1e4]
SMALL_ALPHAS = [0, 5e-324, 1e-310, 1e-300, 1e-100, 1e-17, 1e-12, 1e-6, 1e-3, 0.05, 0.2, 0.4999999]
ALPHAS = [*SMALL_ALPHAS, 0.5, 0.5000001, 0.9, 0.999, 1 - 1e-8, 1 - 1e-12, 1 - 2**-53, 1]


def exact_profile(mechanism, epsilon, shift):
    ratio = mpf(float(shift)) / mpf(mechanism.noise_scale)
    if type(mechanism).__name__ == "Gaussian":
        exponent = (mpf(float(epsilon)) / ratio - ratio / 2) ** 2
        if exponent > 10**9:  # the sign says it all, and mpmath's erfc overflows
            return mpf(0) if epsilon / ratio > ratio / 2 else mpf(1) - mpf(10) ** -400
    with mpmath.workdps(700):  # nothing is left of the tails of 1e-300 with fewer
        return PROFILES[type(mechanism).__name__](mpf(float(epsilon)), ratio)


def exact_tradeoff(mechanism, alpha, shift):
    ratio = mpf(float(shift)) / mpf(mechanism.noise_scale)
    if type(mechanism).__name__ == "Gaussian" and ratio > 1000:
        return mpf(1) if alpha == 0 else mpf(0)  # the truth is above; only the side is judged
    with mpmath.workdps(50):
        return TRADEOFFS[type(mechanism).__name__](mpf(float(alpha)), ratio)


@each_mechanism
@pytest.mark.parametrize("shift", SHIFTS)
def test_profile_is_never_below_the_exact_one_even_at_extreme_arguments(mechanism, shift):
    for epsilon, delta in zip(EPSILONS, mechanism.privacy_profile(EPSILONS, shift), strict=True):
        assert delta >= exact_profile(mechanism, epsilon, shift), (epsilon, shift)
        assert 0 <= delta <= 1


@each_mechanism
@pytest.mark.parametrize("shift", SHIFTS)
def test_tradeoff_is_never_above_the_exact_one_even_at_extreme_arguments(mechanism, shift):
    for alpha, beta in zip(ALPHAS, mechanism.tradeoff(ALPHAS, shift), strict=True):
        assert 0 <= beta <= exact_tradeoff(mechanism, alpha, shift), (alpha, shift)


@each_mechanism
@given(st.floats(0, 3), st.floats(-4, 1.2))
def test_profile_is_close_at_ordinary_arguments(mechanism, epsilon, log_ratio):
    shift = 10**log_ratio * mechanism.noise_scale
    exact = exact_profile(mechanism, epsilon, shift)
    delta = float(mechanism.privacy_profile(epsilon, shift))
    assert exact <= delta <= exact * (1 + mpf(1e-9)) + mpf(1e-14)


@each_mechanism
@given(st.floats(1e-6, 1 - 1e-6), st.floats(-4, 1))
def test_tradeoff_is_close_at_ordinary_arguments(mechanism, alpha, log_ratio):
    shift = 10**log_ratio * mechanism.noise_scale
    exact = exact_tradeoff(mechanism, alpha, shift)
    beta = float(mechanism.tradeoff(alpha, shift))
    assert exact * (1 - mpf(1e-9)) - mpf(1e-14) <= beta <= exact


@each_mechanism
def test_limits(mechanism):
    alpha = np.linspace(0, 1, 11)
    np.testing.assert_array_equal(mechanism.privacy_profile([0.0, 1.0], 0.0), 0)
    np.testing.assert_allclose(mechanism.tradeoff(alpha, 0.0), 1 - alpha, rtol=1e-10, atol=1e-15)
    np.testing.assert_array_equal(mechanism.privacy_profile([0.0, 1.0], np.inf), 1)
    np.testing.assert_array_equal(mechanism.tradeoff(alpha, np.inf), 0)


@each_mechanism
def test_curves_broadcast_and_are_monotone(mechanism):
    shift = mechanism.noise_scale * np.linspace(0.01, 4, 80)
    alpha, epsilon = np.linspace(0, 1, 50)[:, None], np.linspace(0, 6, 50)[:, None]
    beta, delta = mechanism.tradeoff(alpha, shift), mechanism.privacy_profile(epsilon, shift)
    assert beta.shape == delta.shape == (50, 80)
    tiny = 3e-11
    assert np.all(np.diff(beta, axis=0) <= tiny)
    assert np.all(np.diff(beta, axis=1) <= tiny)
    assert np.all(np.diff(delta, axis=0) <= tiny)
    assert np.all(np.diff(delta, axis=1) >= -tiny)


DENSITIES = {
    "Gaussian": laws.norm(),
    "Laplace": laws.laplace(),
    "Uniform": laws.uniform(-1, 2),
}


def cells(mechanism, ratio):
    """Probabilities of 200 001 cells under the centre 0 and under the centre `ratio`."""
    law = DENSITIES[type(mechanism).__name__]
    # The jumps and the kinks of every density and of its shift are edges of cells.
    corners = [0, ratio, -1, 1, ratio - 1, ratio + 1]
    edges = np.union1d(np.linspace(-30, 30 + ratio, 200_001), corners)
    return np.diff(law.cdf(edges)), np.diff(law.cdf(edges - ratio))


@each_mechanism
@pytest.mark.parametrize("ratio", [0.2, 1.0, 1.7, 3.5])
def test_profile_is_the_hockey_stick_divergence(mechanism, ratio):
    """delta = sup over sets of P(S) - e^epsilon Q(S): the sum of the positive parts."""
    p, q = cells(mechanism, ratio)
    epsilon = np.array([0.0, 0.1, 0.7, 1.0, 2.5])
    brute = np.maximum(p - np.exp(epsilon)[:, None] * q, 0).sum(axis=1)
    delta = mechanism.privacy_profile(epsilon, ratio * mechanism.noise_scale)
    np.testing.assert_allclose(delta, brute, rtol=0, atol=2e-8)


@each_mechanism
@pytest.mark.parametrize("ratio", [0.2, 1.0, 1.7, 3.5])
def test_tradeoff_is_the_most_powerful_test(mechanism, ratio):
    """Neyman and Pearson: reject the cells with the largest likelihood ratio first."""
    p, q = cells(mechanism, ratio)
    with np.errstate(divide="ignore", invalid="ignore"):
        order = np.argsort(-np.where(p > 0, q / p, np.where(q > 0, np.inf, -1)), kind="stable")
    size = np.concatenate([[0], np.cumsum(p[order])])
    power = np.concatenate([[0], np.cumsum(q[order])])
    alpha = np.array([0.001, 0.03, 0.2, 0.5, 0.8, 0.99])
    brute = 1 - np.interp(alpha, size, power)
    beta = mechanism.tradeoff(alpha, ratio * mechanism.noise_scale)
    np.testing.assert_allclose(beta, brute, rtol=0, atol=2e-7)


@each_mechanism
@pytest.mark.parametrize("ratio", [0.2, 1.0, 1.7, 3.5])
def test_the_curves_are_dual(mechanism, ratio):
    """delta(epsilon) = sup over alpha of 1 - T(alpha) - e^epsilon alpha."""
    shift = ratio * mechanism.noise_scale
    alpha = np.concatenate([np.geomspace(1e-12, 0.01, 20_000), np.linspace(0.01, 1, 40_000), [0]])
    epsilon = np.array([0.0, 0.3, 1.0, 2.0])
    gap = 1 - mechanism.tradeoff(alpha, shift) - np.exp(epsilon)[:, None] * alpha
    delta = mechanism.privacy_profile(epsilon, shift)
    np.testing.assert_allclose(gap.max(axis=1), delta, rtol=0, atol=2e-7)


@each_mechanism
def test_a_curve_on_the_wrong_side_is_caught(mechanism):
    shift = mechanism.noise_scale
    delta = float(mechanism.privacy_profile(0.2, shift)) * (1 - 2e-11)
    beta = float(mechanism.tradeoff(0.2, shift)) * (1 + 2e-11)
    with pytest.raises(AssertionError):
        check_above(delta, exact_profile(mechanism, 0.2, shift))
    with pytest.raises(AssertionError):
        check_below(beta, exact_tradeoff(mechanism, 0.2, shift))


@each_mechanism
@pytest.mark.parametrize(("value", "shift"), [(-0.1, 1), (0.5, -1), (np.nan, 1), (0.5, np.nan)])
def test_arguments_are_checked(mechanism, value, shift):
    for curve in (mechanism.privacy_profile, mechanism.tradeoff):
        with pytest.raises(InvalidArgument):
            curve(value, shift)
    with pytest.raises(InvalidArgument, match="alpha"):
        mechanism.tradeoff(1.1, 1)
