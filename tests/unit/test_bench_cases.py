"""The benchmark's networks, contenders and gate."""

import copy
import dataclasses

import pytest
import torch

from bench import cases, gate
from bench.baselines import CONTENDERS
from bench.baselines.base import AbstractJob, Problem
from bench.baselines.eager import Eager
from bench.baselines.frozen import Frozen
from bench.baselines.layouts import CHANNELS_LAST, PLAIN
from bench.baselines.ours import Ours
from bench.sweep import sweep

DRAWS = 64
BY_HAND = {  # two per multiply-add
    "pixeldp_cnn": 2 * (49 * 64 * 25 * 32 + 3136 * 1024 + 1024 * 10),
    "resnet20": 2
    * (
        1024 * 16 * 9 * 3
        + 6 * 1024 * 16 * 9 * 16
        + 256 * 32 * (9 * 16 + 5 * 9 * 32 + 16)
        + 64 * 64 * (9 * 32 + 5 * 9 * 64 + 32)
        + 64 * 10
    ),
    "mlp": 2 * (64 * 256 + 256 * 256 + 256 * 10),
}


@pytest.fixture(scope="module")
def problem():
    return Problem.of(cases.by_name("mlp"))


@pytest.fixture(scope="module")
def truth(problem):
    return gate.Truth.of(problem, DRAWS)


@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
def test_flop_per_draw_is_the_value_by_hand(case):
    problem = Problem.of(case)
    assert cases.flop_per_draw(problem.model.suffix, problem.noise_shape) == BY_HAND[case.name]


def test_the_amounts_of_work_are_the_known_ones():
    millions = [round(value / 1e6, 2) for value in BY_HAND.values()]
    assert millions == [11.46, 81.63, 0.17]


@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
def test_a_case_is_the_same_at_every_call(case):
    one, other = (case.model().state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert case.draws & (case.draws - 1) == 0


def test_names_are_unique_and_fit_the_ledger():
    names = [contender.name for contender in CONTENDERS]
    assert len(set(names)) == len(names)
    assert not any("," in name for name in names)
    guides = {contender.guide for contender in CONTENDERS} - {""}
    assert guides <= set(names)


@pytest.mark.parametrize("network", ["pixeldp_cnn", "mlp"])
def test_cheap_contenders_pass_the_gate_and_count_every_draw(network):
    problem = Problem.of(cases.by_name(network))
    truth = gate.Truth.of(problem, DRAWS)
    for contender in (Ours("torch"), Eager(PLAIN), Eager(CHANNELS_LAST), Frozen(PLAIN)):
        if contender.missing(problem):
            assert (network, contender) == ("mlp", Eager(CHANNELS_LAST))
            continue
        job = contender.prepare(problem, 32)
        verdict = gate.judge(job, truth)
        assert verdict.fault == "", contender
        assert verdict.error < gate.FLOOR
        assert job.count(DRAWS).sum() == DRAWS


def test_the_native_backend_passes_the_gate(problem, truth):
    native = Ours("native")
    if native.missing(problem):
        pytest.skip(native.missing(problem))
    assert gate.judge(native.prepare(problem, 32), truth).fault == ""


def test_counts_follow_the_outputs(problem, truth):
    """The package's own draws are those of the gate, so its counts are the truth's votes."""
    votes = torch.bincount(truth.exact.argmax(dim=1), minlength=cases.CLASSES)
    assert Ours("torch").prepare(problem, 32).count(DRAWS).tolist() == votes.tolist()


def test_a_chunk_that_does_not_divide_is_refused(problem):
    with pytest.raises(ValueError, match="multiple of the chunk"):
        Eager(PLAIN).prepare(problem, 48).count(64)


def test_an_unknown_backend_is_missing_not_an_error(problem):
    entries, missing = sweep([Ours("no such")], problem)
    assert entries == []
    assert "no such" in missing["pixeldp_fast no such"]


class Planted(AbstractJob):
    """Outputs through a function, for faults."""

    def __init__(self, outputs):
        self._outputs = outputs

    def outputs(self, noisy):
        with torch.inference_mode():
            return self._outputs(noisy)

    def count(self, draws):
        raise NotImplementedError


def test_the_gate_catches_a_changed_weight(problem, truth):
    wrong = copy.deepcopy(problem.model.suffix)
    with torch.no_grad():
        wrong.fc3.weight[3, 5] += 1e-3
    assert "outputs differ" in gate.judge(Planted(wrong), truth).fault


def test_the_gate_catches_swapped_draws(problem, truth):
    def swapped(noisy):
        outputs = problem.model.suffix(noisy).clone()
        outputs[[10, 11]] = outputs[[11, 10]]
        return outputs

    assert "outputs differ" in gate.judge(Planted(swapped), truth).fault


def test_the_gate_catches_nan_and_missing_rows(problem, truth):
    suffix = problem.model.suffix
    assert gate.judge(Planted(lambda x: suffix(x) * torch.nan), truth).fault
    assert "shape" in gate.judge(Planted(lambda x: suffix(x)[:-1]), truth).fault


def test_votes_within_rounding_are_listed_and_capped():
    exact = torch.tensor([[1.0, 1.0 - 1e-9], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    found = torch.tensor([[1.0 - 1e-9, 1.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    truth = gate.Truth(torch.zeros(3, 1), exact, 1e-6)
    verdict = gate.judge(Planted(lambda _: found), truth)
    assert verdict.flips == (0,)
    assert "votes differ" in verdict.fault  # one of three is more than the cap
    many = dataclasses.replace(truth, exact=torch.cat([exact, exact[1:2].expand(2000, 2)]))
    rows = torch.cat([found, exact[1:2].expand(2000, 2)])
    assert gate.judge(Planted(lambda _: rows), many).fault == ""
