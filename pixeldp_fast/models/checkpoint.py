"""Checkpoints: weights in `model.safetensors`, what rebuilds the network in `config.json`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from pixeldp_fast._version import __version__
from pixeldp_fast.errors import CheckpointError, InvalidArgument, RecordError
from pixeldp_fast.models.cohen import load_cohen
from pixeldp_fast.models.fingerprint import fingerprint
from pixeldp_fast.models.network import check_shape
from pixeldp_fast.models.registry import build
from pixeldp_fast.models.state import check_state, load_state
from pixeldp_fast.noise.registry import mechanism_from_dict
from pixeldp_fast.smooth.model import PixelDP

__all__ = ["CheckpointConfig", "load", "load_cohen", "save"]

FORMAT_VERSION = 1
WEIGHTS = "model.safetensors"
CONFIG = "config.json"


@dataclass(frozen=True)
class CheckpointConfig:
    """What rebuilds a network, and how it was trained.

    Parameters
    ----------
    architecture : str
        A name of `pixeldp_fast.models.NETWORKS`, or "module:factory".
    input_shape : (C, H, W)
    num_classes : int
    options : mapping
        Keyword arguments of `build`; plain JSON.
    training : mapping
        Settings of the training run, for the record; plain JSON.
    mechanism : mapping
        `mechanism.to_dict()`. Filled by `save` and `load`, as are the fields below.
    fingerprint : str
        Of the `PixelDP`.
    package_version : str
        That wrote the checkpoint.
    """

    architecture: str
    input_shape: tuple[int, int, int]
    num_classes: int
    options: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    mechanism: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    package_version: str = ""


def save(folder: str | Path, model: PixelDP, config: CheckpointConfig) -> CheckpointConfig:
    """Write `model` to `folder`, which is made where it is missing.

    Parameters
    ----------
    folder : path
    model : PixelDP
        Of the architecture that `config` names.
    config : CheckpointConfig
        Its mechanism, fingerprint and version are taken from `model` and this package.

    Returns
    -------
    config : CheckpointConfig
        As `load` returns it.

    Raises
    ------
    CheckpointError
        When `config` does not rebuild `model`: the checkpoint could not be loaded.

    Guarantee
        Each file appears whole or not at all. A crash between the two leaves a pair that `load`
        refuses, never one that it takes for another model.
    """
    if not isinstance(model, PixelDP):
        raise InvalidArgument(f"`model` must be a PixelDP, got {type(model).__name__}.")
    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    if ":" not in config.architecture:
        with torch.device("meta"):
            check_state(_built(model, config), state, "The model given to save")
    filled = dataclasses.replace(
        config,
        input_shape=check_shape(config.input_shape, config.num_classes),
        mechanism=model.mechanism.to_dict(),
        fingerprint=fingerprint(model),
        package_version=__version__,
    )
    weights = safetensors.torch.save(state)
    text = _encode(filled, hashlib.sha256(weights).hexdigest())
    _write_both(Path(folder), {WEIGHTS: weights, CONFIG: text})
    return _decode(text, Path(folder) / CONFIG)[0]


def load(
    folder: str | Path, *, architecture: str | None = None
) -> tuple[PixelDP, CheckpointConfig]:
    """The model in `folder`, on the CPU and in eval mode.

    Parameters
    ----------
    folder : path
        As written by `save`.
    architecture : str or None
        What the checkpoint must be of. Needed for a "module:factory": the checkpoint alone does
        not make this process import and run code.

    Raises
    ------
    CheckpointError
        When a file is missing, truncated or edited, or the weights are of another architecture.

    Guarantee
        The model has the fingerprint that `save` recorded.
    """
    path = Path(folder)
    config, weights_sha256 = _decode(_read(path / CONFIG), path / CONFIG)
    if architecture is not None and architecture != config.architecture:
        raise CheckpointError(f"{path} is of {config.architecture!r}, not of {architecture!r}.")
    if ":" in config.architecture and architecture is None:
        raise CheckpointError(
            f"{path} names code of yours, {config.architecture!r}. If you trust it, say so by "
            f"repeating it: load(folder, architecture={config.architecture!r})."
        )
    weights = _read(path / WEIGHTS)
    if hashlib.sha256(weights).hexdigest() != weights_sha256:
        raise CheckpointError(
            f"{path / WEIGHTS} is not the file that {CONFIG} describes: its SHA-256 differs. It "
            "was edited or truncated, or the two files are of different checkpoints."
        )
    try:
        state = safetensors.torch.load(weights)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path / WEIGHTS} is not a safetensors file: {error}.") from error
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are replaced at once
        model = _built(None, config)
    load_state(model, state, str(path / WEIGHTS))
    model.eval()
    if fingerprint(model) != config.fingerprint:
        raise CheckpointError(
            f"{path}: the network rebuilt from {CONFIG} is not the one that was saved: same "
            "weights, other layers. The code that builds it has changed since."
        )
    return model, config


def _built(model: PixelDP | None, config: CheckpointConfig) -> PixelDP:
    try:
        mechanism = (
            mechanism_from_dict(dict(config.mechanism)) if model is None else model.mechanism
        )
        prefix, suffix = build(
            config.architecture,
            input_shape=config.input_shape,
            num_classes=config.num_classes,
            **config.options,
        )
    except (InvalidArgument, RecordError, TypeError, ValueError) as error:
        raise CheckpointError(f"The checkpoint's network cannot be built: {error}") from error
    return PixelDP(prefix, mechanism, suffix)


def _encode(config: CheckpointConfig, weights_sha256: str) -> bytes:
    record = {
        "format_version": FORMAT_VERSION,
        **dataclasses.asdict(config),
        "weights_sha256": weights_sha256,
    }
    try:
        record["config_sha256"] = _record_sha256(record)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(
            f"`options` and `training` of a checkpoint must be plain finite JSON: {error}."
        ) from error
    return (json.dumps(record, indent=2) + "\n").encode()


def _decode(text: bytes, path: Path) -> tuple[CheckpointConfig, str]:
    try:
        record = json.loads(text)
        version, recorded = record.pop("format_version"), record.pop("config_sha256")
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{path} has the format version {version!r}; this package reads {FORMAT_VERSION}."
            )
        if _record_sha256({"format_version": version, **record}) != recorded:
            raise CheckpointError(f"{path} was edited: its SHA-256 is not the one it records.")
        weights_sha256 = str(record.pop("weights_sha256"))
        record["input_shape"] = tuple(record["input_shape"])
        return CheckpointConfig(**record), weights_sha256
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is not a checkpoint's {CONFIG}: {error!r}.") from error


def _record_sha256(record: Mapping[str, Any]) -> str:
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error


def _write_both(folder: Path, contents: Mapping[str, bytes]) -> None:
    """All files on the disk under temporary names first, then renamed one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = f".{os.getpid()}-{secrets.token_hex(4)}.tmp"
    temporary = {name: folder / (name + mark) for name in contents}
    try:
        for name, data in contents.items():
            with temporary[name].open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for name, path in temporary.items():
            path.replace(folder / name)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
