"""The loop that all torch contenders share: noise into a buffer, network, argmax, count."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.baselines.base import AbstractJob, Problem, votes
from bench.cases import CLASSES
from pixeldp_fast.types import IntArray

Evaluate = Callable[[Tensor], Tensor]


class ChunkedJob(AbstractJob):
    """Draws in chunks through a function of the noisy features.

    The buffer is allocated once and filled in the order of memory: `normal_` on a strided tensor is
    ten times slower, so channels-last noise is drawn into a contiguous [n, H, W, C] and viewed.

    Parameters
    ----------
    evaluate : callable
        [chunk, *noise_shape] -> [chunk, K], in the layout of `layout`.
    """

    def __init__(
        self, problem: Problem, chunk: int, evaluate: Evaluate, layout: torch.memory_format
    ) -> None:
        self._evaluate = evaluate
        self._chunk = chunk
        self._sigma = problem.case.mechanism.sigma
        last = layout == torch.channels_last
        center = problem.center.movedim(1, -1) if last else problem.center
        self._center = center.contiguous()
        self._noise = torch.empty((chunk, *self._center.shape[1:]))
        self._features = self._noise.movedim(-1, 1) if last else self._noise  # a view

    def outputs(self, noisy: Tensor) -> Tensor:
        parts = []
        with torch.inference_mode():
            for rows in torch.split(noisy, self._chunk):
                self._features.copy_(rows)
                parts.append(self._evaluate(self._features).clone())
        return torch.cat(parts)

    def count(self, draws: int) -> IntArray:
        if draws % self._chunk:
            raise ValueError(f"{draws} draws are not a multiple of the chunk {self._chunk}")
        totals = torch.zeros(CLASSES, dtype=torch.int64)
        with torch.inference_mode():
            for _ in range(draws // self._chunk):
                self._noise.normal_(0.0, self._sigma).add_(self._center)
                totals += votes(self._evaluate(self._features))
        return totals.numpy()
