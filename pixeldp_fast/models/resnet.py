"""Residual networks for 32x32 images: ResNet-20 and ResNet-110 of basic blocks.

The names of the parameters are those of the published noise-trained checkpoints, which load as
they are (`pixeldp_fast.models.load_cohen`).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.models.network import InputShape, Network, halved, initialise_residual

_WIDTHS = (16, 32, 64)
SHORTCUTS = ("projection", "pad")


class PadShortcut(nn.Module):
    """Every `stride`-th pixel, with channels of zeros added equally on both sides (option A)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.low = (after - before) // 2
        self.high = after - before - self.low
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:  # [B, before, H, W] -> [B, after, H/s, W/s]
        """The strided and padded features."""
        strided = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(strided, (0, 0, 0, 0, self.low, self.high))

    def extra_repr(self) -> str:
        return f"low={self.low}, high={self.high}, stride={self.stride}"


class BasicBlock(nn.Module):
    """relu(shortcut(x) + bn2(conv2(relu(bn1(conv1(x))))))."""

    def __init__(self, before: int, after: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """The block's features."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        return cast(Tensor, self.relu(out + shortcut))


def cifar_resnet(
    input_shape: InputShape, num_classes: int, *, depth: int, shortcut: str = "projection"
) -> Network:
    """A residual network of depth 6 n + 2: three stages of n basic blocks, widths 16, 32, 64.

    Parameters
    ----------
    input_shape : (C, H, W)
    num_classes : int
    depth : int
        6 n + 2 with n at least 1.
    shortcut : {"projection", "pad"}
        Where the width changes: a strided 1x1 convolution with batch norm (option B; Cohen et
        al.), or a strided slice padded with zeros (option A; He et al.).

    Source
        He et al., CVPR 2016, section 4.2; Cohen et al., ICML 2019. Noise points: 0 the image, 1 the
        output of the first convolution, before its batch norm.
    """
    if depth < 8 or (depth - 2) % 6:
        raise InvalidArgument(f"`depth` must be 6 n + 2 with n at least 1, got {depth}.")
    if shortcut not in SHORTCUTS:
        raise InvalidArgument(f"`shortcut` must be one of {SHORTCUTS}, got {shortcut!r}.")
    blocks = (depth - 2) // 6
    channels, height, width = input_shape
    layers = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, _WIDTHS[0], 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(_WIDTHS[0]),
            relu=nn.ReLU(),
            layer1=_stage(_WIDTHS[0], _WIDTHS[0], 1, blocks, shortcut),
            layer2=_stage(_WIDTHS[0], _WIDTHS[1], 2, blocks, shortcut),
            layer3=_stage(_WIDTHS[1], _WIDTHS[2], 2, blocks, shortcut),
            avgpool=nn.AvgPool2d((halved(height, 2), halved(width, 2))),
            flatten=nn.Flatten(),
            fc=nn.Linear(_WIDTHS[2], num_classes),
        )
    )
    initialise_residual(layers.modules())
    return Network(layers, cuts=(0, 1))


def resnet20(input_shape: InputShape, num_classes: int, *, shortcut: str = "projection") -> Network:
    """`cifar_resnet` of depth 20: 272 474 parameters (269 722 with shortcut "pad")."""
    return cifar_resnet(input_shape, num_classes, depth=20, shortcut=shortcut)


def resnet110(
    input_shape: InputShape, num_classes: int, *, shortcut: str = "projection"
) -> Network:
    """`cifar_resnet` of depth 110: 1 730 714 parameters (1 727 962 with shortcut "pad")."""
    return cifar_resnet(input_shape, num_classes, depth=110, shortcut=shortcut)


def _stage(before: int, after: int, stride: int, blocks: int, shortcut: str) -> nn.Sequential:
    downsample: nn.Module | None = None
    if before != after and shortcut == "pad":
        downsample = PadShortcut(before, after, stride)
    elif before != after:
        downsample = nn.Sequential(
            nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
        )
    first = BasicBlock(before, after, stride, downsample)
    return nn.Sequential(first, *(BasicBlock(after, after, 1, None) for _ in range(blocks - 1)))
