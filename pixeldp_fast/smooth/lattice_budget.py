"""What lattice noise costs a regressor's claim: its distance from the ideal law, and rounding."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from pixeldp_fast.errors import UnsupportedModel
from pixeldp_fast.noise import lattice
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.plan.plan import Plan
from pixeldp_fast.types import Norm


def lattice_budget(
    plan: Plan, mechanism: AbstractMechanism, x: torch.Tensor
) -> tuple[float, float]:
    """tau, and what rounding to the lattice adds to the shift of the noise's centre.

    Parameters
    ----------
    plan : Plan
    mechanism : AbstractMechanism
    x : float32 [B, *input_shape]

    Returns
    -------
    tau, slack : float
        0 and 0 for noise in floats. slack is in noise units and valid for all of `x`.

    Guarantee
        An input x' at distance L of one of `x`, whatever real values it has, is rounded to a
        lattice point at most L + slack from that of x: half a spacing for every coordinate of x',
        and what was measured for x. Both rounded up.

    Raises
    ------
    UnsupportedModel
        For a prefix: rounding its features would have to be bounded, too.
    """
    if mechanism.lattice is None:
        return 0.0, 0.0
    if not isinstance(plan.prefix, nn.Identity):
        raise UnsupportedModel(
            "A regressor takes lattice noise on its input only, and this one has a prefix; use "
            "noise without `lattice`, or put the noise on the input."
        )
    coordinates, levels = math.prod(plan.noise_shape), mechanism.lattice
    values = x.detach().cpu().double().flatten(1).numpy()
    moved = np.abs(values - lattice.to_lattice(values, levels) / levels)
    half = 0.5 / levels
    if mechanism.norm is Norm.TWO:
        served, measured = half * math.sqrt(coordinates), np.sqrt((moved**2).sum(axis=1))
    else:
        served, measured = half * coordinates, moved.sum(axis=1)
    slack = served + float(measured.max(initial=0.0))
    # Sums of D terms of at least 0, each within a step of the values' size.
    return lattice.tau(mechanism, coordinates), slack * (1 + 1e-12) + 1e-12
