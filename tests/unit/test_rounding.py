"""Directed rounding moves away from the claim, by at least one step and at most the margin."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixeldp_fast import rounding

FINITE = st.floats(-1e300, 1e300)


@given(FINITE)
def test_down_is_strictly_below_and_within_the_margin(value):
    lowered = float(rounding.down(value))
    if value == 0:
        assert lowered == 0
    else:
        assert lowered < value
        # One step below a subnormal number is further away than any relative margin.
        assert Fraction(value) - Fraction(lowered) <= abs(Fraction(value)) * Fraction(
            1.001e-11
        ) + Fraction(2 * np.spacing(abs(value)))


@given(FINITE)
def test_up_mirrors_down(value):
    assert rounding.up(value) == -rounding.down(-value)


@pytest.mark.parametrize("value", [0.0, np.inf, -np.inf])
def test_zero_and_infinities_stay(value):
    assert rounding.down(value) == value
    assert rounding.up(value) == value


def test_a_margin_below_one_step_still_moves():
    assert rounding.down(1.0, 1e-30) < 1.0 < rounding.up(1.0, 1e-30)


def test_arrays_keep_their_shape_and_are_not_written_to():
    value = np.array([[1.0, -2.0, 0.0]])
    kept = value.copy()
    assert rounding.down(value).shape == (1, 3)
    np.testing.assert_array_equal(value, kept)
