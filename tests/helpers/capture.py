"""A reduction that keeps every draw's outputs, for comparing engines draw by draw."""

from __future__ import annotations

import torch

from pixeldp_fast.backends.reduction import AbstractReduction
from pixeldp_fast.backends.tally import Tally


class Capture(AbstractReduction):
    """Outputs in the order of the draws; the tally itself says nothing."""

    def __init__(self, num_outputs: int) -> None:
        self._num_outputs = num_outputs
        self.rows: list[torch.Tensor] = []

    @property
    def num_outputs(self) -> int:
        return self._num_outputs

    @property
    def draws_limit(self) -> int:
        return 2**32

    def reduce(self, outputs):
        if len(outputs):
            self.rows.append(outputs.clone())
        return torch.zeros(1, dtype=torch.int64)

    def tally(self, totals):
        return Tally(totals)

    def outputs(self) -> torch.Tensor:
        """All draws so far, [draws, K]."""
        return torch.cat(self.rows)


def outputs_of(backend, plan, mechanism, x, index, stream, first_draw, n, **options):
    """Every draw's outputs, [B, n, K], as `backend` computes them."""
    per_example = []
    for b in range(len(x)):
        capture = Capture(plan.num_outputs)
        engine = backend.prepare(plan, mechanism, capture, x.device, **options)
        engine.run(x[b : b + 1], index[b : b + 1], stream, first_draw, n)
        per_example.append(capture.outputs())
    return torch.stack(per_example)
