"""The list of regression tasks, and the one entry that opens them."""

from __future__ import annotations

from pathlib import Path

from pixeldp_fast.data.files import resolve_root
from pixeldp_fast.data.ink import ink_of
from pixeldp_fast.data.real import RealDataset
from pixeldp_fast.data.registry import SPLITS, open_dataset
from pixeldp_fast.data.wine import load_wine
from pixeldp_fast.errors import InvalidArgument

TASKS = ("ink", "wine")


def default_images(root: str | Path | None = None) -> str:
    """Whose ink is the target where no data set is named: MNIST's, or the embedded digits'."""
    return "digits" if resolve_root(root) is None else "mnist"


def open_task(
    task: str, split: str, *, images: str | None = None, root: str | Path | None = None
) -> RealDataset:
    """One split of a regression task.

    Parameters
    ----------
    task : {"ink", "wine"}
    split : {"train", "test"}
    images : str or None
        For "ink": any data set of images that `open_dataset` opens; None: `default_images`.
    root : path or None
        The folder with the data sets; None: `PIXELDP_DATA`.
    """
    if task not in TASKS:
        raise InvalidArgument(f"`task` must be one of {', '.join(TASKS)}, got {task!r}.")
    if split not in SPLITS:
        raise InvalidArgument(f"`split` must be 'train' or 'test', got {split!r}.")
    if task == "wine":
        if images is not None:
            raise InvalidArgument("`images` is for the task 'ink'; 'wine' has no images.")
        return load_wine(split, resolve_root(root))
    name = images or default_images(root)
    train = open_dataset(name, "train", root)
    return ink_of(train, train if split == "train" else open_dataset(name, split, root))
