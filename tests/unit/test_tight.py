"""The tight radius is the supremum of its definition, for every mechanism and at the edges."""

from dataclasses import dataclass

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

from pixeldp_fast.bounds import BOUNDS, radius_function, tight_radius
from pixeldp_fast.bounds.tight import bisected_shift
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise import Gaussian, Laplace, Uniform
from tests.cases import BOUND_CASES, BOUND_IDS, MECHANISM_IDS, MECHANISMS
from tests.reference_values.exact import RELATIVE, TRADEOFFS

each_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS, ids=MECHANISM_IDS)
each_bound = pytest.mark.parametrize(("bound", "mechanism"), BOUND_CASES, ids=BOUND_IDS)


@st.composite
def probabilities(draw):
    """p_lower > p_upper, with p_upper anywhere in (0, 1 - p_lower], the complement included."""
    p_lower = draw(st.floats(0.01, 1 - 1e-7))
    largest = min(1 - p_lower, p_lower * (1 - 1e-3))
    return p_lower, largest * draw(st.sampled_from([1.0]) | st.floats(1e-4, 1.0))


def margin(mechanism, p_lower, p_upper, shift):
    """T(1 - p_lower) + T(p_upper) - 1 in 40 digits: positive below the radius."""
    curve = TRADEOFFS[type(mechanism).__name__]
    with mpmath.workdps(40):
        r = mpf(shift) / mpf(mechanism.noise_scale)
        return curve(1 - mpf(p_lower), r) + curve(mpf(p_upper), r) - 1


def check_supremum(mechanism, p_lower, p_upper, radius, relative=RELATIVE):
    assert margin(mechanism, p_lower, p_upper, float(radius)) > 0
    assert margin(mechanism, p_lower, p_upper, float(radius) * (1 + relative)) <= 0


@each_mechanism
@given(probabilities())
def test_it_is_the_supremum_of_the_definition(mechanism, pair):
    check_supremum(mechanism, *pair, tight_radius(mechanism, *pair))


def test_a_radius_rounded_up_is_caught():
    radius = float(tight_radius(Laplace(0.3), 0.9, 0.05))
    with pytest.raises(AssertionError):
        check_supremum(Laplace(0.3), 0.9, 0.05, radius * (1 + 2e-11))
    with pytest.raises(AssertionError):
        check_supremum(Laplace(0.3), 0.9, 0.05, radius * (1 - 2e-9))


@each_mechanism
@given(probabilities())
def test_bisection_agrees_with_the_closed_form_and_is_never_above_the_truth(mechanism, pair):
    shift = bisected_shift(mechanism, *np.array(pair)[:, None])[0]
    assert margin(mechanism, *pair, float(shift)) > 0
    closed = float(tight_radius(mechanism, *pair))
    # The curve is rounded by 1e-11 of values near 1; a small p_upper has fewer digits left.
    assert closed * (1 - 1e-9) - mechanism.noise_scale * 2e-11 / pair[1] <= shift


@dataclass(frozen=True)
class Renamed(Laplace):
    """A law that no table knows."""


def test_a_new_mechanism_needs_nothing_here():
    p_lower, p_upper = np.array([0.99, 0.8, 0.45, 0.3]), np.array([0.01, 0.1, 0.2, 0.31])
    for bound in ("tight", "pixeldp"):
        known = BOUNDS[bound](Laplace(0.3), p_lower, p_upper)
        found = BOUNDS[bound](Renamed(0.3), p_lower, p_upper)
        np.testing.assert_allclose(found, known, rtol=1e-9)
        if bound == "tight":
            assert np.all(found <= known * (1 + 2e-11))


def test_published_values():
    """Lecuyer et al. and Cohen et al. at p_lower = 0.99: three generations of one certificate."""
    found = [float(BOUNDS[b](Gaussian(1), 0.99, 0.01)) for b in BOUNDS]
    assert found == pytest.approx([2.326, 1.318, 0.554], abs=1e-3)


