"""The examples of a run: whatever a caller has, read in blocks, checked and fingerprinted once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixeldp_fast.data.dataset import Dataset
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.stream import checked_index
from pixeldp_fast.types import IntArray

_REFUSED = (str, bytes, dict, tuple, list, np.ndarray)  # sized and indexed, but no examples

Reader = Callable[[IntArray], tuple[Tensor, IntArray | None]]


@dataclass(frozen=True)
class Examples:
    """The chosen examples of a data set, in the order chosen.

    Parameters
    ----------
    name : str
        The data set's.
    number : int
        Examples of the whole data set.
    num_classes : int or None
        None where the data set does not say.
    positions : int64 [M]
        Of the chosen examples within the data set; distinct.
    read : function
        From positions int64 [B] to examples float32 [B, *input_shape] and labels int64 [B] or None.
    """

    name: str
    number: int
    num_classes: int | None
    positions: IntArray
    read: Reader

    def __len__(self) -> int:
        return len(self.positions)

    def block(self, block: tuple[int, int]) -> tuple[Tensor, IntArray | None]:
        """The examples at places [first, end) of the chosen ones, and their labels."""
        return self.read(self.positions[slice(*block)])


@dataclass(frozen=True)
class Survey:
    """What one reading of all chosen examples found.

    Parameters
    ----------
    fingerprint : str
        sha256 over shape, float32 values and labels: for a `Dataset`,
        `dataset.subset(indices).fingerprint()`.
    labels_fingerprint : str or None
        sha256 over the labels.
    labels : int64 [M] or None
    digests : list of bytes
        sha256 of every block's values.
    """

    fingerprint: str
    labels_fingerprint: str | None
    labels: IntArray | None
    digests: list[bytes]


def survey(
    examples: Examples, blocks: Iterator[tuple[int, int]], check: Callable[[Tensor], None]
) -> Survey:
    """Read every chosen example once; `check` raises for a block that cannot be certified."""
    digest = hashlib.sha256()
    digests: list[bytes] = []
    labels: list[IntArray] = []
    for block in blocks:
        x, y = examples.block(block)
        try:
            check(x)
        except InvalidArgument as error:
            first, last = examples.positions[block[0]], examples.positions[block[1] - 1]
            where = f"{examples.name}, examples {first} to {last}"
            raise InvalidArgument(f"{where}: {error}") from error
        if not digests:
            digest.update(repr((len(examples), *x.shape[1:])).encode())
        content = values(x)
        digest.update(content)
        digests.append(hashlib.sha256(content).digest())
        if y is not None:
            labels.append(y)
    if not labels:
        return Survey(digest.hexdigest(), None, None, digests)
    truth = np.concatenate(labels)
    digest.update(truth.astype("<i8", copy=False).tobytes())
    return Survey(digest.hexdigest(), labels_fingerprint(truth), truth, digests)


def read_again(examples: Examples, block: tuple[int, int], digest: bytes) -> Tensor:
    """The block's examples, which must be those that were checked."""
    x = examples.block(block)[0]
    if hashlib.sha256(values(x)).digest() != digest:
        first, last = examples.positions[block[0]], examples.positions[block[1] - 1]
        raise InvalidArgument(
            f"`data` gives other values when examples {first} to {last} are read again: remove "
            "random transforms, and leave the data as it is during a run."
        )
    return x


def values(x: Tensor) -> bytes:
    """The examples' values in C order, little-endian float32."""
    return x.detach().cpu().contiguous().numpy().astype("<f4", copy=False).tobytes()


def labels_fingerprint(labels: IntArray | None) -> str | None:
    """sha256 over the labels; None without labels."""
    if labels is None:
        return None
    return hashlib.sha256(labels.astype("<i8", copy=False).tobytes()).hexdigest()


