"""Walking a prefix layer by layer; what is not on the list of rules is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import nn

from pixeldp_fast.plan.layer_checks import check_unmodified, refuse
from pixeldp_fast.plan.layer_rules import RULES, Shape
from pixeldp_fast.plan.operator_norms import Bounds


@dataclass(frozen=True)
class Layer:
    """One layer at given shapes; `bounds()` gives some of its Lipschitz constants, from above."""

    input_shape: Shape
    output_shape: Shape
    bounds: Callable[[], Bounds]


def layers(module: nn.Module | None, input_shape: Shape) -> Iterator[Layer]:
    """The layers of a prefix in the order in which they act.

    Parameters
    ----------
    module : nn.Module or None
        None is the identity.
    input_shape : tuple of int
        [C, H, W] or [D], without the batch.

    Raises
    ------
    UnsupportedModel
        For a layer whose function is not known, naming the layer, the reason and what is accepted.
    """
    shape = input_shape
    for where, leaf in leaves(module):
        rule = next(rule for kind, rule in RULES if isinstance(leaf, kind))
        output_shape, bounds = rule(leaf, where, shape)
        yield Layer(shape, output_shape, bounds)
        shape = output_shape


def leaves(module: nn.Module | None, where: str = "prefix") -> Iterator[tuple[str, nn.Module]]:
    """Path and module of each layer, unmodified and of a known class; repetitions are kept."""
    if module is None:
        return
    if isinstance(module, nn.Sequential):
        check_unmodified(module, nn.Sequential, where)
        for name, child in module._modules.items():  # named_children() drops repetitions
            yield from leaves(child, f"{where}.{name}")
        return
    kind = next((kind for kind, _ in RULES if isinstance(module, kind)), None)
    if kind is None:
        refuse(module, where, "nothing is proved about how it moves distances.")
    check_unmodified(module, kind, where)
    yield where, module
