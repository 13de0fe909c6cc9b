"""The user's own data: arrays, .npz files, folders of images, a factory."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pixeldp_fast.data.dataset import Dataset
from pixeldp_fast.data.factory import call_factory
from pixeldp_fast.errors import DataError, MissingExtra

_KEYS = (("x", "y"), ("images", "labels"))
_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}  # lossless; others drop something


def from_arrays(
    name: str,
    images: Any,
    labels: Any,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    layout: str | None = None,
) -> Dataset:
    """A `Dataset` of arrays in memory.

    Parameters
    ----------
    name : str
        What messages and records call it.
    images : uint8 (255 is 1.0) or floating in [0, 1]; [N, H, W], [N, C, H, W] or [N, H, W, C]
        A NumPy array or tensor. Floats are kept as float32.
    labels : integer [N] or None
        In [0, K); None: without labels.
    num_classes : int or None
        K; None: the length of `class_names`, else the largest label + 1, unknown without labels.
    class_names : sequence of str [K] or None
        None: the numbers.
    layout : {"NCHW", "NHWC"} or None
        None: found from the axis of length 1 or 3, refused where both or neither has it.

    Raises
    ------
    DataError
        When shapes, types, values or labels do not fit.
    """
    pixels = _nchw(name, _to_numpy(images), layout)
    if not len(pixels):
        raise DataError(f"{name} holds no images.")
    targets = None if labels is None else _to_numpy(labels)
    if targets is not None and (
        targets.dtype.kind not in "iu" or targets.ndim != 1 or not targets.size
    ):
        raise DataError(
            f"{name}: labels must be integers [N], got {targets.dtype} {targets.shape}."
        )
    if class_names is not None and num_classes not in (None, len(class_names)):
        raise DataError(f"{name}: {len(class_names)} class names for {num_classes} classes.")
    if num_classes is None and targets is not None:
        num_classes = max(int(targets.max()), 0) + 1
    if class_names is None and num_classes is not None:
        class_names = [str(k) for k in range(num_classes)]
    return Dataset(name, pixels, targets, None if class_names is None else tuple(class_names))


def from_npz(
    path: str | Path, *, num_classes: int | None = None, layout: str | None = None
) -> Dataset:
    """The data set in an .npz file with the arrays `x` and `y`, or `images` and `labels`.

    Without `y` or `labels` it is a data set without labels. An array of strings `class_names` is
    used where there is one. Pickled objects are refused.
    For `num_classes`, `layout` and the accepted arrays see `from_arrays`.

    Raises
    ------
    DataError
        When the file is damaged, lacks an array, or the arrays do not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is not there.")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not an .npz file (NumPy's savez), or it is truncated.")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            image_key, label_key = _keys(path, archive.files)
            images = archive[image_key]
            labels = None if label_key is None else archive[label_key]
            names = archive["class_names"] if "class_names" in archive.files else None
    except (
        ValueError,
        OSError,
        EOFError,
        KeyError,
        RuntimeError,  # encrypted, or packed by a method that zipfile does not know
        MemoryError,  # a damaged shape
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read: {error}.") from error
    class_names = None if names is None else [str(n) for n in names.reshape(-1)]
    return from_arrays(
        path.stem, images, labels, num_classes=num_classes, class_names=class_names, layout=layout
    )


def from_folder(path: str | Path) -> Dataset:
    """A folder with one folder of images per class; classes and files in the order of their names.

    Grey images stay one channel unless colour ones are among them. All must have one size. Files
    without an image suffix and hidden files are not read; EXIF rotation is not applied.

    Raises
    ------
    DataError
        When there is no image, one cannot be read, has an alpha channel or more than 8 bits, or
        sizes differ.
    MissingExtra
        Without Pillow.
    """
    path = Path(path)
    if not path.is_dir():
        raise DataError(f"{path} is not a folder.")
    classes = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    files = [(file, k) for k, folder in enumerate(classes) for file in _image_files(folder)]
    if not files:
        raise DataError(f"{path} must hold one folder of images per class; no image was found.")
    arrays = [_read_image(file) for file, _ in files]
    sizes = {a.shape[:2]: file for a, (file, _) in zip(arrays, files, strict=True)}
    if len(sizes) > 1:
        listed = ", ".join(f"{w}x{h} ({file})" for (h, w), file in sizes.items())
        raise DataError(f"{path}: all images must have one size; found {listed}. Resize them.")
    if any(a.ndim == 3 for a in arrays):
        arrays = [a if a.ndim == 3 else np.repeat(a[..., None], 3, axis=2) for a in arrays]
    stacked = np.stack(arrays)
    pixels = stacked[:, None] if stacked.ndim == 3 else stacked.transpose(0, 3, 1, 2)
    targets = np.array([k for _, k in files])
    return Dataset(path.name, np.ascontiguousarray(pixels), targets, tuple(c.name for c in classes))


def resolve(spec: str, split: str | None = None) -> Dataset:
    """The data set that the factory "module:factory" returns.

    The factory returns a `Dataset` or a pair (images, labels) as `from_arrays` takes them. It is
    called with `split` where it has a parameter of that name.
    """
    made = call_factory(spec, {}, {} if split is None else {"split": split})
    if isinstance(made, Dataset):
        return made
    if isinstance(made, tuple) and len(made) == 2:
        return from_arrays(spec, made[0], made[1])
    raise DataError(
        f"{spec} must return a Dataset or the pair (images, labels), got {type(made).__name__}."
    )


def _keys(path: Path, files: Sequence[str]) -> tuple[str, str | None]:
    """The names of the images and, where there are any, of the labels."""
    pairs = [pair for pair in _KEYS if set(pair) <= set(files)]
    if pairs:
        return pairs[0]
    found = [name for pair in _KEYS for name in pair if name in files]
    if found in (["x"], ["images"]):
        return found[0], None
    raise DataError(
        f"{path} must hold the arrays `x` and `y`, or `images` and `labels` (without labels: `x` "
        f"or `images` alone); it holds {', '.join(files) or 'none'}."
    )


def _to_numpy(values: Any) -> npt.NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _nchw(name: str, images: npt.NDArray[Any], layout: str | None) -> npt.NDArray[Any]:
    if images.dtype.kind == "f":
        images = images.astype(np.float32)
    elif images.dtype != np.uint8:
        raise DataError(
            f"{name}: images must be uint8 (0..255) or floating in [0, 1], got {images.dtype}."
        )
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4:
        raise DataError(
            f"{name}: images must be [N, H, W], [N, C, H, W] or [N, H, W, C], got {images.shape}."
        )
    if layout is None:
        layout = _guess_layout(name, images.shape)
    if layout not in ("NCHW", "NHWC"):
        raise DataError(f"{name}: `layout` must be 'NCHW' or 'NHWC', got {layout!r}.")
    moved = images if layout == "NCHW" else images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(moved)


def _guess_layout(name: str, shape: tuple[int, ...]) -> str:
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first == last:
        problem = "both axes 1 and 3" if first else "neither axis 1 nor axis 3"
        raise DataError(
            f"{name}: the layout of images {shape} cannot be told: {problem} could be channels "
            "(1 or 3). Pass `layout='NCHW'` or `layout='NHWC'`, or store [N, H, W]."
        )
    return "NCHW" if first else "NHWC"


def _image_files(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")
    )


def _read_image(path: Path) -> npt.NDArray[np.uint8]:  # [H, W] or [H, W, 3]
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra(
            "Reading a folder of images needs Pillow: pip install 'pixeldp_fast[plot]'. An .npz "
            "file needs nothing."
        ) from error
    try:
        with Image.open(path) as image:
            mode = _MODES.get(image.mode)
            if mode is None:
                raise DataError(
                    f"{path}: the image mode {image.mode!r} (alpha, or not 8 bits) would lose "
                    "something; convert it to 8-bit grey or RGB."
                )
            return np.array(image.convert(mode), dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not a readable image: {error}.") from error
