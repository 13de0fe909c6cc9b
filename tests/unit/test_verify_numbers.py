"""The second implementation against reference values, against mpmath, and against the first."""

import json
import sys
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixeldp_fast.errors import MissingExtra
from pixeldp_fast.stats import clopper_pearson_lower, confidence_sequence
from pixeldp_fast.verify import arithmetic
from pixeldp_fast.verify.arithmetic import mp, normal_cdf, normal_quantile
from pixeldp_fast.verify.intervals import (
    binomial_tail,
    is_anytime_lower_bound,
    is_anytime_upper_bound,
    is_lower_bound,
    is_upper_bound,
)
from pixeldp_fast.verify.laws import LAWS
from pixeldp_fast.verify.means import GRID, MEANS, Sums, is_below
from pixeldp_fast.verify.radii import BOUNDS
from tests.reference_values import exact

REFERENCE = json.loads((Path(__file__).parents[1] / "reference_values" / "theory.json").read_text())
NEAR = 1e-13  # relative: the reference values are the nearest doubles


def brackets(below, value, relative=NEAR):
    """Whether a predicate turns from true to false at `value`."""
    return below(value * (1 - relative)) and not below(value * (1 + relative))


@pytest.mark.parametrize("p", ["1e-400", "1e-30", "0.001", "0.3", "0.5", "0.9", "0.999999"])
def test_the_quantile_inverts_the_distribution(p):
    wanted = mp().mpf(p)
    assert abs(normal_cdf(normal_quantile(wanted)) / wanted - 1) < mp().mpf(10) ** -35


def test_the_programs_own_precision_is_left_alone():
    before = mpmath.mp.dps
    normal_quantile(mp().mpf("0.1"))
    assert (mpmath.mp.dps, mp().dps) == (before, arithmetic.DIGITS)


@given(st.integers(1, 300), st.data())
def test_the_binomial_sum_is_the_incomplete_beta_function(n, data):
    k = data.draw(st.integers(1, n))
    p = data.draw(st.floats(1e-6, 1 - 1e-6))
    with mpmath.workdps(40):
        wanted = mpmath.betainc(k, n - k + 1, 0, mpmath.mpf(p), regularized=True)
        assert abs(binomial_tail(k, n, p) - wanted) <= wanted * mpmath.mpf(10) ** -25


def test_the_binomial_sum_at_its_ends():
    assert binomial_tail(0, 5, 0.3) == 1
    assert binomial_tail(3, 5, 1.0) == 1
    assert binomial_tail(3, 5, 0.0) == 0
    assert abs(binomial_tail(5, 5, 0.5) - mp().mpf(1) / 32) < 1e-35


@pytest.mark.parametrize("entry", REFERENCE["clopper_pearson_one_sided"], ids=repr)
def test_reference_values_of_clopper_pearson(entry):
    k, n, alpha = entry["successes"], entry["trials"], entry["alpha"]
    lower, upper = entry["lower"], entry["upper"]
    if k > 0:
        assert brackets(lambda p: is_lower_bound(p, k, n, alpha), lower)
    if k < n:
        assert brackets(lambda p: is_lower_bound(p, n - k, n, alpha), 1 - Fraction(upper), 1e-9)


@pytest.mark.parametrize("entry", REFERENCE["kt_confidence_sequence_two_sided"], ids=repr)
def test_reference_values_of_the_anytime_interval(entry):
    h, t, alpha = entry["successes"], entry["trials"], entry["alpha"]
    if h > 0:
        assert brackets(lambda p: is_anytime_lower_bound(p, h, t, alpha), entry["lower"])
    if h < t:
        assert is_anytime_upper_bound(entry["upper"] * (1 + NEAR), h, t, alpha)
        assert not is_anytime_upper_bound(entry["upper"] * (1 - NEAR), h, t, alpha)


@pytest.mark.parametrize("law", LAWS)
@given(st.floats(0.001, 3), st.floats(0.01, 0.99), st.floats(0, 3))
def test_the_laws_are_the_definitions_of_the_tests(law, r, alpha, epsilon):
    made, shift = LAWS[law](1.0), mp().mpf(r)
    with mpmath.workdps(40):
        wanted = exact.TRADEOFFS[law](mpmath.mpf(alpha), mpmath.mpf(r))
        assert abs(made.tradeoff(mp().mpf(alpha), shift) - wanted) < 1e-30
        wanted = exact.PROFILES[law](mpmath.mpf(epsilon), mpmath.mpf(r))
        assert abs(made.profile(mp().mpf(epsilon), shift) - wanted) < 1e-30


RADII = {"tight": "tight", "pixeldp_exact": "pixeldp", "pixeldp_classical": "pixeldp-classical"}
RADIUS_ENTRIES = [
    (law, bound, entry["lower"], entry["upper"], entry[f"{law.lower()}_{stored}"])
    for entry in REFERENCE["radius"]
    for stored, bound in RADII.items()
    for law in LAWS
    if entry.get(f"{law.lower()}_{stored}")
]


@pytest.mark.parametrize(("law", "bound", "lower", "upper", "radius"), RADIUS_ENTRIES)
def test_reference_values_of_radii(law, bound, lower, upper, radius):
    made = LAWS[law](1.0)
    assert brackets(lambda r: BOUNDS[bound](made, lower, upper, mp().mpf(r), 0), radius, 1e-9)


@given(st.integers(1, 2000), st.floats(0, 1), st.floats(1e-9, 0.4))
@settings(max_examples=40)
def test_the_first_implementation_is_on_the_safe_side(n, share, alpha):
    k = round(share * n)
    lower = float(clopper_pearson_lower(k, n, alpha))
    assert is_lower_bound(lower, k, n, alpha)
    assert not is_lower_bound(lower * (1 + 1e-9) + 2**-52, k, n, alpha)
    low, high = (float(end) for end in confidence_sequence(k, n, alpha))
    assert is_anytime_lower_bound(low, k, n, alpha)
    assert is_anytime_upper_bound(high, k, n, alpha)
    assert is_upper_bound(1.0, k, n, alpha)


@pytest.mark.parametrize("name", MEANS)
@given(st.integers(1, 500), st.integers(0, 2**32))
@settings(max_examples=20)
def test_bounds_of_means_are_below_the_mean_and_monotone(name, n, seed):
    scores = np.random.default_rng(seed).integers(0, GRID + 1, n).astype(object)
    sums = Sums(n, int(scores.sum()), int((scores**2).sum()), Fraction(1, 12))
    holds = [is_below(name, p, sums, Fraction(1, 1000)) for p in np.linspace(0, 1, 41)]
    assert holds == sorted(holds, reverse=True)
    assert holds[0]
    assert not is_below(name, float(sums.mean) * 1.0001 + 1e-6, sums, Fraction(1, 1000))
    if n > 100:
        assert any(holds[1:])


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpmath", None)
    mp.cache_clear()
    try:
        with pytest.raises(MissingExtra, match=r"pixeldp_fast\[verify\]"):
            mp()
    finally:
        monkeypatch.undo()
        mp.cache_clear()
