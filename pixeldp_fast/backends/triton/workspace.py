"""How many draws a tile holds, and whether the device has the memory for it."""

from __future__ import annotations

import torch

from pixeldp_fast.backends.triton.segments import peak_elements
from pixeldp_fast.plan.ops import Graph
from pixeldp_fast.plan.plan import Plan

# Not measured: large enough to fill a GPU with every network of the field.
BUDGET = 2**31  # bytes of activations
SHARE = 4  # at most one part in so many of the device's memory
ROWS_LIMITS = (128, 2**16)  # below 64 rows a product takes other instructions, and rounds otherwise
ALLOWANCE = 2  # for the libraries' own workspace and values that overlap
# Values that a module that does not lower is taken to hold, per coordinate at its noise point.
MODULE_VALUES = 64


def values_of(plan: Plan, graph: Graph | None) -> int:
    """Values that one draw holds at one time, the noisy features among them."""
    coordinates = torch.Size(plan.noise_shape).numel()
    values = MODULE_VALUES * coordinates if graph is None else peak_elements(graph)
    return coordinates + ALLOWANCE * values


def rows_for(values: int, dtype: torch.dtype, device: torch.device) -> int:
    """Rows of a tile: a power of two, by the network, the dtype and the kind of device alone.

    What happens to be free does not decide, since a tile is part of the arithmetic: the same call
    gives the same votes on a busy device, or is refused.
    """
    if device.type != "cuda":
        return ROWS_LIMITS[0]
    total = torch.cuda.get_device_properties(device).total_memory
    fitting = min(BUDGET, total // SHARE) // (values * dtype.itemsize)
    return min(max(_power_of_two_below(fitting), ROWS_LIMITS[0]), ROWS_LIMITS[1])


def padded_rows(tile: int) -> int:
    """A tile as it was asked for, rounded up to a power of two of at least 128 rows."""
    return max(1 << (tile - 1).bit_length(), ROWS_LIMITS[0])


def missing(values: int, dtype: torch.dtype, device: torch.device, rows: int) -> str | None:
    """What is missed for a tile of `rows` rows, with what would fit; None if nothing is."""
    free = free_bytes(device)
    each = values * dtype.itemsize
    if free is None or rows * each <= free:
        return None
    fitting = _power_of_two_below(free // each)
    works = (
        f"name tile={fitting}"
        if fitting >= ROWS_LIMITS[0]
        else "free some of it, name dtype=torch.bfloat16, or use backend='torch' with a small tile"
    )
    return (
        f"a tile of {rows} draws takes about {rows * each >> 20} MiB, and {free >> 20} MiB are "
        f"free on {device}; {works}"
    )


def free_bytes(device: torch.device) -> int | None:
    """Memory that a new engine can take, with what torch holds without using it."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + unused)


def _power_of_two_below(value: int) -> int:
    return 1 << max(value.bit_length() - 1, 0)
