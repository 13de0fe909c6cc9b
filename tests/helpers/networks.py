"""Small networks for tests: every kind of noise point and layer, milliseconds each."""

from __future__ import annotations

import torch
from torch import nn

from pixeldp_fast.plan.plan import make_plan

K = 4


def conv_behind_prefix():
    """Noise after a convolution."""
    prefix = nn.Conv2d(2, 6, 3, stride=2, padding=1, bias=False)
    suffix = nn.Sequential(
        nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, K)
    )
    return prefix, suffix, (2, 8, 8)


def conv_on_image():
    """Noise on the image, batch-norm and pooling behind it."""
    suffix = nn.Sequential(
        nn.Conv2d(1, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.LeakyReLU(0.1),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, K),
    )
    return nn.Identity(), suffix, (1, 7, 7)


def mlp():
    """Noise on a vector."""
    return nn.Identity(), nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, K)), (5,)


NETWORKS = (conv_behind_prefix, conv_on_image, mlp)


def plan_of(make, seed=0):
    """The network's plan with fixed random weights, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        prefix, suffix, shape = make()
    return make_plan(prefix.eval(), suffix.eval(), shape, K)


def examples(plan, count, seed=1):
    """Inputs in [0, 1], float32 [count, *input_shape]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((count, *plan.input_shape), generator=generator)
