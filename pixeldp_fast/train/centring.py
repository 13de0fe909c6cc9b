"""The first layer behind the noise, trained as if its inputs had mean 0."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pixeldp_fast.errors import InvalidArgument


class Centring:
    """Turns steps in the weight W and bias b of one layer into steps in W and b' = b + W m.

    Here m is the mean, by channel, of the layer's inputs in the batch: the layer is trained in the
    coordinates W (x - m) + b'. Noise ahead of a ReLU keeps every input of the next layer above 0 on
    average, whatever the image; in the MNIST network by 0.3 in each of 800 inputs. Without the
    change of coordinates, that one direction decides which learning rates are stable, and all the
    others learn as slowly.

    Parameters
    ----------
    suffix : nn.Module
        Its first module with parameters is a Linear or a Conv2d of one group, with a bias.

    Guarantee
        The network computes what it computed; only the steps differ. They depend on the weights
        and the batch alone: nothing has to be kept for a run to be resumed.
    Source
        Schraudolph, "Centering neural network gradient factors", 1998.
    """

    def __init__(self, suffix: nn.Module) -> None:
        self.layer = _first_layer(suffix)
        self.mean: Tensor | None = None  # of the last forward pass, [inputs]

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note the mean of the layer's inputs in every forward pass."""
        handle = self.layer.register_forward_pre_hook(self._note)
        try:
            yield
        finally:
            handle.remove()

    @contextlib.contextmanager
    @torch.no_grad()
    def step(self) -> Iterator[None]:
        """Around the optimiser's step, after the gradients of the last forward pass."""
        weight, bias, mean = self.layer.weight, self.layer.bias, self.mean
        if mean is None or bias is None or weight.grad is None or bias.grad is None:
            yield  # a layer that is not trained
            return
        taps = (1,) * (weight.ndim - 2)
        weight.grad.sub_(bias.grad.view(-1, 1, *taps) * mean.view(1, -1, *taps))
        before = weight.detach().clone()
        yield
        moved = (weight - before).flatten(2).sum(2) if taps else weight - before
        bias.sub_(moved @ mean)

    def _note(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        channel = 1 if isinstance(layer, nn.Conv2d) else inputs[0].ndim - 1
        others = [axis for axis in range(inputs[0].ndim) if axis != channel]
        self.mean = inputs[0].detach().mean(others)


def _first_layer(suffix: nn.Module) -> nn.Linear | nn.Conv2d:
    with_weights = (m for m in suffix.modules() if any(True for _ in m.parameters(recurse=False)))
    layer = next(with_weights, None)
    usual = isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
    if isinstance(layer, (nn.Linear, nn.Conv2d)) and usual and layer.bias is not None:
        return layer
    raise InvalidArgument(
        "`centred` needs a Linear or Conv2d layer of one group and with a bias as the first layer "
        "with weights behind the noise; use centred=False for this model."
    )
