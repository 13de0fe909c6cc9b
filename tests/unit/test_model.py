"""PixelDP as a module: fresh noise at every pass, gradients, repeatability."""

import torch
from torch import nn

from pixeldp_fast import Gaussian, PixelDP


def test_noise_is_fresh_also_in_eval_mode_and_repeats_with_torchs_seed():
    model = PixelDP(None, Gaussian(0.5), nn.Flatten()).eval()
    x = torch.zeros(2, 3, 3)
    torch.manual_seed(4)
    first, second = model(x), model(x)
    torch.manual_seed(4)
    assert torch.equal(model(x), first)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    assert abs(float(model(torch.zeros(400, 10, 10)).std()) - 0.5) < 0.01


def test_gradients_pass_the_noise_point():
    model = PixelDP(nn.Linear(3, 4), Gaussian(0.1), nn.Linear(4, 2))
    x = torch.ones(5, 3, requires_grad=True)
    model(x).sum().backward()
    assert x.grad is not None
    assert float(model.prefix.weight.grad.abs().sum()) > 0


def test_the_noise_can_be_ramped():
    model = PixelDP(None, Gaussian(2.0), nn.Identity())
    zero = torch.zeros(200, 50)
    assert torch.equal(model.noisy(zero, 0.0), zero)
    assert abs(float(model.noisy(zero, 0.5).std()) - 1.0) < 0.05


def test_it_prints_its_mechanism():
    assert "Gaussian(sigma=0.25)" in repr(PixelDP(None, Gaussian(0.25), nn.Identity()))
