"""The plan: one network, split at its noise point, with the shapes at every joint."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from pixeldp_fast.errors import InvalidArgument, UnsupportedModel


@dataclass(frozen=True, eq=False)
class Plan:
    """suffix(prefix(x) + Z), weights held by reference.

    Parameters
    ----------
    prefix, suffix : nn.Module
        As in `PixelDP`; the prefix is evaluated once per example, the suffix once per draw.
    input_shape, noise_shape : tuple of int
        Of one example, without the batch.
    num_outputs : int
        Columns of the suffix's output: classes, or 1 for a real output.
    """

    prefix: nn.Module
    suffix: nn.Module
    input_shape: tuple[int, ...]
    noise_shape: tuple[int, ...]
    num_outputs: int


def make_plan(
    prefix: nn.Module, suffix: nn.Module, input_shape: tuple[int, ...], num_outputs: int
) -> Plan:
    """Check the network's structure and measure its shapes on one example of zeros.

    Raises
    ------
    UnsupportedModel
        In training mode; with active dropout or batch statistics; with hooks in the prefix, which
        could carry the input around the noise; where a part rejects its input or returns anything
        but one floating tensor with one row per example.
    InvalidArgument
        When the number of outputs is not the one stated.
    """
    for name, part in (("prefix", prefix), ("suffix", suffix)):
        _check_eval_mode(name, part)
    _check_no_hooks(prefix)
    first = next(iter([*prefix.parameters(), *suffix.parameters()]), torch.empty(0))
    x = torch.zeros((1, *input_shape), dtype=torch.float32, device=first.device)
    with torch.inference_mode():
        features = _evaluate("prefix", prefix, x.to(_dtype_of(prefix)))
        outputs = _evaluate("suffix", suffix, features.to(_dtype_of(suffix)))
    if outputs.ndim != 2:
        raise UnsupportedModel(
            f"suffix returns a tensor of shape {tuple(outputs.shape)} for one example; one row of "
            "outputs, [1, K], is needed."
        )
    if outputs.shape[1] != num_outputs:
        asked = f"`num_classes` is {num_outputs}" if num_outputs > 1 else "one output is needed"
        raise InvalidArgument(f"{asked}, but the network has {outputs.shape[1]} outputs.")
    return Plan(prefix, suffix, tuple(input_shape), tuple(features.shape[1:]), num_outputs)


def _dtype_of(module: nn.Module) -> torch.dtype:
    floating = (p.dtype for p in module.parameters() if p.is_floating_point())
    return next(floating, torch.float32)


def _check_eval_mode(name: str, part: nn.Module) -> None:
    for path, module in part.named_modules():
        if module.training:
            where = f"{name}.{path}" if path else name
            raise UnsupportedModel(
                f"{where} ({type(module).__name__}) is in training mode, where dropout and batch "
                "statistics are active; call model.eval() first."
            )


def _check_no_hooks(prefix: nn.Module) -> None:
    for path, module in prefix.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            where = f"prefix.{path}" if path else "prefix"
            raise UnsupportedModel(
                f"{where} ({type(module).__name__}) has forward hooks, which can change the prefix "
                "or carry the input around the noise; remove them."
            )


def _evaluate(name: str, part: nn.Module, x: torch.Tensor) -> torch.Tensor:
    try:
        out = part(x)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise UnsupportedModel(
            f"{name} rejects an input of shape {tuple(x.shape)}: {error}"
        ) from error
    if not (isinstance(out, torch.Tensor) and out.is_floating_point() and len(out) == len(x)):
        kind = type(out).__name__ if not isinstance(out, torch.Tensor) else f"{out.dtype} tensor"
        raise UnsupportedModel(
            f"{name} must return one floating tensor with one row per example, got {kind}."
        )
    return out
