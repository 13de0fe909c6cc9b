"""How far the computed features of a prefix can be from the real ones, over a box of inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixeldp_fast.errors import UnsupportedModel
from pixeldp_fast.plan.layers import leaves
from pixeldp_fast.types import FloatArray

UNIT = 2.0**-24  # of float32; what rounds less rounds within it
UNDERFLOW = 2.0**-125  # of an operation, flushed to zero or not
INFLATION = 1e-9  # relative; above the rounding, in float64, of the sums below
LARGEST_SHARE = 2.0**-10  # of 1 that k units in gamma_k may reach
LARGEST = 2.0**127  # where float32 does not overflow


def rounding_budget(
    prefix: nn.Module, input_shape: tuple[int, ...], input_range: tuple[float, float]
) -> FloatArray:
    """An upper bound of |computed - real| for every feature, float64 [D].

    Parameters
    ----------
    prefix : nn.Module
        A chain of Conv2d with zero padding, Linear, ReLU, Flatten and Identity.
    input_range : (low, high)
        Of every float32 input; inputs outside must be refused.

    Guarantee
        For sums of products in IEEE float32 or wider, in any order, fused or not, rounded to
        float32 once more at the end: with k = products + 2 (the bias, and that last rounding) a
        layer adds gamma_k (|W| m + |b|), gamma_k = k u/(1 - k u), to |W| e, where e bounds the
        error of what it reads and m the size of it as computed. It does not hold for TF32,
        Winograd or FFT.
    Source
        Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1.

    Raises
    ------
    UnsupportedModel
        For a layer without such a bound, naming it.
    """
    size = max(abs(input_range[0]), abs(input_range[1]))
    largest = torch.full((1, *input_shape), size, dtype=torch.float64)  # of the computed values
    error = torch.zeros_like(largest)
    for where, layer in leaves(prefix):
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            products, taken, added = _absolute(layer, largest, error)
            k = products + 2
            if k * UNIT > LARGEST_SHARE:
                raise UnsupportedModel(f"{where}: sums of {products} products are too long here.")
            rounding = k * UNIT / (1 - k * UNIT) * taken + k * UNDERFLOW
            error = (added + rounding) * (1 + INFLATION)
            largest = (taken + rounding) * (1 + INFLATION)
            if not bool((largest < LARGEST).all()):
                raise UnsupportedModel(f"{where}: its features can leave the range of float32.")
        elif isinstance(layer, nn.Flatten):
            largest, error = largest.flatten(1), error.flatten(1)
        elif not isinstance(layer, (nn.ReLU, nn.Identity)):  # these neither round nor stretch
            raise UnsupportedModel(
                f"{where} ({type(layer).__name__}): nothing is proved about its rounding. Lattice "
                "noise goes behind Conv2d, Linear, ReLU, Flatten and Identity; move other layers "
                "behind the noise, or leave `lattice` out."
            )
    found: FloatArray = error.flatten().numpy()
    return found


def _absolute(
    layer: nn.Conv2d | nn.Linear, largest: Tensor, error: Tensor
) -> tuple[int, Tensor, Tensor]:
    """Products per sum, |W| largest + |b|, and |W| error."""
    weight = layer.weight.detach().to("cpu", torch.float64).abs()
    bias = None if layer.bias is None else layer.bias.detach().to("cpu", torch.float64).abs()
    settings: dict[str, Any] = {}
    apply: Any = functional.linear
    if isinstance(layer, nn.Conv2d):
        apply = functional.conv2d
        settings = {
            name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")
        }
    with torch.inference_mode():
        taken = apply(largest, weight, bias, **settings)
        added = apply(error, weight, None, **settings)
    return weight[0].numel(), taken, added
