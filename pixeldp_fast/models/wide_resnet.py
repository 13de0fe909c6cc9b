"""Wide residual networks with pre-activation blocks."""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

from torch import Tensor, nn

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.models.network import InputShape, Network, halved, initialise_residual


class PreActivationBlock(nn.Module):
    """conv2(relu(bn2(conv1(relu(bn1(x)))))) plus x, or plus a 1x1 convolution of relu(bn1(x))."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.shortcut = (
            None if before == after else nn.Conv2d(before, after, 1, stride=stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The block's features."""
        activated = self.relu1(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        out = self.conv2(self.relu2(self.bn2(self.conv1(activated))))
        return cast(Tensor, out + shortcut)


def wide_resnet(
    input_shape: InputShape, num_classes: int, *, depth: int = 28, widening: int = 10
) -> Network:
    """A wide residual network of depth 6 n + 4, its widths 16, 32, 64 times `widening`.

    Parameters
    ----------
    input_shape : (C, H, W)
    num_classes : int
    depth : int
        6 n + 4 with n at least 1.
    widening : int
        At least 1.

    Source
        Zagoruyko and Komodakis, BMVC 2016. Noise points: 0 the image, 1 the output of the first
        convolution, ahead of every block.
    """
    if depth < 10 or (depth - 4) % 6:
        raise InvalidArgument(f"`depth` must be 6 n + 4 with n at least 1, got {depth}.")
    if widening < 1:
        raise InvalidArgument(f"`widening` must be at least 1, got {widening}.")
    blocks = (depth - 4) // 6
    channels, height, width = input_shape
    wide = [16 * widening, 32 * widening, 64 * widening]
    layers = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 16, 3, padding=1, bias=False),
            block1=_stage(16, wide[0], 1, blocks),
            block2=_stage(wide[0], wide[1], 2, blocks),
            block3=_stage(wide[1], wide[2], 2, blocks),
            bn=nn.BatchNorm2d(wide[2]),
            relu=nn.ReLU(),
            avgpool=nn.AvgPool2d((halved(height, 2), halved(width, 2))),
            flatten=nn.Flatten(),
            fc=nn.Linear(wide[2], num_classes),
        )
    )
    initialise_residual(layers.modules())
    return Network(layers, cuts=(0, 1))


def wide_resnet28_10(input_shape: InputShape, num_classes: int) -> Network:
    """`wide_resnet` of depth 28 and widening 10: 36 479 194 parameters for 10 classes."""
    return wide_resnet(input_shape, num_classes, depth=28, widening=10)


def _stage(before: int, after: int, stride: int, blocks: int) -> nn.Sequential:
    first = PreActivationBlock(before, after, stride)
    return nn.Sequential(first, *(PreActivationBlock(after, after, 1) for _ in range(blocks - 1)))
