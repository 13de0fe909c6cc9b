"""Ink of a digit: the share of the image that is inked, a real target that every image has."""

from __future__ import annotations

import math

import numpy as np

from pixeldp_fast.data.dataset import Dataset
from pixeldp_fast.data.real import RealDataset
from pixeldp_fast.errors import DataError
from pixeldp_fast.types import FloatArray

_STEP = 0.01  # to which the range is rounded


def ink_of(train: Dataset, chosen: Dataset) -> RealDataset:
    """The mean of the pixels, counted from the training images' average.

    The range that a regressor declares is that of the training images, rounded outward to 0.01.
    """
    if not len(train):
        raise DataError(f"{train.name} has no training images to take the average ink of.")
    inks = _ink(train)
    origin = round(float(inks.mean()), 2)
    return RealDataset(
        name=f"ink of {chosen.name}",
        inputs=chosen.images().numpy(),
        targets=_ink(chosen) - origin,
        low=round(_STEP * math.floor(min(inks.min() - origin, -_STEP) / _STEP), 2),
        high=round(_STEP * math.ceil(max(inks.max() - origin, _STEP) / _STEP), 2),
        origin=origin,
        quantity="ink",
        unit="input units",
        input_range=(0.0, 1.0),
    )


def _ink(data: Dataset) -> FloatArray:  # [N]
    images = data.images().numpy()
    ink: FloatArray = images.reshape(len(images), -1).mean(axis=1, dtype=np.float64)
    return ink
