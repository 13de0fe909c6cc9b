"""Training a small regressor behind noise: squared error of single noisy draws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from pixeldp_fast.data.real import RealDataset
from pixeldp_fast.errors import TrainingDiverged
from pixeldp_fast.models.regressor import build_regressor
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.smooth.model import PixelDP
from pixeldp_fast.train.batches import derived_seed
from pixeldp_fast.train.schedule import learning_rate
from pixeldp_fast.train.settings import TrainingSettings
from pixeldp_fast.train.sgd import MomentumSGD

WIDTHS = (64, 64)
SETTINGS = TrainingSettings(epochs=20, batch_size=64, learning_rate=0.05, weight_decay=1e-4)
STEPS = 2000  # seconds on one core; twice as many lower no error of wine or ink by more than 7 %


def settings_for(data: RealDataset) -> TrainingSettings:
    """`SETTINGS` with the epochs that about `STEPS` steps make, 2 to 20."""
    epochs = STEPS * SETTINGS.batch_size // max(len(data), 1)
    return replace(SETTINGS, epochs=min(max(epochs, 2), 20))


def train_regressor(
    data: RealDataset,
    mechanism: AbstractMechanism,
    settings: TrainingSettings | None = None,
    widths: tuple[int, ...] = WIDTHS,
) -> PixelDP:
    """A regressor for a task, as a function of the seed in `settings`.

    Minimises the squared error of one draw per example and step. The targets are brought to unit
    size for training, and the last layer back to theirs after it.

    Parameters
    ----------
    data : RealDataset
    mechanism : Gaussian, Laplace or Uniform
    settings : TrainingSettings or None
        None: `settings_for`. Of these epochs, batch_size, learning_rate, momentum, weight_decay,
        schedule and seed count.

    Returns
    -------
    model : PixelDP
        On the CPU, in eval mode. Torch's own generator is left as it was.

    Raises
    ------
    TrainingDiverged
        When the loss is not finite.
    """
    settings = settings_for(data) if settings is None else settings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(settings, 0, 2))
        model = build_regressor(data.input_shape, widths, mechanism)
        optimiser = MomentumSGD(model, settings.momentum, settings.weight_decay)
        size = max(float(np.sqrt(np.mean(data.targets**2))), 1e-12)
        per_epoch = -(-len(data) // settings.batch_size)
        model.train()
        for epoch in range(settings.epochs):
            torch.manual_seed(derived_seed(settings, epoch, 1))
            order = torch.randperm(len(data)).tensor_split(per_epoch)
            for i, rows in enumerate(order):
                step = epoch * per_epoch + i
                rate = learning_rate(settings, step, settings.epochs * per_epoch)
                _step(model, optimiser, data, rows, size, rate)
        _enlarge(model, size)
        return model.eval()


def _step(
    model: PixelDP,
    optimiser: MomentumSGD,
    data: RealDataset,
    rows: torch.Tensor,
    size: float,
    rate: float,
) -> None:
    targets = torch.from_numpy(data.values(rows) / size).float()
    error = model(data.batch(rows))[:, 0] - targets
    loss = (error * error).mean()
    if not math.isfinite(float(loss.detach())):
        raise TrainingDiverged(
            f"The loss became {float(loss.detach())}. Try a smaller learning rate than the "
            f"present {rate:g}, or less noise."
        )
    optimiser.zero_grad()
    torch.autograd.backward(loss)
    optimiser.step(rate)


@torch.no_grad()
def _enlarge(model: PixelDP, size: float) -> None:
    """Multiply the output by `size`."""
    last = model.suffix[-1]  # type: ignore[index]
    for parameter in last.parameters():
        parameter.mul_(size)
