"""Noise for the engines: from the compiled module on the CPU, from torch elsewhere.

Both read the same words. Their float32 values differ in the last places, so the source of the
noise is part of the arithmetic that a certificate records.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from pixeldp_fast import config
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
    blocks = blocks_for(coordinates)
    words = words_torch(stream, addresses, first_draw, n, blocks, center.device)
    unit = mechanism.unit_noise(words, torch)[..., :coordinates]
    noise = (mechanism.noise_scale * unit).view(shape)
    noisy: torch.Tensor = center.detach().unsqueeze(1) + noise
    return noisy


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
    )


def noise_definition(
    mechanism: AbstractMechanism,
    stream: Stream,
    index: Sequence[int] | Any,
    first_draw: int,
    n: int,
    coordinates: int,
) -> FloatArray:
    """The noise as it is defined: float64 [B, n, coordinates], from NumPy's words."""
    words = words_numpy(stream, index, first_draw, n, blocks_for(coordinates))
    unit: FloatArray = mechanism.unit_noise(words, np)
    return mechanism.noise_scale * unit[..., :coordinates]
