"""A chain of dense layers as one kernel: nothing per draw leaves the chip."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pixeldp_fast.backends.triton import mlp, tuning
from pixeldp_fast.backends.triton.draws import Draws
from pixeldp_fast.backends.triton.fused import Scores, floats, weights
from pixeldp_fast.backends.triton.runs import Target
from pixeldp_fast.backends.triton.segments import as_chain
from pixeldp_fast.plan.ops import Graph

ROWS = 2**22  # of a launch, at most: enough to fill any GPU, and a grid that any takes

Whole = Callable[[Tensor, Tensor, Draws, Tensor], None]  # (center, address, draws, table)


def whole(graph: Graph | None, scores: Scores | None, target: Target) -> tuple[Whole, str] | None:
    """The kernel for this network and its words, None where there is none."""
    chain = None if graph is None else as_chain(graph)
    if chain is None or scores is None:
        return None
    *hidden, classes = chain.widths[1:]
    if not mlp.supports(hidden, classes):
        return None
    config = tuning.chosen(
        "mlp",
        tuning.shape_of(*chain.widths),
        target.dtype,
        target.device,
        mlp.mlp_config(hidden, classes, target.dtype),
    )
    layers = [(weights(w, target), floats(b, target.device)) for w, b in chain.layers]

    def count(center: Tensor, address: Tensor, draws: Draws, table: Tensor) -> None:
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

    return count, tuning.described("mlp", config)
