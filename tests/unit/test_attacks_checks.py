"""The checks pass an honest model and fail models that hide their gradient."""

import numpy as np
import pytest
import torch
from torch import nn

from pixeldp_fast.attacks import checks
from pixeldp_fast.attacks.checks import beats_random, not_beaten, sanity
from pixeldp_fast.data import load
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise import Gaussian
from pixeldp_fast.smooth.classifier import SmoothedClassifier
from pixeldp_fast.smooth.model import PixelDP

GRADIENT, GROWTH, RANDOM, STEP, DRAWS, BLACK = range(6)
ROWS = np.arange(0, 300, 7)


@pytest.fixture(scope="module")
def trained():
    """A small network for the digits, trained under noise in a second."""
    data = load("digits", "train")
    x, y = data.images(), torch.from_numpy(data.labels())
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(250):
        rows = torch.randint(len(x), (128,))
        loss = nn.functional.cross_entropy(net(x[rows] + 0.2 * torch.randn(128, 1, 8, 8)), y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


def checked(net, rows=ROWS, **options):
    data = load("digits", "test")
    model = SmoothedClassifier(PixelDP(None, Gaussian(0.2), net).eval(), num_classes=10, seed=1)
    how = {"steps": 10, "draws": 6, "verify": 120} | options
    return sanity(model, data.images(rows), data.labels(rows), index=rows, **how)


def passed(found):
    return [check.passed for check in found]


@pytest.mark.parametrize("norm", [2, "inf", 1])
def test_an_honest_model_passes(trained, norm):
    told = []
    found = checked(
        trained, norm=norm, progress=lambda done, total, info: told.append(done / total)
    )
    assert all(passed(found)), found
    assert told[-1] == 1
    assert told == sorted(told)
    assert "0 not finite, 0 zero of" in found[GRADIENT].detail
    assert "100 % at" in found[GROWTH].detail


class Masked(nn.Module):
    """The same scores as the network, with another gradient."""

    def __init__(self, net, change):
        super().__init__()
        self.net, self.change = net, change

    def forward(self, x):
        return self.net(self.change(x, self.net))


def quantised(x, net):
    """Activations in steps: the gradient is zero wherever there is one."""
    return (8 * x).round() / 8


def shattered(x, net):
    """A ripple too fine to change a decision, whose slope drowns all others."""
    return x + 2e-3 * torch.sin(2e5 * x)


def broken_gradient(x, net):
    """Right scores, NaN as slope."""
    return x + 0 * (x - x.detach()).sqrt()


def trapping(x, net):
    """Right scores; a slope that leads back to the stored images from everywhere else."""
    known = load("digits", "test").images(range(300)).flatten(1)
    near = torch.cdist(x.detach().flatten(1), known).amin(1) < 1.7  # noise alone: 1.6
    sign = torch.where(near, 1.0, -1.0)
    return x.detach() + sign.view(-1, 1, 1, 1) * (x - x.detach())


def shy(x, net):
    """Right scores; no slope for large batches, so that more draws see less."""
    return x if len(x) < 500 else x.detach()


@pytest.mark.parametrize(
    ("change", "caught"),
    [
        (quantised, {GRADIENT, GROWTH, RANDOM, STEP, DRAWS, BLACK}),
        (shattered, {GRADIENT, BLACK}),
        (broken_gradient, {GRADIENT, GROWTH, RANDOM, BLACK}),
        (trapping, {STEP}),
        (shy, {DRAWS}),
    ],
)
def test_a_masked_model_fails(trained, change, caught):
    rows = range(0, 300, 3) if change is trapping else ROWS  # a comparison that needs more
    found = checked(Masked(trained, change), np.array(rows))
    failed = {number for number, check in enumerate(found) if not check.passed}
    assert caught <= failed, found
    if change is quantised:
        assert "0 not finite, 0 zero" not in found[GRADIENT].detail


def masks(first, second):
    return (np.isin(np.arange(100), values) for values in (first, second))


def test_comparisons_allow_for_chance_and_for_no_more():
    equal, fewer = masks(range(40), range(38))
    assert not_beaten("", equal, fewer, 1.0).passed
    assert not_beaten("", fewer, equal, 1.0).passed  # 2 of 2: two heads in a row
    weak, strong = masks(range(30), range(40))
    assert not not_beaten("", weak, strong, 1.0).passed
    assert not not_beaten("", *masks([], []), 1.0).passed
    assert beats_random(*masks(range(40), range(20)), 1.0).passed
    assert not beats_random(*masks(range(40), range(21)), 1.0).passed
    assert not beats_random(*masks([], []), 1.0).passed


def test_bad_input_is_refused(trained):
    data = load("digits", "test")
    x, y = data.images(range(20)), data.labels(range(20))
    smoothed = PixelDP(None, Gaussian(0.2), trained).eval()
    model = SmoothedClassifier(smoothed, num_classes=10, seed=1)
    with pytest.raises(InvalidArgument, match="at least 10"):
        sanity(model, x, (y + 1) % 10, verify=120)
    free = SmoothedClassifier(smoothed, num_classes=10, seed=1, input_range=None)
    with pytest.raises(InvalidArgument, match="input range"):
        sanity(free, x, y)
    with pytest.raises(InvalidArgument, match="steps"):
        sanity(model, x, y, steps=0)
    assert checks.FEWEST == 10
