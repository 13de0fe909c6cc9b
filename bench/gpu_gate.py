"""The gate before any timing on a GPU: the same features for all, float64 as the truth."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.gate import FLOOR, MOST_FLIPS, Verdict
from bench.gpu_contenders import (
    STREAM,
    AbstractGpuContender,
    AbstractGpuJob,
    GpuProblem,
    fastest_torch,
    suffix_in,
)
from pixeldp_fast.noise.sampling import add_noise

# Of the largest output: what a dtype may differ by however exact eager is. 16-bit: one unit in the
# last place of a number of that dtype.
FLOORS = {torch.float32: FLOOR, torch.bfloat16: 2**-8, torch.float16: 2**-11}
PIECE = 64  # rows of the float64 evaluation
# The package's own draws come from approximate functions: features within 1e-5 of the noise's
# scale, so votes may change within a margin that is so many times wider.
WIDER = 2


@dataclass(frozen=True)
class Allowance:
    """How far outputs may be from the truth, and how many votes may change, in one dtype."""

    difference: float
    flips: int


@dataclass(frozen=True)
class GpuTruth:
    """Noisy features and what the network makes of them.

    Parameters
    ----------
    noisy : float32 [n, *noise_shape]
        Draws [0, n) of `STREAM` for example 0, on the device.
    exact : float64 [n, K]
    allowed : callable
        Twice what eager torch in a dtype is off by, or the dtype's floor; flips likewise.
    """

    noisy: Tensor
    exact: Tensor
    allowed: Callable[[torch.dtype], Allowance]

    @classmethod
    def of(cls, problem: GpuProblem) -> GpuTruth:
        """The truth of a problem."""
        case = problem.case
        with fastest_torch():
            centers = problem.centers[:1]
            noisy = add_noise(centers, case.mechanism, STREAM, [0], 0, case.gate)[0]
            double = copy.deepcopy(problem.model.suffix).double()
            exact = torch.cat([double(rows.double()) for rows in torch.split(noisy, PIECE)])
        known: dict[torch.dtype, Allowance] = {}

        def allowed(dtype: torch.dtype) -> Allowance:
            if dtype not in known:
                known[dtype] = _allowance(problem, noisy, exact, dtype)
            return known[dtype]

        return cls(noisy, exact, allowed)


def _allowance(problem: GpuProblem, noisy: Tensor, exact: Tensor, dtype: torch.dtype) -> Allowance:
    with fastest_torch():
        suffix = suffix_in(problem, dtype)
        layout = torch.channels_last if noisy.ndim == 4 else torch.contiguous_format
        rows = (r.to(dtype).contiguous(memory_format=layout) for r in torch.split(noisy, PIECE))
        eager = torch.cat([suffix(r).double() for r in rows])
    own = float((eager - exact).abs().max())
    flips = int((eager.argmax(dim=1) != exact.argmax(dim=1)).sum())
    floor = FLOORS[dtype] * float(exact.abs().max())
    return Allowance(max(2 * own, floor), max(2 * flips, int(MOST_FLIPS * len(exact)), 1))


def judge(contender: AbstractGpuContender, job: AbstractGpuJob, truth: GpuTruth) -> Verdict:
    """Compare outputs and votes on the truth's features, and votes of the package's own draws."""
    exact, allowed = truth.exact[: job.gated], truth.allowed(contender.dtype)
    found = job.outputs(truth.noisy[: job.gated]).double()
    if found.shape != exact.shape:
        return Verdict(float("inf"), (), f"outputs have the shape {tuple(found.shape)}")
    difference = float((found - exact).abs().max())
    theirs, ours = exact.argmax(dim=1), found.argmax(dim=1)
    margin = (exact.gather(1, theirs[:, None]) - exact.gather(1, ours[:, None]))[:, 0]
    wide = margin > 2 * allowed.difference
    flips = torch.nonzero((ours != theirs) & ~wide).flatten().tolist()
    unexplained = torch.nonzero((ours != theirs) & wide).flatten().tolist()
    fault = ""
    if not difference <= allowed.difference:  # NaN fails, too
        fault = f"outputs differ by {difference:.3g}, allowed are {allowed.difference:.3g}"
    elif unexplained:
        fault = f"votes of draws {unexplained[:10]} differ although their margin is wide"
    elif len(flips) > allowed.flips:
        fault = f"{len(flips)} of {len(exact)} votes differ, allowed are {allowed.flips}"
    else:
        fault = _own_draws(job, exact, allowed)
    return Verdict(difference / float(exact.abs().max()), tuple(flips), fault)


def _own_draws(job: AbstractGpuJob, exact: Tensor, allowed: Allowance) -> str:
    """What is wrong with the votes that the package counts of the same draws, or ""."""
    votes = job.own_votes(len(exact))
    if votes is None:
        return ""
    expected = torch.bincount(exact.argmax(dim=1), minlength=exact.shape[1]).cpu().numpy()
    moved = int(abs(votes - expected).sum() + 1) // 2
    best = exact.topk(2, dim=1).values
    close = int((best[:, 0] - best[:, 1] <= 2 * WIDER * allowed.difference).sum())
    if moved <= close:
        return ""
    return f"{moved} votes of its own draws differ, {close} are close enough for that"
