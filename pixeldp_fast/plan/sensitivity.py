"""The sensitivity of a prefix: how far an attack can move the centre of the noise."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

from torch import nn

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.plan.layer_rules import Shape
from pixeldp_fast.plan.layers import layers
from pixeldp_fast.plan.operator_norms import Bounds
from pixeldp_fast.types import Norm


def sensitivity(module: nn.Module | None, input_shape: Sequence[int], p: Any, q: Any) -> float:
    """An upper bound of the Lipschitz constant of a prefix from the p-norm to the q-norm.

    Parameters
    ----------
    module : nn.Module or None
        A chain of layers that act before the noise; None or Identity puts the noise on the input.
    input_shape : sequence of int
        [C, H, W] or [D], without the batch.
    p, q : {1, 2, inf}
        The norm of the attack and the norm of the mechanism, in any spelling of `Norm.parse`.

    Returns
    -------
    bound : float
        At least 0; 0 exactly when some layer's weights are all zero, so that nothing of the input
        reaches the noise. Infinite when the bound leaves the range of float64.

    Raises
    ------
    UnsupportedModel
        For a layer about which nothing is proved; the message names it.

    Guarantee
        ||module(x) - module(x')||_q <= bound ||x - x'||_p for all real x, x', in exact arithmetic;
        every operation is rounded up.
    Source
        Lecuyer et al., S&P 2019, section III-B; per layer see `operator_norms`. Chains:
        Delta_{p,q}(g f) <= Delta_{r,q}(g) Delta_{p,r}(f), the least over r in {1, 2, inf} at each
        joint. Pairs without a norm of their own go through norm comparison, for instance
        Delta_{2,1} <= sqrt(D) Delta_{2,2}, Delta_{inf,2} <= sqrt(d) Delta_{2,2}.
    Cost
        That of the layers' norms: a few milliseconds for first convolutions of the usual sizes.
    """
    p, q = Norm.parse(p), Norm.parse(q)
    shape = _checked_shape(module, input_shape)
    bounds = {r: _embedding(p, r, math.prod(shape)) for r in Norm}
    for layer in layers(module, shape):
        table = _complete(
            layer.bounds(), math.prod(layer.input_shape), math.prod(layer.output_shape)
        )
        bounds = {r: min(_product(bounds[m], table[m, r]) for m in Norm) for r in Norm}
    return bounds[q]


def output_shape(module: nn.Module | None, input_shape: Sequence[int]) -> Shape:
    """The shape at the noise point, without the batch; refuses what `sensitivity` refuses."""
    shape = _checked_shape(module, input_shape)
    for layer in layers(module, shape):
        shape = layer.output_shape
    return shape


def _checked_shape(module: Any, input_shape: Any) -> Shape:
    if not (module is None or isinstance(module, nn.Module)):
        raise InvalidArgument(f"`module` must be a torch module or None, got {module!r}.")
    try:
        shape = tuple(operator.index(n) for n in input_shape)
    except TypeError:
        shape = ()
    if not shape or min(shape) < 1:
        raise InvalidArgument(
            f"`input_shape` must be positive integers, [C, H, W] or [D], got {input_shape!r}."
        )
    return shape


def _complete(known: Bounds, inputs: int, outputs: int) -> Bounds:
    """Bounds for all nine pairs of norms, from those known and the comparison of norms."""

    def through(p: Norm, first: Norm, last: Norm, q: Norm) -> float:
        middle = _product(_embedding(p, first, inputs), known[first, last])
        return _product(middle, _embedding(last, q, outputs))

    return {(p, q): min(through(p, *pair, q) for pair in known) for p in Norm for q in Norm}


def _embedding(p: Norm, q: Norm, size: int) -> float:
    """The least c, rounded up, with ||x||_q <= c ||x||_p for x of `size` coordinates."""
    exponent = max(0.0, 1.0 / q.value - 1.0 / p.value)
    if exponent == 1.0:
        return float(size)
    if exponent == 0.0:
        return 1.0
    root = math.sqrt(size)
    return root if int(root) ** 2 == size else math.nextafter(root, math.inf)


def _product(a: float, b: float) -> float:
    """a b, rounded up; 0 where a factor is 0, since the other stands for something finite."""
    if a == 0 or b == 0:
        return 0.0
    if a == 1:
        return b
    return a if b == 1 else math.nextafter(a * b, math.inf)
