"""The smoothed model as a deterministic module, for attack libraries that know no randomness."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from pixeldp_fast.attacks.expectation import Expectation
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.stream import checked_index
from pixeldp_fast.smooth.classifier import SmoothedClassifier
from pixeldp_fast.smooth.inputs import checked_count


def as_module(model: SmoothedClassifier, draws: int, key: int = 0) -> nn.Module:
    """The logarithm of the mean softmax over fixed draws, as a function of x alone.

    Parameters
    ----------
    model : SmoothedClassifier
        With a seed, which the draws are of.
    draws : int
        64 made claims of other libraries agree with fresh draws to within a few points.
    key : int
        The address of the draws; all examples share them.

    Returns
    -------
    module : nn.Module
        float32 [B, *input_shape] -> float32 [B, K], in eval mode, differentiable in x. Its outputs
        serve as logits.

    Guarantee
        Deterministic, whatever the batch, up to float rounding. What a library claims to have found
        on it is a candidate: judge it by `model.predict` without a seed.
    """
    if not (isinstance(model, SmoothedClassifier) and model.seed_given):
        raise InvalidArgument("`model` must be a SmoothedClassifier with a seed, for fixed draws.")
    checked_index([key])
    return _Fixed(model, checked_count("draws", draws, 1), key).eval()


class _Fixed(nn.Module):
    def __init__(self, smoothed: SmoothedClassifier, draws: int, key: int) -> None:
        super().__init__()
        self.network = smoothed.model  # so that libraries find the device
        self._given = smoothed, draws, key

    def forward(self, x: Tensor) -> Tensor:  # [B, *input_shape] -> [B, K]
        smoothed, draws, key = self._given
        return Expectation(smoothed, np.full(len(x), key, dtype=np.uint32)).scores(x, 0, draws)
