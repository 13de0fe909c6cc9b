"""The smoothed model as a module: deterministic, differentiable, the mean over its draws."""

import numpy as np
import pytest
import torch
from torch import nn

from pixeldp_fast.attacks import as_module
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise import Gaussian, Purpose, Stream
from pixeldp_fast.noise.sampling import noisy_definition
from pixeldp_fast.smooth.classifier import SmoothedClassifier


def smoothed(seed=4):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    return SmoothedClassifier(net, Gaussian(0.4), num_classes=3, seed=seed)


def test_the_module_is_the_mean_over_its_draws_whatever_the_batch():
    model, x = smoothed(), torch.rand(5, 6)
    module = as_module(model, 32, key=9)
    stream = Stream(4, Purpose.ATTACK)
    noisy = noisy_definition(x.numpy().astype(np.float64), Gaussian(0.4), stream, [9] * 5, 0, 32)
    with torch.no_grad():
        want = model.model.suffix(torch.from_numpy(noisy).float()).softmax(-1).mean(1).log()
    torch.testing.assert_close(module(x), want, atol=1e-5, rtol=1e-4)
    assert torch.equal(module(x), module(x))
    torch.testing.assert_close(module(x.flip(0)).flip(0), module(x))
    assert not torch.allclose(as_module(model, 32, key=8)(x), module(x))


def test_plain_gradient_ascent_through_the_module_finds_what_fresh_draws_confirm():
    model, x = smoothed(), torch.rand(20, 6)
    y = torch.from_numpy(model.predict(x))
    x, y = x[y >= 0], y[y >= 0]
    module, at = as_module(model, 64), x.clone().requires_grad_()
    for _ in range(30):
        (slope,) = torch.autograd.grad(nn.functional.cross_entropy(module(at), y), at)
        at = (at + 0.1 * slope.sign()).clamp(0, 1).detach().requires_grad_()
    claimed = module(at).argmax(1) != y
    answers = torch.from_numpy(smoothed(seed=99).predict(at.detach()))
    assert claimed.any()
    agree = (answers != y) & (answers >= 0)
    assert agree[claimed].float().mean() > 0.7


def test_what_is_not_deterministic_is_refused():
    with pytest.raises(InvalidArgument, match="seed"):
        as_module(smoothed(seed=None), 8)
    with pytest.raises(InvalidArgument, match="draws"):
        as_module(smoothed(), 0)
    with pytest.raises(InvalidArgument, match="index"):
        as_module(smoothed(), 8, key=-1)
