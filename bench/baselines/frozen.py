"""torch.jit: traced, frozen and optimised for inference (batch norm folded, weights packed)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch

from bench.baselines.base import AbstractContender, AbstractJob, Problem
from bench.baselines.chunks import ChunkedJob, Evaluate
from bench.baselines.layouts import labelled, laid_out, refusal


@dataclass(frozen=True)
class Frozen(AbstractContender):
    """`torch.jit.trace`, `freeze`, `optimize_for_inference`."""

    layout: torch.memory_format

    @property
    def name(self) -> str:
        return labelled("jit-frozen", self.layout)

    @property
    def version(self) -> str:
        return f"torch {torch.__version__}"

    def missing(self, problem: Problem) -> str:
        return refusal(problem, self.layout)

    def prepare(self, problem: Problem, chunk: int) -> AbstractJob:
        sample = torch.zeros((chunk, *problem.noise_shape)).to(memory_format=self.layout)
        return ChunkedJob(problem, chunk, self._optimised(problem, sample), self.layout)

    def _optimised(self, problem: Problem, sample: torch.Tensor) -> Evaluate:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                laid_out(problem, self.layout), sample
            )
            optimised = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
        for _ in range(3):  # the executor profiles its first runs and then compiles
            optimised(sample)
        return optimised
