"""The list of data sets, and the one entry that opens anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pixeldp_fast.data.cifar import load_cifar10
from pixeldp_fast.data.dataset import Dataset
from pixeldp_fast.data.embedded import load_digits
from pixeldp_fast.data.files import resolve_root
from pixeldp_fast.data.idx import load_fashion_mnist, load_mnist
from pixeldp_fast.data.own import from_folder, from_npz, resolve
from pixeldp_fast.data.svhn import load_svhn
from pixeldp_fast.errors import DataError, InvalidArgument

SPLITS = ("train", "test")

DATASETS: dict[str, Callable[[str, Path | None], Dataset]] = {
    "digits": load_digits,
    "mnist": load_mnist,
    "fashion_mnist": load_fashion_mnist,
    "cifar10": load_cifar10,
    "svhn": load_svhn,
}


def load(name: str, split: str, *, root: str | Path | None = None) -> Dataset:
    """One of the field's data sets, from its published files.

    Parameters
    ----------
    name : {"digits", "mnist", "fashion_mnist", "cifar10", "svhn"}
        "digits" is inside the package and needs no files.
    split : {"train", "test"}
    root : path or None
        The folder with the data sets; None: `PIXELDP_DATA`.

    Returns
    -------
    dataset : Dataset
        In the original order.

    Raises
    ------
    DataError
        When a file is missing or its checksum is not the published one.

    Guarantee
        The bytes read have the published MD5 checksum (digits: a SHA-256 of this package).
    """
    if name not in DATASETS:
        raise InvalidArgument(f"`name` must be one of {', '.join(DATASETS)}, got {name!r}.")
    _check_split(split)
    return DATASETS[name](split, resolve_root(root))


def open_dataset(spec: str | Path, split: str = "test", root: str | Path | None = None) -> Dataset:
    """Any data set: the field's, a file, a folder of images, or a factory.

    Parameters
    ----------
    spec : str or Path
        A name of `load`; a path ending in .npz; a folder with one folder per class (where it has
        the folders `train` and `test` of such folders, the one of `split`); or "module:factory".
        A name wins over a folder so called: write ./mnist for the folder.
    split : {"train", "test"}
        An .npz file has only one part, which serves as either.
    root : path or None
        For the names alone; see `load`.
    """
    _check_split(split)
    text = str(spec)
    if text in DATASETS and not isinstance(spec, Path):
        return load(text, split, root=root)
    path = Path(spec)
    if path.suffix.lower() == ".npz":
        return from_npz(path)
    if path.is_dir():
        return from_folder(_split_folder(path, split))
    if ":" in text:
        return resolve(text, split)
    raise DataError(
        f"{text!r} is no data set: neither one of {', '.join(DATASETS)}, nor a path to an .npz "
        "file or to a folder, nor of the form 'module:factory'."
    )


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise InvalidArgument(f"`split` must be 'train' or 'test', got {split!r}.")


def _split_folder(path: Path, split: str) -> Path:
    """`path`/`split` where both splits hold folders of their own, else `path`."""
    parts = [path / name for name in SPLITS]
    nested = all(part.is_dir() and any(p.is_dir() for p in part.iterdir()) for part in parts)
    return path / split if nested else path
