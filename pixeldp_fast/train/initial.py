"""The network a run starts from, as a function of its seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pixeldp_fast.models.registry import build_pixeldp
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.smooth.model import PixelDP
from pixeldp_fast.train.batches import derived_seed
from pixeldp_fast.train.prefix import isometric_
from pixeldp_fast.train.settings import TrainingSettings


def initial_model(
    architecture: str,
    mechanism: AbstractMechanism | None,
    settings: TrainingSettings,
    *,
    input_shape: tuple[int, ...],
    num_classes: int,
    options: Mapping[str, Any] | None = None,
) -> PixelDP:
    """A freshly initialised network whose weights depend on `settings.seed` alone.

    Parameters
    ----------
    architecture, mechanism, input_shape, num_classes
        As for `pixeldp_fast.models.build_pixeldp`.
    settings : TrainingSettings
    options : mapping or None
        Keyword arguments of the architecture.

    Returns
    -------
    model : PixelDP
        On the CPU; the prefix of a network of this package is set by `isometric_`. Torch's own
        generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(settings, 0, 2))
        model = build_pixeldp(
            architecture,
            mechanism,
            input_shape=input_shape,
            num_classes=num_classes,
            **(options or {}),
        )
        if ":" not in architecture:
            isometric_(model.prefix)
        return model
