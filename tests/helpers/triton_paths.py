"""Networks for every path of the GPU engine, and how its tests prepare one on a CPU."""

import pytest
import torch
from torch import nn

from pixeldp_fast import Gaussian, config
from pixeldp_fast.backends.triton.backend import TritonBackend
from pixeldp_fast.noise.stream import Purpose, Stream
from tests.helpers.networks import K, conv_behind_prefix, mlp

CPU = torch.device("cpu")
BACKEND = TritonBackend()
STREAM = Stream(2**64 - 3, Purpose.ESTIMATION)

interpreted = pytest.mark.skipif(
    not config.triton_interpreted(), reason="with a GPU, Triton's interpreter is off"
)


def residual():
    """Batch-norm and ReLU on the noise, a shortcut, global pooling."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(4)
            self.first = nn.Conv2d(4, 8, 3, stride=2, padding=1)
            self.second = nn.Conv2d(8, 8, 3, padding=1)
            self.last = nn.Linear(8, K)

        def forward(self, x):
            x = torch.relu(self.first(torch.relu(self.norm(x))))
            x = torch.relu(self.second(x) + x)
            return self.last(x.mean(dim=(2, 3)))

    block = Block()
    with torch.no_grad():
        block.norm.running_mean.uniform_(-1, 1)
        block.norm.running_var.uniform_(0.5, 2)
        block.norm.weight.uniform_(-1, 1)
    return nn.Conv2d(2, 4, 3, padding=1), block, (2, 6, 6)


def two_layers():
    """A map, then two dense layers."""
    suffix = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(27, 20),
        nn.LeakyReLU(0.2),
        nn.Linear(20, K),
    )
    return nn.Identity(), suffix, (2, 6, 6)


def opaque():
    """An operation that does not lower: the module itself runs."""

    class Gelu(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 5, 3), nn.Linear(80, K)

        def forward(self, x):
            return self.b(torch.nn.functional.gelu(self.a(x)).flatten(1))

    return nn.Identity(), Gelu(), (2, 6, 6)


def one_kernel():
    """Three dense layers, the first reading a map, all in one kernel."""
    layers = (nn.Flatten(), nn.Linear(75, 24), nn.ReLU(), nn.Linear(24, 17), nn.LeakyReLU(0.3))
    return nn.Conv2d(2, 3, 2), nn.Sequential(*layers, nn.Linear(17, K)), (2, 6, 6)


def wide():
    """Dense layers too wide for one kernel."""
    return nn.Identity(), nn.Sequential(nn.Linear(7, 260), nn.ReLU(), nn.Linear(260, K)), (7,)


PATHS = {
    "one_kernel": one_kernel,
    "wide": wide,
    "residual": residual,
    "two_layers": two_layers,
    "opaque": opaque,
    "mlp": mlp,
    "conv_behind_prefix": conv_behind_prefix,
}
each_path = pytest.mark.parametrize("network", PATHS.values(), ids=PATHS)


def prepared(plan, reduction, *, mechanism=None, **options):
    """An engine on the CPU, with Gaussian noise of 0.5 unless another is named."""
    return BACKEND.prepare(plan, mechanism or Gaussian(0.5), reduction, CPU, **options)
