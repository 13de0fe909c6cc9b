"""Draws that stop early for a small loss: when they stop, what is claimed, and at which level."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.exact import wrong_stop
from pixeldp_fast import Certificates
from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.errors import InvalidArgument, RecordError
from pixeldp_fast.smooth.stopping import AbstractRule, LossRule, drawn
from pixeldp_fast.stats import clopper_pearson_lower, planned_looks
from pixeldp_fast.types import ABSTAIN
from tests.unit.test_certificates import terms, votes

N = 1000


def stopping(**changes):
    return terms(**{"stop": "loss", "loss": 0.05, "n": N, **changes})


def simulated(p, asked, seed=0):
    """Certificates of class 0 with known probability; the rest votes for class 1."""
    generator = np.random.default_rng(seed)

    def count(rows, _, n):
        hits = generator.binomial(n, p[rows])
        return Tally(np.stack([hits, n - hits, 0 * hits, 0 * hits], axis=1))

    selection = votes(*([[10, 0, 0, 0]] * len(p)))
    estimation = drawn(count, LossRule(asked, selection), len(p))
    return Certificates.judged(asked, np.arange(len(p)), selection, estimation)


@given(st.floats(1e-12, 0.9), st.integers(1, 10**6))
def test_the_looks_levels_never_exceed_alpha(alpha, cap):
    looks = planned_looks(alpha, cap)
    draws = [t for t, _ in looks]
    assert draws == sorted(set(draws))
    assert draws[-1] == cap
    assert draws[0] >= 1
    assert sum(Fraction(level) for _, level in looks) <= Fraction(alpha)


@pytest.mark.parametrize("p", [0.51, 0.7, 0.9, 0.99])
def test_the_worst_rule_at_these_looks_is_wrong_at_most_alpha_of_the_time(p):
    """It stops when what it claims is false; planted: all of alpha at every look."""
    looks = planned_looks(0.05, 2000)
    assert 0 < wrong_stop(p, looks) <= 0.05
    assert wrong_stop(p, [(t, 0.05) for t, _ in looks]) > 0.05


def test_examples_end_at_looks_and_their_claims_are_right():
    p = np.random.default_rng(1).uniform(0.3, 1, 400)
    found = simulated(p, stopping())
    ends = [t for t, _ in stopping().looks]
    assert set(found.draws.tolist()) <= set(ends)
    assert found.draws.min() < N
    assert (found.p_lower <= p).all()
    whole = Certificates.judged(
        replace(stopping(), stop="fixed", loss=None),
        found.index,
        found.selection,
        Tally(np.stack([np.floor(p * N), N - np.floor(p * N), 0 * p, 0 * p], 1).astype(np.int64)),
    )
    sure = (p > 0.6) & (whole.radius > 0)
    assert np.median(found.radius[sure] / whole.radius[sure]) > 0.9
    hopeless = p < 0.4
    assert (found.prediction[hopeless] == ABSTAIN).all()
    assert found.draws[hopeless].mean() < N / 2


def test_a_larger_loss_takes_fewer_draws():
    p = np.random.default_rng(1).uniform(0.5, 1, 400)
    means = [simulated(p, stopping(n=10_000, loss=x)).draws.mean() for x in (0.01, 0.05, 0.2)]
    assert means[0] > means[1] > means[2]


def test_the_level_is_that_of_the_look():
    found = simulated(np.full(200, 0.9), stopping())
    levels = dict(stopping().looks)
    for i in range(0, 200, 20):
        draws = int(found.draws[i])
        bound = clopper_pearson_lower(found.counts[i, 0], draws, levels[draws])
        assert found.p_lower[i] == bound
    assert "of it at 1000 draws" in stopping().split


def test_records_say_how_they_stopped_and_are_read_again(tmp_path):
    found = simulated(np.linspace(0.4, 1, 30), stopping())
    labelled = found.with_labels(np.zeros(30, dtype=np.int64))
    labelled.to_jsonl(tmp_path / "c.jsonl")
    read = Certificates.from_jsonl(tmp_path / "c.jsonl")
    assert (read.draws == found.draws).all()
    assert (read.radius == found.radius).all()
    assert (read.terms.stop, read.terms.loss) == ("loss", 0.05)
    labelled.to_tsv(tmp_path / "c.tsv")
    lines = (tmp_path / "c.tsv").read_text().splitlines()
    assert lines[0].split("\t")[-1] == "draws"
    assert [int(line.split("\t")[-1]) for line in lines[1:]] == found.draws.tolist()
    assert (Certificates.from_tsv(tmp_path / "c.tsv").prediction == found.prediction).all()


def test_judging_again_is_refused_at_another_level_only():
    found = simulated(np.full(5, 0.95), stopping())
    assert (found.recertify(bound="pixeldp").radius < found.radius).all()
    assert (found.recertify(norm="inf").radius < found.radius).all()
    assert (found.recertify(alpha=stopping().alpha).radius == found.radius).all()
    for use in (lambda: found.recertify(alpha=0.01), found.for_all, found.jointly):
        with pytest.raises(RecordError, match="stopped by a rule"):
            use()


@pytest.mark.parametrize("draws", [125, 500])
def test_draws_that_ended_where_the_rule_goes_on_are_refused(draws):
    estimation = votes([draws, 0, 0, 0])
    with pytest.raises(RecordError, match="goes on"):
        Certificates.judged(stopping(loss=0.01), np.zeros(1), votes([10, 0, 0, 0]), estimation)


def test_draws_that_ended_at_no_look_are_refused():
    with pytest.raises(RecordError, match="partial"):
        Certificates.judged(stopping(), np.zeros(1), votes([10, 0, 0, 0]), votes([400, 1, 0, 0]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": None}, "loss"),
        ({"loss": 1.0}, "loss"),
        ({"loss": float("nan")}, "loss"),
        ({"stop": "fixed"}, "stop='loss'"),
        ({"stop": "early"}, "fixed, loss"),
        ({"scores": "softmax"}, "votes"),
    ],
)
def test_terms_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(InvalidArgument, match=message):
        stopping(**changes).check()


def test_rounds_draw_for_those_who_go_on_and_no_draw_twice():
    class Rule(AbstractRule):
        ends = (3, 5, 9)

        def look(self, rows, estimation):
            return rows >= estimation.draws // 2

    asked = []

    def count(rows, first, n):
        asked.append((rows.tolist(), first, n))
        return Tally(np.full((len(rows), 1), n, dtype=np.int64))

    total = drawn(count, Rule(), 4)
    assert asked == [([0, 1, 2, 3], 0, 3), ([1, 2, 3], 3, 2), ([2, 3], 5, 4)]
    assert total.draws.tolist() == [3, 5, 9, 9]
