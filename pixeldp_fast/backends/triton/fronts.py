"""The noise with what directly follows it, by one kernel: how every tile begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from pixeldp_fast.backends.arithmetic import Evaluate
from pixeldp_fast.backends.base import Support
from pixeldp_fast.backends.triton import lattice, noise, operators, tuning
from pixeldp_fast.backends.triton.draws import Draws
from pixeldp_fast.backends.triton.executor import Noisy
from pixeldp_fast.backends.triton.fused import floats
from pixeldp_fast.backends.triton.runs import AbstractKernel, Run, Target
from pixeldp_fast.backends.triton.segments import leading, prologue_of
from pixeldp_fast.noise.lattice import rounded_torch
from pixeldp_fast.plan.interpret import activated
from pixeldp_fast.plan.ops import Activation, Graph


def _same(features: Tensor) -> Tensor:
    return features


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
    centred : callable
        From features at the noise point, float32 [B, D], finite, to the centres that `noisy`
        reads; once per example.
    """

    noisy: Noisy
    behind: Evaluate
    words: str
    least_rows: int
    gain: float = 1.0
    offset: float = 0.0
    centred: Evaluate = _same


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


class LatticeNoise(AbstractKernel[Front]):
    """Noise on a lattice, alone: what follows it stays with the network."""

    name: ClassVar[str] = "lattice"
    on_lattice: ClassVar[bool] = True

    def claim(self, graph: Graph, first: int, target: Target) -> int | None:
        return 0

    def supports(self, run: Run, target: Target) -> Support:
        return Support(True)

    def prepare(self, run: Run, target: Target) -> Front:
        mechanism, shape = target.mechanism, run.graph.input_shape
        assert mechanism is not None
        levels = mechanism.lattice
        assert levels is not None
        channels = shape[0] if len(shape) == 3 else 1

        def noisy(center: Tensor, address: Tensor, draws: Draws, out: Tensor) -> None:
            lattice.noisy(center, address, draws, mechanism, out, channels=channels)

        def centred(features: Tensor) -> Tensor:
            return rounded_torch(features, levels).int()

        return Front(noisy, _same, "noise lattice", least_rows=8, centred=centred)


class TritonNoise(AbstractKernel[Front]):
    """Any noise in floats, with an affine or activation that alone reads it."""

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
