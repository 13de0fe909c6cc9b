"""The definition: eager float64, noise from NumPy, one tile after the other."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from pixeldp_fast.backends.base import AbstractBackend, AbstractEngine, Support
from pixeldp_fast.backends.reduction import AbstractReduction
from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.backends.tiles import collect, tally_example
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.sampling import noise_definition
from pixeldp_fast.noise.stream import Stream
from pixeldp_fast.plan.plan import Plan
from pixeldp_fast.types import IntArray

TILE = 64


class ReferenceBackend(AbstractBackend):
    """Slow and plain: what every other backend is compared with."""

    name: ClassVar[str] = "reference"

    def supports(
        self,
        plan: Plan,
        mechanism: AbstractMechanism,
        reduction: AbstractReduction,
        device: torch.device,
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
        return _ReferenceEngine(plan, mechanism, reduction, tile or TILE)


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
            f"torch {torch.__version__} float64 tile {self._tile} noise numpy {np.__version__} "
            f"cpu {torch.backends.cpu.get_cpu_capability()} threads {torch.get_num_threads()}"
        )

    def run(self, x: Tensor, index: IntArray, stream: Stream, first_draw: int, n: int) -> Tally:
        self._reduction.check_draws(n)
        with torch.inference_mode():
            totals = [
                self._example(x[b : b + 1], int(index[b]), stream, first_draw, n)
                for b in range(len(x))
            ]
        return collect(self._reduction, totals, self._plan.num_outputs)

    def _example(self, x: Tensor, index: int, stream: Stream, first_draw: int, n: int) -> Tensor:
        plan = self._plan
        features = _in_float64(plan.prefix, x.double())  # [1, *noise_shape]

        def noisy(first: int, rows: int) -> Tensor:
            noise = noise_definition(
                self._mechanism, stream, [index], first, rows, features.numel()
            )
            return features + torch.from_numpy(noise).view(rows, *plan.noise_shape)

        def suffix(batch: Tensor) -> Tensor:
            return _in_float64(plan.suffix, batch)

        if n == 0:
            return torch.zeros_like(self._reduction.reduce(suffix(features)))
        return tally_example(suffix, noisy, self._reduction, self._tile, first_draw, n)


def _in_float64(module: nn.Module, x: Tensor) -> Tensor:
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    doubled = {k: v.double() if v.is_floating_point() else v for k, v in state.items()}
    out: Tensor = functional_call(module, doubled, (x,))
    return out
