"""Wine quality: eleven chemical measurements, and what tasters made of the wine."""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path

import numpy as np

from pixeldp_fast.data.files import locate, read
from pixeldp_fast.data.real import RealDataset
from pixeldp_fast.errors import DataError
from pixeldp_fast.types import FloatArray

FEATURES = (
    "fixed acidity",
    "volatile acidity",
    "citric acid",
    "residual sugar",
    "chlorides",
    "free sulfur dioxide",
    "total sulfur dioxide",
    "density",
    "pH",
    "sulphates",
    "alcohol",
)
ORIGIN = 6.0  # the commonest quality; the others are 3 to 9 on a scale of 0 to 10
RANGE = (-3.0, 3.0)
_EVERY = 5  # of each file every fifth wine, from the first on, is for testing
_SOURCE = "https://archive.ics.uci.edu/dataset/186/wine+quality (Cortez et al. 2009)"
# Copies in circulation separate by semicolons or commas, and give thirds of a percent of alcohol
# with four to fourteen decimals: values are compared, and used, to 1e-4.
_PER_UNIT = 1e4
_SHA256 = {  # of the rounded values as little-endian int64
    "red": "feddff1a39d2bdd8c6000405e39515119ef900fb29b0a9ba13ceb95c6e4fb513",
    "white": "cd3d941e46d45b7554e6284f3153285b41b49962c53c80a6284cf50fa272ac95",
}


def load_wine(split: str, root: Path | None) -> RealDataset:
    """4 898 white and 1 599 red wines; the test split is every fifth of each.

    Inputs are standardised by the training split's mean and standard deviation of each measurement,
    which belongs to the data and not to the model: an attack's size is in standard deviations.

    Source
        Cortez et al., Decision Support Systems 47, 2009; CC BY 4.0.
    """
    tables = [_table(colour, root) for colour in ("white", "red")]
    testing = [np.arange(len(table)) % _EVERY == 0 for table in tables]
    train = np.concatenate([table[~test] for table, test in zip(tables, testing, strict=True)])
    test = np.concatenate([table[test] for table, test in zip(tables, testing, strict=True)])
    mean, std = train[:, :-1].mean(axis=0), train[:, :-1].std(axis=0)
    chosen = train if split == "train" else test
    return RealDataset(
        name="wine",
        inputs=((chosen[:, :-1] - mean) / std).astype(np.float32),
        targets=chosen[:, -1] - ORIGIN,
        low=RANGE[0],
        high=RANGE[1],
        origin=ORIGIN,
        quantity="quality",
        unit="standard deviations of the measurements",
        input_range=None,
    )


def _table(colour: str, root: Path | None) -> FloatArray:  # [N, 12]
    name = f"winequality-{colour}.csv"
    path = locate("Wine quality", root, [f"wine/{name}", name], _SOURCE)
    table = parse_wine(read(path), path)
    if not np.isfinite(table).all() or np.abs(table).max(initial=0.0) > 1e6:
        raise DataError(f"{path}: values must be finite and of a wine.")
    rounded = np.rint(table * _PER_UNIT)
    if hashlib.sha256(rounded.astype("<i8").tobytes()).hexdigest() != _SHA256[colour]:
        raise DataError(
            f"{path}: its {len(table)} rows are not the published values. The file is damaged or "
            f"another one; replace it by the original from {_SOURCE}."
        )
    exact: FloatArray = rounded / _PER_UNIT
    return exact


def parse_wine(data: bytes, path: Path) -> FloatArray:
    """The numbers of one file, float64 [N, 12]: separated by semicolons as published, or commas.

    Raises
    ------
    DataError
        Where the header is another one or a row does not hold twelve numbers.
    """
    text = data.decode("ascii", errors="replace")
    rows = list(csv.reader(io.StringIO(text), delimiter=";" if ";" in text[:200] else ","))
    if not rows or [name.strip() for name in rows[0]] != [*FEATURES, "quality"]:
        raise DataError(f"{path}: the first row must name {', '.join(FEATURES)} and quality.")
    try:
        table = np.array([[float(cell) for cell in row] for row in rows[1:] if row])
    except ValueError as error:
        raise DataError(f"{path}: not a table of numbers: {error}.") from error
    if table.ndim != 2 or table.shape[1] != len(FEATURES) + 1:
        raise DataError(f"{path}: every row must hold {len(FEATURES) + 1} numbers.")
    return table
