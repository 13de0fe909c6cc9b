"""Eager PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bench.baselines.base import AbstractContender, AbstractJob, Problem
from bench.baselines.chunks import ChunkedJob
from bench.baselines.layouts import labelled, laid_out, refusal


@dataclass(frozen=True)
class Eager(AbstractContender):
    """The suffix as it is, called on every chunk."""

    layout: torch.memory_format

    @property
    def name(self) -> str:
        return labelled("eager", self.layout)

    @property
    def version(self) -> str:
        return f"torch {torch.__version__}"

    def missing(self, problem: Problem) -> str:
        return refusal(problem, self.layout)

    def prepare(self, problem: Problem, chunk: int) -> AbstractJob:
        return ChunkedJob(problem, chunk, laid_out(problem, self.layout), self.layout)
