"""The definition: eager float64, noise from NumPy, one tile after the other."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pixeldp_fast.backends.arithmetic import (
    Evaluate,
    in_arithmetic,
    machine,
    prefix_in_arithmetic,
    stated_arithmetic,
)
from pixeldp_fast.backends.base import AbstractBackend, AbstractEngine, Support
from pixeldp_fast.backends.reduction import AbstractReduction
from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.backends.tiles import check_rows_alone, collect, own, tally_example
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.sampling import noisy_definition
from pixeldp_fast.noise.stream import Stream
from pixeldp_fast.plan.plan import Plan
from pixeldp_fast.types import IntArray

TILE = 64
CPU = torch.device("cpu")


class ReferenceBackend(AbstractBackend):
    """Slow and plain: what every other backend is compared with."""

    name: ClassVar[str] = "reference"

    def supports(
        self,
        plan: Plan,
        mechanism: AbstractMechanism,
        reduction: AbstractReduction,
        device: torch.device,
        *,
        dtype: torch.dtype | None = None,
    ) -> Support:
        if device.type != "cpu":
            return Support(False, f"the reference runs on the CPU, not on {device}")
        return Support(True)

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
        if dtype not in (None, torch.float64):
            raise InvalidArgument(f"The reference computes in float64, not in {dtype}.")
        rows = tile or TILE
        with stated_arithmetic(CPU):
            suffix = in_arithmetic(plan.suffix, torch.float64)
            check_rows_alone(suffix, plan.noise_shape, rows, torch.float64, CPU)
        return _ReferenceEngine(plan, mechanism, reduction, rows)


class _ReferenceEngine(AbstractEngine):
    def __init__(
        self, plan: Plan, mechanism: AbstractMechanism, reduction: AbstractReduction, tile: int
    ) -> None:
        self._plan = plan
        self._mechanism = mechanism
        self._reduction = reduction
        self._tile = tile

    @property
    def arithmetic(self) -> str:
        return (
            f"torch {torch.__version__} float64 tile {self._tile} "
            f"noise numpy {np.__version__} {machine(CPU)}"
        )

    @property
    def granularity(self) -> int:
        return self._tile

    def run(self, x: Tensor, index: IntArray, stream: Stream, first_draw: int, n: int) -> Tally:
        self._reduction.check_draws(n)
        with stated_arithmetic(CPU):
            prefix = prefix_in_arithmetic(self._plan.prefix, torch.float64)
            suffix = in_arithmetic(self._plan.suffix, torch.float64)
            totals = [
                self._example(prefix(own(x, b)), suffix, int(index[b]), stream, first_draw, n)
                for b in range(len(x))
            ]
        return collect(self._reduction, totals, CPU)

    def _example(
        self, center: Tensor, suffix: Evaluate, index: int, stream: Stream, first_draw: int, n: int
    ) -> Tensor:
        def noisy(first: int, rows: int) -> Tensor:
            flat = center.reshape(1, -1).numpy()
            made = noisy_definition(flat, self._mechanism, stream, [index], first, rows)
            return torch.from_numpy(made).view(rows, *self._plan.noise_shape)

        return tally_example(suffix, center, noisy, self._reduction, self._tile, first_draw, n)
