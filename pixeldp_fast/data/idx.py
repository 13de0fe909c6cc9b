"""MNIST and Fashion-MNIST: the four original IDX files, packed or not."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixeldp_fast.data.dataset import Dataset
from pixeldp_fast.data.files import gunzip, locate, read, read_verified
from pixeldp_fast.errors import DataError

_UNSIGNED_BYTE = 0x08
_PREFIX = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class _Publication:
    title: str
    folders: tuple[str, ...]
    source: str
    class_names: tuple[str, ...]
    checksums: dict[str, str]  # of the .gz files as published, and of their contents


_MNIST = _Publication(
    "MNIST",
    ("mnist", "MNIST/raw"),
    "http://yann.lecun.com/exdb/mnist/ (LeCun, Cortes, Burges)",
    tuple("0123456789"),
    {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
)
_FASHION_MNIST = _Publication(
    "Fashion-MNIST",
    ("fashion_mnist", "FashionMNIST/raw"),
    "https://github.com/zalandoresearch/fashion-mnist",
    (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
)


def load_mnist(split: str, root: Path | None) -> Dataset:
    """MNIST: 60 000 / 10 000 images 1x28x28, checksums verified."""
    return _load("mnist", _MNIST, split, root)


def load_fashion_mnist(split: str, root: Path | None) -> Dataset:
    """Fashion-MNIST: 60 000 / 10 000 images 1x28x28, checksums verified."""
    return _load("fashion_mnist", _FASHION_MNIST, split, root)


def read_idx(path: str | Path) -> npt.NDArray[np.uint8]:
    """One IDX file of unsigned bytes, packed (.gz) or not, without a checksum.

    Raises
    ------
    DataError
        When the file is truncated, too long, of another type or not IDX.
    """
    return parse_idx(read(Path(path)), Path(path))


def parse_idx(data: bytes, path: Path) -> npt.NDArray[np.uint8]:
    """The array in the bytes of an IDX file; `path` is for the messages and the .gz suffix."""
    raw = gunzip(data, path)
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != _UNSIGNED_BYTE or not 1 <= raw[3] <= 4:
        raise DataError(
            f"{path}: the first four bytes are {raw[:4].hex()}, an IDX file of unsigned bytes "
            "starts with 000008 and the number of axes (1 to 4)."
        )
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise DataError(f"{path}: the IDX header is cut off after {len(raw)} bytes.")
    shape = struct.unpack(f">{raw[3]}I", raw[4:start])
    expected = int(np.prod(shape, dtype=object))
    if len(raw) - start != expected:
        raise DataError(
            f"{path}: the IDX header announces {expected} values {shape}, the file holds "
            f"{len(raw) - start}; it is truncated or damaged."
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _load(name: str, publication: _Publication, split: str, root: Path | None) -> Dataset:
    arrays: list[npt.NDArray[Any]] = []
    for kind, axes in (("images-idx3", 3), ("labels-idx1", 1)):
        file = f"{_PREFIX[split]}-{kind}-ubyte"
        choices = [f"{folder}/{file}{end}" for folder in publication.folders for end in (".gz", "")]
        path = locate(publication.title, root, choices, publication.source)
        data = read_verified(path, publication.checksums, publication.source)
        arrays.append(parse_idx(data, path))
        if arrays[-1].ndim != axes:
            raise DataError(f"{path}: {axes} axes expected, got {arrays[-1].ndim}.")
    return Dataset(name, arrays[0][:, None], arrays[1], publication.class_names)
