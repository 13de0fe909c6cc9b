"""Noise for the engines: from the compiled module on the CPU, from torch elsewhere.

Both read the same words. Their float32 values differ in the last places, so the source of the
noise is part of the arithmetic that a certificate records; lattice noise has the same bits from
both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from pixeldp_fast import config
from pixeldp_fast.noise import lattice
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.philox import words_numpy, words_torch
from pixeldp_fast.noise.stream import Stream, blocks_for, check_draws, checked_index
from pixeldp_fast.types import FloatArray

if TYPE_CHECKING:
    import torch


@cache
def native_module() -> Any | None:
    """The compiled module, or None where it was not built or `PIXELDP_NATIVE=0`."""
    if not config.native_allowed():
        return None
    try:
        from pixeldp_fast import _native
    except ImportError:
        return None
    return _native


@cache
def _isa(widest: str) -> str:
    """The widest instruction set of this machine that is no wider than `widest` ("": any)."""
    native = native_module()
    assert native is not None
    for name in reversed(config.ISAS[: config.ISAS.index(widest) + 1] if widest else ()):
        try:
            return str(native.isa(name))
        except ValueError:  # not on this machine
            continue
    return ""


def native_isa() -> str:
    """The instruction set that the compiled module uses, within what `PIXELDP_ISA` allows."""
    return _isa(config.widest_isa())


def noise_source(mechanism: AbstractMechanism, device: Any = "cpu") -> str:
    """What makes this mechanism's noise on `device`: "native" or "torch"."""
    # Only for the very class that names the law: a subclass may have changed it.
    has_law = vars(type(mechanism)).get("native_law") is not None
    native = native_module() is not None and has_law
    if mechanism.lattice is not None:
        native = native and hasattr(native_module(), "LatticeNoise")
    return "native" if native and str(device).startswith("cpu") else "torch"


def add_noise(
    center: torch.Tensor,
    mechanism: AbstractMechanism,
    stream: Stream,
    index: Sequence[int] | Any,
    first_draw: int,
    n: int,
) -> torch.Tensor:
    """`n` noisy copies of every example's features.

    Parameters
    ----------
    center : float32 [B, *shape]
        Features at the noise point.
    index : int [B]
        The examples' addresses in the stream.
    first_draw, n : int
        Draws [first_draw, first_draw + n).

    Returns
    -------
    noisy : float32 [B, n, *shape]
        Contiguous, on the device of `center`.

    Guarantee
        A value depends on (seed, purpose, index, draw, coordinate) alone, whatever the batch, the
        split or the number of threads; from the compiled module also whatever the instruction set.
    Cost
        4 bytes per coordinate and draw; the torch path about 100 bytes more while it works.
    """
    import torch

    rows, coordinates = len(center), math.prod(center.shape[1:])
    addresses = checked_index(index)
    check_draws(first_draw, n)
    shape = (rows, n, *center.shape[1:])
    if noise_source(mechanism, center.device) == "native":
        out = torch.empty(shape, dtype=torch.float32)
        flat = center.detach().contiguous().view(rows, coordinates)
        _native_fill(flat, mechanism, stream, addresses, first_draw, out.view(rows, n, coordinates))
        return out
    words_each = 1 if mechanism.lattice is None else 2
    blocks = blocks_for(coordinates, words_each)
    words = words_torch(stream, addresses, first_draw, n, blocks, center.device)
    if mechanism.lattice is not None:
        return _lattice_sum(center, mechanism, words).view(shape)
    unit = mechanism.unit_noise(words, torch)[..., :coordinates]
    noise = (mechanism.noise_scale * unit).view(shape)
    noisy: torch.Tensor = center.detach().unsqueeze(1) + noise
    return noisy


def _lattice_sum(
    center: torch.Tensor, mechanism: AbstractMechanism, words: torch.Tensor
) -> torch.Tensor:
    """float32(k)/m of the integer sums, [B, n, D], on the device of `center`."""
    import torch

    levels = mechanism.lattice
    assert levels is not None
    steps = lattice.rounded_torch(center.detach(), levels).flatten(1).unsqueeze(1)  # in C order
    noise = lattice.noise_torch(mechanism, words)[..., : steps.shape[-1]]
    # Divided by a tensor: by a number, some devices multiply by its rounded reciprocal instead.
    total = (steps + noise).to(torch.float32)
    return total / torch.full_like(total, levels)


def _native_fill(
    center: torch.Tensor,
    mechanism: AbstractMechanism,
    stream: Stream,
    index: Any,
    first_draw: int,
    out: torch.Tensor,
) -> None:
    import torch

    native = native_module()
    assert native is not None
    more = {}
    if mechanism.lattice is not None:
        center = lattice.rounded_torch(center, mechanism.lattice).to(torch.float32)
        more = {"lattice": native_lattice(mechanism)}
    native.add_noise(
        mechanism.native_law,
        mechanism.noise_scale,
        stream.seed,
        int(stream.purpose),
        index,
        first_draw,
        center.numpy(),
        out.numpy(),
        torch.get_num_threads(),
        native_isa(),
        **more,
    )


@lru_cache(maxsize=16)
def native_lattice(mechanism: AbstractMechanism) -> Any:
    """The mechanism's table as the compiled module holds it."""
    native, levels = native_module(), mechanism.lattice
    assert native is not None
    return native.LatticeNoise(lattice.lattice_table(mechanism).thresholds, levels)


def noise_definition(
    mechanism: AbstractMechanism,
    stream: Stream,
    index: Sequence[int] | Any,
    first_draw: int,
    n: int,
    coordinates: int,
) -> FloatArray:
    """The noise as it is defined: float64 [B, n, coordinates], from NumPy's words."""
    if mechanism.lattice is not None:
        steps = _lattice_definition(mechanism, stream, index, first_draw, n, coordinates)
        values: FloatArray = steps / float(mechanism.lattice)
        return values
    words = words_numpy(stream, index, first_draw, n, blocks_for(coordinates))
    unit: FloatArray = mechanism.unit_noise(words, np)
    return mechanism.noise_scale * unit[..., :coordinates]


def noisy_definition(
    center: FloatArray,
    mechanism: AbstractMechanism,
    stream: Stream,
    index: Sequence[int] | Any,
    first_draw: int,
    n: int,
) -> FloatArray:
    """Features under noise as they are defined: float64 [B, n, D] from float64 [B, D].

    On a lattice: the features rounded to it, summed with the noise in integers and converted once,
    float32(k)/m.
    """
    levels, coordinates = mechanism.lattice, center.shape[1]
    if levels is None:
        noise = noise_definition(mechanism, stream, index, first_draw, n, coordinates)
        return center[:, None] + noise
    steps = lattice.to_lattice(center, levels)[:, None]
    noise = _lattice_definition(mechanism, stream, index, first_draw, n, coordinates)
    return lattice.from_lattice(steps + noise, levels).astype(np.float64)


def _lattice_definition(
    mechanism: AbstractMechanism,
    stream: Stream,
    index: Sequence[int] | Any,
    first_draw: int,
    n: int,
    coordinates: int,
) -> Any:
    words = words_numpy(stream, index, first_draw, n, blocks_for(coordinates, 2))
    return lattice.noise_numpy(mechanism, words)[..., :coordinates]
