"""Stochastic gradient descent with momentum.

`torch.optim` has the same update, but its first use imports the whole compiler of torch, which
takes longer than a small network takes to train.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixeldp_fast.errors import InvalidArgument


class MomentumSGD:
    """v <- momentum v + gradient + weight_decay w, then w <- w - learning_rate v.

    Parameters
    ----------
    model : nn.Module
        Whose parameters that require a gradient are trained, at least one.
    momentum : float
        In [0, 1).
    weight_decay : float
        At least 0; on parameters of two or more axes, that is not on biases and batch norms.
    """

    def __init__(self, model: nn.Module, momentum: float, weight_decay: float) -> None:
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise InvalidArgument("`model` has no parameters that require a gradient.")
        self.momentum, self.weight_decay = momentum, weight_decay
        self.velocity: dict[str, Tensor] = {
            name: torch.zeros_like(p, memory_format=torch.contiguous_format)
            for name, p in self.parameters.items()
        }

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One update; a parameter without a gradient stays."""
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            velocity = self.velocity[name].mul_(self.momentum).add_(parameter.grad)
            if parameter.ndim > 1 and self.weight_decay:
                velocity.add_(parameter, alpha=self.weight_decay)
            parameter.add_(velocity, alpha=-learning_rate)
