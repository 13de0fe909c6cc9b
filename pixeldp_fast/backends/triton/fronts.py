"""The noise with what directly follows it, by one kernel: how every tile begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from pixeldp_fast.backends.arithmetic import Evaluate
from pixeldp_fast.backends.base import Support
from pixeldp_fast.backends.triton import noise, operators, tuning
from pixeldp_fast.backends.triton.draws import Draws
from pixeldp_fast.backends.triton.executor import Noisy
from pixeldp_fast.backends.triton.fused import floats
from pixeldp_fast.backends.triton.runs import AbstractKernel, Run, Target
from pixeldp_fast.backends.triton.segments import leading, prologue_of
from pixeldp_fast.plan.interpret import activated
from pixeldp_fast.plan.ops import Activation, Graph


@dataclass(frozen=True)
class Front:
    """The beginning of every tile.

    Parameters
    ----------
    noisy : callable
        Makes a tile of noisy features, with what the kernel took of the network.
    behind : callable
        What it took, in torch: from float32 features [rows, *noise_shape] to such.
    least_rows : int
        Of a tile.
    gain, offset : float
        Its largest scale and shift: by how much an error of the noise can grow.
    """

    noisy: Noisy
    behind: Evaluate
    words: str
    least_rows: int
    gain: float = 1.0
    offset: float = 0.0


class Fill(Protocol):
    """A launcher of noise: `noise.noisy` without its configuration."""

    def __call__(
        self,
        center: Tensor,
        address: Tensor,
        draws: Draws,
        out: Tensor,
        *,
        channels: int,
        scale: Tensor | None,
        shift: Tensor | None,
        slope: float,
    ) -> None: ...


class TritonNoise(AbstractKernel[Front]):
    """Any noise, with an affine or activation that alone reads it."""

    name: ClassVar[str] = "noise"

    def claim(self, graph: Graph, first: int, target: Target) -> int | None:
        return leading(graph)

    def supports(self, run: Run, target: Target) -> Support:
        return Support(True)

    def prepare(self, run: Run, target: Target) -> Front:
        channels, coordinates = channels_of(run)
        config = tuning.chosen(
            self.name,
            tuning.shape_of(channels, coordinates),
            target.dtype,
            target.device,
            noise.default_config(channels, coordinates),
        )
        fields = operators.fields_of(config)

        def fill(
            center: Tensor,
            address: Tensor,
            draws: Draws,
            out: Tensor,
            *,
            channels: int,
            scale: Tensor | None,
            shift: Tensor | None,
            slope: float,
        ) -> None:
            words = operators.words_of(draws)
            operators.noisy(
                center, address, out, scale, shift, channels, slope, draws.scale, words, fields
            )

        return front_of(run, target, fill, tuning.described(self.name, config), config.rows)


def channels_of(run: Run) -> tuple[int, int]:
    """Channels of the noisy features as the kernels count them, and coordinates."""
    shape, prologue = run.graph.input_shape, prologue_of(run.nodes)
    coordinates = torch.Size(shape).numel()
    if len(shape) == 3:
        return shape[0], coordinates
    return (1 if prologue.scale is None else coordinates), coordinates


def front_of(run: Run, target: Target, fill: Fill, words: str, rows: int) -> Front:
    """The front of a kernel that fills tiles in multiples of `rows`."""
    channels, _ = channels_of(run)
    prologue = prologue_of(run.nodes)
    scale, shift = (
        None if t is None else floats(t, target.device) for t in (prologue.scale, prologue.shift)
    )

    def noisy(center: Tensor, address: Tensor, draws: Draws, out: Tensor) -> None:
        fill(
            center,
            address,
            draws,
            out,
            channels=channels,
            scale=scale,
            shift=shift,
            slope=prologue.slope,
        )

    def behind(features: Tensor) -> Tensor:
        if scale is not None and shift is not None:
            axes = (-1,) + (1,) * (features.ndim - 2)
            features = features * scale.view(axes) + shift.view(axes)
        return activated(Activation(prologue.slope), features)

    gain, offset = (0.0 if t is None else float(t.abs().max()) for t in (scale, shift))
    return Front(noisy, behind, words, max(rows, 8), gain if scale is not None else 1.0, offset)


def plain(shape: tuple[int, ...]) -> Graph:
    """A graph of no operation: what stands behind the noise of a module that does not lower."""
    return Graph((), (shape,), 0)
