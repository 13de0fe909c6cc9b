"""The sources of noise on this machine, under one signature."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pixeldp_fast.noise import lattice
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.philox import words_torch
from pixeldp_fast.noise.sampling import add_noise, noise_definition, noise_source
from pixeldp_fast.noise.stream import Stream, blocks_for
from pixeldp_fast.types import FloatArray

# (mechanism, stream, index, first draw, n, coordinates) -> float64 [B, n, D]
Draw = Callable[[AbstractMechanism, Stream, Any, int, int, int], FloatArray]


@dataclass(frozen=True)
class Sampler:
    """One way to make noise.

    Parameters
    ----------
    name : str
    draw : function
        Noise around 0 for draws [first, first + n) of the examples at `index`.
    """

    name: str
    draw: Draw


DEFINITION = Sampler("definition", noise_definition)


def samplers(mechanism: AbstractMechanism) -> Iterator[Sampler]:
    """All sources of this mechanism's noise here."""
    yield DEFINITION
    if noise_source(mechanism, "cpu") == "native":
        yield Sampler("compiled", _on("cpu"))
    yield Sampler("torch, cpu", _from_torch)
    for i in range(torch.cuda.device_count()):
        yield Sampler(f"torch, cuda:{i}", _on(f"cuda:{i}"))


def _on(device: str) -> Draw:
    """What engines on this device use."""

    def draw(
        mechanism: AbstractMechanism, stream: Stream, index: Any, first: int, n: int, d: int
    ) -> FloatArray:
        center = torch.zeros((len(index), d), device=device)
        return _numpy(add_noise(center, mechanism, stream, index, first, n))

    return draw


def _from_torch(
    mechanism: AbstractMechanism, stream: Stream, index: Any, first: int, n: int, d: int
) -> FloatArray:
    """torch on the CPU, also where the compiled module would be used."""
    levels = mechanism.lattice
    blocks = blocks_for(d, 1 if levels is None else 2)
    words = words_torch(stream, index, first, n, blocks, "cpu")
    if levels is None:
        return _numpy(mechanism.noise_scale * mechanism.unit_noise(words, torch)[..., :d])
    return _numpy(lattice.noise_torch(mechanism, words)[..., :d]) / levels


def _numpy(noise: torch.Tensor) -> FloatArray:
    return np.asarray(noise.double().cpu().numpy())
