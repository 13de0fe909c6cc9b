"""ResNet-50 for 224x224 images, which the package's own list of networks does not have."""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

from torch import Tensor, nn

from pixeldp_fast.models.network import initialise_residual

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # inner width, blocks, stride
EXPANSION = 4


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3 (strided) and 1x1, each with batch norm, around a shortcut."""

    def __init__(self, before: int, inner: int, stride: int) -> None:
        super().__init__()
        after = EXPANSION * inner
        self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU()
        self.downsample = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        """The block's features."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        return cast(Tensor, self.relu(out + shortcut))


def resnet50(num_classes: int, *, thinner: int = 1, side: int = 224) -> nn.Sequential:
    """The network, initialised from torch's generator.

    Parameters
    ----------
    num_classes : int
    thinner : int
        Divides every width: for tests.
    side : int
        Of the image, a multiple of 32.

    Source
        He et al., CVPR 2016, with the stride in the 3x3 convolution, as the published weights of
        torchvision have it: 25 557 032 parameters for 1000 classes.
    """
    first = 64 // thinner
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, first, 7, stride=2, padding=3, bias=False),
        bn1=nn.BatchNorm2d(first),
        relu=nn.ReLU(),
        maxpool=nn.MaxPool2d(3, stride=2, padding=1),
    )
    before = first
    for i, (width, blocks, stride) in enumerate(STAGES, start=1):
        stage = []
        for block in range(blocks):
            stage.append(Bottleneck(before, width // thinner, stride if block == 0 else 1))
            before = EXPANSION * (width // thinner)
        layers[f"layer{i}"] = nn.Sequential(*stage)
    layers["avgpool"] = nn.AvgPool2d(side // 32)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(before, num_classes)
    network = nn.Sequential(layers)
    initialise_residual(network.modules())
    return network
