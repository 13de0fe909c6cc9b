"""Any torch module, on its own device, in the arithmetic that will serve it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pixeldp_fast.backends.base import AbstractBackend, AbstractEngine, Support
from pixeldp_fast.backends.reduction import AbstractReduction
from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.backends.tiles import collect, tally_example
from pixeldp_fast.errors import InvalidArgument, UnsupportedModel
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.sampling import add_noise, noise_source
from pixeldp_fast.noise.stream import Stream
from pixeldp_fast.plan.plan import Plan
from pixeldp_fast.types import IntArray

Evaluate = Callable[[Tensor], Tensor]

TILE_LIMITS = (128, 1024)
# Noise values per tile. CPU: tiles of about 128 draws ran the PixelDP CNN and ResNet-20 fastest on
# two cores with 1 MiB of second-level cache. CUDA: not measured, sized to fill the device.
TILE_COORDINATES = {"cpu": 2**19, "cuda": 2**24}
# From this many convolutions on, channels-last layout pays for its conversions (ResNet-20: 1.2 to
# 1.4 times on a CPU; the two-convolution PixelDP CNN: 0.9).
CHANNELS_LAST_CONVOLUTIONS = 4


class TorchBackend(AbstractBackend):
    """Eager PyTorch over tiles of draws; float32 with TF32 off unless a dtype is named."""

    name: ClassVar[str] = "torch"

    def supports(
        self,
        plan: Plan,
        mechanism: AbstractMechanism,
        reduction: AbstractReduction,
        device: torch.device,
    ) -> Support:
        parts = (("prefix", plan.prefix), ("suffix", plan.suffix))
        for name, tensor in (
            (f"{part}.{key}", value)
            for part, module in parts
            for key, value in module.state_dict().items()
        ):
            if tensor.device != device:
                return Support(False, f"{name} is on {tensor.device}, the examples on {device}")
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
        engine.check_rows_alone()
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
        source = noise_source(self._mechanism, self._device)
        return (
            f"torch {torch.__version__} {dtype} {layout} tile {self._tile} noise {source} "
            f"{_machine(self._device)}"
        )

    def run(self, x: Tensor, index: IntArray, stream: Stream, first_draw: int, n: int) -> Tally:
        self._reduction.check_draws(n)
        with torch.inference_mode(), _ieee_float32():
            prefix, suffix = self._callable(self._plan.prefix), self._callable(self._plan.suffix)
            totals = [
                self._example(prefix(x[b : b + 1]), suffix, int(index[b]), stream, first_draw, n)
                for b in range(len(x))  # one at a time: the prefix must not see the batch either
            ]
        return collect(self._reduction, totals, self._plan.num_outputs)

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

        if n == 0:
            return torch.zeros_like(self._reduction.reduce(suffix(center)))
        return tally_example(suffix, noisy, self._reduction, self._tile, first_draw, n)

    def _callable(self, module: nn.Module) -> Evaluate:
        """`module` in this engine's dtype and layout, with its weights as they are now."""

        def converted(tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point():
                return tensor
            layout = self._layout if tensor.ndim == 4 else torch.contiguous_format
            return tensor.to(self._dtype, memory_format=layout)

        state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        weights = {name: converted(tensor) for name, tensor in state.items()}
        if all(weights[name] is tensor for name, tensor in state.items()):
            return lambda x: cast(Tensor, module(converted(x)))
        return lambda x: cast(Tensor, functional_call(module, weights, (converted(x),)))

    def check_rows_alone(self) -> None:
        """Refuse a suffix whose outputs depend on chance or on the other rows of its batch.

        Raises
        ------
        UnsupportedModel
            When the first row's outputs change, in any bit, between two evaluations that differ in
            the other rows only.
        """
        generator = torch.Generator().manual_seed(0)
        shape = (self._tile, *self._plan.noise_shape)
        batch = torch.rand(shape, generator=generator).to(self._device)
        with torch.inference_mode(), _ieee_float32():
            suffix = self._callable(self._plan.suffix)
            once = suffix(batch)[0].clone()
            batch[1:] = 1 - batch[1:]
            again = suffix(batch)[0]
        if not torch.equal(once.nan_to_num(), again.nan_to_num()):
            raise UnsupportedModel(
                "suffix gives one row different outputs when only the other rows of its batch "
                "change, or is random in itself (dropout or noise of its own, batch statistics): "
                "it is not a function of its input and cannot be certified."
            )


def _layout(plan: Plan) -> torch.memory_format:
    convolutions = sum(isinstance(m, nn.Conv2d) for m in plan.suffix.modules())
    if len(plan.noise_shape) == 3 and convolutions >= CHANNELS_LAST_CONVOLUTIONS:
        return torch.channels_last
    return torch.contiguous_format


@contextlib.contextmanager
def _ieee_float32() -> Iterator[None]:
    """float32 means IEEE float32 while an engine runs, whatever is set elsewhere."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} cuda {torch.version.cuda}"
    return (
        f"{device.type} {torch.backends.cpu.get_cpu_capability()} threads {torch.get_num_threads()}"
    )
