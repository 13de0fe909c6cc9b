"""What a table's distance from the ideal law (tau) and rounding (slack) take off a radius."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf

from pixeldp_fast import Gaussian
from pixeldp_fast.bounds import pixeldp_radius, radius_function, tight_radius
from pixeldp_fast.errors import InvalidArgument
from tests.cases import BOUND_CASES, BOUND_IDS, MECHANISM_IDS, MECHANISMS
from tests.reference_values.exact import PROFILES, TRADEOFFS

each_case = pytest.mark.parametrize(("bound", "mechanism"), BOUND_CASES, ids=BOUND_IDS)
each_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS, ids=MECHANISM_IDS)
PAIRS = [(0.999, 0.001), (0.9, 0.1), (0.6, 0.3), (0.4, 0.3), (0.51, 0.49)]
TAUS = [6.4e-14, 1e-6, 1e-3]


def tight_holds(mechanism, p_lower, p_upper, tau, mu):
    """T(1 - p_lower + tau) - tau > 1 - T(p_upper + tau) + tau, by mpmath."""
    tradeoff, r = TRADEOFFS[type(mechanism).__name__], mpf(mu) / mpf(mechanism.noise_scale)
    low = tradeoff(min(1 - mpf(p_lower) + mpf(tau), mpf(1)), r) - mpf(tau)
    high = 1 - tradeoff(min(mpf(p_upper) + mpf(tau), mpf(1)), r) + mpf(tau)
    return low > high


def pixeldp_holds(mechanism, p_lower, p_upper, tau, mu, points=400):
    """Whether some epsilon satisfies the inequality with tau: a grid, and Laplace's kink at r."""
    profile, r = PROFILES[type(mechanism).__name__], mpf(mu) / mpf(mechanism.noise_scale)
    lower, upper, t = mpf(p_lower), mpf(p_upper), mpf(tau)
    top = mpmath.log((lower - t) / (upper + t)) / 2
    for epsilon in (min(r, top), *(top * i / points for i in range(points + 1))):
        g, delta = mpmath.exp(epsilon), profile(epsilon, r)
        if (lower - t - delta) - g * t > g * g * (upper + t) + g * delta + g * t:
            return True
    return False


@each_mechanism
@pytest.mark.parametrize("tau", TAUS)
def test_the_tight_radius_is_where_the_inequality_ends(mechanism, tau):
    with mpmath.workdps(40):
        for p_lower, p_upper in PAIRS:
            radius = float(tight_radius(mechanism, p_lower, p_upper, tau=tau))
            assert radius > 0
            assert tight_holds(mechanism, p_lower, p_upper, tau, radius)
            assert not tight_holds(mechanism, p_lower, p_upper, tau, radius * (1 + 1e-8))


@each_mechanism
@pytest.mark.parametrize("tau", [1e-6, 1e-3])
def test_without_tau_the_inequality_is_broken(mechanism, tau):
    """A planted fault: a radius that ignores tau."""
    with mpmath.workdps(40):
        for p_lower, p_upper in PAIRS:
            radius = float(tight_radius(mechanism, p_lower, p_upper))
            assert not tight_holds(mechanism, p_lower, p_upper, tau, radius)


@each_mechanism
@pytest.mark.parametrize("tau", [1e-6, 1e-3])
def test_the_exact_pixeldp_radius_is_where_the_inequality_ends(mechanism, tau):
    with mpmath.workdps(25):
        for p_lower, p_upper in PAIRS[:3]:
            radius = float(pixeldp_radius(mechanism, p_lower, p_upper, tau=tau))
            assert radius > 0
            assert pixeldp_holds(mechanism, p_lower, p_upper, tau, radius * (1 - 1e-5))
            assert not pixeldp_holds(mechanism, p_lower, p_upper, tau, radius * (1 + 1e-9))
            plain = float(pixeldp_radius(mechanism, p_lower, p_upper))
            assert not pixeldp_holds(mechanism, p_lower, p_upper, tau, plain)


