"""Finding the published files and telling them from damaged ones."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pixeldp_fast.config import data_folder
from pixeldp_fast.errors import DataError


def resolve_root(root: str | Path | None) -> Path | None:
    """`root`, or the folder that `PIXELDP_DATA` names."""
    return Path(root) if root is not None else data_folder()


def locate(title: str, root: Path | None, choices: Sequence[str], source: str) -> Path:
    """The first of `choices` (paths below `root`) that is there.

    Raises
    ------
    DataError
        When none is: names every path tried, `PIXELDP_DATA`, and where the files come from.
    """
    if root is None:
        raise DataError(
            f"{title} needs a folder of data files, and the environment variable PIXELDP_DATA is "
            f"not set. Set it (or pass `root`) to the folder that contains {choices[0]}. Nothing "
            f"is downloaded; the files come from {source}."
        )
    for choice in choices:
        if (root / choice).is_file():
            return root / choice
    tried = ", ".join(str(root / choice) for choice in choices)
    raise DataError(
        f"{title}: none of the accepted files is there: {tried}. PIXELDP_DATA (or `root`) must "
        f"name the folder that contains {choices[0]}. Nothing is downloaded; the files come from "
        f"{source}."
    )


def read(path: Path) -> bytes:
    """The file's bytes; a `DataError` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def read_verified(path: Path, checksums: Mapping[str, str], source: str) -> bytes:
    """The file's bytes, after comparing their MD5 with the published one.

    MD5 finds damage and mix-ups; it is what the publishers state, and no defence against forgery.
    The bytes that were checked are the bytes returned.

    Parameters
    ----------
    path : Path
    checksums : mapping of file name to MD5
    source : str
        Where a sound copy comes from.
    """
    data = read(path)
    got = hashlib.md5(data, usedforsecurity=False).hexdigest()
    expected = checksums[path.name]
    if got != expected:
        raise DataError(
            f"{path}: the MD5 checksum is {got}, the published file's is {expected} "
            f"({len(data)} bytes here). The file is damaged or another one; replace it by the "
            f"original from {source}. Data of your own is opened by its path (.npz or a folder "
            "of images)."
        )
    return data


def gunzip(data: bytes, path: Path) -> bytes:
    """`data` unpacked where the file's name ends in .gz, else as it is."""
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a complete gzip file: {error}.") from error
