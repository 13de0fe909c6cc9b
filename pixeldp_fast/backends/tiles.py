"""The loop of the engines that evaluate a torch module: draws in tiles of one fixed shape."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pixeldp_fast.backends.reduction import AbstractReduction
from pixeldp_fast.backends.tally import Tally

Noisy = Callable[[int, int], Tensor]  # (first draw, n) -> features under noise [n, *noise_shape]


def tally_example(
    suffix: Callable[[Tensor], Tensor],
    noisy: Noisy,
    reduction: AbstractReduction,
    tile: int,
    first_draw: int,
    n: int,
) -> Tensor:
    """One example's totals over draws [first_draw, first_draw + n), int64 [width].

    Draw i is always row i mod `tile` of a batch of `tile` rows. Library kernels choose their
    algorithm by the shape and work row by row, so its outputs depend on nothing else. A request
    that begins or ends inside a tile pads the rest with zeros and drops those rows.
    """
    totals: Tensor | None = None
    start = first_draw
    while start < first_draw + n:
        offset = start % tile
        rows = min(tile - offset, first_draw + n - start)
        outputs = suffix(_padded(noisy(start, rows), offset, tile))[offset : offset + rows]
        part = reduction.reduce(outputs)
        totals = part if totals is None else totals + part
        start += rows
    assert totals is not None
    return totals


def _padded(rows: Tensor, offset: int, tile: int) -> Tensor:
    if len(rows) == tile:
        return rows
    batch = rows.new_zeros((tile, *rows.shape[1:]))
    batch[offset : offset + len(rows)] = rows
    return batch


def collect(reduction: AbstractReduction, totals: list[Tensor], outputs: int) -> Tally:
    """The tally of all examples, moved to the host in one copy."""
    if not totals:
        empty = reduction.reduce(torch.zeros((0, outputs)))
        return reduction.tally(empty.new_zeros((0, len(empty))).numpy())
    return reduction.tally(torch.stack(totals).cpu().numpy())
