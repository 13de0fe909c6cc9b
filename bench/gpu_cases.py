"""The networks that the GPU engine is measured on: as data, with random but calibrated weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.gpu_resnet50 import resnet50
from pixeldp_fast import Gaussian, PixelDP
from pixeldp_fast.models import build
from pixeldp_fast.noise.mechanism import AbstractMechanism

SEED = 2019
Sides = tuple[nn.Module | None, nn.Module]


@dataclass(frozen=True)
class GpuCase:
    """One network under noise.

    Parameters
    ----------
    name, title : str
        On the command line, and in tables.
    sides : callable
        Makes (prefix, suffix), freshly initialised from torch's generator.
    examples, draws : int
        A timed run: so many draws for each of so many examples. Draws are a power of two.
    batch : int
        Of Cohen's loop: his default, and his advice for large images.
    chunks : tuple of int
        Draws at a time that the other contenders in torch choose from; powers of two.
    expected : float
        Draws/s that PyTorch at its best in bfloat16 should reach on an H200 by an estimate made
        beforehand (its lower end): a baseline far below is a weak one. 0: none was made.
    gate : int
        Draws that the gate compares.
    calibration : int
        Images that the batch norms see.
    """

    name: str
    title: str
    sides: Callable[[], Sides]
    input_shape: tuple[int, int, int]
    classes: int
    mechanism: AbstractMechanism
    examples: int
    draws: int
    batch: int
    chunks: tuple[int, ...]
    expected: float = 0.0
    gate: int = 1024
    calibration: int = 64

    def model(self, device: torch.device) -> PixelDP:
        """The network in eval mode on the device, its batch norms calibrated on noisy features."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            prefix, suffix = self.sides()
        model = PixelDP(prefix, self.mechanism, suffix).to(device)
        calibrate(model, self.images(self.calibration, SEED + 1).to(device))
        return model.eval()

    def images(self, count: int, seed: int = SEED) -> Tensor:
        """Images in [0, 1], float32 [count, C, H, W], on the CPU."""
        generator = torch.Generator().manual_seed(seed)
        return torch.rand((count, *self.input_shape), generator=generator)

    @property
    def total(self) -> int:
        """Draws of a timed run."""
        return self.examples * self.draws


def calibrate(model: PixelDP, images: Tensor) -> None:
    """Set the statistics of every batch norm to those of the images under noise.

    With random statistics deep networks send every draw to one class, or to infinity.
    """
    norms = [m for m in model.suffix.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        return
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # an average over all calls
    generator = torch.Generator().manual_seed(SEED)
    model.train()
    with torch.no_grad():
        for some in torch.split(images, 16):
            features = model.prefix(some)
            noise = torch.randn(features.shape, generator=generator).to(features.device)
            model.suffix(features + model.mechanism.std * noise)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def _built(name: str, shape: tuple[int, int, int], **options: Any) -> Callable[[], Sides]:
    return lambda: build(name, input_shape=shape, num_classes=10, **options)


GRAY, FLAT, COLOUR, LARGE = (1, 28, 28), (1, 8, 16), (3, 32, 32), (3, 224, 224)

CASES = (
    GpuCase(
        "pixeldp_cnn",
        "PixelDP CNN, 28x28, noise behind conv 1",
        _built("pixeldp_cnn", GRAY, noise_after=1),
        GRAY,
        10,
        Gaussian(0.5),
        examples=16,
        draws=2**16,
        batch=1000,
        chunks=(1024, 4096, 16_384, 65_536),
        expected=25e6,
    ),
    GpuCase(
        "mlp784",
        "MLP 784-256-256-10, noise on the image",
        _built("mlp", GRAY, widths=(256, 256)),
        GRAY,
        10,
        Gaussian(0.5),
        examples=64,
        draws=2**17,
        batch=1000,
        chunks=(4096, 16_384, 65_536, 131_072),
        expected=0.35e9,
    ),
    GpuCase(
        "mlp128",
        "MLP 128-128-128-10, noise on the input",
        _built("mlp", FLAT, widths=(128, 128)),
        FLAT,
        10,
        Gaussian(0.5),
        examples=64,
        draws=2**17,
        batch=1000,
        chunks=(4096, 16_384, 65_536, 131_072),
        expected=0.9e9,
    ),
    GpuCase(
        "resnet20",
        "ResNet-20, 32x32, noise on the image",
        _built("resnet20", COLOUR),
        COLOUR,
        10,
        Gaussian(0.25),
        examples=2,
        draws=2**16,
        batch=1000,
        chunks=(256, 1024, 4096, 8192),
        expected=0.8e6,
    ),
    GpuCase(
        "resnet110",
        "ResNet-110, 32x32, noise on the image",
        _built("resnet110", COLOUR),
        COLOUR,
        10,
        Gaussian(0.25),
        examples=1,
        draws=2**15,
        batch=1000,
        chunks=(256, 1024, 4096),
        expected=0.15e6,
        gate=512,
    ),
    GpuCase(
        "wide_resnet28_10",
        "wide ResNet 28-10, 32x32, noise behind conv 1",
        _built("wide_resnet28_10", COLOUR, noise_after=1),
        COLOUR,
        10,
        Gaussian(0.25),
        examples=1,
        draws=2**12,
        batch=1000,
        chunks=(256, 1024),
        expected=35e3,
        gate=256,
    ),
    GpuCase(
        "resnet50",
        "ResNet-50, 224x224, noise on the image",
        lambda: (None, resnet50(1000)),
        LARGE,
        1000,
        Gaussian(0.25),
        examples=1,
        draws=2**12,
        batch=400,
        chunks=(64, 256, 512),
        expected=18e3,
        gate=128,
    ),
)


def by_name(name: str) -> GpuCase:
    """The case of that name."""
    return {case.name: case for case in CASES}[name]
