"""What an engine is asked before it is handed out: kernels that were never seen on this device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pixeldp_fast.backends.arithmetic import Evaluate, in_arithmetic
from pixeldp_fast.backends.triton.draws import Draws
from pixeldp_fast.backends.triton.fronts import Front
from pixeldp_fast.errors import UnsupportedBackend, UnsupportedModel
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.sampling import noisy_definition
from pixeldp_fast.noise.stream import Purpose, Stream
from pixeldp_fast.plan.interpret import interpret
from pixeldp_fast.plan.ops import Graph
from pixeldp_fast.plan.plan import Plan

NOISE_TOLERANCE = 1e-5  # of the scale: THEORY 9
# Relative to the largest output: well above the errors of the arithmetic, well below any operation
# misunderstood.
MEANING_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.05}
DIFFERENT = (
    "The compiled network and the module give different outputs; does its forward depend on "
    "something outside its weights? Use backend='torch'."
)
SHIFTS = (1, 37, 64)  # places by which rows are moved
TRIAL = Stream(2**63 + 1, Purpose.VERIFICATION)
TRIAL_ADDRESS = 5
TRIAL_ADDRESSES = torch.tensor([TRIAL_ADDRESS, 2**32 - 2, 0])
TRIAL_ROWS = 128  # of features; divides every tile
COMPARED = 2  # draws of every example whose noise is compared
JUMPS = 0.1  # of the rows: a module with steps in it jumps where rounding meets one


def trial_draws(mechanism: AbstractMechanism, n: int, examples: int = 1) -> Draws:
    """The first `n` draws of some examples."""
    law = mechanism.native_law
    assert law is not None
    scale, purpose = mechanism.noise_scale, int(TRIAL.purpose)
    return Draws(law, scale, TRIAL.seed, purpose, 0, n, examples, first_row=0)


def trial_lengths(rows: int) -> tuple[int, ...]:
    """Draws of each of the trial's examples: they share a tile, and programs of a kernel."""
    return rows // len(TRIAL_ADDRESSES), 5


def trial_features(plan: Plan, device: torch.device) -> Tensor:
    """The same random features at every call, float32 [TRIAL_ROWS, *noise_shape]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn((TRIAL_ROWS, *plan.noise_shape), generator=generator).to(device)


def trial_centers(plan: Plan, device: torch.device) -> Tensor:
    """Features of the trial's examples, float32 [examples, D]."""
    return trial_features(plan, device)[: len(TRIAL_ADDRESSES)].flatten(1).contiguous()


def module_outputs(plan: Plan, features: Tensor) -> Tensor:
    """What the module itself makes of features in float32."""
    return in_arithmetic(plan.suffix, torch.float32)(features.clone()).clone()


