"""What a layer must not be, so that its class tells which function it computes."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.utils.parametrize import is_parametrized

from pixeldp_fast.errors import UnsupportedModel
from pixeldp_fast.types import FloatArray

ACCEPTED = (
    "Accepted before the noise are None, Identity, Sequential, Linear, Conv2d with zero padding, "
    "ReLU, LeakyReLU, Tanh, Sigmoid, Flatten, AvgPool2d, MaxPool2d, and BatchNorm in eval mode, "
    "without hooks or overridden methods. Move other layers behind the noise."
)

_METHODS = (
    "forward",
    "__call__",
    "_call_impl",
    "_wrapped_call_impl",
    "_conv_forward",
    "_check_input_dim",
    "__iter__",
)


def refuse(module: nn.Module, where: str, reason: str) -> NoReturn:
    """Raise the `UnsupportedModel` that names the layer, the reason and what is accepted."""
    raise UnsupportedModel(f"{where} ({type(module).__name__}): {reason} {ACCEPTED}")


def check_unmodified(module: nn.Module, kind: type[nn.Module], where: str) -> None:
    """Refuse a module that may compute something else than its base class `kind` does."""
    for name in _METHODS:
        own = getattr(type(module), name, None)
        if own is not getattr(kind, name, None) or name in vars(module):
            refuse(module, where, f"it overrides {kind.__name__}.{name}.")
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        torch_module._global_forward_hooks,
        torch_module._global_forward_pre_hooks,
    )
    if any(hooks):
        refuse(
            module,
            where,
            "its forward hooks or pre-hooks may change what it computes (weight_norm and "
            "spectral_norm of torch.nn.utils are hooks; torch.nn.utils.parametrizations has both "
            "without).",
        )


def exact(module: nn.Module, name: str, where: str) -> FloatArray:
    """The module's tensor `name` converted to float64 without rounding; finite."""
    tensor: Any = getattr(module, name)
    if not tensor.is_floating_point() or tensor.is_meta:
        reason = f"its {name} must be real floating-point numbers in memory"
        refuse(module, where, f"{reason}, got {tensor.dtype} on {tensor.device}.")
    # A parametrisation with a state, such as spectral_norm in training mode, moves at each reading.
    if is_parametrized(module, name) and not torch.equal(tensor, getattr(module, name)):
        refuse(module, where, f"its {name} changes from one reading to the next; call .eval().")
    values: FloatArray = tensor.detach().to("cpu", torch.float64).numpy()
    if not np.isfinite(values).all():
        refuse(module, where, f"its {name} holds NaN or infinite values.")
    return values
