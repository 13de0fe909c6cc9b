"""Tiles of draws through noise, network and head, on one stream and in memory taken once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pixeldp_fast.backends.arithmetic import Evaluate
from pixeldp_fast.backends.reduction import AbstractReduction
from pixeldp_fast.backends.tiles import empty_totals
from pixeldp_fast.backends.triton.draws import Draws

Noisy = Callable[[Tensor, Tensor, Draws, Tensor], None]  # (center, address, draws, out)


class Counter(Protocol):
    """A head: adds the rows' votes, and their scores where it keeps them, to a table."""

    def __call__(self, rows: Tensor, draws: Draws, table: Tensor) -> None: ...


@dataclass(frozen=True)
class Launch:
    """One tile: what is computed, and which of its rows count.

    Parameters
    ----------
    draws : Draws
        Of the whole tile, padding included.
    kept : slice
        The rows that were asked for.
    counted : Draws
        Of these.

    Both count examples from the first of the call, so that kernels are always handed the beginning
    of `center` and table: where a tensor begins is part of what a kernel is compiled for.
    """

    draws: Draws
    kept: slice
    counted: Draws


def anywhere(asked: Draws, rows: int) -> Iterator[Launch]:
    """Tiles packed with the draws of all examples, for networks that are blind to a row's place."""
    total = asked.examples * asked.n
    for first_row in range(0, total, rows):
        draws = asked._replace(first_row=first_row)
        yield Launch(draws, slice(0, rows), draws)


def aligned(asked: Draws, rows: int) -> Iterator[Launch]:
    """Tiles in which draw i of an example is row i mod `rows`, and nothing is of another example.

    `rows` divides 2^32, so that no tile reaches beyond the last draw.
    """
    last = asked.first_draw + asked.n
    for b in range(asked.examples):
        for start in range(asked.first_draw - asked.first_draw % rows, last, rows):
            low, high = max(start, asked.first_draw), min(start + rows, last)
            draws = _of_example(asked, b, start, rows)
            counted = _of_example(asked, b, low, high - low)
            yield Launch(draws, slice(low - start, high - start), counted)


def _of_example(asked: Draws, b: int, first_draw: int, n: int) -> Draws:
    """Draws [first_draw, first_draw + n) of the last of `b` + 1 examples."""
    return asked._replace(first_draw=first_draw, n=n, examples=b + 1, first_row=b * n)


Placement = Callable[[Draws, int], Iterator[Launch]]


class Pipeline:
    """Noise into one buffer, the network from there, and a head or a reduction on its rows.

    Parameters
    ----------
    noise_shape : tuple of int
    rows : int
        Of a tile, a power of two.
    dtype : torch.dtype
        Of the buffer.
    noisy : callable
        Fills the buffer [rows, H, W, C] or [rows, D].
    network : callable or None
        From the buffer, seen as [rows, *noise_shape], to what the head reads; None: the buffer.
    captured : bool
        Whether the network runs as a CUDA graph.
    """

    def __init__(
        self,
        noise_shape: tuple[int, ...],
        rows: int,
        dtype: torch.dtype,
        device: torch.device,
        noisy: Noisy,
        network: Evaluate | None,
        *,
        captured: bool,
    ) -> None:
        self._rows = rows
        self._noisy = noisy
        self._network = network
        memory = channels_last(noise_shape)
        self._buffer = torch.zeros((rows, *memory), dtype=dtype, device=device)  # [rows, H, W, C]
        self._seen = self._buffer.view(rows, *noise_shape)
        if len(noise_shape) == 3:
            self._seen = self._buffer.permute(0, 3, 1, 2)
        self._replay: Callable[[], Tensor] | None = None
        if captured and network is not None:
            self._replay = _captured(network, self._seen)

    @property
    def captured(self) -> bool:
        """Whether the network runs as a CUDA graph."""
        return self._replay is not None

    def launched(self, center: Tensor, address: Tensor, launch: Launch) -> Tensor:
        """What the network makes of a tile, valid until the next one."""
        self.noised(center, address, launch.draws)
        return self._through()

    def noised(self, center: Tensor, address: Tensor, draws: Draws) -> Tensor:
        """The buffer with a tile of noisy features, [rows, H, W, C] or [rows, D]."""
        some = draws.examples
        self._noisy(center[:some], address[:some], draws, self._buffer)
        return self._buffer

    def evaluated(self, features: Tensor) -> Tensor:
        """The same for given features [rows, *noise_shape] in place of the noise's."""
        self._seen.copy_(features)
        return self._through()

    def _through(self) -> Tensor:
        if self._replay is not None:
            return self._replay()
        return self._buffer if self._network is None else self._network(self._seen)

    def count(
        self,
        center: Tensor,
        address: Tensor,
        asked: Draws,
        table: Tensor,
        head: Counter,
        place: Placement,
    ) -> None:
        """Add all draws' votes to `table`, int64 [B, width]."""
        for launch in place(asked, self._rows):
            made = self.launched(center, address, launch)
            rows = _full(made[launch.kept], self._rows)
            head(rows, launch.counted, table[: launch.counted.examples])

    def reduce(
        self,
        center: Tensor,
        address: Tensor,
        asked: Draws,
        reduction: AbstractReduction,
        logits: Evaluate,
        place: Placement,
    ) -> Tensor:
        """Every example's totals by a reduction that has no kernel, int64 [B, width]."""
        empty = empty_totals(reduction, center.device)
        totals = [empty] * asked.examples
        for launch in place(asked, self._rows):
            outputs = logits(self.launched(center, address, launch))[launch.kept]
            for b, some in _by_example(launch.counted, len(outputs)):
                totals[b] = totals[b] + reduction.reduce(outputs[some])
        return torch.stack(totals) if totals else empty.new_zeros((0, len(empty)))


def _full(rows: Tensor, tile: int) -> Tensor:
    """The rows at the beginning of a whole tile: a head takes no other."""
    if len(rows) == tile:
        return rows
    padded = rows.new_zeros((tile, *rows.shape[1:]))
    padded[: len(rows)] = rows
    return padded


def _by_example(counted: Draws, rows: int) -> Iterator[tuple[int, slice]]:
    """The examples of a tile's counted rows, and the rows of each."""
    first, n = counted.first_row, counted.n
    last = min(first + rows, n * counted.examples)
    for b in range(first // n, -(-last // n)):
        yield b, slice(max(b * n, first) - first, min((b + 1) * n, last) - first)


def channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in memory of one draw's features: [H, W, C], or [D] of anything but a map."""
    if len(shape) == 3:
        return (shape[1], shape[2], shape[0])
    return (torch.Size(shape).numel(),)


def in_c_order(buffer: Tensor) -> Tensor:
    """A buffer's rows as [rows, D], coordinates in the C order of [C, H, W]."""
    return (buffer.permute(0, 3, 1, 2) if buffer.ndim == 4 else buffer).flatten(1)


def _captured(network: Evaluate, x: Tensor) -> Callable[[], Tensor]:
    """The network on this very tensor as a CUDA graph; compiling happens in the runs before.

    On a stream of its own: torch's default one for captures belongs to whatever device was first,
    and stays the current stream where a capture fails.
    """
    before = torch.cuda.current_stream(x.device)
    side = torch.cuda.Stream(x.device)  # type: ignore[no-untyped-call]
    side.wait_stream(before)
    with torch.cuda.stream(side):
        for _ in range(3):
            network(x)
    before.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            out = network(x)
    finally:
        torch.cuda.set_stream(before)

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay
