"""Shuffled, augmented batches, as a function of the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pixeldp_fast.data.dataset import Dataset
from pixeldp_fast.train.settings import TrainingSettings


def derived_seed(settings: TrainingSettings, epoch: int, use: int) -> int:
    """A 63-bit seed for one use (0 order and augmentation, 1 noise, 2 initial weights)."""
    words = np.random.SeedSequence((settings.seed, epoch, use)).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def steps_per_epoch(dataset: Dataset, settings: TrainingSettings) -> int:
    """Batches that cover the data set once."""
    return -(-len(dataset) // settings.batch_size)


def batches(
    dataset: Dataset, settings: TrainingSettings, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every example once, in the order of this epoch.

    Returns
    -------
    batches : iterator of (float32 [B, C, H, W], int64 [B])
        On the CPU; B differs by at most one, so that no batch norm meets a remnant of one example.
    """
    generator = torch.Generator().manual_seed(derived_seed(settings, epoch, 0))
    order = torch.randperm(len(dataset), generator=generator)
    for part in torch.tensor_split(order, steps_per_epoch(dataset, settings)):
        images = augmented(dataset.images(part), settings, generator)
        yield images, torch.from_numpy(dataset.known_labels(part))


def augmented(images: Tensor, settings: TrainingSettings, generator: torch.Generator) -> Tensor:
    """`images` [B, C, H, W], randomly cropped and mirrored as the settings say."""
    if settings.crop_padding:
        images = _random_crop(images, settings.crop_padding, generator)
    if settings.flip:
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    return images


def _random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    padded = functional.pad(images, (padding,) * 4)
    corners = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
    rows = corners[0] + torch.arange(height)  # [B, H]
    columns = corners[1] + torch.arange(width)  # [B, W]
    example = torch.arange(count)[:, None, None]
    cropped = padded[example, :, rows[:, :, None], columns[:, None, :]]  # [B, H, W, C]
    return cropped.permute(0, 3, 1, 2).contiguous()
