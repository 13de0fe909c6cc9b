"""A network as a flat sequence of layers with the places where noise may enter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import nn

from pixeldp_fast.errors import InvalidArgument

InputShape = tuple[int, int, int]  # (C, H, W)


class Network(NamedTuple):
    """Layers in order, and how many of them lie before noise point 0, 1, 2, ...

    The layers are a plain sequence, so that nothing can reach a later layer around a cut.
    """

    layers: nn.Sequential
    cuts: tuple[int, ...]


def initialise_residual(modules: Iterable[nn.Module]) -> None:
    """Normal weights of variance 2 / (taps * output channels) for convolutions; batch norms at 1.

    Source
        He et al., ICCV 2015, equation 14, in the form He et al., CVPR 2016 train with.
    """
    for module in modules:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def halved(size: int, times: int) -> int:
    """A side after `times` layers of stride 2 with padding (kernel - 1) / 2."""
    return -(-size // (1 << times))


def check_shape(input_shape: Sequence[int], num_classes: int) -> InputShape:
    """`input_shape` as a tuple; refuses all but positive (C, H, W) and at least two classes."""
    shape = tuple(input_shape)
    if len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise InvalidArgument(
            f"`input_shape` must be (C, H, W) with positive integers, got {input_shape!r}."
        )
    if not (isinstance(num_classes, int) and num_classes >= 2):
        raise InvalidArgument(
            f"`num_classes` must be an integer of at least 2, got {num_classes!r}."
        )
    return shape
