"""Attacks that see no gradient: random points of the same norm, and a random search."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixeldp_fast.attacks.problem import Best, Problem
from pixeldp_fast.attacks.threat import column
from pixeldp_fast.types import Norm

_FIRST_SHARE, _HALVINGS = 0.8, 5  # of the image that a proposal changes, and how it shrinks


def random_points(problem: Problem) -> Tensor:  # [B, *input_shape]
    """The best of `steps` random points on the ball's surface (its corners in the infinity-norm).

    The box is met by clipping, which only makes a perturbation smaller.
    """
    threat = problem.threat
    best = Best(threat.x)
    for step in range(problem.steps):
        delta = problem.random(1 + problem.number * problem.steps + step)
        if threat.norm is Norm.INF:
            delta = column(threat.size.to(delta.dtype), delta) * delta.sign()
        point = (threat.x + delta).clamp(threat.low, threat.high)
        best.see(point, problem.margin(point, step))
    return best.point


def search(problem: Problem) -> Tensor:  # [B, *input_shape]
    """A random search: change a random window, keep what lowers the mean margin.

    Source
        After the Square attack, Andriushchenko et al., ECCV 2020, with draws averaged and one
        projection for all norms.
    """
    threat = problem.threat
    makers = [_generator(problem, int(i)) for i in problem.expectation.index]
    best = Best(threat.x)
    best.see(threat.x, problem.margin(threat.x, 0))
    for step in range(problem.steps):
        share = _FIRST_SHARE * 2.0 ** (-_HALVINGS * step / problem.steps)
        moves = torch.stack([_window(rng, tuple(threat.x.shape[1:]), share) for rng in makers])
        moves = _scaled(moves, threat.norm).to(threat.x)
        size = column(threat.size.to(moves.dtype), moves)
        point = threat.projected(best.point + size * moves)
        best.see(point, problem.margin(point, step))
    return best.point


def _generator(problem: Problem, index: int) -> np.random.Generator:
    seed = problem.expectation.smoothed.seed
    return np.random.default_rng((seed, index, problem.first_draw, problem.number))


def _window(rng: Any, shape: tuple[int, ...], share: float) -> Tensor:
    """Random signs in a random window, 0 elsewhere; one sign per channel."""
    channels, height, width = shape if len(shape) == 3 else (1, 1, math.prod(shape))
    side = math.sqrt(share) if height > 1 else share
    h, w = max(1, round(side * height)), max(1, round(side * width))
    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    window = np.zeros((channels, height, width), dtype=np.float32)
    window[:, top : top + h, left : left + w] = rng.choice((-1.0, 1.0), (channels, 1, 1))
    return torch.from_numpy(window.reshape(shape))


def _scaled(moves: Tensor, norm: Norm) -> Tensor:
    """Windows of norm 1, or from wall to wall in the infinity-norm."""
    if norm is Norm.INF:
        return 2 * moves
    length = torch.linalg.vector_norm(moves.flatten(1), ord=norm.value, dim=1)
    scaled: Tensor = moves / column(length, moves)
    return scaled
