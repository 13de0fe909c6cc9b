"""The one type every loader returns: images in [0, 1] with their labels, where there are any."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pixeldp_fast.errors import DataError, InvalidArgument
from pixeldp_fast.types import IntArray

Indices = slice | Sequence[int] | npt.NDArray[Any] | Tensor | None

_FINGERPRINT_CHUNK = 1024  # images hashed at a time: 12 MiB of CIFAR-10


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images with values in [0, 1], in a fixed order, with their labels where these are known.

    Parameters
    ----------
    name : str
        What messages and records call it.
    pixels : uint8 or float32 [N, C, H, W]
        uint8: an image is float32(pixels) / float32(levels), converted on access. float32: the
        image itself, in [0, 1].
    targets : integer [N] or None
        In [0, K); None: without labels, which certifying and predicting do not need.
    class_names : tuple of str [K] or None
        None where the classes are not known, which only a data set without labels may leave open.
    levels : int
        In [1, 255], the integer that stands for 1.0 in uint8 `pixels`; unused for float32.

    Raises
    ------
    DataError
        When shapes, types, values or labels do not fit.
    """

    name: str
    pixels: npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    targets: IntArray | None
    class_names: tuple[str, ...] | None
    levels: int = 255

    def __post_init__(self) -> None:
        _check_pixels(self.name, self.pixels, self.levels)
        object.__setattr__(self, "pixels", _read_only(self.pixels))
        if self.class_names is not None:
            object.__setattr__(self, "class_names", tuple(self.class_names))
        if self.targets is not None:
            targets = _checked_targets(self.name, self.targets, len(self), self.num_classes)
            object.__setattr__(self, "targets", _read_only(targets))

    @property
    def num_classes(self) -> int | None:
        """K; None where the classes are not known."""
        return None if self.class_names is None else len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    def images(self, indices: Indices = None) -> Tensor:
        """The images at `indices`, in that order.

        Parameters
        ----------
        indices : slice, integers [B], booleans [N] or None
            As NumPy indexes; None: all of them.

        Returns
        -------
        images : float32 [B, C, H, W]
            In [0, 1], on the CPU, a fresh copy.
        """
        return torch.from_numpy(self._float32(self._positions(indices)))

    def labels(self, indices: Indices = None) -> IntArray | None:
        """The labels at `indices` (see `images`): int64 [B], a fresh copy; None without labels."""
        positions = self._positions(indices)
        return None if self.targets is None else self.targets[positions]

    def known_labels(self, indices: Indices = None) -> IntArray:
        """As `labels`, for what cannot do without: a `DataError` where there are none."""
        labels = self.labels(indices)
        if labels is None:
            raise self._without_labels()
        return labels

    def known_classes(self) -> int:
        """K, for what cannot do without labels: a `DataError` where there are none."""
        if self.targets is None or self.num_classes is None:
            raise self._without_labels()
        return self.num_classes

    def subset(self, indices: Indices) -> Dataset:
        """The examples at `indices` (see `images`), in that order, as a data set of its own."""
        positions = self._positions(indices)
        return replace(self, pixels=self.pixels[positions], targets=self.labels(positions))

    def fingerprint(self) -> str:
        """sha256 over shape, float32 values and, where there are any, labels, in order.

        Two data sets with the same images and labels agree, however they are stored.

        Cost
            Hashes 4 bytes per value: about a second for the 50 000 images of CIFAR-10.
        """
        digest = hashlib.sha256(repr(self.pixels.shape).encode())
        for start in range(0, len(self), _FINGERPRINT_CHUNK):
            block = self._float32(np.arange(start, min(start + _FINGERPRINT_CHUNK, len(self))))
            digest.update(block.astype("<f4", copy=False).tobytes())
        if self.targets is not None:
            digest.update(self.targets.astype("<i8", copy=False).tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int | None]:  # [C, H, W], label
        position = range(len(self))[index]  # an IndexError here ends Python's iteration protocol
        label = None if self.targets is None else int(self.targets[position])
        return self.images([position])[0], label

    def __iter__(self) -> Iterator[tuple[Tensor, int | None]]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.input_shape))
        classes = "" if self.class_names is None else f", {self.num_classes} classes"
        labels = ", no labels" if self.targets is None else ""
        return f"<Dataset {self.name}: {len(self)} images {shape}{classes}{labels}>"

    def _without_labels(self) -> DataError:
        return DataError(
            f"{self.name} has no labels. Training and accuracy need them: store them beside the "
            "images, in an .npz file as the array `y`."
        )

    def _positions(self, indices: Indices) -> IntArray:
        if indices is None:
            return np.arange(len(self))
        if isinstance(indices, Tensor):
            indices = indices.detach().cpu().numpy()
        if not isinstance(indices, slice):
            indices = np.asarray(indices)
            if indices.size == 0:
                indices = indices.astype(np.int64)
        try:
            positions: IntArray = np.arange(len(self))[indices]
        except IndexError as error:
            raise InvalidArgument(
                f"`indices` must be integers within the {len(self)} examples of {self.name}, a "
                f"slice, or booleans [{len(self)}]: {error}."
            ) from None
        if positions.ndim != 1:
            raise InvalidArgument(f"`indices` must be one-dimensional, got {positions.ndim} axes.")
        return positions

    def _float32(self, positions: IntArray) -> npt.NDArray[np.float32]:  # [B, C, H, W]
        block = self.pixels[positions].astype(np.float32, copy=False)
        if self.pixels.dtype == np.uint8:
            block /= np.float32(self.levels)
        return block


def _check_pixels(name: str, pixels: npt.NDArray[Any], levels: int) -> None:
    if pixels.ndim != 4 or min(pixels.shape[1:]) < 1:
        raise DataError(f"{name}: images must have the shape [N, C, H, W], got {pixels.shape}.")
    if not 1 <= levels <= 255:
        raise DataError(f"{name}: `levels` must lie in [1, 255], got {levels}.")
    if pixels.dtype not in (np.uint8, np.float32):
        raise DataError(f"{name}: images must be uint8 or float32, got {pixels.dtype}.")
    if pixels.size == 0:
        return
    low, high = pixels.min(), pixels.max()  # a NaN anywhere makes both NaN
    limit = levels if pixels.dtype == np.uint8 else 1
    if not (low >= 0 and high <= limit):
        raise DataError(
            f"{name}: {pixels.dtype} images must lie in [0, {limit}] and be finite, got values "
            f"from {low} to {high}. Scale them to [0, 1] without standardising: a radius is in "
            "the units of the image, and standardisation belongs into the network."
        )


def _checked_targets(name: str, targets: Any, examples: int, classes: int | None) -> IntArray:
    if classes is None:
        raise DataError(f"{name}: `class_names` are needed with labels.")
    values = np.asarray(targets)
    if values.shape != (examples,):
        raise DataError(
            f"{name}: labels must have the shape [{examples}], one per image, got {values.shape}."
        )
    if values.dtype.kind not in "iu" and values.size:
        raise DataError(f"{name}: labels must be integers, got {values.dtype}.")
    if values.size and not (values.min() >= 0 and values.max() < classes):
        raise DataError(
            f"{name}: labels must lie in [0, {classes - 1}] for {classes} classes, got values "
            f"from {values.min()} to {values.max()}."
        )
    return values.astype(np.int64)


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
