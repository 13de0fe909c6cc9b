"""The contract of a backend: say what is supported, prepare once, run many times."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

import torch

from pixeldp_fast.backends.reduction import AbstractReduction
from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.stream import Stream
from pixeldp_fast.plan.plan import Plan
from pixeldp_fast.types import IntArray


@dataclass(frozen=True)
class Support:
    """Whether a backend runs a combination, and why not.

    `only_named` says that it can, but that "auto" is to pass over it.
    """

    ok: bool
    reason: str = ""
    only_named: bool = False


class AbstractEngine(abc.ABC):
    """A prepared combination of plan, mechanism and reduction."""

    @property
    @abc.abstractmethod
    def arithmetic(self) -> str:
        """Everything on which the last bits of a draw's outputs depend, in words."""

    @property
    def granularity(self) -> int:
        """Draws that cost no more than one: asking for whole multiples wastes nothing."""
        return 1

    def renew(self) -> None:  # noqa: B027 (for most engines nothing is the right thing to do)
        """Before a certificate: see that this still is the model, beyond what every run looks at.

        Engines that evaluate the module itself have nothing to do.
        """

    @abc.abstractmethod
    def run(
        self, x: torch.Tensor, index: IntArray, stream: Stream, first_draw: int, n: int
    ) -> Tally:
        """Tally draws [first_draw, first_draw + n) of every example.

        Parameters
        ----------
        x : float32 [B, *input_shape]
            On the engine's device.
        index : int64 [B]
            The examples' addresses in the stream.

        Guarantee
            The result is the sum of the results of any split of the examples and draws, bit by
            bit: an example's draw gives the same outputs whatever else is evaluated with it.
        """


class AbstractBackend(abc.ABC):
    """One way to run plans. No statistics, no policy, no printing."""

    name: ClassVar[str]

    @abc.abstractmethod
    def supports(
        self,
        plan: Plan,
        mechanism: AbstractMechanism,
        reduction: AbstractReduction,
        device: torch.device,
        *,
        dtype: torch.dtype | None = None,
    ) -> Support:
        """Whether this combination can run, in the named dtype if any; nothing is allocated."""

    @abc.abstractmethod
    def prepare(
        self,
        plan: Plan,
        mechanism: AbstractMechanism,
        reduction: AbstractReduction,
        device: torch.device,
        *,
        dtype: torch.dtype | None = None,
        tile: int | None = None,
    ) -> AbstractEngine:
        """An engine; `dtype` None means float32, `tile` None the backend's own choice."""
