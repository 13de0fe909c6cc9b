"""Draws of a run whose examples may stop: made or read back shard by shard, always by the rule."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
from torch import Tensor

from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.errors import RunFolderError
from pixeldp_fast.jobs.examples import Examples, Survey, read_again
from pixeldp_fast.jobs.progress import Progress
from pixeldp_fast.jobs.shards import Shard
from pixeldp_fast.jobs.store import Run
from pixeldp_fast.noise.stream import Purpose
from pixeldp_fast.smooth.classifier import SmoothedClassifier
from pixeldp_fast.smooth.stopping import AbstractRule, drawn
from pixeldp_fast.types import IntArray

Make = Callable[[Shard, IntArray], Tally]  # the draws of a shard for some rows of its block
RuleOf = Callable[[Tally], AbstractRule]  # of the selection draws


def rounds(
    run: Run, block: tuple[int, int], rule_of: RuleOf, make: Make | None = None
) -> tuple[Tally, Tally, AbstractRule]:
    """A block's selection and estimation draws, and the rule after it has seen them all.

    Parameters
    ----------
    make : function, optional
        For shards that are not in the folder; without it they are an error.

    Guarantee
        The same draws whether a shard is made or read: a shard is used only where it holds exactly
        the examples that the rule lets go on.
    """
    size = block[1] - block[0]

    def count(rows: IntArray, purpose: Purpose, first: int, n: int) -> Tally:
        total = None
        for shard in _within(run, block, purpose, first, first + n):
            if make is not None and not run.has(shard):
                part = make(shard, rows)
            else:
                part = _read(run, shard, rows, size)
            total = part if total is None else total + part
        assert total is not None
        return total

    selection = count(np.arange(size), Purpose.SELECTION, 0, run.terms.n0)
    rule = rule_of(selection)
    estimation = drawn(lambda rows, first, n: count(rows, Purpose.ESTIMATION, first, n), rule, size)
    return selection, estimation, rule


def _within(
    run: Run, block: tuple[int, int], purpose: Purpose, first: int, end: int
) -> Iterator[Shard]:
    for draws in run.plan.cuts(purpose):
        if first <= draws[0] < end:
            yield Shard(purpose, block, draws)


def _read(run: Run, shard: Shard, rows: IntArray, size: int) -> Tally:
    stored = run.tally(shard)
    there = np.flatnonzero(stored.draws)
    if len(stored) != size or not np.array_equal(there, rows):
        raise RunFolderError(
            f"{run.path('shards', shard.name)} cannot be used: it holds draws of other examples "
            "than those that go on there. Delete it and the later ones of its examples, and resume."
        )
    return stored.take(rows)


class Rounds:
    """Makes what a run's folder lacks, block by block, and tells how far it is."""

    def __init__(
        self,
        run: Run,
        smoothed: SmoothedClassifier,
        examples: Examples,
        found: Survey,
        report: Progress,
    ) -> None:
        self._run, self._smoothed, self._examples = run, smoothed, examples
        self._found, self._report = found, report
        self._blocks = list(run.plan.blocks())
        self._settled = 0  # draws of finished blocks, made or no longer needed
        self._made, self._settled_before, self._started = 0, 0, time.perf_counter()

    def all(self, rule_of: RuleOf) -> None:
        """Every block, in order."""
        for number in range(len(self._blocks)):
            self.block(number, rule_of)

    def block(self, number: int, rule_of: RuleOf) -> tuple[Tally, Tally, AbstractRule]:
        """One block's draws, and the rule after it has seen them all."""
        block, before = self._blocks[number], self._settled
        self._tell(before, block[0])
        loaded = _Loaded(self._examples, block, self._found.digests[number], self._smoothed)

        def make(shard: Shard, rows: IntArray) -> Tally:
            tally = self._make(shard, rows, loaded)
            stopped = block[1] - block[0] - len(rows)
            self._tell(before + self._settled_by(shard, rows), block[0] + stopped)
            return tally

        found = rounds(self._run, block, rule_of, make)
        self._settled = before + (block[1] - block[0]) * (self._run.terms.n0 + self._run.terms.n)
        self._tell(self._settled, block[1])
        return found

    def _make(self, shard: Shard, rows: IntArray, loaded: _Loaded) -> Tally:
        begun = time.perf_counter()
        tally = self._smoothed.count(
            loaded.x[rows],
            shard.draws[1] - shard.draws[0],
            first_draw=shard.draws[0],
            index=self._examples.positions[shard.rows][rows],
            purpose=shard.purpose,
        )
        self._smoothed.check_unchanged(self._run.terms)
        counts = np.zeros((shard.examples[1] - shard.examples[0], tally.counts.shape[1]), np.int64)
        counts[rows] = tally.counts
        self._run.add(shard, Tally(counts), time.perf_counter() - begun)
        self._made += int(tally.draws.sum())
        return tally

    def _settled_by(self, shard: Shard, rows: IntArray) -> int:
        """Draws of the shard's block that are made, or that stopped examples no longer need."""
        size, terms = shard.examples[1] - shard.examples[0], self._run.terms
        if shard.purpose is Purpose.SELECTION:
            return size * shard.draws[1]
        return size * terms.n0 + (size - len(rows)) * terms.n + len(rows) * shard.draws[1]

    def _tell(self, done: int, examples: int) -> None:
        if not self._made:
            self._settled_before, self._started = done, time.perf_counter()
        seconds = max(time.perf_counter() - self._started, 1e-9)
        info = {
            "examples": len(self._examples),
            "certified": examples,
            "draws": self._made,
            "draws_per_second": self._made / seconds,
            "done_per_second": (done - self._settled_before) / seconds,
        }
        self._report(done, self._run.total, info)


class _Loaded:
    """A block's examples, read when the first shard needs them."""

    def __init__(
        self,
        examples: Examples,
        block: tuple[int, int],
        digest: bytes,
        smoothed: SmoothedClassifier,
    ) -> None:
        self._examples, self._block, self._digest = examples, block, digest
        self._device = smoothed.device

    @cached_property
    def x(self) -> Tensor:
        """float32 [B, *input_shape], on the model's device."""
        return read_again(self._examples, self._block, self._digest).to(self._device)
