"""Competitors and bounds of softmax means: what each claims, and how alpha is spent on it."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats as laws

from pixeldp_fast import ABSTAIN, Certificates, Laplace, SmoothedClassifier
from pixeldp_fast.backends.tally import GRID, Tally
from pixeldp_fast.bounds import pixeldp_radius, tight_radius
from pixeldp_fast.errors import InvalidArgument, RecordError
from pixeldp_fast.smooth import records
from pixeldp_fast.smooth.judge import Terms, judge
from pixeldp_fast.smooth.probability import MEAN_BOUNDS, probabilities
from pixeldp_fast.stats import clopper_pearson_lower, clopper_pearson_upper
from pixeldp_fast.types import Norm
from tests.unit.test_certificates import ALPHA, N0, N, same, soft_tally, terms, votes

SELECTION = votes([10, 0, 0, 0])


def test_all_competitors_share_half_of_alpha():
    estimation = votes([600, 250, 100, 50])
    p_lower, p_upper = probabilities(terms(competitor="all"), SELECTION, estimation, np.array([0]))
    assert p_lower == clopper_pearson_lower(600, N, ALPHA / 2)
    assert p_upper == clopper_pearson_upper(250, N, ALPHA / 4)
    assert p_upper < 1 - p_lower


def test_the_competitor_never_has_more_than_the_rest():
    estimation = votes([600, 400, 0, 0])
    p_lower, p_upper = probabilities(terms(competitor="all"), SELECTION, estimation, np.array([0]))
    assert p_upper == np.nextafter(1 - p_lower, 2)
    assert p_upper < clopper_pearson_upper(400, N, ALPHA / 4)


@pytest.mark.parametrize("bound", ["tight", "pixeldp", "pixeldp-classical"])
@pytest.mark.parametrize("mechanism", [None, Laplace(0.4)], ids=["Gaussian", "Laplace"])
def test_a_plurality_is_certified_against_all_and_not_against_the_complement(bound, mechanism):
    changes = {} if mechanism is None else {"mechanism": mechanism, "norm": Norm.ONE}
    estimation = votes([450, 250, 250, 50])
    asked = terms(competitor="all", bound=bound, **changes)
    found = judge(asked, SELECTION, estimation)
    assert found.prediction.tolist() == [0]
    radius = tight_radius if bound == "tight" else pixeldp_radius
    profile = (
        {} if bound == "tight" else {"profile": "exact" if bound == "pixeldp" else "classical"}
    )
    expected = radius(asked.mechanism, found.p_lower, found.p_upper, 1.0, **profile)
    assert found.radius == expected
    assert found.radius[0] > 0
    assert judge(replace(asked, competitor="complement"), SELECTION, estimation).prediction == [
        ABSTAIN
    ]


def wrong(p, competitor_levels, n=60, rivals=slice(1, 3)):
    """How often p_lower > p[0] or p_upper < max of the rivals, exactly, over all counts of n."""
    k = np.arange(n + 1)
    counts = np.array([(a, b, n - a - b) for a in k for b in range(n + 1 - a)])
    chance = laws.multinomial.pmf(counts, n, p)
    top, others = competitor_levels
    lower = clopper_pearson_lower(counts[:, 0], n, top)
    upper = clopper_pearson_upper(counts[:, rivals].max(axis=1), n, others)
    return chance[(lower > p[0]) | (upper < max(p[rivals]))].sum()


@pytest.mark.parametrize("p", [(0.5, 0.3, 0.2), (0.4, 0.3, 0.3), (0.1, 0.45, 0.45)])
def test_both_bounds_at_once_are_wrong_at_most_alpha_of_the_time(p):
    assert 0 < wrong(p, (0.05, 0.025)) <= 0.1
    assert wrong(p, (0.05, 0.025), n=30) <= 0.1


def test_taking_the_better_competitor_afterwards_costs_more_than_alpha():
    """The planted fault: full alpha on each of the two bounds; the third outcome is non-finite."""
    p, rivals = (0.4, 0.1, 0.5), slice(1, 2)
    assert wrong(p, (0.1, 0.1), rivals=rivals) > 0.1
    assert wrong(p, (0.05, 0.05), rivals=rivals) <= 0.1


def scores(n=N, rows=2):
    return np.random.default_rng(0).dirichlet([12, 5, 2], (rows, n))


@pytest.mark.parametrize("mean_bound", MEAN_BOUNDS)
@pytest.mark.parametrize("competitor", ["complement", "all"])
def test_means_of_softmax_scores_are_bounded(mean_bound, competitor):
    asked = terms(scores="softmax", mean_bound=mean_bound, competitor=competitor)
    draws = scores()
    found = judge(asked, soft_tally(draws[:, :N0]), soft_tally(draws))
    mean = draws.mean(axis=1)
    assert (found.p_lower < mean[:, 0]).all()
    assert (found.p_lower > mean[:, 0] - 0.1).all()
    assert (found.p_upper > mean[:, 1]).all()
    assert (found.p_upper < 1 - found.p_lower + 1e-9).all()
    assert (found.prediction == 0).all()
    assert (found.radius > 0).all()


def test_the_declared_bound_is_the_one_that_is_used():
    draws = scores()
    selection, estimation = soft_tally(draws[:, :N0]), soft_tally(draws)
    found = {
        name: judge(terms(scores="softmax", mean_bound=name), selection, estimation).p_lower[0]
        for name in MEAN_BOUNDS
    }
    assert len(set(found.values())) == len(MEAN_BOUNDS)
    assert found["betting"] > found["bernstein"] > found["hoeffding"]
    assert found["hoeffding+bernstein"] < found["bernstein"]


def test_flooring_to_the_grid_never_helps_the_competitor_bound():
    """All other scores just below a step: the floored sums alone would understate them."""
    draws = 1000
    top = np.full((1, draws), 0.6)
    rest = 1 / 3 * np.ones((1, draws))
    exact = np.stack([top, rest, 1 - top - rest], axis=2)
    asked = terms(scores="softmax", mean_bound="betting", competitor="all")
    found = judge(asked, soft_tally(exact[:, :N0]), soft_tally(exact))
    assert found.p_upper[0] > np.floor(GRID / 3) / GRID + 1 / GRID


def test_one_draw_has_no_variance_and_is_bounded_by_hoeffding():
    asked = terms(scores="softmax", mean_bound="betting", n=1)
    found = judge(asked, soft_tally(scores(N0)), soft_tally(scores(1)))
    assert (found.p_lower == 0).all()


def test_how_alpha_is_spent_is_said():
    assert terms().split == "alpha on p_lower (Clopper-Pearson)"
    assert "shared by the other classes" in terms(competitor="all").split
    assert "betting" in terms(scores="softmax", mean_bound="betting").split
    for competitor in ("complement", "all"):
        for name in MEAN_BOUNDS:
            asked = terms(scores="softmax", mean_bound=name, competitor=competitor)
            assert Terms.from_dict(asked.to_dict()) == asked
            edited = asked.to_dict() | {"split": "alpha on whatever is best"}
            with pytest.raises(RecordError, match="split"):
                Terms.from_dict(edited)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"competitor": "runner-up"}, "complement, all"),
        ({"mean_bound": "best", "scores": "softmax"}, "betting"),
        ({"mean_bound": "betting"}, "softmax"),
    ],
)
def test_unknown_ways_are_refused(changes, message):
    with pytest.raises(InvalidArgument, match=message):
        terms(**changes).check()


@pytest.mark.parametrize(
    ("mean_bound", "competitor"), [("betting", "all"), ("bernstein", "complement")]
)
def test_records_keep_what_was_declared(tmp_path, mean_bound, competitor):
    asked = terms(scores="softmax", mean_bound=mean_bound, competitor=competitor)
    draws = scores()
    found = Certificates.judged(
        asked, np.arange(2), soft_tally(draws[:, :N0]), soft_tally(draws), np.array([0, 1])
    )
    found.to_jsonl(tmp_path / "c.jsonl")
    assert same(Certificates.from_jsonl(tmp_path / "c.jsonl"), found)
    found.to_tsv(tmp_path / "c.tsv")
    header = (tmp_path / "c.tsv").read_text().splitlines()[0].split("\t")
    assert (header[-1] == "competitor") == (competitor == "all")


@pytest.mark.parametrize("kind", ["argmax", "softmax"])
def test_records_of_earlier_versions_are_read(tmp_path, kind):
    """They say neither loss nor the bound of a mean, of which there was one."""
    draws = scores()
    tallies = (
        (soft_tally(draws[:, :N0]), soft_tally(draws))
        if kind == "softmax"
        else (votes([10, 0, 0, 0]), votes([900, 100, 0, 0]))
    )
    index = np.arange(len(tallies[0]))
    found = Certificates.judged(terms(scores=kind), index, *tallies)
    lines = []
    for line in records.jsonl(found).splitlines():
        record = json.loads(line)
        assert {"loss", "mean_bound"}.isdisjoint(record["terms"])
        lines.append(json.dumps(record))
    (tmp_path / "old.jsonl").write_text("\n".join(lines) + "\n")
    assert same(Certificates.from_jsonl(tmp_path / "old.jsonl"), found)


def test_all_examples_at_once_by_bonferroni_and_by_holm():
    hits = np.array([1000, 995, 990, 985, 980, 700, 560])
    counts = np.stack([hits, N - hits, 0 * hits, 0 * hits], axis=1)
    found = Certificates.judged(
        terms(), np.arange(7), Tally(counts // 100 * 0 + np.array([N0, 0, 0, 0])), Tally(counts)
    )
    joint = found.for_all()
    assert Fraction(joint.terms.alpha) * 7 <= Fraction(ALPHA)
    assert (joint.p_lower < found.p_lower).all()
    for radius in (0.0, 0.3, 0.9):
        each = (found.prediction >= 0) & (found.radius >= radius)
        bonferroni = (joint.prediction >= 0) & (joint.radius >= radius)
        holm = found.jointly(radius)
        assert (bonferroni <= holm).all()
        assert (holm <= each).all()
    at = float(joint.radius[3]) * 1.0001  # Bonferroni just misses it, Holm's later steps do not
    assert not joint.radius[3] >= at
    assert found.jointly(at)[3]
    assert found[:0].jointly().tolist() == []


def test_the_classifier_declares_before_it_draws():
    from torch import nn

    from pixeldp_fast import Gaussian
    from tests.unit.test_decide import Halfspace

    model: nn.Module = Halfspace().eval()
    smoothed = SmoothedClassifier(model, Gaussian(0.5), num_classes=2, seed=5)
    import torch

    x = torch.tensor([[0.8, 0, 0], [0.1, 0, 0]])
    every = {
        "all": {"competitor": "all"},
        "betting": {"scores": "softmax"},
        "hoeffding": {"scores": "softmax", "mean_bound": "hoeffding", "competitor": "all"},
        "loss": {"stop": "loss", "loss": 0.1},
    }
    found = {name: smoothed.certify(x, n=4000, index=0, **o) for name, o in every.items()}
    assert found["all"].terms.competitor == "all"
    assert found["betting"].terms.mean_bound == "betting"
    assert found["hoeffding"].terms.mean_bound == "hoeffding"
    assert (found["loss"].draws < 4000).any()
    distance = np.array([0.5, 0.2])
    assert all((c.radius <= distance).all() for c in found.values())
    counted = smoothed.count(x, 4000, index=0).counts
    assert (found["all"].counts == counted).all()
    first = int(found["loss"].draws[0])
    assert (smoothed.count(x[:1], first, index=0).counts == found["loss"].counts[:1]).all()
    for bad, message in (
        ({"mean_bound": "betting"}, "softmax"),
        ({"stop": "decided"}, "fixed or loss"),
        ({"loss": 0.1}, "stop='loss'"),
        ({"competitor": "best"}, "competitor"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            smoothed.certify(x, **bad)


@pytest.mark.parametrize(
    "changes",
    [
        {"competitor": "all"},
        {"stop": "loss", "loss": 0.01},
        {"scores": "softmax", "mean_bound": "betting"},
        {"scores": "softmax", "mean_bound": "hoeffding", "competitor": "all"},
    ],
    ids=str,
)
def test_what_draws_can_give_at_most_is_known_for_every_way(changes):
    from pixeldp_fast.report import largest_radius, smallest_n

    asked = terms(**changes)
    least = smallest_n(asked)
    assert largest_radius(replace(asked, n=least)) > 0
    assert largest_radius(replace(asked, n=least - 1)) == 0
    assert 0 < largest_radius(asked) < largest_radius(replace(asked, n=10 * N))
    plain = largest_radius(terms())
    assert largest_radius(asked) < plain