def choose(data: Any, labels: Any, indices: Any) -> Examples:
    """The examples that `indices` chooses from what `certify_dataset` accepts as `data`.

    Raises
    ------
    InvalidArgument
        For another kind of data, and for labels or indices that do not fit.
    """
    if isinstance(data, (tuple, list)) and len(data) == 2:
        data, given = data
        if labels is not None:
            raise InvalidArgument("`labels` are given twice: in the pair `data` and by name.")
        labels = given
    kept = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    if not kept or isinstance(data, _REFUSED) or (isinstance(data, Tensor) and data.ndim == 0):
        raise InvalidArgument(
            "`data` must be a pixeldp_fast.data Dataset, a float32 tensor [N, ...], a pair (x, y) "
            "of tensors, or a torch Dataset of pairs (x, y) with a length; got "
            f"{type(data).__name__}."
        )
    number = len(data)
    positions = _checked_positions(indices, number)
    truth = None if labels is None else _checked_labels(labels, number)
    num_classes = data.num_classes if isinstance(data, Dataset) else None
    name = data.name if isinstance(data, Dataset) else type(data).__name__
    return Examples(name, number, num_classes, positions, _reader(data, truth))


def _reader(data: Any, truth: IntArray | None) -> Reader:
    own: Reader
    if isinstance(data, Dataset):
        own = _from_dataset(data)
    elif isinstance(data, Tensor):
        own = _from_tensor(data)
    else:
        own = _from_items(data)
    if truth is None:
        return own
    return lambda positions: (own(positions)[0], truth[positions])


def _from_dataset(data: Dataset) -> Reader:
    return lambda positions: (data.images(positions), data.labels(positions))


def _from_tensor(data: Tensor) -> Reader:
    return lambda positions: (data[torch.from_numpy(positions).to(data.device)], None)


def _from_items(data: Any) -> Reader:
    def read(positions: IntArray) -> tuple[Tensor, IntArray | None]:
        items = [_pair(data[int(p)], int(p)) for p in positions]
        shapes = {tuple(x.shape) for x, _ in items}
        if len(shapes) > 1:
            raise InvalidArgument(f"`data` has examples of different shapes: {sorted(shapes)}.")
        return torch.stack([x for x, _ in items]), np.array([y for _, y in items], dtype=np.int64)

    return read


def _pair(item: Any, position: int) -> tuple[Tensor, int]:
    if isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[0], Tensor):
        label = np.asarray(item[1])
        if label.ndim == 0 and label.dtype.kind in "iu":
            return item[0], int(label)
    raise InvalidArgument(
        f"`data`[{position}] must be a pair (x, y) of a float32 tensor and an integer label; "
        f"got {type(item).__name__}. Convert images with a transform such as ToTensor."
    )


def _checked_positions(indices: Any, number: int) -> IntArray:
    if isinstance(indices, Tensor):
        indices = indices.detach().cpu().numpy()
    try:
        chosen = slice(None) if indices is None else indices
        if not isinstance(chosen, slice):
            chosen = np.asarray(chosen)
            chosen = chosen.astype(np.int64) if chosen.size == 0 else chosen
        positions: IntArray = np.arange(number, dtype=np.int64)[chosen]
    except (IndexError, ValueError, TypeError) as error:
        raise InvalidArgument(
            f"`indices` must be integers within the {number} examples, a slice, or booleans "
            f"[{number}]: {error}."
        ) from None
    if positions.ndim != 1 or positions.size == 0:
        raise InvalidArgument("`indices` must choose at least one example, along one dimension.")
    if len(np.unique(positions)) != len(positions):
        raise InvalidArgument("`indices` must be distinct: an example is certified once in a run.")
    checked_index(positions)
    return positions


def _checked_labels(labels: Any, number: int) -> IntArray:
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.shape != (number,) or array.dtype.kind not in "iu":
        raise InvalidArgument(
            f"`labels` must be integers [{number}], one for every example of the whole data set; "
            f"got {array.dtype} {array.shape}."
        )
    return array.astype(np.int64)
