"""A linear classifier whose votes have exactly known probabilities, under any of the laws.

It votes for class 1 where w (x + noise) > 0. With Gaussian noise that is a normal variable of known
size; elsewhere one coordinate decides alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pixeldp_fast.noise.gaussian import Gaussian
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.sampling import noise_definition
from pixeldp_fast.noise.stream import Stream
from pixeldp_fast.plan.plan import Plan, make_plan
from pixeldp_fast.selftest.ideal import Ideal
from pixeldp_fast.types import FloatArray, IntArray

SHAPE = (1, 4, 4)
WEIGHTS = (0.7, -1.1, 0.4, 0.9, -0.3, 1.3, 0.2, -0.8, 0.5, 1.0, -0.6, 0.1, 1.2, -0.9, 0.3, 0.6)
ALONE = 6  # the coordinate that decides where sums of the noise have no simple law
# Probabilities of class 1, one per example, about. At all but the first a wrong scale shows best.
SHARES = (0.5, 0.94, 0.06, 0.93, 0.07, 0.92)
_STEP = 1e-4  # of the scale, for the derivative by differences


@dataclass(frozen=True)
class LinearTask:
    """The classifier, its examples, and what their votes must be.

    Parameters
    ----------
    mechanism : AbstractMechanism
    plan : Plan
        Noise on the input.
    x : float32 [B, 1, 4, 4]
    weights : float64 [16]
        Of class 1; those of class 0 are 0.
    """

    mechanism: AbstractMechanism
    plan: Plan
    x: Tensor
    weights: FloatArray

    @property
    def margins(self) -> FloatArray:
        """How far the examples lie from the threshold, in noise units, float64 [B]."""
        flat = self.x.double().cpu().numpy().reshape(len(self.x), -1)
        return np.asarray(flat @ self.weights / np.linalg.norm(self.weights))

    def probabilities(self, scale: float = 1.0) -> FloatArray:
        """Of a vote for class 1, were the noise `scale` times as large; float64 [B]."""
        # A sum of exactly 0 is no vote for class 1, and on a lattice it occurs.
        return Ideal(self.mechanism).below(self.margins / scale)

    def slopes(self) -> FloatArray:
        """The derivative of the probabilities in the logarithm of the scale, float64 [B]."""
        wider, narrower = self.probabilities(1 + _STEP), self.probabilities(1 - _STEP)
        return (wider - narrower) / (2 * _STEP)

    def scores(self, stream: Stream, index: IntArray, first: int, n: int) -> FloatArray:
        """w (x + noise) by the definition, in noise units, float64 [B, n]: above 0 is class 1."""
        noise = noise_definition(self.mechanism, stream, index, first, n, len(self.weights))
        sums = noise @ self.weights / np.linalg.norm(self.weights)
        return np.asarray(sums + self.margins[:, None])


def linear_task(mechanism: AbstractMechanism, device: torch.device) -> LinearTask:
    """The task for a mechanism; on a lattice the examples are lattice points."""
    summed = isinstance(mechanism, Gaussian) and mechanism.lattice is None
    weights = np.array(WEIGHTS) if summed else np.eye(len(WEIGHTS))[ALONE]
    weights = weights.astype(np.float32).astype(np.float64)
    ideal = Ideal(mechanism)
    margins = np.array([_margin(ideal, share) for share in SHARES])
    x = margins[:, None] * weights / np.linalg.norm(weights)
    suffix = nn.Sequential(nn.Flatten(), nn.Linear(len(weights), 2, bias=False))
    linear = suffix[1]
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(np.stack([np.zeros_like(weights), weights])))
    plan = make_plan(nn.Identity().eval(), suffix.eval().to(device), SHAPE, 2)
    inputs = torch.from_numpy(x.astype(np.float32)).view(-1, *SHAPE).to(device)
    return LinearTask(mechanism, plan, inputs, weights)


def _margin(ideal: Ideal, share: float) -> float:
    """About the margin with which class 1 has this share of the votes; a lattice point."""
    at = 0.0 if share == 0.5 else ideal.upper_tail(min(share, 1 - share))[0]
    levels = ideal.mechanism.lattice
    if levels is not None:
        at = round(at * levels) / levels
    return at if share > 0.5 else -at