def test_the_classical_laplace_radius_has_a_closed_form():
    """At delta = 0: the largest epsilon with p_lower - tau - 2 g tau > g^2 (p_upper + tau)."""
    mechanism = MECHANISMS[1]
    with mpmath.workdps(40):
        for tau in TAUS:
            for p_lower, p_upper in PAIRS:
                radius = float(pixeldp_radius(
                    mechanism, p_lower, p_upper, profile="classical", tau=tau
                ))  # fmt: skip
                lower, upper, t = mpf(p_lower) - mpf(tau), mpf(p_upper) + mpf(tau), mpf(tau)
                g = lower / (t + mpmath.sqrt(t * t + lower * upper))
                exact = mpf(mechanism.noise_scale) * mpmath.log(g)
                assert exact * (1 - mpf(1e-9)) <= radius <= exact


@each_case
def test_nothing_taken_off_changes_no_bit(bound, mechanism):
    p = np.linspace(0.5, 1.0, 26)
    radius = radius_function(bound)
    plain = radius(mechanism, p, 1 - p, 0.7)
    assert np.array_equal(radius(mechanism, p, 1 - p, 0.7, tau=0.0, slack=0.0), plain)
    mixed = radius(mechanism, [0.9, 0.9], 0.1, tau=[0.0, 1e-3])
    assert mixed[0] == radius(mechanism, 0.9, 0.1)
    assert mixed[1] < mixed[0]


@each_case
@given(
    p=st.floats(0.5, 1.0),
    share=st.floats(0.0, 1.0),
    tau=st.sampled_from([0.0, 1e-13, 1e-6, 1e-3, 0.1]),
    slack=st.sampled_from([0.0, 1e-6, 0.05]),
)
def test_more_taken_off_never_gains(bound, mechanism, p, share, tau, slack):
    radius = radius_function(bound)
    upper = (1 - p) * share
    plain = radius(mechanism, p, upper)
    less = radius(mechanism, p, upper, tau=tau, slack=slack)
    still_less = radius(mechanism, p, upper, tau=2 * tau, slack=2 * slack)
    assert 0 <= still_less <= less * (1 + 1e-9)
    assert less <= plain
    if p - upper <= 4 * tau:
        assert less == 0


@each_mechanism
@given(
    p=st.floats(0.5, 1 - 1e-6),
    share=st.floats(1e-3, 1.0),
    tau=st.sampled_from([1e-13, 1e-6, 1e-2]),
)
def test_dominance_holds_with_tau(mechanism, p, share, tau):
    upper = (1 - p) * share
    tight = float(tight_radius(mechanism, p, upper, tau=tau))
    exact = float(pixeldp_radius(mechanism, p, upper, tau=tau))
    assert exact <= tight * (1 + 1e-7) + 1e-10  # curves are rounded by 1e-11
    if type(mechanism).__name__ != "Uniform":
        classical = float(pixeldp_radius(mechanism, p, upper, profile="classical", tau=tau))
        assert classical <= exact * (1 + 1e-9)


@each_case
def test_slack_comes_off_the_shift_before_the_sensitivity(bound, mechanism):
    radius = radius_function(bound)
    shift = float(radius(mechanism, 0.95, 0.05))
    for sensitivity, slack in ((1.0, 0.01), (2.5, 0.03)):
        less = float(radius(mechanism, 0.95, 0.05, sensitivity, slack=slack))
        assert less <= (shift - slack) / sensitivity
        assert less == pytest.approx((shift - slack) / sensitivity, rel=1e-9)
    assert float(radius(mechanism, 0.95, 0.05, slack=1.01 * shift)) == 0.0
    assert float(radius(mechanism, 0.95, 0.05, slack=shift)) == 0.0


def test_only_without_tau_is_a_radius_infinite():
    for bound in (tight_radius, pixeldp_radius):
        assert bound(Gaussian(0.5), 1.0, 0.0) == np.inf
        assert bound(Gaussian(0.5), 1.0, 0.0, slack=3.0) == np.inf
        assert 0 < bound(Gaussian(0.5), 1.0, 0.0, tau=1e-13) < 10 * 0.5


@each_case
@pytest.mark.parametrize(
    ("name", "value"),
    [("tau", -1e-9), ("tau", 1.5), ("tau", np.nan), ("slack", -1.0), ("slack", np.inf)],
)
def test_bad_discounts_are_refused(bound, mechanism, name, value):
    with pytest.raises(InvalidArgument, match=name):
        radius_function(bound)(mechanism, 0.9, 0.1, **{name: value})
