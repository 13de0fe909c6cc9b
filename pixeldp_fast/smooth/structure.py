"""What may be smoothed: one noise point, nothing of the input around it, a bounded prefix."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from pixeldp_fast.backends.arithmetic import stated_arithmetic
from pixeldp_fast.errors import InvalidArgument, UnsupportedModel
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.plan.plan import Plan
from pixeldp_fast.plan.sensitivity import sensitivity
from pixeldp_fast.smooth.inputs import device_of
from pixeldp_fast.smooth.model import PixelDP
from pixeldp_fast.types import Norm


def as_pixeldp(model: nn.Module, mechanism: AbstractMechanism | None) -> PixelDP:
    """The model as prefix, noise point and suffix, or an error that says why it is not one."""
    if not isinstance(model, nn.Module):
        raise InvalidArgument(f"`model` must be an nn.Module, got {type(model).__name__}.")
    if isinstance(model, PixelDP):
        _check_is_plain(model, mechanism)
        return model
    inner = [name for name, part in model.named_modules() if isinstance(part, PixelDP)]
    if inner:
        raise UnsupportedModel(
            f"The model holds a PixelDP at '{inner[0]}', and what surrounds it could carry the "
            "input around the noise; pass the PixelDP itself."
        )
    if mechanism is None:
        raise InvalidArgument(
            "A plain module needs a mechanism: SmoothedClassifier(model, Gaussian(0.25), ...)."
        )
    return PixelDP(None, mechanism, model).train(model.training)


def _check_is_plain(model: PixelDP, mechanism: AbstractMechanism | None) -> None:
    if mechanism is not None and mechanism != model.mechanism:
        raise InvalidArgument(
            f"The model brings its own mechanism, {model.mechanism}; leave `mechanism` out."
        )
    check_unaltered(model)


def check_unaltered(model: PixelDP) -> None:
    """Refuse a PixelDP whose own forward is not the one that is certified."""
    own = {"forward", "noisy"}
    if own & vars(model).keys() or any(
        getattr(type(model), name) is not getattr(PixelDP, name) for name in own
    ):
        raise UnsupportedModel(
            f"{type(model).__name__} overrides PixelDP.forward, which could carry the input around "
            "the noise; use PixelDP(prefix, mechanism, suffix) itself."
        )
    if model._forward_hooks or model._forward_pre_hooks:
        raise UnsupportedModel(
            "The PixelDP has forward hooks, so that what it serves is not what would be certified; "
            "remove them."
        )
    if _global_forward_hooks or _global_forward_pre_hooks:
        raise UnsupportedModel(
            "torch has forward hooks on all modules (register_module_forward_hook), which could "
            "carry the input around the noise; remove them."
        )


def sensitivities(plan: Plan, asked: Norm, mechanism_norm: Norm) -> tuple[tuple[str, float], ...]:
    """Upper bounds from every norm for which there is one; the asked norm must be among them."""
    found = []
    for p in Norm:
        try:
            # Parametrised weights read as they do for the engines, under an autocast, too.
            with stated_arithmetic(device_of(plan.prefix)):
                value = sensitivity(plan.prefix, plan.input_shape, p, mechanism_norm)
        except UnsupportedModel:
            if p is asked:
                raise
            continue
        if not value > 0:
            raise UnsupportedModel(
                "prefix maps every input to the same features (sensitivity 0): nothing of the "
                "input reaches the network."
            )
        found.append((str(p), value))
    return tuple(found)
