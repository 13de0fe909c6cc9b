"""The networks that the engine is measured on: shapes, noise points and amounts of work as data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pixeldp_fast import Gaussian, PixelDP
from pixeldp_fast.models import build

CLASSES = 10
SEED = 2019


@dataclass(frozen=True)
class Case:
    """One network under noise.

    Parameters
    ----------
    name, title : str
        On the command line, and in tables.
    network : str
        A name of `pixeldp_fast.models.build`.
    input_shape : (C, H, W)
    noise_after : int
        The noise point, as for `build`.
    mechanism : Gaussian
    draws : int
        Per timed run: a quarter to half a second of work. A power of two, like the chunks, so that
        no contender pays for a chunk that is not full.
    """

    name: str
    title: str
    network: str
    input_shape: tuple[int, int, int]
    noise_after: int
    mechanism: Gaussian
    draws: int

    def model(self) -> PixelDP:
        """The network in eval mode, with the same weights and batch statistics at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            prefix, suffix = build(
                self.network,
                input_shape=self.input_shape,
                num_classes=CLASSES,
                noise_after=self.noise_after,
            )
            _fill_statistics(suffix)
        return PixelDP(prefix, self.mechanism, suffix).eval()

    def example(self) -> Tensor:
        """One example in [0, 1], [1, C, H, W]."""
        generator = torch.Generator().manual_seed(SEED)
        return torch.rand((1, *self.input_shape), generator=generator)


CASES = (
    Case(
        name="pixeldp_cnn",
        title="PixelDP CNN, 28x28, noise behind conv 1",
        network="pixeldp_cnn",
        input_shape=(1, 28, 28),
        noise_after=1,
        mechanism=Gaussian(0.5),
        draws=2048,
    ),
    Case(
        name="resnet20",
        title="ResNet-20, 32x32, noise on the image",
        network="resnet20",
        input_shape=(3, 32, 32),
        noise_after=0,
        mechanism=Gaussian(0.25),
        draws=512,
    ),
    Case(
        name="mlp",
        title="MLP 64-256-256-10, noise on the image",
        network="mlp",
        input_shape=(1, 8, 8),
        noise_after=0,
        mechanism=Gaussian(0.5),
        draws=65_536,
    ),
)


def by_name(name: str) -> Case:
    """The case of that name."""
    return {case.name: case for case in CASES}[name]


def flop_per_draw(suffix: nn.Module, noise_shape: tuple[int, ...]) -> int:
    """Floating point operations of one draw: two per multiply-add of products and convolutions.

    Nominal: padded taps count, and whatever algorithm an engine uses does not.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        suffix(torch.zeros((1, *noise_shape)))
    return int(counter.get_total_flops())


def _fill_statistics(suffix: nn.Module) -> None:
    """Batch statistics as training leaves them, not the identity, so that folding them is work."""
    for module in suffix.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
