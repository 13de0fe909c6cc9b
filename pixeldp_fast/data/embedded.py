"""The data set inside the package: 1 797 digits of 8x8 pixels (`digits/SOURCE.md`)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from pixeldp_fast.data.dataset import Dataset
from pixeldp_fast.errors import DataError

_FILE = Path(__file__).parent / "digits" / "digits.npz"
_SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
_TEST = 360  # the last examples of the file, mostly by other writers than the first


def load_digits(split: str, root: Path | None) -> Dataset:
    """The UCI digits: 1 437 / 360 images 1x8x8 with values k/16; `root` is not used.

    Source
        Alpaydin and Kaynak, UCI Machine Learning Repository, 1998; CC BY 4.0.
    """
    with np.load(_FILE, allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    if hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest() != _SHA256:
        raise DataError(f"{_FILE} was changed after the package was made; install it again.")
    part = slice(None, -_TEST) if split == "train" else slice(-_TEST, None)
    return Dataset("digits", images[part, None], labels[part], tuple("0123456789"), levels=16)
