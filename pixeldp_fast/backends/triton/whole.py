"""A chain of dense layers as one kernel: nothing per draw leaves the chip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from pixeldp_fast.backends.base import Support
from pixeldp_fast.backends.triton import mlp, tuning
from pixeldp_fast.backends.triton.draws import Draws
from pixeldp_fast.backends.triton.fused import Scores, floats, weights
from pixeldp_fast.backends.triton.runs import AbstractKernel, Run, Target
from pixeldp_fast.backends.triton.segments import Chain, as_chain
from pixeldp_fast.plan.ops import Graph

ROWS = 2**22  # of a launch, at most: enough to fill any GPU, and a grid that any takes

Whole = Callable[[Tensor, Tensor, Draws, Tensor], None]  # (center, address, draws, table)


class Count(Protocol):
    """Adds all draws' votes, and with softmax their scores, to a table [B, width]."""

    def __call__(
        self, center: Tensor, address: Tensor, draws: Draws, table: Tensor, scores: Scores
    ) -> None: ...


@dataclass(frozen=True)
class WholeNetwork:
    """A run from the noise to the last layer, with the count behind it."""

    count: Count
    words: str


class TritonChain(AbstractKernel[WholeNetwork]):
    """Two or three dense layers of widths that fit."""

    name: ClassVar[str] = "mlp"

    def claim(self, graph: Graph, first: int, target: Target) -> int | None:
        chain = as_chain(graph)
        return len(graph.nodes) if chain is not None and _fits(chain) else None

    def supports(self, run: Run, target: Target) -> Support:
        return Support(True)

    def prepare(self, run: Run, target: Target) -> WholeNetwork:
        chain = as_chain(run.graph)
        assert chain is not None
        *hidden, classes = chain.widths[1:]
        config = tuning.chosen(
            self.name,
            tuning.shape_of(*chain.widths),
            target.dtype,
            target.device,
            mlp.mlp_config(hidden, classes, target.dtype),
        )
        layers = [(weights(w, target), floats(b, target.device)) for w, b in chain.layers]

        def count(
            center: Tensor, address: Tensor, draws: Draws, table: Tensor, scores: Scores
        ) -> None:
            total = draws.examples * draws.n
            for first in range(0, total, ROWS):
                rows = -(-min(ROWS, total - first) // config.rows) * config.rows
                mlp.mlp_count(
                    center,
                    address,
                    draws._replace(first_row=first),
                    layers,
                    table,
                    rows=rows,
                    slopes=chain.slopes,
                    scores=scores,
                    dtype=target.dtype,
                    config=config,
                )

        return WholeNetwork(count, tuning.described(self.name, config))


def _fits(chain: Chain) -> bool:
    *hidden, classes = chain.widths[1:]
    return mlp.supports(hidden, classes)
