"""The files of a run's folder: their names, the lock, and errors that say what to do.

manifest.json       the terms, the data and the cut into shards; written first, whole
shards/             additive tallies, each written whole
timings.jsonl       seconds per shard; no part of the result
certificates.jsonl  written whole at the end; of a run that decides, decisions.jsonl
lock                held while a process works in the folder
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from pixeldp_fast.errors import RunFolderError

MANIFEST = "manifest.json"
SHARDS = "shards"
TIMINGS = "timings.jsonl"
CERTIFICATES = "certificates.jsonl"
DECISIONS = "decisions.jsonl"
LOCK = "lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process, making it where needed; released on any exit or death.

    Raises
    ------
    RunFolderError
        When it cannot be made or written, or another process holds it.
    """
    path = folder / LOCK
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 1000).decode(errors="replace").strip() or "a process"
            raise RunFolderError(
                f"{folder} is in use: {holder} is working in it. Wait for it, or choose another "
                "folder."
            ) from None
        except OSError as error:
            raise RunFolderError(f"{path} cannot be locked: {error.strerror}.") from error
        with writing(path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's errors into one that says what to do."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(
            f"{path} cannot be written: {error.strerror or error}. Nothing is half written and "
            "finished shards are kept: make room or give the right to write, then resume."
        ) from error


def append_line(path: Path, text: str) -> None:
    """Append one line, on a line of its own even after a torn one."""
    with path.open("a+b") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - 1))
        torn = file.read(1) not in (b"", b"\n")
        file.write((b"\n" if torn else b"") + text.encode() + b"\n")


def is_temporary(name: str) -> bool:
    """Whether a killed process may have left this file while writing one of ours."""
    ours = (MANIFEST, CERTIFICATES, DECISIONS)
    return name.startswith((*(f".{whole}." for whole in ours), ".selection-", ".estimation-"))