def blind_to_place(evaluate: Evaluate, trial: Tensor, rows: int) -> bool:
    """Whether a row keeps its bits wherever in a tile of `rows` it stands.

    Parameters
    ----------
    trial : [some, *noise_shape]
        Repeated until the tile is full; `some` divides `rows`.

    Fidelity
        Seen on these rows: their copies in one tile must agree, and stay so when all are moved by
        each of `SHIFTS`. A library whose kernels divide sums by the place of a row shows there.
    """
    tile = trial.repeat(rows // len(trial), *(1 for _ in trial.shape[1:]))
    once = evaluate(tile).clone().nan_to_num()
    if not bool((once.view(-1, len(trial), *once.shape[1:]) == once[: len(trial)]).all()):
        return False
    for shift in SHIFTS:
        moved = evaluate(tile.roll(shift, dims=0)).roll(-shift, dims=0)
        if not torch.equal(moved.nan_to_num(), once):
            return False
    return True


def check_noise(made: Tensor, mechanism: AbstractMechanism) -> None:
    """Refuse noise that is not the definition's.

    Parameters
    ----------
    made : float32 [rows, D]
        The kernel's for `trial_draws`, around features of zeros.
    """
    rows, coordinates = made.shape
    zeros = np.zeros((1, coordinates))
    want = noisy_definition(zeros, mechanism, TRIAL, [TRIAL_ADDRESS], 0, rows)[0]
    error = float((made.double().cpu() - torch.from_numpy(want)).abs().max())
    # On a lattice the bits themselves: the claim is about the program that runs.
    allowed = NOISE_TOLERANCE * mechanism.noise_scale if mechanism.lattice is None else 0.0
    if not error <= allowed:
        raise UnsupportedBackend(
            f"triton: the kernel's noise is {error:g} from its definition on this device, more "
            f"than the {allowed:g} that is allowed; use backend='torch'."
        )


def check_front(
    plan: Plan,
    mechanism: AbstractMechanism,
    front: Front,
    center: Tensor,
    made: Tensor,
    n: int,
) -> None:
    """Refuse a tile whose draws are not those that it is asked for.

    Up to rounding; on a lattice up to that of the cast from float32, and not at all without one.

    Parameters
    ----------
    center : float32 [B, D]
        Of the examples at `TRIAL_ADDRESSES`.
    made : [rows, D]
        The tile as the network reads it: `n` draws of each example.
    """
    dtype, scale = made.dtype, mechanism.noise_scale
    kept = min(n, COMPARED)
    features, addresses = center.double().cpu().numpy(), TRIAL_ADDRESSES.numpy()
    noisy = noisy_definition(features, mechanism, TRIAL, addresses, 0, kept)
    exact = torch.from_numpy(noisy)  # [B, kept, D]
    seen = exact.float().to(center.device).view(-1, *plan.noise_shape)
    want = front.behind(seen).double().cpu().flatten(1)
    rows = [b * n + i for b in range(len(center)) for i in range(kept)]
    got = made[rows].double().cpu()
    info, single = torch.finfo(dtype), torch.finfo(torch.float32)
    cast = info.eps * (want.abs() + info.smallest_normal)
    if mechanism.lattice is None:
        grown = NOISE_TOLERANCE * scale + 4 * single.eps * exact.abs().flatten(0, 1)
        allowed = 2 * (cast + single.eps * front.offset) + 2 * front.gain * grown
    else:
        allowed = cast if dtype != torch.float32 else torch.zeros_like(cast)
    if not bool(torch.isfinite(want.to(dtype)).all()):
        raise UnsupportedBackend(
            f"triton: features under noise of scale {scale:g} are not finite in {dtype}; name "
            "torch.bfloat16, which has float32's range, or leave `dtype` out."
        )
    wrong = int((~((got - want).abs() <= allowed)).sum())  # NaN is wrong, too
    if wrong:
        raise UnsupportedBackend(
            f"triton: {wrong} of {want.numel()} features under noise are not what the definition "
            "gives for their example and draw on this device; use backend='torch'."
        )


def check_meaning(
    plan: Plan,
    graph: Graph | None,
    features: Tensor,
    ours: Tensor,
    theirs: Tensor,
    dtype: torch.dtype,
) -> None:
    """Refuse outputs of a trial that overflow, or that are not the module's.

    Parameters
    ----------
    features : float32 [rows, *noise_shape]
    ours, theirs : [rows, K]
        Outputs for these, the engine's and the module's in float32. A module that does not lower is
        held to what it gives in `dtype`, but for rows where it jumps.
    """
    finite = torch.isfinite(theirs)
    largest = max([1e-30, *theirs[finite].abs().tolist()])
    if dtype != torch.float32 and not bool(torch.isfinite(ours[finite]).all()):
        raise UnsupportedBackend(
            f"triton: outputs that are finite in float32 are not in {dtype}; name "
            "torch.bfloat16, which has float32's range, or leave `dtype` out."
        )
    if graph is None:
        same = in_arithmetic(plan.suffix, dtype)(features.clone()).float()
        off = (ours.float() - same).abs() > MEANING_TOLERANCE[dtype] * largest
        jumps = (off & torch.isfinite(same) & finite).any(dim=1)
        if float(jumps.float().mean()) > JUMPS:
            raise UnsupportedModel(DIFFERENT)
    else:
        exact = interpret(graph, features)
        _check_close(exact, theirs, finite, MEANING_TOLERANCE[torch.float32] * largest)
        _check_close(ours, theirs, finite, MEANING_TOLERANCE[dtype] * largest)


def _check_close(ours: Tensor, theirs: Tensor, finite: Tensor, allowed: float) -> None:
    if not bool(((ours.float() - theirs)[finite].abs() <= allowed).all()):
        raise UnsupportedModel(DIFFERENT)


def check_counts(table: Tensor, logits: Tensor, dtype: torch.dtype) -> None:
    """Refuse a head whose votes are not those of the logits, but for draws near a tie.

    Parameters
    ----------
    table : int64 [K + 1, or more]
        The head's, one line; votes come first.
    logits : [rows, K]
        The same draws', by torch.
    dtype : torch.dtype
        In which the head multiplies: what two logits may be wrong by follows.
    """
    rows, classes = logits.shape
    counts = table[: classes + 1]
    wide = logits.double()
    finite = torch.isfinite(wide).all(dim=1)
    votes = torch.where(finite, wide.argmax(dim=1), classes)
    want = torch.bincount(votes, minlength=classes + 1)
    allowed = (
        MEANING_TOLERANCE[dtype] / 10 * float(wide[finite].abs().amax()) if finite.any() else 0
    )
    top = wide.nan_to_num().topk(min(2, classes), dim=1).values
    near = int((top[:, 0] - top[:, -1] <= allowed).sum())
    moved = int((counts - want).abs().sum())
    if int(counts.sum()) != rows or moved > 2 * near:
        raise UnsupportedBackend(
            f"triton: the head's kernel counts {counts.tolist()} on this device where "
            f"the logits say {want.tolist()}; use backend='torch'."
        )
