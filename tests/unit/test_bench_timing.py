"""The benchmark's timers, sweep and thread scaling."""

import itertools

import numpy as np
import pytest
import torch

from bench import cases
from bench.baselines.base import AbstractContender, AbstractJob, Problem
from bench.cohen import CohenLoop
from bench.peak import resident_peak
from bench.sweep import GUIDED, sweep
from bench.threads import scaling, torch_threads
from bench.timing import Times, fastest, interleaved, ratio


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


def test_contenders_take_turns_after_one_warm_up_each():
    clock, order = Clock(), []

    def contender(name, seconds):
        def run():
            order.append(name)
            clock.advance(seconds)

        return run

    times = interleaved({"a": contender("a", 1.0), "b": contender("b", 3.0)}, 3, clock)
    assert order == ["a", "b"] * 4
    assert times["a"].seconds.tolist() == [1.0] * 3
    assert times["b"].best == 3.0
    assert ratio(times["a"], times["b"]) == (3.0, 3.0, 3.0)


def test_rates_and_ratios_are_medians_with_percentiles():
    ours, theirs = Times(np.array([1.0, 2.0, 4.0])), Times(np.array([2.0, 2.0, 2.0]))
    assert ours.best == 1.0
    assert ours.rate(4.0) == pytest.approx((2.0, 1.4, 3.2))
    assert ratio(ours, theirs) == pytest.approx((1.0, 0.7, 1.6))


def test_fastest_takes_the_best_repeat_per_unit_of_work():
    clock = Clock()
    seconds = {1: itertools.cycle([9.0, 4.0, 2.0]), 10: itertools.cycle([9.0, 10.0, 15.0])}
    best, found = fastest(
        seconds, lambda c: clock.advance(next(seconds[c])), 2, work=lambda c: c, clock=clock
    )
    assert best == 10
    assert found == {1: 2.0, 10: 1.0}


class Slow(AbstractContender):
    """Takes a time that depends on the chunk."""

    def __init__(self, name, cost, guide=""):
        self._name, self._cost, self._guide = name, cost, guide
        self.prepared = []

    name = property(lambda self: self._name)
    guide = property(lambda self: self._guide)
    version = "1"

    def prepare(self, problem, chunk):
        self.prepared.append(chunk)
        return SlowJob(self._cost[chunk])


class SlowJob(AbstractJob):
    def __init__(self, cost):
        self._cost = cost

    def outputs(self, noisy):
        raise NotImplementedError

    def count(self, draws):
        burn(self._cost * draws)


def burn(units):
    total = 0
    for i in range(int(units)):
        total += i
    return total


def test_the_sweep_picks_the_best_chunk_and_guides_by_it():
    cost = {32: 900, 64: 90, 128: 20, 256: 90, 512: 900}
    guide, guided = Slow("guide", cost), Slow("guided", cost, guide="guide")
    problem = Problem.of(cases.by_name("resnet20"))
    entries, missing = sweep([guide, guided], problem)
    assert [entry.chunk for entry in entries] == [128, 128]
    assert missing == {}
    assert guide.prepared == [32, 64, 128, 256, 512]  # never more than the case's draws
    assert len(guided.prepared) == GUIDED
    assert 128 in guided.prepared


def test_torch_threads_are_put_back():
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_one_thread_of_work_does_not_scale():
    _, cpu = scaling(lambda: burn(300_000), 3)
    assert 0.5 < cpu[0] < 1.9


def test_cohens_loop_counts_and_certifies():
    def network(x):
        return torch.stack([x.mean(dim=(1, 2, 3)), 0.5 - x.mean(dim=(1, 2, 3))], dim=1)

    loop = CohenLoop(network, 2, 0.25)
    image = torch.ones(1, 4, 4)
    assert loop.count(image, 130, 64).tolist() == [130, 0]
    label, radius = loop.certify(image, 10, 1000, 0.001, 64)
    assert label == 0
    assert radius == pytest.approx(0.25 * 2.46, abs=0.01)  # quantile of 0.001 ** (1 / 1000)
    undecided, nothing = loop.certify(0.25 * image, 10, 50, 1e-9, 64)
    assert (undecided, nothing) == (-1, 0.0)


def test_peak_memory_grows_with_what_was_used():
    before = resident_peak()
    block = np.ones(2**25)  # 256 MiB
    assert resident_peak() > 200
    assert resident_peak() >= before
    del block
    assert resident_peak() > 200
