"""Any torch module, on its own device, in the arithmetic that will serve it."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from pixeldp_fast.backends.arithmetic import (
    Evaluate,
    in_arithmetic,
    machine,
    prefix_in_arithmetic,
    stated_arithmetic,
)
from pixeldp_fast.backends.base import AbstractBackend, AbstractEngine, Support
from pixeldp_fast.backends.reduction import AbstractReduction
from pixeldp_fast.backends.requirements import center_dtype, float32_noise, weights_on
from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.backends.tiles import check_rows_alone, collect, own, tally_example
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.sampling import add_noise, noise_source
from pixeldp_fast.noise.stream import Stream
from pixeldp_fast.plan.plan import Plan
from pixeldp_fast.types import IntArray

TILE_LIMITS = (128, 1024)
# Noise values per tile. CPU: tiles of about 128 draws ran the PixelDP CNN and ResNet-20 fastest on
# two cores with 1 MiB of second-level cache. CUDA: not measured, sized to fill the device.
TILE_COORDINATES = {"cpu": 2**19, "cuda": 2**24}
# From this many convolutions on, channels-last layout pays for its conversions (ResNet-20: 1.2 to
# 1.4 times on a CPU; the two-convolution PixelDP CNN: 0.9).
CHANNELS_LAST_CONVOLUTIONS = 4


class TorchBackend(AbstractBackend):
    """Eager PyTorch over tiles of draws; float32 with TF32 off unless a dtype is named.

    The dtype is the suffix's: the prefix and the noise stay in float32 (float64 for a prefix with
    float64 weights), so that what is computed is what the sensitivity is of.
    """

    name: ClassVar[str] = "torch"

    def supports(
        self,
        plan: Plan,
        mechanism: AbstractMechanism,
        reduction: AbstractReduction,
        device: torch.device,
        *,
        dtype: torch.dtype | None = None,
    ) -> Support:
        for missed in (float32_noise(mechanism), weights_on(plan, device)):
            if missed is not None:
                return Support(False, missed)
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
        chosen = torch.float32 if dtype is None else dtype
        if not chosen.is_floating_point:
            raise InvalidArgument(f"`dtype` must be a floating type, got {chosen}.")
        rows = default_tile(plan, device) if tile is None else tile
        engine = _TorchEngine(plan, mechanism, reduction, device, chosen, rows)
        engine.check()
        return engine


def default_tile(plan: Plan, device: torch.device) -> int:
    """Draws per evaluation: a power of two, from the plan and the kind of device alone."""
    budget = TILE_COORDINATES.get(device.type, TILE_COORDINATES["cpu"])
    fitting = max(1, budget // max(1, math.prod(plan.noise_shape)))
    return int(min(max(2 ** (fitting.bit_length() - 1), TILE_LIMITS[0]), TILE_LIMITS[1]))


class _TorchEngine(AbstractEngine):
    def __init__(
        self,
        plan: Plan,
        mechanism: AbstractMechanism,
        reduction: AbstractReduction,
        device: torch.device,
        dtype: torch.dtype,
        tile: int,
    ) -> None:
        self._plan = plan
        self._mechanism = mechanism
        self._reduction = reduction
        self._device = device
        self._dtype = dtype
        self._tile = tile
        self._layout = _layout(plan)

    @property
    def arithmetic(self) -> str:
        dtype = str(self._dtype).removeprefix("torch.")
        layout = str(self._layout).removeprefix("torch.")
        on_lattice = self._mechanism.lattice is not None  # the same bits whoever makes it
        source = "lattice" if on_lattice else noise_source(self._mechanism, self._device)
        return (
            f"torch {torch.__version__} {dtype} {layout} tile {self._tile} noise {source} "
            f"{machine(self._device)}"
        )

    @property
    def granularity(self) -> int:
        return self._tile

    def run(self, x: Tensor, index: IntArray, stream: Stream, first_draw: int, n: int) -> Tally:
        self._reduction.check_draws(n)
        with stated_arithmetic(self._device):
            dtype = center_dtype(self._plan, self._mechanism)
            prefix = prefix_in_arithmetic(self._plan.prefix, dtype)
            suffix = in_arithmetic(self._plan.suffix, self._dtype, self._layout)
            totals = [
                self._example(prefix(own(x, b)), suffix, int(index[b]), stream, first_draw, n)
                for b in range(len(x))
            ]
        return collect(self._reduction, totals, self._device)

    def _example(
        self,
        features: Tensor,
        suffix: Evaluate,
        index: int,
        stream: Stream,
        first_draw: int,
        n: int,
    ) -> Tensor:
        center = features.float().contiguous()  # [1, *noise_shape]

        def noisy(first: int, rows: int) -> Tensor:
            return add_noise(center, self._mechanism, stream, [index], first, rows)[0]

        return tally_example(suffix, center, noisy, self._reduction, self._tile, first_draw, n)

    def check(self) -> None:
        """Refuse a suffix that is not a function of its input; see `check_rows_alone`."""
        with stated_arithmetic(self._device):
            suffix = in_arithmetic(self._plan.suffix, self._dtype, self._layout)
            check_rows_alone(suffix, self._plan.noise_shape, self._tile, self._dtype, self._device)


def _layout(plan: Plan) -> torch.memory_format:
    convolutions = sum(isinstance(m, nn.Conv2d) for m in plan.suffix.modules())
    if len(plan.noise_shape) == 3 and convolutions >= CHANNELS_LAST_CONVOLUTIONS:
        return torch.channels_last
    return torch.contiguous_format
