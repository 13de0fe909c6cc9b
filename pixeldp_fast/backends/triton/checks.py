"""What an engine is asked before it is handed out: kernels that were never seen on this device."""

from __future__ import annotations

import torch
from torch import Tensor

from pixeldp_fast.backends.arithmetic import Evaluate, in_arithmetic
from pixeldp_fast.backends.triton.draws import Draws
from pixeldp_fast.errors import UnsupportedBackend, UnsupportedModel
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.sampling import noise_definition
from pixeldp_fast.noise.stream import Purpose, Stream
from pixeldp_fast.plan.interpret import interpret
from pixeldp_fast.plan.ops import Graph
from pixeldp_fast.plan.plan import Plan

NOISE_TOLERANCE = 1e-5  # of the scale: THEORY 9
# Relative to the largest output: well above the errors of the arithmetic, well below any operation
# misunderstood.
MEANING_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.05}
SHIFTS = (1, 37, 64)  # places by which rows are moved
TRIAL = Stream(2**63 + 1, Purpose.VERIFICATION)
TRIAL_ADDRESS = 5


def trial_draws(mechanism: AbstractMechanism, rows: int) -> Draws:
    """The first `rows` draws of one example."""
    law = mechanism.native_law
    assert law is not None
    return Draws(
        law, mechanism.noise_scale, TRIAL.seed, int(TRIAL.purpose), 0, rows, examples=1, first_row=0
    )


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
    want = noise_definition(mechanism, TRIAL, [TRIAL_ADDRESS], 0, rows, coordinates)[0]
    error = float((made.double().cpu() - torch.from_numpy(want)).abs().max())
    allowed = NOISE_TOLERANCE * mechanism.noise_scale
    if not error <= allowed:
        raise UnsupportedBackend(
            f"triton: the kernel's noise is {error:g} from its definition on this device, more "
            f"than the {allowed:g} that is allowed; use backend='torch'."
        )


def check_meaning(
    plan: Plan, graph: Graph | None, features: Tensor, ours: Tensor, dtype: torch.dtype
) -> None:
    """Refuse outputs of a trial that overflow, or that are not the module's where it was lowered.

    Parameters
    ----------
    features : float32 [rows, *noise_shape]
    ours : [rows, K]
        Outputs for these.
    """
    theirs = in_arithmetic(plan.suffix, torch.float32)(features.clone())
    finite = torch.isfinite(theirs)
    largest = max([1e-30, *theirs[finite].abs().tolist()])
    if dtype != torch.float32 and not bool(torch.isfinite(ours[finite]).all()):
        raise UnsupportedBackend(
            f"triton: outputs that are finite in float32 are not in {dtype}; name "
            "torch.bfloat16, which has float32's range, or leave `dtype` out."
        )
    if graph is not None:
        exact = interpret(graph, features)
        _check_close(exact, theirs, finite, MEANING_TOLERANCE[torch.float32] * largest)
        _check_close(ours, theirs, finite, MEANING_TOLERANCE[dtype] * largest)


def _check_close(ours: Tensor, theirs: Tensor, finite: Tensor, allowed: float) -> None:
    if not bool(((ours.float() - theirs)[finite].abs() <= allowed).all()):
        raise UnsupportedModel(
            "The compiled network and the module give different outputs; does its forward depend "
            "on something outside its weights? Use backend='torch'."
        )


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
