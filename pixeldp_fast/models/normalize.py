"""Standardisation by constants, as a layer behind the noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pixeldp_fast.errors import InvalidArgument

Statistics = tuple[Sequence[float], Sequence[float]]  # mean [C], std [C]

# The constants behind the published noise-trained checkpoints (Cohen et al., 2019).
CIFAR10_STATISTICS: Statistics = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET_STATISTICS: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Normalize(nn.Module):
    """(x - mean) / std per channel, with constants of the data set.

    As the first layer of the suffix it sees the noisy image, so that radii keep the units of the
    image. Constants of the single image would let it pass around the noise; these are fixed.

    Parameters
    ----------
    mean : sequence of float [C]
        Finite, in units of the image.
    std : sequence of float [C]
        Finite and above 0, in units of the image.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        mean, std = [float(m) for m in mean], [float(s) for s in std]
        if not (mean and len(mean) == len(std)):
            raise InvalidArgument(
                f"`mean` and `std` must have one value per channel, got {mean} and {std}."
            )
        if not all(math.isfinite(m) for m in mean):
            raise InvalidArgument(f"`mean` must be finite, got {mean}.")
        if not all(math.isfinite(s) and s > 0 for s in std):
            raise InvalidArgument(f"`std` must be finite and above 0, got {std}.")
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W]
        """The standardised images."""
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        return f"channels={len(self.mean)}"
