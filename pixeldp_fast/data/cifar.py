"""CIFAR-10, binary version and Python version; no pickled code is ever run."""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixeldp_fast.data.dataset import Dataset
from pixeldp_fast.data.files import locate, read, read_verified
from pixeldp_fast.errors import DataError

_SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky)"
_BINARY, _PYTHON = "cifar-10-batches-bin", "cifar-10-batches-py"
_BATCHES = {"train": [f"data_batch_{k}" for k in range(1, 6)], "test": ["test_batch"]}
_CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_CHECKSUMS = {
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
_PICKLE_PROTOCOL = 2
_VALUES = 3 * 32 * 32
Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]  # images [N, 3, 32, 32], labels [N]


def load_cifar10(split: str, root: Path | None) -> Dataset:
    """CIFAR-10: 50 000 / 10 000 images 3x32x32, checksums verified; the binary version first."""
    files = [[f"{_BINARY}/{name}.bin", f"{_PYTHON}/{name}"] for name in _BATCHES[split]]
    version = locate("CIFAR-10", root, files[0], _SOURCE).parent.name  # one version for all batches
    batches: list[Batch] = []
    for choices in files:
        wanted = [choice for choice in choices if choice.startswith(f"{version}/")]
        path = locate("CIFAR-10", root, wanted, _SOURCE)
        data = read_verified(path, _CHECKSUMS, _SOURCE)
        batches.append((parse_binary if path.suffix == ".bin" else parse_python)(data, path))
    images = np.concatenate([batch[0] for batch in batches])
    return Dataset("cifar10", images, np.concatenate([b[1] for b in batches]), _CLASS_NAMES)


def read_binary(path: str | Path) -> Batch:
    """One file of the binary version, without a checksum: images uint8 [N, 3, 32, 32], labels."""
    return parse_binary(read(Path(path)), Path(path))


def read_python(path: str | Path) -> Batch:
    """One file of the Python version, without a checksum and without running what it names."""
    return parse_python(read(Path(path)), Path(path))


def parse_binary(data: bytes, path: Path) -> Batch:
    """The images and labels in the bytes of a .bin file: rows of one label and 3 072 values."""
    if not data or len(data) % (1 + _VALUES):
        raise DataError(
            f"{path}: {len(data)} bytes are not a whole number of {1 + _VALUES}-byte rows; the "
            "file is truncated or damaged."
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, 1 + _VALUES)
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]


def parse_python(data: bytes, path: Path) -> Batch:
    """The images and labels in the bytes of a pickled batch, read by a restricted unpickler."""
    try:
        _check_opcodes(data)
        batch = _BatchUnpickler(io.BytesIO(data), encoding="latin1").load()
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,  # of which UnicodeDecodeError
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
        MemoryError,  # a damaged length field
        struct.error,
    ) as error:
        raise DataError(f"{path} is not a CIFAR-10 batch: {error}.") from error
    if not isinstance(batch, dict) or not {"data", "labels"} <= batch.keys():
        raise DataError(f"{path} is not a CIFAR-10 batch: it holds no `data` and `labels`.")
    rows, labels = batch["data"], batch["labels"]
    if not isinstance(rows, _PickledArray) or not isinstance(labels, list):
        raise DataError(f"{path} is not a CIFAR-10 batch: `data` and `labels` have other types.")
    images = rows.to_numpy(path)
    if images.ndim != 2 or images.shape[1] != _VALUES:
        raise DataError(f"{path}: `data` must be [N, {_VALUES}], got {images.shape}.")
    if len(labels) != len(images) or not all(type(k) is int for k in labels):
        raise DataError(f"{path}: `labels` must be {len(images)} integers.")
    return images.reshape(-1, 3, 32, 32), np.array(labels)


def _check_opcodes(data: bytes) -> None:
    """Refuse what Python 2 could not have written and what would allocate more than is there."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.proto > _PICKLE_PROTOCOL:
            raise pickle.UnpicklingError(f"it uses {opcode.name} of a later protocol; refused")
        if "PUT" in opcode.name and int(argument or 0) > len(data):
            raise pickle.UnpicklingError(f"it numbers an object {argument}; refused")


class _PickledArray:
    """Stands in for numpy.ndarray while unpickling: keeps the state, interprets nothing."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def to_numpy(self, path: Path) -> npt.NDArray[np.uint8]:
        match self.state:
            case (_, tuple(shape), _PickledType(code="u1"), int(fortran), str(values)):
                pass
            case _:
                raise DataError(f"{path}: `data` is not a pickled array of unsigned bytes.")
        raw = np.frombuffer(values.encode("latin1"), np.uint8)
        if not all(type(n) is int and n >= 0 for n in shape):
            raise DataError(f"{path}: `data` has the impossible shape {shape!r}.")
        if raw.size != int(np.prod(shape, dtype=object)):
            raise DataError(f"{path}: {raw.size} values do not fill the shape {shape!r}.")
        return raw.reshape(shape, order="F" if fortran else "C")


class _PickledType:
    """Stands in for numpy.dtype while unpickling."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Byte order and fields: without meaning for single bytes."""


class _BatchUnpickler(pickle.Unpickler):
    """Resolves the three names in a pickled NumPy array, to stand-ins, and refuses all others."""

    _ADMITTED = {  # noqa: RUF012 - a literal table, never written
        ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy", "ndarray"): _PickledArray,
        ("numpy", "dtype"): _PickledType,
    }

    def find_class(self, module: str, name: str) -> Any:
        admitted = self._ADMITTED.get((module, name))
        if admitted is None:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, which a batch of images has no use for; refused"
            )
        return admitted
