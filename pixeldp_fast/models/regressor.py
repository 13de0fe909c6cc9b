"""A small regressor: dense layers to one real output, and its file."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from pixeldp_fast.errors import CheckpointError, InvalidArgument
from pixeldp_fast.files import write_whole
from pixeldp_fast.models.fingerprint import fingerprint
from pixeldp_fast.models.state import load_state
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.registry import mechanism_from_dict
from pixeldp_fast.smooth.model import PixelDP

FORMAT_VERSION = 1


@dataclass(frozen=True)
class RegressorConfig:
    """What rebuilds a regressor, and what it was trained for.

    Parameters
    ----------
    task : str
        As `pixeldp_fast.data.tasks` and its image data set call it, such as "ink of mnist".
    input_shape : tuple of int
    widths : tuple of int
        Of the hidden layers.
    low, high, origin : float
        The range it declares, and what its output is counted from.
    """

    task: str
    input_shape: tuple[int, ...]
    widths: tuple[int, ...]
    low: float
    high: float
    origin: float


def build_regressor(
    input_shape: Sequence[int], widths: Sequence[int], mechanism: AbstractMechanism
) -> PixelDP:
    """Dense layers with ReLU between and one output, noise on the input.

    Freshly initialised from torch's generator.
    """
    if not widths or min(widths) < 1:
        raise InvalidArgument(f"`widths` must be positive integers, at least one, got {widths!r}.")
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    before = math.prod(input_shape)
    for i, width in enumerate(widths, start=1):
        layers[f"fc{i}"], layers[f"relu{i}"] = nn.Linear(before, width), nn.ReLU()
        before = width
    layers["out"] = nn.Linear(before, 1)
    return PixelDP(None, mechanism, nn.Sequential(layers))


def save_regressor(path: str | Path, model: PixelDP, config: RegressorConfig) -> None:
    """Write weights and configuration as one safetensors file, whole or not at all."""
    record = {
        "format_version": FORMAT_VERSION,
        "config": asdict(config),
        "mechanism": model.mechanism.to_dict(),
        "fingerprint": fingerprint(model),
    }
    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    write_whole(path, safetensors.torch.save(state, {"regressor": json.dumps(record)}))


def load_regressor(path: str | Path) -> tuple[PixelDP, RegressorConfig]:
    """The model in a file of `save_regressor`, on the CPU and in eval mode.

    Raises
    ------
    CheckpointError
        When the file is missing, truncated, edited or of another kind.

    Guarantee
        The model has the fingerprint that was recorded.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            record: dict[str, Any] = json.loads((file.metadata() or {})["regressor"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if record["format_version"] != FORMAT_VERSION:
            raise CheckpointError(
                f"{path} has the format version {record['format_version']!r}; this package reads "
                f"{FORMAT_VERSION}."
            )
        plain = record["config"]
        shapes = {name: tuple(plain[name]) for name in ("input_shape", "widths")}
        config = RegressorConfig(**{**plain, **shapes})
        with torch.random.fork_rng(devices=[]):  # the weights drawn here are replaced at once
            mechanism = mechanism_from_dict(record["mechanism"])
            model = build_regressor(config.input_shape, config.widths, mechanism)
        recorded = record["fingerprint"]
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is not a regressor's file: {error!r}.") from error
    load_state(model, state, str(path))
    model.eval()
    if fingerprint(model) != recorded:
        raise CheckpointError(f"{path} was edited: the model is not the one that was saved.")
    return model, config
