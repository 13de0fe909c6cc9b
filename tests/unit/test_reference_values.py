"""Every entry of the reference values: on the safe side, and within 1e-9 of the exact number.

The stored values are the nearest doubles, so one float64 step beyond them is not yet a fault.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from pixeldp_fast import bounds
from pixeldp_fast.bounds.tight import bisected_shift
from pixeldp_fast.noise import Gaussian, Laplace, Uniform
from pixeldp_fast.stats import (
    clopper_pearson_lower,
    clopper_pearson_upper,
    confidence_sequence,
    empirical_bernstein_lower,
    empirical_bernstein_upper,
    hoeffding_lower,
    hoeffding_upper,
)
from tests.reference_values.exact import check_above, check_below

FOLDER = Path(__file__).parents[1] / "reference_values"
VALUES = json.loads((FOLDER / "theory.json").read_text())
ORIGINAL = json.loads((FOLDER / "original_certificate.json").read_text())
UNIT = {"gaussian": Gaussian(1.0), "laplace": Laplace(1.0), "uniform": Uniform(1.0)}


def entries(key):
    return pytest.mark.parametrize("entry", VALUES[key], ids=range(len(VALUES[key])))


def test_no_group_of_values_is_left_untested():
    assert set(VALUES) == {
        "_provenance",
        "clopper_pearson_one_sided",
        "kt_confidence_sequence_two_sided",
        "privacy_profile",
        "tradeoff",
        "radius",
        "regression",
        "conv_operator_norms_dense",
    }


@entries("clopper_pearson_one_sided")
def test_clopper_pearson(entry):
    arguments = entry["successes"], entry["trials"], entry["alpha"]
    check_below(clopper_pearson_lower(*arguments), entry["lower"], steps=1)
    check_above(clopper_pearson_upper(*arguments), entry["upper"], steps=1)


@entries("kt_confidence_sequence_two_sided")
def test_confidence_sequence(entry):
    lower, upper = confidence_sequence(entry["successes"], entry["trials"], entry["alpha"])
    check_below(lower, entry["lower"], steps=1)
    check_above(upper, entry["upper"], steps=1)


@entries("privacy_profile")
def test_privacy_profile(entry):
    mechanism = UNIT[entry["mechanism"]]
    delta = mechanism.privacy_profile(entry["epsilon"], entry["shift_over_scale"])
    check_above(delta, entry["delta"], steps=1)


@entries("tradeoff")
def test_tradeoff(entry):
    mechanism = UNIT[entry["mechanism"]]
    beta = mechanism.tradeoff(entry["alpha"], entry["shift_over_scale"])
    check_below(beta, entry["beta"], steps=1)


RADII = {
    "gaussian_tight": ("gaussian", "tight"),
    "laplace_tight": ("laplace", "tight"),
    "uniform_tight": ("uniform", "tight"),
    "gaussian_pixeldp_exact": ("gaussian", "pixeldp"),
    "laplace_pixeldp_exact": ("laplace", "pixeldp"),
    "gaussian_pixeldp_classical": ("gaussian", "pixeldp-classical"),
    "laplace_pixeldp_classical": ("laplace", "pixeldp-classical"),
}


@entries("radius")
def test_every_radius_of_an_entry_is_tested(entry):
    assert set(entry) == {"lower", "upper", "units", *RADII}


@entries("radius")
@pytest.mark.parametrize("key", RADII)
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_radius(entry, key, scale):
    law, bound = RADII[key]
    mechanism = type(UNIT[law])(scale)
    radius = bounds.radius_function(bound)(mechanism, entry["lower"], entry["upper"], 2.0)
    check_below(radius, entry[key] * scale / 2, steps=2)


CLAIMS = [entry for entry in VALUES["radius"] if entry["lower"] > entry["upper"]]


@pytest.mark.parametrize("entry", CLAIMS, ids=range(len(CLAIMS)))
@pytest.mark.parametrize("law", UNIT)
def test_bisected_radius(entry, law):
    shift = bisected_shift(UNIT[law], np.array([entry["lower"]]), np.array([entry["upper"]]))
    check_below(shift[0], entry[f"{law}_tight"], steps=2)


@entries("regression")
@pytest.mark.parametrize("key", ["lemma2", "tight", "tight_parts"])
def test_regression(entry, key):
    mechanism, shift = UNIT[entry["mechanism"]], entry["shift_over_scale"]
    low, high = entry["a"], entry["b"]
    parts = entry["mean_positive_part"], entry["mean_negative_part"]
    if key == "lemma2":
        found = bounds.lemma2_interval(mechanism, *parts, low, high, shift, entry["epsilon"])
    elif key == "tight":
        found = bounds.tight_mean_interval(mechanism, parts[0] - parts[1], low, high, shift)
    else:
        found = bounds.tight_parts_interval(mechanism, *parts, low, high, shift)
    check_below(found[0], max(entry[f"{key}_lower"], low), steps=1)
    check_above(found[1], min(entry[f"{key}_upper"], high), steps=1)


@entries("regression")
def test_delta_of_a_regression_entry(entry):
    delta = UNIT[entry["mechanism"]].privacy_profile(entry["epsilon"], entry["shift_over_scale"])
    check_above(delta, entry["delta"], steps=1)


def original_mechanism(law):
    epsilon, delta = ORIGINAL["epsilon"], ORIGINAL["delta"]
    if law == "laplace":
        return Laplace(1 / epsilon)
    return Gaussian(math.sqrt(2 * math.log(1.25 / delta)) / epsilon)


def check_original(radius, published):
    """Not below the published four decimals, and above them by at most what its grid loses."""
    assert published - 1e-4 <= float(radius) <= 1.02 * published


@pytest.mark.parametrize("law", ["gaussian", "laplace"])
@pytest.mark.parametrize("case", ORIGINAL["votes"], ids=range(len(ORIGINAL["votes"])))
def test_original_certificate_from_votes(case, law):
    n = case["draws"]
    top = n * case["top_percent"] // 100
    level = ORIGINAL["alpha"] / ORIGINAL["classes"]
    p_lower = clopper_pearson_lower(top, n, level)
    p_upper = clopper_pearson_upper(n - top, n, level)
    radius = bounds.pixeldp_radius(original_mechanism(law), p_lower, p_upper, profile="classical")
    check_original(radius, case[law])


@pytest.mark.parametrize("law", ["gaussian", "laplace"])
@pytest.mark.parametrize("case", ORIGINAL["probabilities"], ids=lambda c: str(c["p_lower"]))
def test_original_certificate_from_probabilities(case, law):
    arguments = original_mechanism(law), case["p_lower"], case["p_upper"]
    check_original(bounds.pixeldp_radius(*arguments, profile="classical"), case[law])


def original_scores(top, runner_up, deviation, n, classes):
    """The original's bounds on mean scores: Bernstein from 561 draws on, else Hoeffding."""
    level = ORIGINAL["alpha"] / classes
    if n >= 561:
        variance = deviation**2
        return (
            empirical_bernstein_lower(top, variance, n, level),
            empirical_bernstein_upper(runner_up, variance, n, level),
        )
    return hoeffding_lower(top, n, level), hoeffding_upper(runner_up, n, level)


