"""Comparison of outputs and votes: tight values, and flips only where the margin explains them."""

from __future__ import annotations

import torch

FLOOR = 5e-6  # of the largest logit, float32


def tolerance(exact: torch.Tensor, eager: torch.Tensor) -> float:
    """Twice eager PyTorch's own error against float64, or the floor, whichever is larger."""
    own = float((eager.double() - exact).abs().max())
    return max(2 * own, FLOOR * float(exact.abs().max()))


def unexplained_flips(exact: torch.Tensor, close: torch.Tensor, allowed: float) -> list[int]:
    """Rows whose argmax differs although the two classes are further apart than twice `allowed`.

    Both tensors are [rows, K].
    """
    ours, truth = close.argmax(dim=1), exact.argmax(dim=1)
    rows = torch.arange(len(exact))
    margin = exact[rows, truth] - exact[rows, ours]
    return torch.nonzero((ours != truth) & (margin > 2 * allowed)).flatten().tolist()
