"""The loop of the engines that evaluate a torch module: draws in tiles of one fixed shape."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pixeldp_fast.backends.arithmetic import Evaluate
from pixeldp_fast.backends.reduction import AbstractReduction
from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.errors import UnsupportedModel

Noisy = Callable[[int, int], Tensor]  # (first draw, n) -> features under noise [n, *noise_shape]


def tally_example(
    suffix: Evaluate,
    center: Tensor,
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

    Where the features are not finite, noise cannot hide them: every draw counts as non-finite.
    """
    if not bool(torch.isfinite(center).all()):
        hopeless = torch.full((1, reduction.num_outputs), torch.nan, device=center.device)
        return n * reduction.reduce(hopeless)
    totals = empty_totals(reduction, center.device)
    start = first_draw
    while start < first_draw + n:
        offset = start % tile
        rows = min(tile - offset, first_draw + n - start)
        outputs = suffix(_padded(noisy(start, rows), offset, tile))
        if outputs.shape != (tile, reduction.num_outputs):
            raise UnsupportedModel(
                f"suffix gives outputs {list(outputs.shape)} for {tile} draws where "
                f"{[tile, reduction.num_outputs]} were promised; it has changed since."
            )
        totals = totals + reduction.reduce(outputs[offset : offset + rows])
        start += rows
    return totals


def _padded(rows: Tensor, offset: int, tile: int) -> Tensor:
    if len(rows) == tile:
        return rows
    batch = rows.new_zeros((tile, *rows.shape[1:]))
    batch[offset : offset + len(rows)] = rows
    return batch


def own(x: Tensor, b: int) -> Tensor:
    """Example b alone, [1, *input_shape], as a copy in memory of its own.

    A prefix that works in place then leaves the caller's examples as they are, and a kernel that
    minds the alignment of its input computes the same wherever the example stood in its batch.
    """
    return x[b : b + 1].detach().clone(memory_format=torch.contiguous_format)


def empty_totals(reduction: AbstractReduction, device: torch.device) -> Tensor:
    """The totals of no draws."""
    return reduction.reduce(torch.zeros((0, reduction.num_outputs), device=device))


def collect(reduction: AbstractReduction, totals: list[Tensor], device: torch.device) -> Tally:
    """The tally of all examples, moved to the host in one copy."""
    empty = empty_totals(reduction, device)
    rows = torch.stack(totals) if totals else empty.new_zeros((0, len(empty)))
    return reduction.tally(rows.cpu().numpy())


def check_rows_alone(
    suffix: Evaluate,
    noise_shape: tuple[int, ...],
    tile: int,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Refuse a suffix whose outputs depend on chance, on the other rows or on the row's place.

    First, middle and last row keep their bits while all the others are replaced, by other values
    and by zeros. Moved by one place, rows keep their outputs up to rounding (up to a tenth of them
    may jump: networks with steps in them do, where rounding meets a step).

    Raises
    ------
    UnsupportedModel
        Saying which of these fails.
    """
    generator = torch.Generator().manual_seed(0)

    def random_batch() -> Tensor:
        return torch.randn((tile, *noise_shape), generator=generator).to(device)

    base = random_batch()
    once = suffix(base.clone()).clone()
    if not torch.equal(once.nan_to_num(), suffix(base.clone()).nan_to_num()):
        raise UnsupportedModel(
            "suffix gives different outputs for the same input (dropout or noise of its own?): it "
            "is not a function and cannot be certified."
        )
    for row in {0, tile // 2, tile - 1}:
        for others in (random_batch(), torch.zeros_like(base)):
            others[row] = base[row]
            if not torch.equal(once[row].nan_to_num(), suffix(others)[row].nan_to_num()):
                raise UnsupportedModel(
                    "suffix gives one row different outputs when only the other rows of its batch "
                    "change (batch statistics?): it is not a function of its input and cannot be "
                    "certified."
                )
    moved = suffix(base.roll(1, dims=0)).roll(-1, dims=0)
    allowed = torch.finfo(dtype).eps ** 0.5 * once.nan_to_num().abs().max().clamp_min(1e-30)
    jumps = ((moved - once).nan_to_num().abs() > allowed).any(dim=1)
    if float(jumps.float().mean()) > 0.1:
        raise UnsupportedModel(
            "suffix gives a row other outputs at another place in the batch: it is not a function "
            "of its input and cannot be certified."
        )
