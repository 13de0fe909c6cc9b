"""The layer behind the noise in centred coordinates: same network, other steps."""

from __future__ import annotations

import copy
from collections import OrderedDict
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.train.centring import Centring
from pixeldp_fast.train.sgd import MomentumSGD

RATE = 0.05


class Shifted(nn.Module):
    """W (x - m) + b', without padding, as its parameters are written."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, mean: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.mean = mean.view(-1, 1, 1) if isinstance(layer, nn.Conv2d) else mean

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layer(x - self.mean)
        return output


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.Linear(6, 4), (6,)), (nn.Conv2d(3, 4, (2, 3), stride=2), (3, 6, 7))],
    ids=["dense", "convolution"],
)
def test_a_step_is_one_of_the_shifted_layer(
    layer: nn.Linear | nn.Conv2d, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    x = 3.0 + torch.randn(20, *shape)
    mean = x.transpose(0, 1).flatten(1).mean(1)
    shifted = Shifted(copy.deepcopy(layer), mean)
    with torch.no_grad():  # b' = b + W m
        sums = layer.weight.reshape(len(layer.weight), len(mean), -1).sum(2)
        shifted.layer.bias.add_(sums @ mean)
    before = layer.weight.clone()
    centring = Centring(layer)
    for model in (layer, shifted):
        optimiser = MomentumSGD(model, 0.9, 0.01)
        for _ in range(3):
            optimiser.zero_grad()
            with centring.watching():
                model(x).tanh().square().mean().backward()
            with centring.step() if model is layer else nullcontext():
                optimiser.step(RATE)
    torch.testing.assert_close(layer.weight, shifted.layer.weight)
    torch.testing.assert_close(layer(x), shifted(x), rtol=1e-5, atol=1e-5)
    assert (layer.weight - before).abs().max() > 1e-3


def test_a_common_offset_of_the_inputs_does_not_slow_the_layer() -> None:
    """The largest stable rate falls with the square of the offset, unless the layer is centred."""
    torch.manual_seed(1)
    x, target = torch.randn(200, 10), torch.randn(200, 3)
    losses = {}
    for offset, centred in ((0.0, False), (5.0, False), (5.0, True)):
        torch.manual_seed(2)
        model = nn.Linear(10, 3)
        centring, optimiser = Centring(model), MomentumSGD(model, 0.0, 0.0)
        for _ in range(50):
            optimiser.zero_grad()
            with centring.watching():
                functional.mse_loss(model(x + offset), target).backward()
            with centring.step() if centred else nullcontext():
                optimiser.step(0.3)
        losses[offset, centred] = functional.mse_loss(model(x + offset), target).item()
    assert not losses[5.0, False] < 1e3
    assert losses[5.0, True] == pytest.approx(losses[0.0, False], rel=0.02)


def test_watching_ends() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Linear(2, 2))
    centring = Centring(model)
    with centring.watching():
        model(torch.tensor([[1.0, -1.0], [2.0, 3.0]]))
    assert centring.mean is not None
    assert centring.mean.tolist() == [1.5, 1.5]
    model(torch.zeros(1, 2))
    assert centring.mean.tolist() == [1.5, 1.5]


def test_a_layer_that_is_not_trained_stays() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    before = model[0].bias.clone()
    centring, optimiser = Centring(model), MomentumSGD(model, 0.9, 0.0)
    with centring.watching():
        model(torch.ones(5, 3)).sum().backward()
    with centring.step():
        optimiser.step(RATE)
    assert torch.equal(model[0].bias, before)
    assert model[2].weight.grad is not None


@pytest.mark.parametrize(
    "first",
    [
        nn.Linear(4, 4, bias=False),
        nn.Conv2d(4, 4, 1, groups=2),
        nn.BatchNorm1d(4),
        nn.Flatten(),
    ],
    ids=["no bias", "groups", "batch norm", "no weights"],
)
def test_other_suffixes_are_refused(first: nn.Module) -> None:
    suffix = nn.Sequential(OrderedDict(relu=nn.ReLU(), first=first))
    with pytest.raises(InvalidArgument, match="`centred` needs a Linear or Conv2d layer"):
        Centring(suffix)
