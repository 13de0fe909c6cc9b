"""Projected gradient descent on the smoothed model's margin, and its single step."""

from __future__ import annotations

from torch import Tensor

from pixeldp_fast.attacks.problem import Best, Problem
from pixeldp_fast.attacks.threat import column
from pixeldp_fast.types import Norm


def run(problem: Problem) -> Tensor:  # [B, *input_shape]
    """The point of smallest margin on the way from x, or from a random point halfway out.

    Source
        Madry et al., ICLR 2018, on the mean over draws; in the 1-norm sparse steps as Tramèr and
        Boneh, NeurIPS 2019, and the projection onto ball and box together as Croce and Hein,
        ICML 2021.
    """
    threat = problem.threat
    at = threat.x
    if not problem.from_x:
        reach = 1.0 if threat.norm is Norm.INF else 0.5
        at = threat.projected(at + reach * problem.random(problem.number))
    best, stride = Best(at), problem.stride
    for step in range(problem.steps):
        margin, gradient = problem.gradient(at, step)
        best.see(at, margin)
        at = threat.projected(at + stride * threat.direction(at, -gradient))
    best.see(at, problem.margin(at, problem.steps))
    return best.point


def single_step(problem: Problem) -> Tensor:  # [B, *input_shape]
    """One step of the whole size along the gradient.

    Source
        Goodfellow et al., ICLR 2015.
    """
    threat = problem.threat
    at = threat.x
    if not problem.from_x:
        at = threat.projected(at + 0.5 * problem.random(problem.number))
    _, gradient = problem.gradient(at, 0)
    size = threat.size.to(at.dtype) * (1 if problem.from_x else 2)
    return threat.projected(at + column(size, at) * threat.direction(at, -gradient))
