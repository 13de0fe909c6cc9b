"""Draws that another arithmetic could have counted otherwise: those whose outputs nearly agree."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pixeldp_fast.backends.reduction import AbstractReduction
from pixeldp_fast.backends.tally import GRID, Tally
from pixeldp_fast.types import IntArray

# How far outputs may differ between two ways to compute them, of the largest one. Our engines agree
# in float32 within 5e-6 of it; the rest is for noise that differs in its last places as well. The
# narrow types are allowed a few of their own steps.
MARGINS = {"float64": 1e-4, "float32": 1e-4, "float16": 1e-2, "bfloat16": 1e-1}


class CloseCalls(AbstractReduction):
    """A reduction with, besides, what another arithmetic may change of it.

    Parameters
    ----------
    inner : Votes or SoftmaxSums
    dtype : str
        Of the other arithmetic.
    """

    def __init__(self, inner: AbstractReduction, dtype: str) -> None:
        self._inner = inner
        self.margin = MARGINS[dtype]
        self._last: IntArray = np.zeros((0, 2), dtype=np.int64)

    @property
    def votes(self) -> int:
        """Draws of the last tally whose two largest outputs lie within the margin."""
        return int(self._last[:, 0].sum())

    @property
    def steps(self) -> int:
        """By how many steps of the grid its sums of scores may differ."""
        return int(self._last[:, 1].sum())

    @property
    def num_outputs(self) -> int:
        return self._inner.num_outputs

    @property
    def draws_limit(self) -> int:
        return self._inner.draws_limit

    def reduce(self, outputs: Tensor) -> Tensor:
        kept = self._inner.reduce(outputs)
        finite = torch.isfinite(outputs).all(dim=1)
        values = torch.where(finite[:, None], outputs.double(), 0.0)
        error = self.margin * values.abs().amax(dim=1)  # [rows], of every output
        top = values.topk(2, dim=1).values
        close = (top[:, 0] - top[:, 1] <= 2 * error) | ~finite
        # A softmax score moves by at most half of what the outputs move, and by one step of floor.
        steps = torch.where(finite, (error / 2 * GRID).ceil() + 1, GRID).clamp(max=GRID)
        return torch.cat([kept, close.sum()[None], steps.sum().long()[None]])

    def tally(self, totals: IntArray) -> Tally:
        self._last = totals[:, -2:]
        return self._inner.tally(totals[:, :-2])