@each_mechanism
def test_the_competitor_never_exceeds_the_complement(mechanism):
    for p_lower in (0.6, 0.9, 0.999):
        assert tight_radius(mechanism, p_lower, 1.0) == tight_radius(
            mechanism, p_lower, 1 - p_lower
        )


def test_certain_classes():
    assert tight_radius(Gaussian(0.5), 1.0, 0.0) == np.inf
    assert tight_radius(Laplace(0.3), 1.0, 0.0) == np.inf
    assert tight_radius(Gaussian(0.5), 0.4, 0.0) == np.inf
    assert tight_radius(Laplace(0.3), 0.4, 0.0) == np.inf
    assert tight_radius(Uniform(0.8), 1.0, 0.0) == pytest.approx(0.8, rel=2e-11)
    assert tight_radius(Laplace(1.0), 0.4, 1e-310) < np.inf


@each_bound
def test_no_radius_without_a_majority(bound, mechanism):
    p_lower, p_upper = np.array([0.0, 0.3, 0.3, 0.5, 0.5]), np.array([0.0, 0.3, 0.31, 0.5, 1.0])
    np.testing.assert_array_equal(BOUNDS[bound](mechanism, p_lower, p_upper), 0)


@each_bound
def test_a_bare_majority_has_a_vanishing_radius(bound, mechanism):
    for gap in (1e-3, 1e-6, 1e-9):
        radius = BOUNDS[bound](mechanism, 0.5 + gap / 2, 0.5 - gap / 2)
        assert 0 < radius < 2 * gap * mechanism.noise_scale


@each_bound
@settings(max_examples=15)
@given(probabilities(), st.floats(0.01, 100))
def test_radius_is_divided_by_the_sensitivity_and_scales_with_the_noise(
    bound, mechanism, pair, factor
):
    radius = float(BOUNDS[bound](mechanism, *pair))
    assert BOUNDS[bound](mechanism, *pair, factor) == pytest.approx(radius / factor, rel=1e-10)
    wider = type(mechanism)(mechanism.noise_scale * factor)
    assert BOUNDS[bound](wider, *pair) == pytest.approx(radius * factor, rel=1e-9)


@each_bound
def test_radius_is_monotone(bound, mechanism):
    p_lower = np.linspace(0.3, 0.9999, 60)
    p_upper = np.array([1e-6, 0.001, 0.05, 0.15, 0.29])[:, None]
    radius = BOUNDS[bound](mechanism, p_lower, p_upper)
    assert radius.shape == (5, 60)
    tiny = 1e-9 * radius.max()
    assert np.all(np.diff(radius, axis=1) >= -tiny)
    assert np.all(np.diff(radius, axis=0) <= tiny)
    assert radius[2, 30] == BOUNDS[bound](mechanism, p_lower[30], p_upper[2, 0])


@each_bound
@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((-0.1, 0.1), "p_lower"),
        ((1.1, 0.1), "p_lower"),
        ((np.nan, 0.1), "p_lower"),
        ((0.9, -0.1), "p_upper"),
        ((0.9, np.nan), "p_upper"),
        ((0.9, "few"), "p_upper"),
        ((0.9, 0.1, 0.0), "sensitivity"),
        ((0.9, 0.1, -1.0), "sensitivity"),
        ((0.9, 0.1, np.inf), "sensitivity"),
        ((0.9, 0.1, np.nan), "sensitivity"),
    ],
)
def test_arguments_are_checked(bound, mechanism, arguments, name):
    with pytest.raises(InvalidArgument, match=f"`{name}`"):
        BOUNDS[bound](mechanism, *arguments)


def test_the_mechanism_is_checked():
    with pytest.raises(InvalidArgument, match="mechanism"):
        tight_radius(0.5, 0.9, 0.1)


@pytest.mark.parametrize("name", ["Tight", "", None, "pixeldp-exact"])
def test_an_unknown_bound_is_refused_with_the_list(name):
    with pytest.raises(InvalidArgument, match="tight, pixeldp, pixeldp-classical"):
        radius_function(name)
