"""The state of an unfinished run: one safetensors file, whole or absent."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pixeldp_fast.errors import RunFolderError
from pixeldp_fast.files import write_whole

STATE = "state.safetensors"
FORMAT_VERSION = 1


def write_state(folder: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Replace the folder's state by these tensors and this record (plain JSON)."""
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    text = json.dumps({"format_version": FORMAT_VERSION, **record}, sort_keys=True)
    metadata = {"record": text, "sha256": _sha256(plain, text)}
    with written(folder):
        write_whole(folder / STATE, safetensors.torch.save(plain, metadata))


def read_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the record of the folder's state.

    Raises
    ------
    RunFolderError
        When the file is truncated, edited, or of another version.
    """
    path = folder / STATE
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = metadata["record"]
        if _sha256(tensors, text) != metadata["sha256"]:
            raise RunFolderError(
                f"{path} was edited: its SHA-256 is not the recorded one. Delete it to start anew."
            )
        record: dict[str, Any] = json.loads(text)
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise RunFolderError(
            f"{path} is not the state of a training run: {error!r}. Delete it to start anew."
        ) from error
    if record.get("format_version") != FORMAT_VERSION:
        raise RunFolderError(
            f"{path} has the format version {record.get('format_version')!r}; this package reads "
            f"{FORMAT_VERSION}. Finish the run with the version that began it."
        )
    return tensors, record


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold the folder, made where it is missing, against a second training process.

    The lock lies on the folder itself, so that nothing is left behind, not even by a kill.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise RunFolderError(f"`out` {folder} cannot be used: {error.strerror}.") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunFolderError(
                f"Another process is training into {folder}; wait for it or name another folder."
            ) from error
        with written(folder):
            for left in folder.glob(f".{STATE}.*"):  # of a process killed while it wrote
                left.unlink()
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def written(folder: Path) -> Iterator[None]:
    """Turn the system's errors into one that says what to do."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(
            f"{folder} cannot be written: {error.strerror or error}. The state after the last "
            "whole epoch is kept: make room or give the right to write, then resume."
        ) from error


def _sha256(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
