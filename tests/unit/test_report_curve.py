"""The certified-accuracy curve is exact: at every step, just above it, and between."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.gaussian import Gaussian
from pixeldp_fast.report.curve import (
    CSV_COLUMNS,
    CSV_COLUMNS_UNLABELLED,
    certified_curve,
    curves_csv,
)
from pixeldp_fast.smooth.certificate import Certificates
from pixeldp_fast.smooth.judge import Terms
from pixeldp_fast.types import ABSTAIN, Norm

CLASSES = 3


def terms_of(**changes):
    given = {
        "mechanism": Gaussian(0.5),
        "norm": Norm.TWO,
        "bound": "tight",
        "scores": "argmax",
        "alpha": 0.001,
        "n0": 20,
        "n": 1000,
        "sensitivities": (("2", 1.0),),
        "seed": 7,
        "num_classes": CLASSES,
        "input_shape": (1, 2, 2),
        "backend": "torch",
        "arithmetic": "float32",
        "model_fingerprint": "ab" * 32,
        "version": "0",
    }
    return Terms(**{**given, **changes})


def certified(hits, labels=None, **changes):
    """Certificates of examples whose class 0 gets these estimation votes of n."""
    terms, hits = terms_of(**changes), np.asarray(hits, dtype=np.int64)
    rows = len(hits)

    def tally(draws, top):
        counts = np.zeros((rows, terms.num_classes + 1), dtype=np.int64)
        counts[:, 0], counts[:, 1] = top, draws - top
        return Tally(counts)

    truth = np.zeros(rows, dtype=np.int64) if labels is None else np.asarray(labels)
    return Certificates.judged(
        terms, np.arange(rows), tally(terms.n0, terms.n0), tally(terms.n, hits), truth
    )


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.integers(0, CLASSES - 1)), min_size=1, max_size=30)
)
def test_the_curve_equals_the_definition_everywhere(examples):
    hits, labels = zip(*examples, strict=True)
    certificates = certified(hits, labels)
    curve = certified_curve(certificates)
    asked = np.concatenate([curve.radius, np.nextafter(curve.radius, 9), curve.radius + 0.01, [50]])
    assert np.array_equal(curve.at(asked), certificates.accuracy_at(asked))
    assert np.array_equal(curve.share, certificates.accuracy_at(curve.radius))


def test_a_step_holds_at_its_radius_and_not_above():
    certificates = certified([990, 990, 999, 200])
    curve = certified_curve(certificates)
    first, second = certificates.radius[0], certificates.radius[2]
    assert curve.radius.tolist() == [0, first, second]
    assert curve.count.tolist() == [3, 3, 1]
    assert curve.at([first, np.nextafter(first, 1), second]).tolist() == [0.75, 0.25, 0.25]
    assert curve.at(np.nextafter(second, 9)) == 0


def test_abstentions_and_wrong_answers_are_never_right():
    certificates = certified([500, 999, 999], labels=[0, 1, 0])
    assert certificates.prediction[0] == ABSTAIN
    assert certified_curve(certificates).count.tolist() == [1, 1]


def test_labels_may_be_given():
    certificates = certified([999, 999], labels=[0, 0])
    assert certified_curve(certificates, labels=[0, 1]).share[0] == 0.5


def test_the_standard_error_is_binomial():
    curve = certified_curve(certified([999] * 3 + [0]))
    assert curve.standard_error[0] == pytest.approx(np.sqrt(0.75 * 0.25 / 4))


def test_csv_holds_every_step_with_all_digits():
    curve = certified_curve(certified([990, 999, 200]))
    rows = list(csv.DictReader(io.StringIO(curves_csv([("run", curve)]))))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [float(r["radius"]) for r in rows] == curve.radius.tolist()
    assert [float(r["accuracy"]) for r in rows] == curve.share.tolist()
    assert [int(r["right"]) for r in rows] == curve.count.tolist()
    assert {r["examples"] for r in rows} == {"3"}


def test_csv_of_several_runs_names_them():
    curve = certified_curve(certified([990]))
    rows = list(csv.DictReader(io.StringIO(curves_csv([('a,"b"', curve), ("c", curve)]))))
    assert [r["run"] for r in rows] == ['a,"b"', 'a,"b"', "c", "c"]


def test_nothing_to_report_is_refused():
    certificates = certified([990])
    with pytest.raises(InvalidArgument, match="no certificates"):
        certified_curve(certificates[:0])


def test_without_labels_every_certified_prediction_counts():
    certificates = replace(certified([990, 500, 999], labels=[1, 0, 0]), labels=None)
    curve = certified_curve(certificates)
    assert curve.count.tolist() == [2, 2, 1]
    assert not curve.labelled
    rows = list(csv.DictReader(io.StringIO(curves_csv([("run", curve)]))))
    assert tuple(rows[0]) == CSV_COLUMNS_UNLABELLED
    assert [float(r["certified_share"]) for r in rows] == curve.share.tolist()
