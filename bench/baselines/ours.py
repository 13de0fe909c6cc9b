"""This package, through its public door: `SmoothedClassifier.count`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.baselines.base import CHUNKS, AbstractContender, AbstractJob, Problem
from bench.cases import CLASSES, SEED
from pixeldp_fast import SmoothedClassifier, __version__
from pixeldp_fast.backends.base import AbstractBackend, AbstractEngine
from pixeldp_fast.backends.reduction import AbstractReduction, Votes
from pixeldp_fast.backends.registry import BACKENDS
from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.noise.stream import Purpose, Stream
from pixeldp_fast.plan.plan import Plan, make_plan
from pixeldp_fast.types import IntArray

CPU = torch.device("cpu")
STREAM = Stream(SEED, Purpose.ESTIMATION)
INDEX = 0  # the example's address: with the seed, it makes the package's draws known


@dataclass(frozen=True)
class Ours(AbstractContender):
    """One of the package's backends; `chunk` is ignored, the backend chooses its own tile."""

    backend: str

    @property
    def name(self) -> str:
        return f"pixeldp_fast {self.backend}"

    @property
    def version(self) -> str:
        return f"pixeldp_fast {__version__}"

    def missing(self, problem: Problem) -> str:
        backend = _backend(self.backend)
        if backend is None:
            return f"this version has no backend {self.backend!r}"
        support = backend.supports(plan_of(problem), problem.case.mechanism, Votes(CLASSES), CPU)
        return "" if support.ok else support.reason

    @property
    def chunks(self) -> tuple[int, ...]:
        return CHUNKS[:1]

    def prepare(self, problem: Problem, chunk: int) -> AbstractJob:
        return _OurJob(problem, self.backend)


class _OurJob(AbstractJob):
    def __init__(self, problem: Problem, backend: str) -> None:
        self._problem = problem
        self._backend = backend
        self._smoothed = SmoothedClassifier(
            problem.model, num_classes=CLASSES, backend=backend, seed=SEED
        )
        self._smoothed.count(problem.x, 1, index=INDEX)  # prepares the engine

    def count(self, draws: int) -> IntArray:
        votes: IntArray = self._smoothed.count(self._problem.x, draws, index=INDEX).counts[0, :-1]
        return votes

    def outputs(self, noisy: Tensor) -> Tensor:
        """Of the engine on these features, or, where it has no such entry, on its own draws.

        The gate's features are the draws of `STREAM`, so both must be the same.
        """
        engine = self._engine(Votes(CLASSES))
        direct = getattr(engine, "outputs", None)
        if direct is not None:
            given: Tensor = direct(noisy)
            return given
        capture = _Capture(CLASSES)
        self._engine(capture).run(
            self._problem.x, np.array([INDEX], dtype=np.int64), STREAM, 0, len(noisy)
        )
        return torch.cat(capture.rows)

    def _engine(self, reduction: AbstractReduction) -> AbstractEngine:
        backend = _backend(self._backend)
        assert backend is not None
        mechanism = self._problem.case.mechanism
        return backend.prepare(plan_of(self._problem), mechanism, reduction, CPU)


class _Capture(AbstractReduction):
    """Keeps every draw's outputs, in the order of the draws."""

    def __init__(self, num_outputs: int) -> None:
        self._num_outputs = num_outputs
        self.rows: list[Tensor] = []

    @property
    def num_outputs(self) -> int:
        return self._num_outputs

    @property
    def draws_limit(self) -> int:
        return 2**32

    def reduce(self, outputs: Tensor) -> Tensor:
        if len(outputs):
            self.rows.append(outputs.clone())
        return torch.zeros(1, dtype=torch.int64)

    def tally(self, totals: IntArray) -> Tally:
        return Tally(totals)


def plan_of(problem: Problem) -> Plan:
    """The problem's network as the backends take it."""
    model = problem.model
    return make_plan(model.prefix, model.suffix, problem.case.input_shape, CLASSES)


def _backend(name: str) -> AbstractBackend | None:
    return {b.name: b for b in BACKENDS}.get(name)
