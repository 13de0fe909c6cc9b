"""How far computed features are from the real ones: never further than the budget says."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from pixeldp_fast.errors import UnsupportedModel
from pixeldp_fast.plan.rounding_budget import UNIT, rounding_budget

CHAIN = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4))
PREFIXES = {
    "convolution": (nn.Conv2d(3, 4, 3, stride=2, padding=1), (3, 5, 6)),
    "no bias": (nn.Conv2d(2, 4, 3, groups=2, bias=False), (2, 5, 5)),
    "dense": (nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), (3, 2, 2)),
    "chain": (CHAIN, (1, 5, 5)),
}


def made(name):
    torch.manual_seed(3)
    module, shape = PREFIXES[name]
    for p in module.parameters():
        nn.init.uniform_(p, -1, 1)
    return module.eval(), shape


@pytest.mark.parametrize("name", PREFIXES)
def test_float32_stays_within_the_budget_in_any_order(name):
    module, shape = made(name)
    budget = rounding_budget(module, shape, (-1.0, 1.0))
    generator = torch.Generator().manual_seed(1)
    x = torch.rand((200, *shape), generator=generator) * 2 - 1
    x[:20] = x[:20].sign()  # corners of the box
    with torch.inference_mode():
        narrow, wide = module(x), module.double()(x.double())
        module.float()
    error = (narrow.double() - wide).abs().flatten(1).numpy()
    assert error.max() > 0
    assert (error <= budget).all()
    # No more than a worst case needs: the largest error seen is within a factor of it.
    assert budget.max() < 200 * error.max()


def test_the_budget_is_that_of_the_formula():
    """One dense layer, in fractions: gamma_k (|W| m + |b|), k = products + 2."""
    layer = nn.Linear(7, 3)
    budget = rounding_budget(nn.Sequential(layer), (7,), (-0.5, 0.25))
    k, u = 9, Fraction(1, 2**24)
    for row in range(3):
        weights = [abs(Fraction(w)) for w in layer.weight[row].tolist()]
        exact = k * u / (1 - k * u) * (sum(weights) / 2 + abs(Fraction(layer.bias[row].item())))
        assert exact <= Fraction(budget[row]) <= exact * (1 + Fraction(1, 10**8))


def test_a_budget_that_forgets_the_sum_is_caught():
    """A planted fault: one rounding of the result instead of one per product."""
    torch.manual_seed(0)
    layer = nn.Linear(4000, 4)
    x = torch.rand(50, 4000)
    with torch.inference_mode():
        running = torch.zeros(50, 4)
        for i in range(4000):  # a legitimate order of float32 sums
            running = running + x[:, i : i + 1] * layer.weight[:, i]
        error = (running + layer.bias).double() - nn.functional.linear(
            x.double(), layer.weight.double(), layer.bias.double()
        )
    largest = error.abs().max(dim=0).values.numpy()
    size = np.abs(layer.weight.detach().numpy()).sum(axis=1) + np.abs(layer.bias.detach().numpy())
    assert (largest <= rounding_budget(layer, (4000,), (0.0, 1.0))).all()
    forgetful = UNIT * np.abs((x.double() @ layer.weight.double().T).detach().numpy()).max(axis=0)
    assert (largest > forgetful).any()
    assert (largest < size).all()


def test_layers_that_do_not_round_add_nothing():
    for module in (nn.Identity(), nn.Flatten(), nn.Sequential(nn.ReLU(), nn.Identity())):
        assert not rounding_budget(module, (2, 3), (0.0, 1.0)).any()


@pytest.mark.parametrize("layer", [nn.Tanh(), nn.Sigmoid(), nn.AvgPool2d(2), nn.BatchNorm2d(3)])
def test_other_layers_are_refused_by_name(layer):
    with pytest.raises(UnsupportedModel, match=type(layer).__name__):
        rounding_budget(nn.Sequential(layer.eval()), (3, 4, 4), (0.0, 1.0))


def test_sums_too_long_are_refused():
    with pytest.raises(UnsupportedModel, match="too long"):
        rounding_budget(nn.Linear(20000, 1), (20000,), (0.0, 1.0))


def test_features_beyond_float32_are_refused():
    layer = nn.Linear(2, 1)
    nn.init.constant_(layer.weight, 3e38)
    with pytest.raises(UnsupportedModel, match="float32"):
        rounding_budget(layer, (2,), (0.0, 2.0))
