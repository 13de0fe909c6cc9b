"""The smoothed model as a function that can be differentiated: its mean score over keyed draws."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.sampling import add_noise
from pixeldp_fast.noise.stream import Purpose, Stream
from pixeldp_fast.smooth.classifier import SmoothedClassifier

SCORES = ("log", "softmax")
# Rows of the network at a time: on two cores the small networks ran no faster with more.
ROWS = {"cpu": 2048, "cuda": 16384}


class Expectation:
    """The mean softmax over draws of purpose "attack", or its logarithm, with its gradient.

    Parameters
    ----------
    smoothed : SmoothedClassifier
    index : int [B]
        The examples' addresses in the stream.
    score : {"log", "softmax"}
        The logarithm of the mean keeps a gradient where the mean itself is 0 or 1 in floats.

    Guarantee
        What goes into the network is what the engines draw at these addresses, on a lattice too;
        rounding to a lattice has the gradient of the identity. A value is a function of (seed,
        index, draws, x) up to float rounding: the same draws make a deterministic function.
    Source
        Expectation over transformation: Athalye et al., ICML 2018. The loss of the mean, not the
        mean of losses: Salman et al., NeurIPS 2019.
    """

    def __init__(self, smoothed: SmoothedClassifier, index: Any, score: str = "log") -> None:
        if score not in SCORES:
            raise InvalidArgument(f"`score` must be one of {', '.join(SCORES)}, got {score!r}.")
        self.smoothed = smoothed
        self.index = index
        self.score = score
        self.calls = 0  # evaluations of the network so far, per example
        self._stream = Stream(smoothed.seed, Purpose.ATTACK)

    def scores(self, x: Tensor, first_draw: int, n: int) -> Tensor:  # [B, K]
        """The scores of `x`, one row for every entry of `index`."""
        return self._scores(x, self.index, first_draw, n)

    def margin(self, x: Tensor, y: Tensor, first_draw: int, n: int) -> Tensor:  # [B]
        """Score of the class `y` minus the largest other one: below 0 where the class is lost."""
        self.calls += n
        with torch.no_grad():
            parts = [
                _margin(self._scores(x[rows], self.index[rows], first_draw, n), y[rows])
                for rows in self._blocks(len(x), n)
            ]
        return torch.cat(parts)

    def gradient(
        self, x: Tensor, y: Tensor, first_draw: int, n: int
    ) -> tuple[Tensor, Tensor]:  # [B], [B, *input_shape]
        """The margin and its gradient in `x`."""
        self.calls += n
        margins, gradients = [], []
        for rows in self._blocks(len(x), n):
            at = x[rows].detach().requires_grad_()
            margin = _margin(self._scores(at, self.index[rows], first_draw, n), y[rows])
            # Zero, not an error, where nothing connects the input to the scores.
            (gradient,) = torch.autograd.grad(
                margin.sum() + 0 * at.sum(), at, allow_unused=True, materialize_grads=True
            )
            margins.append(margin.detach())
            gradients.append(gradient)
        return torch.cat(margins), torch.cat(gradients)

    def _scores(self, x: Tensor, index: Any, first_draw: int, n: int) -> Tensor:
        model = self.smoothed.model
        features = model.prefix(x)  # [B, *noise_shape]
        center = features.detach().float()
        drawn = add_noise(center, model.mechanism, self._stream, index, first_draw, n)
        noisy = drawn + (features - features.detach()).unsqueeze(1)  # [B, n, *noise_shape]
        logits: Tensor = model.suffix(noisy.flatten(0, 1)).unflatten(0, (len(x), n))  # [B, n, K]
        if self.score == "softmax":
            return logits.softmax(-1).mean(1)
        return logits.log_softmax(-1).logsumexp(1) - math.log(n)

    def _blocks(self, examples: int, n: int) -> Iterator[slice]:
        rows = ROWS.get(self.smoothed.device.type, ROWS["cpu"])
        size = max(1, rows // n)
        return (slice(first, first + size) for first in range(0, examples, size))


def _margin(scores: Tensor, y: Tensor) -> Tensor:
    own = scores.gather(1, y[:, None])[:, 0]
    others = scores.scatter(1, y[:, None], -torch.inf)
    return own - others.amax(1)
