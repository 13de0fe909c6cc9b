"""Is this network trained for its noise? Single draws under noise against none at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixeldp_fast.data.dataset import Dataset
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.smooth.model import PixelDP
from pixeldp_fast.types import IntArray

SUSPICIOUS = 2 / 3  # of the accuracy without noise; networks trained for their noise keep more
CHUNK = 256  # examples evaluated at once


@dataclass(frozen=True)
class NoiseCheck:
    """Accuracies of one network on the same examples.

    Parameters
    ----------
    under_noise, without_noise : float
        In [0, 1], of one draw per example and of the network with its noise left out.
    examples : int
        On which they were measured.
    """

    under_noise: float
    without_noise: float
    examples: int

    @property
    def untrained(self) -> bool:
        """Whether the noise costs so much that the network was hardly trained for it."""
        return self.under_noise < SUSPICIOUS * self.without_noise

    def message(self) -> str:
        """One sentence with both numbers."""
        numbers = f"{self.under_noise:.0%} under noise, {self.without_noise:.0%} without"
        kind = "looks untrained" if self.untrained else "is trained"
        return f"The model {kind} for this noise: {numbers} ({self.examples} examples)."


def check_noise(
    model: PixelDP, dataset: Dataset, *, examples: int = 1000, seed: int = 0
) -> NoiseCheck:
    """Compare single draws under noise with the network without noise.

    Parameters
    ----------
    model : PixelDP
        Evaluated in eval mode, and left in the modes it was in.
    dataset : Dataset
    examples : int
        At least 1; that many at even distances, or all where there are fewer.
    seed : int
        Of the noise; torch's generator is left as it was.
    """
    chosen = _spread(dataset, examples)
    return NoiseCheck(
        accuracy(model, dataset, chosen, seed=seed),
        accuracy(model, dataset, chosen, seed=seed, noise=False),
        len(chosen),
    )


def accuracy_under_noise(
    model: PixelDP, dataset: Dataset, *, examples: int = 2000, seed: int = 0
) -> float:
    """The share of `examples` examples, at even distances, that one draw each classifies right."""
    return accuracy(model, dataset, _spread(dataset, examples), seed=seed)


@torch.no_grad()
def accuracy(
    model: PixelDP,
    dataset: Dataset,
    indices: IntArray,
    *,
    seed: int,
    noise: bool = True,
) -> float:
    """The share of the examples at `indices` that one evaluation each classifies right."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    modes, right = [(module, module.training) for module in model.modules()], 0
    model.eval()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            for start in range(0, len(indices), CHUNK):
                part = indices[start : start + CHUNK]
                outputs = _outputs(model, dataset.images(part).to(device), noise)
                found = outputs.argmax(1).cpu().numpy()
                right += int((found == dataset.known_labels(part)).sum())
    finally:
        for module, training in modes:
            module.training = training
    return right / len(indices)


def _outputs(model: PixelDP, images: Tensor, noise: bool) -> Tensor:
    features: Tensor = model.prefix(images)
    outputs: Tensor = model.suffix(model.noisy(features) if noise else features)
    return outputs


def _spread(dataset: Dataset, examples: int) -> IntArray:
    if examples < 1 or len(dataset) < 1:
        raise InvalidArgument(
            f"At least one example is needed: `examples` is {examples!r}, the data set "
            f"{dataset.name} has {len(dataset)}."
        )
    count = min(examples, len(dataset))
    return np.arange(count) * len(dataset) // count
