"""What several backends ask of a plan and a mechanism; each answers None or what is missed."""

from __future__ import annotations

import torch

from pixeldp_fast.backends.arithmetic import prefix_dtype
from pixeldp_fast.backends.reduction import AbstractReduction
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.plan.plan import Plan

SCALE_LIMITS = (1e-30, 1e30)  # float32 noise neither vanishes nor overflows in between


def float32_noise(mechanism: AbstractMechanism) -> str | None:
    """That the noise keeps its law in float32."""
    scale = mechanism.noise_scale
    if SCALE_LIMITS[0] <= scale <= SCALE_LIMITS[1]:
        return None
    return f"a noise scale of {scale:g} is beyond float32's safe range"


def center_dtype(plan: Plan, mechanism: AbstractMechanism) -> torch.dtype:
    """In what a prefix is evaluated by torch.

    On a lattice in float64, which libraries sum directly, as `rounding_budget` has it: they may
    evaluate float32 convolutions by Winograd's algorithm or FFT.
    """
    return prefix_dtype(plan.prefix) if mechanism.lattice is None else torch.float64


def weights_on(plan: Plan, device: torch.device) -> str | None:
    """That every weight is where the examples are."""
    for part, module in (("prefix", plan.prefix), ("suffix", plan.suffix)):
        for key, tensor in module.state_dict().items():
            if tensor.device != device:
                return f"{part}.{key} is on {tensor.device}, the examples on {device}"
    return None


def outputs_of(plan: Plan, reduction: AbstractReduction) -> str | None:
    """That the reduction is of as many outputs as the network has."""
    asked, given = reduction.num_outputs, plan.num_outputs
    return (
        None if asked == given else f"the reduction is of {asked} outputs, the network has {given}"
    )


def dense_weights(plan: Plan) -> str | None:
    """That no weight is stored sparsely."""
    for part, module in (("prefix", plan.prefix), ("suffix", plan.suffix)):
        for key, tensor in module.state_dict().items():
            if tensor.layout != torch.strided:
                return f"{part}.{key} is {tensor.layout}, which the engine does not read"
    return None
