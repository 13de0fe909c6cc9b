"""Holding the sensitivity of a prefix at a target while it is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from pixeldp_fast.errors import InvalidArgument, UnsupportedModel
from pixeldp_fast.plan.layer_checks import refuse
from pixeldp_fast.plan.layers import leaves
from pixeldp_fast.plan.sensitivity import sensitivity

CLOSE = 1e-5  # relative; a sensitivity this little below the target is left alone
COARSEST = 0.25  # the largest share of the target that rounding of the weights may cost


def normalise_(
    module: nn.Module | None, input_shape: Sequence[int], p: Any, q: Any, target: float = 1.0
) -> float:
    """Scale the weights of Linear and Conv2d layers in place so that the sensitivity is `target`.

    Each layer takes the same factor. Biases do not enter the sensitivity and stay.

    Parameters
    ----------
    module, input_shape, p, q
        As for `sensitivity`.
    target : float
        Above 0.

    Returns
    -------
    sensitivity : float
        After scaling: not above `target`, and for float32 and float64 weights within 1e-5 of it.

    Raises
    ------
    UnsupportedModel
        Where `sensitivity` refuses; where it is 0 or infinite; where no layer can be scaled and it
        exceeds the target; where a weight is parametrised, so that scaling it would not last.

    Guarantee
        The value returned is `sensitivity` of the module as it is left.
    Cost
        Two evaluations of `sensitivity`; one where nothing has to change.
    """
    if not (math.isfinite(target) and target > 0):
        raise InvalidArgument(f"`target` must be a finite number above 0, got {target!r}.")
    current = sensitivity(module, input_shape, p, q)
    weights = _weights(module)
    if not weights and current <= target:
        return current
    if not weights or not 0 < current < math.inf:
        raise UnsupportedModel(
            f"The prefix has sensitivity {current:g} and {len(weights)} Linear or Conv2d layers; "
            f"scaling needs at least one and a value above 0 to reach {target:g}. Initialise the "
            "weights anew, or raise `target`."
        )
    slack = 4.0 * max(torch.finfo(w.dtype).eps for w in weights)  # what rounding a weight may add
    done = target * (1.0 - CLOSE) <= current <= target
    while not done:
        if slack > COARSEST:
            raise UnsupportedModel("The weights' dtype is too coarse to scale; use float32.")
        _scale(weights, (target / current) ** (1.0 / len(weights)) * (1.0 - slack))
        current = sensitivity(module, input_shape, p, q)
        done = current <= target
        slack *= 2.0
    return current


def _weights(module: nn.Module | None) -> list[torch.Tensor]:
    """The weights that can be scaled; one that acts in two places is listed twice."""
    found = []
    for where, leaf in leaves(module):
        if isinstance(leaf, (nn.Linear, nn.Conv2d)):
            if is_parametrized(leaf, "weight"):
                refuse(leaf, where, "its weight is parametrised and cannot be scaled in place.")
            found.append(leaf.weight)
    return found


@torch.no_grad()
def _scale(weights: list[torch.Tensor], factor: float) -> None:
    for weight in {id(w): w for w in weights}.values():
        weight.mul_(factor)