@pytest.mark.parametrize("law", ["gaussian", "laplace"])
@pytest.mark.parametrize("case", ORIGINAL["softmax"], ids=range(len(ORIGINAL["softmax"])))
def test_original_certificate_from_softmax(case, law):
    p_lower, p_upper = original_scores(
        *case["means"], case["deviation"], case["draws"], ORIGINAL["classes"]
    )
    radius = bounds.pixeldp_radius(original_mechanism(law), p_lower, p_upper, profile="classical")
    check_original(radius, case[law])


@pytest.mark.parametrize("case", ORIGINAL["largest"], ids=lambda c: str(c["draws"]))
def test_largest_radius_of_the_original(case):
    p_lower, p_upper = original_scores(1.0, 0.0, 0.0, case["draws"], case["classes"])
    mechanism = original_mechanism("gaussian")
    radius = bounds.pixeldp_radius(mechanism, p_lower, p_upper, profile="classical")
    check_original(radius, case["gaussian"])


@pytest.mark.parametrize("wrong", [1 + 1e-12, 1 - 2e-9])
def test_the_check_catches_a_bound_rounded_the_wrong_way_or_too_loose(wrong):
    for entry in VALUES["clopper_pearson_one_sided"]:
        if 0 < entry["lower"] < 1:
            with pytest.raises(AssertionError):
                check_below(entry["lower"] * wrong, entry["lower"], steps=1)
            with pytest.raises(AssertionError):
                check_above(entry["upper"] * (2 - wrong), entry["upper"], steps=1)
