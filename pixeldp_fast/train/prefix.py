"""The prefix in training: where it starts, and how it is held at sensitivity 1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pixeldp_fast.plan.normalise import normalise_
from pixeldp_fast.types import Norm


@torch.no_grad()
def isometric_(prefix: nn.Module) -> None:
    """Set Linear and Conv2d weights anew, so that distances pass as little changed as they can.

    At sensitivity 1 a prefix is the better the less it shrinks: what it shrinks drowns in the
    noise. The usual random weights stretch a few directions and, scaled to 1, shrink the others.
    Here a layer with at least as many outputs as taps is an exact isometry away from the borders.
    """
    for layer in _layers(prefix):
        for group in layer.weight.chunk(_groups(layer)):
            nn.init.orthogonal_(group)
        layer.weight.div_(_window_root(layer))


@torch.no_grad()
def hold_(prefix: nn.Module, input_shape: Sequence[int], p: Norm, q: Norm) -> float:
    """Bring a prefix back to sensitivity 1 after a step, without collapsing what it had.

    Between 2-norms the singular values above 1 of every layer are first cut to 1, the others kept;
    `normalise_` then sets the proved bound to 1. Scaling alone would pay for each gain in one
    direction with all the others: such a prefix ends with nearly rank-one filters.

    Returns
    -------
    sensitivity : float
        Of the prefix as it is left: at most 1.
    """
    if p == q == Norm.TWO:
        for layer in _layers(prefix):
            _cut_singular_values(layer)
    return normalise_(prefix, input_shape, p, q)


def _layers(prefix: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    return [m for m in prefix.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]


@torch.no_grad()
def _cut_singular_values(layer: nn.Linear | nn.Conv2d) -> None:
    """The nearest weight whose scaled matrices [O, taps], one a group, have norms of at most 1.

    Let K be the kernel as a matrix, c the number of windows that hold a tap's pixel, and the norm
    of K c^(1/2) at most 1. Then so is the layer's: |W x|^2 is the sum over windows of |K x_w|^2,
    hence at most that of |c^(-1/2) x_w|^2, in which every pixel has at most c shares of 1/c.
    """
    root = _window_root(layer)
    groups = _groups(layer)
    matrix = (layer.weight * root).double()
    matrix = matrix.reshape(groups, len(layer.weight) // groups, -1)  # [G, O/G, taps]
    wide = matrix.shape[1] < matrix.shape[2]
    gram = matrix @ matrix.mT if wide else matrix.mT @ matrix
    squares, vectors = torch.linalg.eigh(gram)
    if squares.max() <= 1.0:
        return
    cut = (vectors * squares.clamp(min=1.0).rsqrt()[:, None, :]) @ vectors.mT
    matrix = cut @ matrix if wide else matrix @ cut
    layer.weight.copy_(matrix.reshape(layer.weight.shape) / root)


def _groups(layer: nn.Linear | nn.Conv2d) -> int:
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def _window_root(layer: nn.Linear | nn.Conv2d) -> Tensor:
    """Root of the number of windows that hold a tap's pixel: [kh, kw], or a single 1."""
    if isinstance(layer, nn.Linear):
        return torch.ones((), dtype=layer.weight.dtype, device=layer.weight.device)
    vertical, horizontal = (_overlap(layer, axis) for axis in (0, 1))
    return (vertical[:, None] * horizontal).sqrt().to(layer.weight)


def _overlap(layer: nn.Conv2d, axis: int) -> Tensor:
    """By tap, the number of windows along one axis that hold the tap's pixel: int64 [k]."""
    phase = torch.arange(layer.kernel_size[axis]) * layer.dilation[axis] % layer.stride[axis]
    return (phase[:, None] == phase).sum(1)
