"""What a contender is: the whole job of counting votes under noise, done in one way."""

from __future__ import annotations

import abc
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.cases import CLASSES, Case
from pixeldp_fast import PixelDP
from pixeldp_fast.types import IntArray

# Powers of two, so that they divide the cases' draws; longer ones than these are left out.
CHUNKS = (32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Problem:
    """One case with its network made and its prefix evaluated, the same for all contenders.

    Parameters
    ----------
    x : float32 [1, C, H, W]
    center : float32 [1, *noise_shape]
        prefix(x), to which the noise is added.
    """

    case: Case
    model: PixelDP
    x: Tensor
    center: Tensor

    @classmethod
    def of(cls, case: Case) -> Problem:
        """The problem of a case."""
        model, x = case.model(), case.example()
        with torch.inference_mode():
            center = model.prefix(x)
        return cls(case, model, x, center)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Of one draw at the noise point."""
        return tuple(self.center.shape[1:])


class AbstractJob(abc.ABC):
    """A contender, prepared for one problem and one chunk."""

    @abc.abstractmethod
    def outputs(self, noisy: Tensor) -> Tensor:
        """The outputs [n, K] for given noisy features [n, *noise_shape]: what the gate compares.

        n is a multiple of the chunk.
        """

    @abc.abstractmethod
    def count(self, draws: int) -> IntArray:
        """Votes [K] of `draws` draws with the contender's own noise: what is timed."""


class AbstractContender(abc.ABC):
    """One way to do the job; prepared anew for every problem and chunk."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """As in tables and in the ledger; no commas."""

    @property
    @abc.abstractmethod
    def version(self) -> str:
        """The software that does the work."""

    def missing(self, problem: Problem) -> str:
        """Why it does not take part, or ""."""
        return ""

    @property
    def chunks(self) -> tuple[int, ...]:
        """The chunks worth trying."""
        return CHUNKS

    @property
    def guide(self) -> str:
        """The contender whose fastest chunks are the only ones to try, or "" to try them all."""
        return ""

    @abc.abstractmethod
    def prepare(self, problem: Problem, chunk: int) -> AbstractJob:
        """The job with draws in chunks of `chunk`; whatever happens once is done here."""


def votes(outputs: Tensor) -> Tensor:
    """How many rows each class wins, int64 [K]."""
    return torch.bincount(outputs.argmax(dim=1), minlength=CLASSES)
