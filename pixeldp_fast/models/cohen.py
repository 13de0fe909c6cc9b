"""The published noise-trained checkpoints (.pth.tar of Cohen et al. and of those who followed)."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixeldp_fast.errors import CheckpointError, InvalidArgument, MissingExtra
from pixeldp_fast.models.normalize import (
    CIFAR10_STATISTICS,
    IMAGENET_STATISTICS,
    Normalize,
    Statistics,
)
from pixeldp_fast.models.resnet import resnet20, resnet110
from pixeldp_fast.models.state import load_state

_CIFAR_SHAPE = (3, 32, 32)
_CIFAR = {"cifar_resnet20": resnet20, "cifar_resnet110": resnet110}
ARCHITECTURES = (*_CIFAR, "resnet50")
# DataParallel around the whole or the network adds "module."; the network is entry 1 of a pair
# whose entry 0 standardises.
_WRAPPERS = re.compile(r"^(?:module\.)*(?:1\.(?:module\.)*)?")
_STATISTICS = re.compile(r"^(?:module\.)*0\.(?:module\.)*(means?|sds?|std)$")


def load_cohen(
    path: str | Path,
    num_classes: int | None = None,
    normalise: Statistics | str | None = "published",
) -> nn.Module:
    """The base classifier in a published checkpoint, to be smoothed by noise on its input.

    Parameters
    ----------
    path : path
        A .pth.tar file with the entries `arch` ("cifar_resnet20", "cifar_resnet110", or
        "resnet50", which needs torchvision) and `state_dict`.
    num_classes : int or None
        What the checkpoint must have; None: what it has.
    normalise : "published", None or (mean [C], std [C])
        The first layer. "published": the statistics in the file, where it stores them, else the
        constants the authors used (CIFAR-10 or ImageNet). None: no such layer.

    Returns
    -------
    network : nn.Sequential
        float32, on the CPU, in eval mode; images in [0, 1] to logits.

    Raises
    ------
    CheckpointError
        When the file is truncated, is no such checkpoint, contains code, or its weights are of
        another architecture.
    MissingExtra
        For "resnet50" without torchvision.

    Guarantee
        Nothing in the file is executed: only tensors and plain containers are read.
    Source
        Cohen et al., ICML 2019.
    """
    if isinstance(normalise, str) and normalise != "published":
        raise InvalidArgument(
            f"`normalise` must be 'published', None or (mean, std), got {normalise!r}."
        )
    path = Path(path)
    arch, state, stored = _read(path)
    classes = int(state["fc.weight"].shape[0])
    if num_classes not in (None, classes):
        raise CheckpointError(f"{path} has {classes} classes, not {num_classes}.")
    network = _network(arch, classes)
    load_state(network, state, str(path))
    if normalise is None:
        return nn.Sequential(OrderedDict(network=network)).eval()
    if isinstance(normalise, str):
        normalise = stored or (IMAGENET_STATISTICS if arch == "resnet50" else CIFAR10_STATISTICS)
    first = Normalize(*normalise)
    return nn.Sequential(OrderedDict(normalise=first, network=network)).eval()


def _read(path: Path) -> tuple[str, dict[str, Tensor], Statistics | None]:
    content = _unpickled(path)
    if not isinstance(content, dict) or not {"arch", "state_dict"} <= content.keys():
        raise CheckpointError(f"{path} is not a checkpoint with `arch` and `state_dict`.")
    arch, entries = content["arch"], content["state_dict"]
    if arch not in ARCHITECTURES:
        raise CheckpointError(
            f"{path} is of the architecture {arch!r}; known are {', '.join(ARCHITECTURES)}."
        )
    if not isinstance(entries, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in entries.items()
    ):
        raise CheckpointError(f"{path}: `state_dict` must map names to tensors.")
    statistics = {m[1][0]: v for k, v in entries.items() if (m := _STATISTICS.match(k))}
    state = {_WRAPPERS.sub("", k): v for k, v in entries.items() if not _STATISTICS.match(k)}
    if "fc.weight" not in state:
        raise CheckpointError(f"{path} holds no `fc.weight`: not a network of {arch}.")
    if len(statistics) != 2:
        return arch, state, None
    mean, std = statistics["m"].flatten().tolist(), statistics["s"].flatten().tolist()
    return arch, state, (mean, std)


def _unpickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged, or contains objects beyond tensors and plain containers, which "
            f"would run code when read; refused. {_first_line(error)}"
        ) from error
    except (
        OSError,
        EOFError,
        RuntimeError,  # PyTorch's reader of truncated archives
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        AssertionError,
        zipfile.BadZipFile,
    ) as error:
        raise CheckpointError(f"{path} cannot be read: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _network(arch: str, classes: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are replaced at once
        if arch in _CIFAR:
            return _CIFAR[arch](_CIFAR_SHAPE, classes).layers
        try:
            from torchvision.models import resnet50
        except ImportError as error:
            raise MissingExtra(
                "The architecture 'resnet50' comes from torchvision, which is not installed and "
                "in no extra of this package: pip install torchvision."
            ) from error
        return resnet50(weights=None, num_classes=classes)  # type: ignore[no-any-return]
