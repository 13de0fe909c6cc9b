"""Summaries, the limits of n draws, default radii, and numbers in words."""

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import norm

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.laplace import Laplace
from pixeldp_fast.report import words
from pixeldp_fast.report.curve import Curve
from pixeldp_fast.report.files import compare
from pixeldp_fast.report.limits import largest_radius, smallest_n
from pixeldp_fast.report.summary import Named, default_radii, summarise
from pixeldp_fast.report.table import comparison_table, run_table
from pixeldp_fast.types import Norm
from tests.unit.test_report_curve import certified, terms_of


def rendered(renderable, width=100):
    console = Console(width=width, highlight=False, file=io.StringIO())
    console.print(renderable)
    return console.file.getvalue().replace("\N{NO-BREAK SPACE}", " ")


def test_the_largest_radius_is_that_of_unanimous_draws():
    terms = terms_of()
    expected = 0.5 * norm.ppf(0.001 ** (1 / 1000))
    assert largest_radius(terms) == pytest.approx(expected, rel=1e-8)
    assert largest_radius(terms) == certified([1000]).radius[0]
    assert largest_radius(terms_of(n=9)) == 0


@pytest.mark.parametrize(("alpha", "least"), [(0.001, 10), (0.05, 5), (0.5, 2)])
def test_the_smallest_n_for_votes(alpha, least):
    assert smallest_n(terms_of(alpha=alpha)) == least


@pytest.mark.parametrize("changes", [{"scores": "softmax"}, {"bound": "pixeldp-classical"}])
def test_the_smallest_n_is_where_certificates_begin(changes):
    terms = terms_of(**changes)
    least = smallest_n(terms)
    assert largest_radius(terms_of(**changes, n=least)) > 0
    assert largest_radius(terms_of(**changes, n=least - 1)) == 0


@given(st.floats(1e-6, 1e6))
def test_default_radii_cover_any_curve_with_five_to_seven(top):
    radii = default_radii([Curve(np.array([0, top]), np.array([1, 1]), 1)])
    assert 5 <= len(radii) <= 7
    assert radii[-1] <= top * (1 + 1e-5)
    assert radii[-1] > 0.8 * top
    assert np.allclose(np.diff([0, *radii]), radii[0], rtol=1e-4)


def test_default_radii_are_round():
    assert default_radii([Curve(np.array([0, 1.31]), np.array([1, 1]), 1)]) == [
        0.25,
        0.5,
        0.75,
        1.0,
        1.25,
    ]
    nothing_right = Curve(np.array([0.0]), np.array([0]), 4)
    assert default_radii([nothing_right])[0] == 0.25


def test_a_summary_says_what_the_certificates_say():
    certificates = certified([999, 990, 500, 999], labels=[0, 0, 0, 1])
    summary = summarise(Named("a", certificates), [0.1, 0.9])
    assert summary.radii.tolist() == [0, 0.1, 0.9]
    assert summary.certified_accuracy.tolist() == certificates.accuracy_at([0, 0.1, 0.9]).tolist()
    assert (summary.accuracy, summary.abstained) == (0.5, 1)
    assert summary.average_radius == certificates.average_radius()
    record = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert record["certified_accuracy"][1]["accuracy"] == 0.5
    assert record["terms"]["seed"] == 7


def test_a_summary_without_labels_counts_what_is_certified():
    certificates = replace(certified([999, 990, 500, 999], labels=[0, 0, 0, 1]), labels=None)
    summary = summarise(Named("a", certificates), [0.1, 9])
    assert summary.shares.tolist() == [0.75, 0.75, 0]
    assert summary.abstained == 1
    radius = certificates.radius
    assert radius[2] == 0
    assert summary.average_radius == np.mean(radius)
    text = rendered(run_table(summary))
    assert "predictions certified" in text
    assert "accuracy" not in text


def test_the_table_has_the_numbers_and_the_guarantee():
    summary = summarise(Named("net on data", certified([999, 990, 500, 200])))
    text = rendered(run_table(summary), width=300)
    for part in (
        "net on data",
        "Gaussian(sigma=0.5), n0 = 20, n = 1 000, alpha = 0.001, 4 examples",
        "radius (2-norm, input units)",
        "50.0 ± 25.0 %",
        "2 of 4",
        "largest radius possible",
        "With probability at least 99.9 % over the draws (alpha = 0.001: alpha on p_lower",
        "for each example apart, in real arithmetic",
        "all 4 claims hold at once when each is judged at alpha/4 (Bonferroni)",
    ):
        assert part in text


def test_the_table_fits_a_terminal():
    text = rendered(run_table(summarise(Named("net", certified([999, 990])))), width=80)
    assert "radius (2-norm, input units)   certified accuracy" in text
    assert max(map(len, text.splitlines())) <= 80


def test_runs_are_compared_at_the_same_radii():
    one_norm = {"mechanism": Laplace(1.0), "norm": Norm.ONE, "sensitivities": (("1", 1.0),)}
    summaries = compare(
        [
            Named("low", certified([999, 200])),
            Named("high", certified([1999, 1999], n=2000)),
            Named("of one norm", certified([999], **one_norm)),
        ]
    )
    assert all(np.array_equal(s.radii, summaries[0].radii) for s in summaries)
    text = rendered(comparison_table(summaries))
    assert "low" in text
    assert "100.0 ± 0.0 %" in text
    assert "radius (input units)" in text
    with pytest.raises(InvalidArgument):
        compare([])


def test_numbers_as_people_read_them():
    assert words.grouped(1234567).replace("\N{NO-BREAK SPACE}", " ") == "1 234 567"
    assert words.confidence(0.001).startswith("99.9")
    assert words.confidence(1e-5).startswith("99.999\N{NO-BREAK SPACE}")
    assert words.size(0.123456) == "0.1234"
    assert words.size(1.99999) == "1.9999"
    assert words.size(0.0000123456) == "0.0000123"
    assert words.size(math.inf) == "inf"


@given(st.floats(0, 1e3))
def test_printed_radii_are_never_larger(radius):
    assert float(words.size(radius)) <= radius
    assert radius == 0 or float(words.size(radius)) > 0
