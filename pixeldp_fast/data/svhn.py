"""SVHN, cropped digits (format 2): the published .mat files."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import io as scipy_io

from pixeldp_fast.data.dataset import Dataset
from pixeldp_fast.data.files import locate, read, read_verified
from pixeldp_fast.errors import DataError

_SOURCE = "http://ufldl.stanford.edu/housenumbers/ (Netzer et al.)"
_CHECKSUMS = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}


def load_svhn(split: str, root: Path | None) -> Dataset:
    """SVHN: 73 257 / 26 032 images 3x32x32, checksums verified; the label 10 is the digit 0."""
    file = f"{split}_32x32.mat"
    path = locate("SVHN", root, [f"svhn/{file}", file], _SOURCE)
    images, labels = parse_mat(read_verified(path, _CHECKSUMS, _SOURCE), path)
    return Dataset("svhn", images, labels, tuple("0123456789"))


def read_mat(path: str | Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
    """One .mat file without a checksum: images uint8 [N, 3, 32, 32], labels 0..9 [N].

    For files of your own making: SciPy's reader is compiled code that damaged bytes can crash.
    `load_svhn` parses nothing before its checksum has agreed.
    """
    return parse_mat(read(Path(path)), Path(path))


def parse_mat(data: bytes, path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
    """The images and labels in the bytes of a .mat file of level 5."""
    try:
        content = scipy_io.loadmat(io.BytesIO(data), variable_names=["X", "y"])
    except (
        ValueError,  # of which SciPy's MatReadError
        TypeError,
        KeyError,
        IndexError,
        OSError,
        EOFError,
        MemoryError,  # a damaged length field
        OverflowError,
        NotImplementedError,  # MATLAB 7.3
        scipy_io.matlab.MatReadError,
        zlib.error,
    ) as error:
        raise DataError(f"{path} is not a readable .mat file (level 5): {error}.") from error
    if "X" not in content or "y" not in content:
        raise DataError(f"{path} is not an SVHN file: it holds no `X` and `y`.")
    x, y = content["X"], content["y"]
    if x.ndim != 4 or x.shape[:3] != (32, 32, 3) or x.dtype != np.uint8:
        raise DataError(f"{path}: `X` must be uint8 [32, 32, 3, N], got {x.dtype} {x.shape}.")
    labels = y.reshape(-1)
    if labels.size != x.shape[3] or labels.dtype.kind not in "iu":
        raise DataError(f"{path}: `y` must be {x.shape[3]} integers, got {y.dtype} {y.shape}.")
    if labels.size and not (labels.min() >= 1 and labels.max() <= 10):
        raise DataError(f"{path}: labels must lie in 1..10, got {labels.min()} to {labels.max()}.")
    return np.ascontiguousarray(x.transpose(3, 2, 0, 1)), labels.astype(np.int64) % 10
