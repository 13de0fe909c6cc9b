"""What examples and arguments must look like, and messages that say how to get there."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
import torch
from torch import nn

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.stream import SHARED_EXAMPLE, checked_index

InputRange = tuple[float, float]
SMALLEST_ALPHA = 1e-100  # its shares, however many, stay within what the statistics accept


def checked_range(input_range: Any) -> InputRange | None:
    """`input_range` as (low, high), or None."""
    if input_range is None:
        return None
    try:
        low, high = (float(v) for v in input_range)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InvalidArgument(
            f"`input_range` must be (low, high) with low < high, or None; got {input_range!r}."
        )
    return low, high


def checked_examples(
    x: Any, shape: tuple[int, ...] | None, input_range: InputRange | None, device: torch.device
) -> None:
    """Refuse examples of the wrong type, shape, range or device.

    Raises
    ------
    InvalidArgument
        Naming what is wrong, what is accepted and what to try.
    """
    if not isinstance(x, torch.Tensor):
        raise InvalidArgument(
            f"`x` must be a float32 tensor [B, ...], got {type(x).__name__}; use torch.from_numpy."
        )
    if x.dtype != torch.float32:
        hint = (
            "convert with x.float() / 255"
            if x.dtype == torch.uint8
            else "convert with x.float(); the certificate is for the converted values"
        )
        raise InvalidArgument(f"`x` must be float32, got {x.dtype}: {hint}.")
    if x.ndim < 2:
        raise InvalidArgument(
            f"`x` must be a batch [B, ...], got shape {tuple(x.shape)}; x[None] makes one of 1."
        )
    if shape is not None and tuple(x.shape[1:]) != shape:
        raise InvalidArgument(
            f"`x` has examples of shape {tuple(x.shape[1:])}, but the model takes {shape}."
        )
    if x.device != device:
        raise InvalidArgument(
            f"`x` is on {x.device}, the model on {device}; nothing is moved silently: x.to(...)."
        )
    if not bool(torch.isfinite(x).all()):
        raise InvalidArgument("`x` holds NaN or infinity.")
    if input_range is not None and x.numel():
        _check_values(float(x.detach().min()), float(x.detach().max()), input_range)


def _check_values(low: float, high: float, input_range: InputRange) -> None:
    if input_range[0] <= low and high <= input_range[1]:
        return
    if high > 2 and low >= 0 and high <= 255:
        hint = "divide by 255: sigma and radii are in input units of [0, 1]"
    else:
        hint = (
            "is it normalised? Put the normalisation into the model, behind the noise, or state "
            "the range with `input_range=`"
        )
    raise InvalidArgument(
        f"`x` spans [{low:.4g}, {high:.4g}], outside the input range "
        f"[{input_range[0]:g}, {input_range[1]:g}]: {hint}."
    )


def checked_count(name: str, value: Any, least: int) -> int:
    """`value` as an int of at least `least`, or an error that names it."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        raise InvalidArgument(f"`{name}` must be an integer of at least {least}, got {value!r}.")
    return number


def checked_alpha(alpha: Any) -> float:
    """`alpha` as a float in (0, 1), above what float64 can bound."""
    try:
        value = float(alpha)
    except (TypeError, ValueError):
        value = float("nan")
    if not SMALLEST_ALPHA <= value < 1:
        raise InvalidArgument(
            f"`alpha` must lie in (0, 1), and not below {SMALLEST_ALPHA:g}; got {alpha!r}. It is "
            "the probability of a false claim, 0.001 by custom."
        )
    return value


def usable_device(device: torch.device | str) -> torch.device:
    """The device with its index ("cuda" is "cuda:0"), so that devices compare."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # the latter: torch built without CUDA
        raise InvalidArgument(f"`device` {device} cannot be used here: {error}") from error


def device_of(model: nn.Module) -> torch.device:
    """Where a model's weights are; the CPU where it has none."""
    first = next(iter(model.state_dict().values()), None)
    return torch.device("cpu") if first is None else first.device


def addresses(index: Any, unused: int, examples: int) -> Any:
    """The examples' addresses in the stream, uint32 [B].

    Parameters
    ----------
    index : None, int or int [B]
        None: the next ones of a counter; an int: the first of consecutive ones.
    unused : int
        The counter's first address that was never given.
    examples : int
    """
    if index is None:
        if unused + examples > SHARED_EXAMPLE:
            raise InvalidArgument(
                "This object has used up its addresses; make one with a new seed."
            )
        return np.arange(unused, unused + examples, dtype=np.uint32)
    if np.ndim(index) == 0:
        first = checked_count("index", index, 0)
        index = np.arange(first, first + examples, dtype=np.int64)
    found = checked_index(index)
    if len(found) != examples:
        raise InvalidArgument(f"`index` has {len(found)} entries for {examples} examples.")
    return found
