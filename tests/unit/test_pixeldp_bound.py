"""Proposition 2: the radius satisfies the inequality, is its supremum, and keeps the order."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

from pixeldp_fast.bounds import pixeldp_radius, tight_radius
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise import Gaussian, Laplace, Uniform
from tests.cases import MECHANISM_IDS, MECHANISMS
from tests.reference_values.exact import PROFILES
from tests.unit.test_tight import probabilities

each_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS, ids=MECHANISM_IDS)


def room(mechanism, p_lower, p_upper, shift, epsilon):
    """p_lower - e^{2 epsilon} p_upper - (1 + e^epsilon) delta, in 60 digits."""
    with mpmath.workdps(60):
        r, e = mpf(shift) / mpf(mechanism.noise_scale), mpf(epsilon)
        delta = PROFILES[type(mechanism).__name__](e, r)
        return mpf(p_lower) - mpmath.exp(2 * e) * mpf(p_upper) - (1 + mpmath.exp(e)) * delta


def best_epsilon(mechanism, p_lower, p_upper, shift):
    """Brute force: the best of a fine grid, of its zoom, and of the end where delta can be 0."""
    top = np.log(p_lower / p_upper) / 2
    low, high = 0.0, top

    def objective(e):
        delta = mechanism.privacy_profile(e, shift)
        return p_lower - np.exp(2 * e) * p_upper - (1 + np.exp(e)) * delta

    for _ in range(5):
        grid = np.linspace(low, high, 400)
        best = int(np.argmax(objective(grid)))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 399)]
    candidates = [grid[best], 0.0, min(shift / mechanism.noise_scale, top)]
    return max(candidates, key=lambda e: room(mechanism, p_lower, p_upper, shift, e))


def check_supremum(mechanism, p_lower, p_upper, radius, relative=1e-8):
    """Some epsilon satisfies the inequality at the radius, and none a little further out."""
    inside = best_epsilon(mechanism, p_lower, p_upper, radius)
    assert room(mechanism, p_lower, p_upper, radius, inside) > 0
    further = radius * (1 + relative)
    outside = best_epsilon(mechanism, p_lower, p_upper, further)
    assert room(mechanism, p_lower, p_upper, further, outside) <= 0


@each_mechanism
@settings(max_examples=15)
@given(probabilities())
def test_exact_is_the_supremum_of_the_definition(mechanism, pair):
    check_supremum(mechanism, *pair, float(pixeldp_radius(mechanism, *pair)))


@each_mechanism
def test_a_radius_that_is_not_the_supremum_is_caught(mechanism):
    radius = float(pixeldp_radius(mechanism, 0.8, 0.1))
    for wrong in (1 + 1e-7, 1 - 1e-7):
        with pytest.raises(AssertionError):
            check_supremum(mechanism, 0.8, 0.1, radius * wrong)


@settings(max_examples=10)
@given(st.lists(probabilities(), min_size=30, max_size=60))
def test_tight_exact_classical_in_this_order(pairs):
    p = np.array(pairs).T
    for mechanism in (Gaussian(0.5), Laplace(0.3)):
        classical = pixeldp_radius(mechanism, *p, profile="classical")
        exact = pixeldp_radius(mechanism, *p)
        assert np.all(tight_radius(mechanism, *p) >= exact)
        assert np.all(exact >= classical)
        assert np.all(classical > 0)
    assert np.all(tight_radius(Uniform(0.8), *p) >= pixeldp_radius(Uniform(0.8), *p))


@given(probabilities())
def test_classical_laplace_is_pure_differential_privacy(pair):
    expected = 0.3 / 2 * np.log(pair[0] / pair[1])
    assert pixeldp_radius(Laplace(0.3), *pair, profile="classical") == pytest.approx(expected)


@given(probabilities())
def test_classical_gaussian_is_the_best_epsilon_up_to_one(pair):
    p_lower, p_upper = pair
    top = min(1.0, np.log(p_lower / p_upper) / 2)
    epsilon = np.linspace(0, top, 20_001)[1:-1]
    delta = (p_lower - np.exp(2 * epsilon) * p_upper) / (1 + np.exp(epsilon))
    radius = np.max(epsilon / np.sqrt(2 * np.log(1.25 / np.maximum(delta, 1e-300))))
    found = float(pixeldp_radius(Gaussian(1.0), *pair, profile="classical"))
    assert radius * (1 - 1e-10) <= found <= radius * (1 + 1e-4)


def test_classical_gaussian_keeps_the_cap_of_its_proof():
    """Whatever the confidence: epsilon <= 1 gives delta <= 1/(1 + e), 0.5705 sigma."""
    limit = 1 / np.sqrt(2 * np.log(1.25 * (1 + np.e)))
    for p_lower in (0.999, 1 - 1e-9, 1.0):
        assert pixeldp_radius(Gaussian(1), p_lower, 0.0, profile="classical") <= limit
    assert limit == pytest.approx(0.5705, abs=1e-4)


def test_without_the_cap_the_classical_radius_is_unsound():
    """At epsilon 20 the classical sigma does not give the delta it promises."""
    epsilon, delta = 20.0, 1e-3
    shift = epsilon / np.sqrt(2 * np.log(1.25 / delta))
    assert Gaussian(1.0).privacy_profile(epsilon, shift) > 10 * delta
    assert Gaussian(1.0).privacy_profile(1.0, shift / epsilon) < delta


def test_no_competitor_at_all():
    for mechanism in (Gaussian(0.5), Laplace(0.3)):
        np.testing.assert_array_equal(pixeldp_radius(mechanism, [1.0, 0.3], 0.0), np.inf)
    assert pixeldp_radius(Uniform(0.8), 0.9, 0.0) == pytest.approx(0.72, rel=1e-10)
    tiny = pixeldp_radius(Gaussian(1.0), 0.9, np.array([1e-15, 1e-100, 1e-300]))
    assert np.all(np.diff(tiny) > 0)
    assert np.all(tiny < tight_radius(Gaussian(1.0), 0.9, np.array([1e-15, 1e-100, 1e-300])))


def test_equal_pairs_and_shapes():
    p_lower = np.array([[0.9, 0.9], [0.4, 0.7]])
    radius = pixeldp_radius(Gaussian(0.5), p_lower, 1 - p_lower, np.array([[1.0], [2.0]]))
    assert radius.shape == (2, 2)
    assert radius[0, 0] == radius[0, 1] == pixeldp_radius(Gaussian(0.5), 0.9, 0.1)
    assert radius[1, 0] == 0
    assert radius[1, 1] == pytest.approx(pixeldp_radius(Gaussian(0.5), 0.7, 0.3) / 2)
    assert pixeldp_radius(Gaussian(0.5), np.zeros((0,)), 0.5).shape == (0,)


def test_classical_is_refused_where_it_is_not_proved():
    with pytest.raises(InvalidArgument, match=r"Uniform\(half_width=0.8\)"):
        pixeldp_radius(Uniform(0.8), 0.9, 0.1, profile="classical")
    with pytest.raises(InvalidArgument, match="profile"):
        pixeldp_radius(Gaussian(0.5), 0.9, 0.1, profile="Exact")
