"""Batches of certificates: how they are judged, put together, cut, summarised and judged again."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri
from scipy.stats import beta

from pixeldp_fast import ABSTAIN, Certificates, Gaussian, Laplace
from pixeldp_fast.backends.tally import GRID, Tally
from pixeldp_fast.errors import InvalidArgument, RecordError
from pixeldp_fast.smooth.certificate import concatenate
from pixeldp_fast.smooth.judge import Terms, judge
from pixeldp_fast.types import Norm

N0, N, ALPHA = 10, 1000, 0.001


def terms(**changes):
    base = Terms(
        mechanism=Gaussian(0.5),
        norm=Norm.TWO,
        bound="tight",
        scores="argmax",
        alpha=ALPHA,
        n0=N0,
        n=N,
        sensitivities=(("1", 1.0), ("2", 1.0), ("inf", 2.0)),
        seed=3,
        num_classes=3,
        input_shape=(1, 2, 2),
        backend="torch",
        arithmetic="none",
        model_fingerprint="f" * 64,
        version="0",
    )
    return replace(base, **changes)


def votes(*rows):
    return Tally(np.array(rows, dtype=np.int64))


def five(**changes):
    """Sure, likely, undecided, wrongly selected, and mostly non-finite examples."""
    selection = votes([10, 0, 0, 0], [1, 9, 0, 0], [4, 5, 1, 0], [0, 0, 10, 0], [1, 0, 0, 9])
    estimation = votes(
        [1000, 0, 0, 0], [80, 900, 20, 0], [480, 510, 10, 0], [900, 50, 50, 0], [300, 0, 0, 700]
    )
    index = np.array([3, 1, 4, 0, 5])
    labels = np.array([0, 1, 1, 0, 0], dtype=np.int64)
    return Certificates.judged(terms(**changes), index, selection, estimation, labels)


def same(a, b):
    """Equal in every field, bit by bit; times apart."""
    fields = ("index", "prediction", "radius", "p_lower", "p_upper", "labels")
    equal = all(np.array_equal(getattr(a, f), getattr(b, f)) for f in fields)
    return (
        equal and a.terms == b.terms and (a.selection, a.estimation) == (b.selection, b.estimation)
    )


def test_votes_are_judged_by_clopper_pearson_and_the_closed_form():
    found = five()
    lower = [beta.ppf(ALPHA, k, N - k + 1) for k in (1000, 900, 510, 50, 300)]
    assert found.p_lower == pytest.approx(lower, rel=1e-9)
    assert (found.p_lower <= lower).all()
    assert (found.p_lower + found.p_upper >= 1).all()
    assert found.prediction.tolist() == [0, 1, ABSTAIN, ABSTAIN, ABSTAIN]
    assert found.radius[:2] == pytest.approx(0.5 * ndtri(lower[:2]), rel=1e-9)
    assert (found.radius[:2] <= 0.5 * ndtri(lower[:2])).all()
    assert found.radius[2:].tolist() == [0, 0, 0]
    assert found.counts.shape == (5, 4)
    assert found.n == N


def soft_tally(scores):
    """What the engine sums for scores [B, n, K]; nothing is non-finite."""
    steps = np.floor(scores * GRID).astype(np.int64)
    winners = scores.argmax(axis=2)
    counts = np.stack([(winners == k).sum(axis=1) for k in range(scores.shape[2])], axis=1)
    counts = np.concatenate([counts, np.zeros((len(scores), 1), np.int64)], axis=1)
    return Tally(counts.astype(np.int64), steps.sum(axis=1), (steps**2).sum(axis=1))


def test_softmax_is_judged_by_the_better_of_hoeffding_and_bernstein():
    generator = np.random.default_rng(0)
    calm = generator.dirichlet([900, 50, 50], (1, N))  # little variance: Bernstein is better
    wild = generator.dirichlet([0.3, 0.1, 0.05], (1, N))  # much variance: Hoeffding is better
    scores = np.concatenate([calm, wild])
    asked = terms(scores="softmax")
    selection = soft_tally(np.concatenate([calm, calm])[:, :N0])
    verdict = judge(asked, selection, soft_tally(scores))
    half = ALPHA / 2
    floored = np.floor(scores[:, :, 0] * GRID) / GRID
    mean, variance = floored.mean(axis=1), floored.var(axis=1, ddof=1)
    hoeffding = mean - math.sqrt(math.log(1 / half) / (2 * N))
    log = math.log(2 / half)
    bernstein = mean - np.sqrt(2 * variance * log / N) - 7 * log / (3 * (N - 1))
    assert bernstein[0] > hoeffding[0]
    assert bernstein[1] < hoeffding[1]
    lower = np.array([bernstein[0], hoeffding[1]])
    assert verdict.p_lower == pytest.approx(lower, rel=1e-8)
    assert (verdict.p_lower <= lower).all()
    assert verdict.prediction.tolist() == [0, 0]
    assert verdict.radius == pytest.approx(0.5 * ndtri(lower), rel=1e-7)


@pytest.mark.parametrize("which", ["selection", "estimation"])
def test_scores_that_no_draws_give_are_refused(which):
    scores = np.random.default_rng(0).dirichlet([9, 2, 1], (2, N))
    tallies = {"selection": soft_tally(scores[:, :N0]), "estimation": soft_tally(scores)}
    good = tallies[which]
    assert len(judge(terms(scores="softmax"), **tallies).prediction) == 2
    lost = np.zeros_like(good.counts)
    lost[:, -1] = good.draws
    wrong = {
        "more than 1 in all": Tally(good.counts, good.sums + 2 * GRID, good.squares),
        "of non-finite draws": Tally(lost, good.sums, good.squares),
        "squares above sums": Tally(good.counts, good.sums, good.sums * GRID + 1),
        "squares below 0": Tally(good.counts, good.sums, good.squares * -1),
        "sums below 0": Tally(good.counts, good.sums * -1, good.squares),
        "without squares": Tally(good.counts, good.sums),
    }
    for fault, tally in wrong.items():
        with pytest.raises(RecordError, match=f"{which} tally holds sums of scores that no draws"):
            pytest.fail(f"{fault}: {judge(terms(scores='softmax'), **(tallies | {which: tally}))}")


def test_the_class_comes_from_the_selection_draws_alone():
    # Votes and sums of the selection disagree; the estimation draws would say class 2.
    selection = Tally(
        np.array([[6, 4, 0, 0]], dtype=np.int64),
        np.array([[4 * GRID, 6 * GRID, 0]], dtype=np.int64),
        np.array([[4 * GRID**2, 6 * GRID**2, 0]], dtype=np.int64),
    )
    counts = np.array([[0, 0, 1000, 0]], dtype=np.int64)
    sums = np.array([[0, 0, 1000]], dtype=np.int64) * GRID
    estimation = Tally(counts, sums, sums * GRID)
    assert judge(terms(), selection, estimation).prediction.tolist() == [ABSTAIN]
    soft = terms(scores="softmax")
    assert judge(soft, selection, estimation).prediction.tolist() == [ABSTAIN]
    for_first = Tally(np.array([[1000, 0, 0, 0]], dtype=np.int64), sums[:, ::-1], sums[:, ::-1])
    assert judge(terms(), selection, for_first).prediction.tolist() == [0]


def test_ties_go_to_the_lowest_class_and_non_finite_is_no_class():
    estimation = votes([0, 1000, 0, 0], [0, 0, 0, 1000])
    found = judge(terms(), votes([0, 5, 5, 0], [0, 0, 0, 10]), estimation)
    assert found.prediction.tolist() == [1, ABSTAIN]


@given(st.integers(0, N), st.integers(1, 12))
def test_half_or_less_never_makes_a_claim(hits, tenths):
    found = judge(terms(alpha=10.0**-tenths), votes([N0, 0, 0, 0]), votes([hits, N - hits, 0, 0]))
    claimed = found.prediction[0] != ABSTAIN
    assert claimed == (found.p_lower[0] > found.p_upper[0])
    assert claimed == (found.radius[0] > 0)
    assert not (claimed and 2 * hits <= N)


@pytest.mark.parametrize("which", ["selection", "estimation"])
@pytest.mark.parametrize("change", [-1, 1])
def test_a_partial_tally_is_refused(which, change):
    good = five()
    tallies = {"selection": good.selection, "estimation": good.estimation}
    counts = tallies[which].counts.copy()
    counts[1, 1] += change
    tallies[which] = Tally(counts)
    with pytest.raises(RecordError, match=f"{which} tally is partial"):
        Certificates.judged(good.terms, good.index, **tallies)


def test_a_tally_of_other_classes_or_scores_is_refused():
    good = five()
    with pytest.raises(RecordError, match="classes"):
        judge(terms(num_classes=4), good.selection, good.estimation)
    with pytest.raises(RecordError, match="softmax"):
        judge(terms(scores="softmax"), good.selection, good.estimation)


@pytest.mark.parametrize(
    "rows", [slice(1, 3), [4, 0], np.array([True, False] * 2 + [False]), [], np.zeros(5, bool)]
)
def test_some_of_the_certificates(rows):
    found = five()[rows]
    places = np.arange(5)[np.asarray(rows, dtype=int) if isinstance(rows, list) else rows]
    assert found.index.tolist() == five().index[places].tolist()
    assert same(
        found,
        Certificates.judged(
            five().terms,
            five().index[places],
            five().selection.take(places),
            five().estimation.take(places),
            five().labels[places],
        ),
    )


def test_iteration_gives_single_certificates():
    ones = list(five())
    assert [o.prediction for o in ones] == five().prediction.tolist()
    assert [o.abstained for o in ones] == [False, False, True, True, True]
    assert ones[1].counts == (80, 900, 20, 0)
    assert (ones[1].index, ones[1].label, ones[1].terms) == (1, 1, terms())
    assert type(ones[0].radius) is float


def test_parts_put_together_are_the_whole():
    whole = five()
    assert same(whole[:2] + whole[2:], whole)
    assert same(concatenate([whole[[i]] for i in range(5)]), whole)
    assert same(concatenate([whole]), whole)
    unlabelled = replace(whole[2:], labels=None)
    assert (whole[:2] + unlabelled).labels is None


def test_only_the_same_terms_are_put_together():
    with pytest.raises(InvalidArgument, match="same terms"):
        five() + five(alpha=0.01)
    with pytest.raises(InvalidArgument, match="At least one"):
        concatenate([])


def test_certified_accuracy_and_average_radius():
    found = five()
    r = found.radius
    assert found.accuracy_at([0, r[1], r[1] + 1e-9, r[0], r[0] + 1e-9]).tolist() == [
        0.4,
        0.4,
        0.2,
        0.2,
        0.0,
    ]
    assert found.average_radius() == pytest.approx((r[0] + r[1]) / 5)
    wrong = [1, 1, 1, 1, 1]
    assert found.accuracy_at(0, wrong).tolist() == [0.2]
    assert found.average_radius(wrong) == pytest.approx(r[1] / 5)
    assert np.isnan(found[:0].accuracy_at([0])).all()
    assert math.isnan(found[:0].average_radius())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], r"integers \[5\]"),
        ([0.0] * 5, "float64"),
        ([0, 1, 2, 3, 0], r"lie in \[0, 3\)"),
        ([ABSTAIN] * 5, r"lie in \[0, 3\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message):
    for use in (five().with_labels, five().average_radius, lambda y: five().accuracy_at([0], y)):
        with pytest.raises(InvalidArgument, match=message):
            use(labels)


def test_summaries_need_labels():
    with pytest.raises(InvalidArgument, match="`labels` are needed"):
        replace(five(), labels=None).accuracy_at([0.1])


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": 0.05},
        {"bound": "pixeldp"},
        {"bound": "pixeldp-classical"},
        {"norm": 1},
        {"norm": "Linf", "alpha": 1e-9},
        {},
    ],
)
def test_judging_again_is_judging_directly(changes):
    asked = {k: Norm.parse(v) if k == "norm" else v for k, v in changes.items()}
    assert same(five().recertify(**changes), five(**asked))


def test_what_judging_again_moves():
    first = five()
    assert (first.recertify(alpha=0.1).radius[:2] > first.radius[:2]).all()
    assert (first.recertify(bound="pixeldp").radius[:2] < first.radius[:2]).all()
    far = first.recertify(norm="inf")
    assert far.radius == pytest.approx(first.radius / 2, rel=1e-9)
    assert same(far.recertify(norm=2), first)


def test_judging_again_refuses_what_the_record_does_not_hold():
    lacking = five(mechanism=Laplace(0.3), norm=Norm.ONE, sensitivities=(("1", 1.0),))
    with pytest.raises(RecordError, match="no sensitivity for norm 2; it has 1"):
        lacking.recertify(norm=2)
    for bad in ({"bound": "best"}, {"alpha": 0.0}, {"alpha": 1.5}, {"norm": 3}):
        with pytest.raises(InvalidArgument):
            five().recertify(**bad)


def test_terms_survive_as_plain_values():
    asked = terms(mechanism=Laplace(0.3), norm=Norm.INF)
    assert Terms.from_dict(asked.to_dict()) == asked
    lacking = asked.to_dict()
    del lacking["seed"]
    with pytest.raises(RecordError, match="seed"):
        Terms.from_dict(lacking)


@pytest.mark.parametrize(
    "damage",
    [
        {"norm": 7},
        {"mechanism": {}},
        {"sensitivities": 3},
        {"more": 1},
        {"n": "1000"},
        {"n0": True},
        {"num_classes": 3.0},
        {"seed": -1},
        {"alpha": "0.1"},
        {"alpha": 1.5},
    ],
    ids=str,
)
def test_damaged_terms_are_refused(damage):
    with pytest.raises(RecordError, match="terms are not valid"):
        Terms.from_dict(terms().to_dict() | damage)


def test_one_by_its_place():
    batch = five()
    assert batch[1] == list(batch)[1]
    assert batch[-1].index == batch.index[-1]
    assert batch[np.int64(0)].prediction == batch.prediction[0]
    with pytest.raises(IndexError):
        batch[5]
