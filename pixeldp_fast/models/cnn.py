"""The small networks: the PixelDP CNN and a multi-layer perceptron."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.models.network import InputShape, Network, halved


def pixeldp_cnn(
    input_shape: InputShape,
    num_classes: int,
    *,
    channels: Sequence[int] = (32, 64),
    hidden: int = 1024,
    bias: bool = True,
) -> Network:
    """Two 5x5 convolutions of stride 2, a dense layer and the output, with ReLU between.

    Parameters
    ----------
    input_shape : (C, H, W)
    num_classes : int
    channels : two int
        Output channels of the convolutions.
    hidden : int
        Width of the dense layer.
    bias : bool
        Whether the first convolution has one; it does not enter the sensitivity.

    Source
        Lecuyer et al., IEEE S&P 2019, section IV.A (the MNIST CNN). Noise points: 0 the image, 1
        and 2 the outputs of the convolutions, before their activation.
    """
    if len(channels) != 2 or min(*channels, hidden) < 1:
        raise InvalidArgument(
            f"`channels` must be two positive integers and `hidden` one, got "
            f"{channels!r} and {hidden!r}."
        )
    first, second = channels
    _, height, width = input_shape
    flat = second * halved(height, 2) * halved(width, 2)
    layers = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(input_shape[0], first, 5, stride=2, padding=2, bias=bias),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(first, second, 5, stride=2, padding=2),
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(flat, hidden),
            relu3=nn.ReLU(),
            fc2=nn.Linear(hidden, num_classes),
        )
    )
    return Network(layers, cuts=(0, 1, 3))


def mlp(
    input_shape: InputShape, num_classes: int, *, widths: Sequence[int] = (256, 256)
) -> Network:
    """Dense layers of the given widths with ReLU between.

    Parameters
    ----------
    input_shape : (C, H, W)
    num_classes : int
    widths : sequence of int
        Of the hidden layers, at least one. Noise points: 0 the image, 1 the output of the first
        dense layer, before its activation.
    """
    if not widths or min(widths) < 1:
        raise InvalidArgument(f"`widths` must be positive integers, at least one, got {widths!r}.")
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    before = math.prod(input_shape)
    for i, width in enumerate(widths, start=1):
        layers[f"fc{i}"] = nn.Linear(before, width)
        layers[f"relu{i}"] = nn.ReLU()
        before = width
    layers[f"fc{len(widths) + 1}"] = nn.Linear(before, num_classes)
    return Network(nn.Sequential(layers), cuts=(0, 2))
