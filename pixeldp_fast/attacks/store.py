"""A run of attacks in a folder: blocks of examples, each written whole; kill it, resume it.

manifest.json   what is attacked and how; written first, whole
blocks/         one .npz of arrays per block of examples
lock            held while a process works in the folder
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixeldp_fast.errors import RunFolderError
from pixeldp_fast.files import write_whole
from pixeldp_fast.jobs.folder import LOCK, MANIFEST, locked, writing

KIND = "attack"
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Blocks:
    """The folder of one run.

    Parameters
    ----------
    folder : Path
    manifest : dict
        Everything on which a block's arrays depend, as plain JSON.
    number : int
        Of blocks.
    """

    folder: Path
    manifest: dict[str, Any]
    number: int

    def path(self, block: int) -> Path:
        """The file of a block."""
        return self.folder / "blocks" / f"{block:05d}.npz"

    def all(self, make: Callable[[int], Arrays]) -> Arrays:
        """Every block's arrays, joined; those that are not there are made and stored.

        Raises
        ------
        RunFolderError
            When a stored block is damaged, or nothing can be written.
        """
        parts = []
        for block in range(self.number):
            path = self.path(block)
            if not path.is_file():
                content = packed(make(block))
                with writing(path):
                    path.parent.mkdir(exist_ok=True)
                    write_whole(path, content)
            parts.append(_unpacked(path))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def stored(self) -> int:
        """How many blocks are there."""
        return sum(self.path(block).is_file() for block in range(self.number))


def stored_seed(folder: Path, resume: bool) -> int | None:
    """The seed of the run in the folder; None where there is none.

    Raises
    ------
    RunFolderError
        When the folder holds something else, or is not to be resumed.
    """
    path = folder / MANIFEST
    if not path.is_file():
        others = [p.name for p in folder.iterdir() if p.name != LOCK] if folder.is_dir() else []
        if others or folder.is_file():
            raise RunFolderError(f"{folder} is no run of attacks; choose an empty or new folder.")
        return None
    if not resume:
        raise RunFolderError(f"{folder} holds a run; resume it, or choose another folder.")
    return int(_read(path)["seed"])


@contextmanager
def opened(folder: Path, manifest: dict[str, Any], number: int) -> Iterator[Blocks]:
    """The run of this manifest, new or resumed, with the folder locked.

    Raises
    ------
    RunFolderError
        When the folder is of a run with other settings, in use or not writable.
    """
    with locked(folder):
        path = folder / MANIFEST
        wanted = {"kind": KIND, **json.loads(json.dumps(manifest))}
        if path.is_file():
            found = _read(path)
            differing = sorted(k for k in wanted | found if wanted.get(k) != found.get(k))
            if differing:
                raise RunFolderError(
                    f"{folder} is of a run with other settings; these differ: "
                    f"{', '.join(differing)}. Choose another folder."
                )
        else:
            with writing(path):
                write_whole(path, json.dumps(wanted, indent=1) + "\n")
        yield Blocks(folder, wanted, number)


def packed(arrays: Arrays) -> bytes:
    """The arrays as the bytes of an .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _unpacked(path: Path) -> Arrays:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise RunFolderError(f"{path} is damaged: delete it and resume.") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        if found["kind"] != KIND:
            raise ValueError(found["kind"])
        int(found["seed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{path} is not that of a run of attacks; choose an empty or new folder."
        ) from error
    return dict(found)
