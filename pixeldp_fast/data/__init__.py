"""The field's data sets and the user's own, as images in [0, 1]; nothing is ever downloaded."""

from pixeldp_fast.data.dataset import Dataset
from pixeldp_fast.data.own import from_arrays, from_folder, from_npz, resolve
from pixeldp_fast.data.registry import DATASETS, load, open_dataset

__all__ = [
    "DATASETS",
    "Dataset",
    "from_arrays",
    "from_folder",
    "from_npz",
    "load",
    "open_dataset",
    "resolve",
]
