"""The gate before any timing: the same noise for all, outputs and votes against float64."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.baselines.base import AbstractJob, Problem
from bench.baselines.ours import INDEX, STREAM
from pixeldp_fast.noise.sampling import add_noise

FLOOR = 5e-6  # of the largest output: what float32 may differ by however exact eager is
MOST_FLIPS = 1e-3  # of the draws: votes that differ where rounding explains it
DRAWS = 1024  # a multiple of every chunk


@dataclass(frozen=True)
class Truth:
    """Noisy features, what the network makes of them, and how far from it one may be.

    Parameters
    ----------
    noisy : float32 [n, *noise_shape]
        The package's own draws of the example, so that its counts can be checked, too.
    exact : float64 [n, K]
        Outputs in float64.
    allowed : float
        Twice eager float32's largest error, or `FLOOR` of the largest output if that is larger.
    """

    noisy: Tensor
    exact: Tensor
    allowed: float

    @classmethod
    def of(cls, problem: Problem, draws: int = DRAWS) -> Truth:
        """Draws [0, draws) of the problem's example."""
        mechanism = problem.case.mechanism
        with torch.inference_mode():
            noisy = add_noise(problem.center, mechanism, STREAM, [INDEX], 0, draws)[0]
            exact = copy.deepcopy(problem.model.suffix).double()(noisy.double())
            eager = problem.model.suffix(noisy)
        own = float((eager.double() - exact).abs().max())
        return cls(noisy, exact, max(2 * own, FLOOR * float(exact.abs().max())))


@dataclass(frozen=True)
class Verdict:
    """What the gate found.

    Parameters
    ----------
    error : float
        Largest difference of an output, over the largest output.
    flips : tuple of int
        Draws whose vote differs where the margin is within the allowed difference.
    fault : str
        Why the contender must not be timed, or "".
    """

    error: float
    flips: tuple[int, ...]
    fault: str


def judge(job: AbstractJob, truth: Truth) -> Verdict:
    """Compare a job's outputs on the truth's features."""
    found = job.outputs(truth.noisy).double()
    if found.shape != truth.exact.shape:
        return Verdict(float("inf"), (), f"outputs have the shape {tuple(found.shape)}")
    difference = float((found - truth.exact).abs().max())
    flips, unexplained = _flips(truth, found)
    return Verdict(
        difference / float(truth.exact.abs().max()),
        tuple(flips),
        _fault(truth, difference, flips, unexplained),
    )


def _fault(truth: Truth, difference: float, flips: list[int], unexplained: list[int]) -> str:
    if not difference <= truth.allowed:  # NaN fails, too
        return f"outputs differ by {difference:.3g}, allowed are {truth.allowed:.3g}"
    if unexplained:
        return f"votes of draws {unexplained[:10]} differ although their margin is wide"
    if len(flips) > MOST_FLIPS * len(truth.exact):
        return f"{len(flips)} of {len(truth.exact)} votes differ"
    return ""


def _flips(truth: Truth, found: Tensor) -> tuple[list[int], list[int]]:
    """Draws whose vote differs: within twice the allowed difference, and beyond it."""
    ours, theirs = found.argmax(dim=1), truth.exact.argmax(dim=1)
    rows = torch.arange(len(found))
    margin = truth.exact[rows, theirs] - truth.exact[rows, ours]
    differ, wide = ours != theirs, margin > 2 * truth.allowed
    return (
        torch.nonzero(differ & ~wide).flatten().tolist(),
        torch.nonzero(differ & wide).flatten().tolist(),
    )
