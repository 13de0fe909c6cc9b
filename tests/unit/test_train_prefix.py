"""The prefix in training: isometric at the start, at sensitivity 1 after a step, not collapsed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pixeldp_fast.plan.normalise import normalise_
from pixeldp_fast.train.prefix import _cut_singular_values, hold_, isometric_
from pixeldp_fast.types import Norm

TWO = Norm.TWO


def singular_values(module: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Of the module's matrix, from its values at the unit vectors."""
    size = torch.Size(shape).numel()
    module = module.double()
    offset = module(torch.zeros(1, *shape, dtype=torch.float64))
    columns = module(torch.eye(size, dtype=torch.float64).reshape(size, *shape)) - offset
    module.float()
    return torch.linalg.svdvals(columns.detach().flatten(1))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(1, 32, 5, stride=2, padding=4), (1, 9, 9)),
        (nn.Conv2d(2, 50, 5, stride=(2, 3), padding=4, dilation=(1, 1)), (2, 7, 8)),
        (nn.Conv2d(2, 24, 3, padding=2, groups=2), (2, 5, 6)),
        (nn.Linear(20, 30), (20,)),
    ],
    ids=["stride", "unequal strides", "groups", "dense"],
)
def test_the_start_is_an_isometry_where_there_is_room(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    assert singular_values(layer, shape).std() > 0.05
    isometric_(layer)
    values = singular_values(layer, shape)
    torch.testing.assert_close(values, torch.ones_like(values), rtol=0, atol=1e-5)


@given(
    outputs=st.integers(1, 4),
    inputs=st.integers(1, 2),
    groups=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.integers(0, 2),
    seed=st.integers(0, 100),
)
def test_cutting_leaves_no_convolution_above_one(
    outputs: int,
    inputs: int,
    groups: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: int,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    options: dict[str, Any] = {"stride": stride, "dilation": dilation, "padding": padding}
    layer = nn.Conv2d(groups * inputs, groups * outputs, kernel, groups=groups, **options)
    with torch.no_grad():
        layer.weight.normal_()
    _cut_singular_values(layer)
    assert singular_values(layer, (groups * inputs, 5, 6)).max() <= 1 + 1e-5
    cut = layer.weight.clone()
    _cut_singular_values(layer)
    torch.testing.assert_close(layer.weight, cut, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("outputs", [8, 40], ids=["wide", "tall"])
def test_cutting_keeps_what_is_below_one(outputs: int) -> None:
    torch.manual_seed(1)
    layer = nn.Linear(20, outputs)
    left, _, right = torch.linalg.svd(torch.randn(outputs, 20), full_matrices=False)
    values = torch.linspace(0.1, 3.0, len(right))
    with torch.no_grad():
        layer.weight.copy_((left * values) @ right)
    _cut_singular_values(layer)
    expected = (left * values.clamp(max=1.0)) @ right
    torch.testing.assert_close(layer.weight.detach(), expected, rtol=1e-4, atol=1e-5)
    before = layer.weight.clone()
    with torch.no_grad():
        layer.weight.mul_(0.5)
    _cut_singular_values(layer)
    assert torch.equal(layer.weight, 0.5 * before)


def stretched() -> nn.Conv2d:
    """An isometry after a step that made one direction ten times as long."""
    torch.manual_seed(2)
    layer = nn.Conv2d(1, 32, 5, stride=2, padding=2)
    isometric_(layer)
    with torch.no_grad():
        matrix = layer.weight.view(32, 25)
        direction = torch.randn(25)
        direction /= direction.norm()
        matrix += 9.0 * (matrix @ direction)[:, None] * direction
    return layer


def test_holding_does_not_pay_for_one_direction_with_the_others() -> None:
    held, scaled = stretched(), stretched()
    assert 0.99999 <= hold_(held, (1, 12, 12), TWO, TWO) <= 1.0
    assert 0.99999 <= normalise_(scaled, (1, 12, 12), TWO, TWO) <= 1.0
    assert singular_values(held, (1, 12, 12)).median() > 0.9
    assert singular_values(scaled, (1, 12, 12)).median() < 0.3


@pytest.mark.parametrize(("p", "q"), [(1, 1), (1, 2), ("inf", 2)])
def test_other_norms_are_held_by_scaling(p: Any, q: Any) -> None:
    held, scaled = stretched(), stretched()
    bound = hold_(held, (1, 12, 12), Norm.parse(p), Norm.parse(q))
    assert bound == normalise_(scaled, (1, 12, 12), p, q) <= 1.0
    assert torch.equal(held.weight, scaled.weight)


def test_chains_are_held_layer_by_layer() -> None:
    chain = nn.Sequential(stretched(), nn.ReLU(), nn.Conv2d(32, 8, 3, padding=1))
    assert 0.99999 <= hold_(chain, (1, 12, 12), TWO, TWO) <= 1.0
