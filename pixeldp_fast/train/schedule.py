"""What changes from step to step: the learning rate and the size of the noise."""

from __future__ import annotations

import math

from pixeldp_fast.train.settings import TrainingSettings

RAMP_BASE = 0.99975
RAMP_LEAST = 0.1  # the share of the noise with which the ramp starts
FULL_NOISE_STEP = math.ceil(math.log(RAMP_LEAST) / math.log(RAMP_BASE))  # 9210


def learning_rate(settings: TrainingSettings, step: int, total_steps: int) -> float:
    """The learning rate of step `step`, in [0, total_steps)."""
    done = step / total_steps
    if settings.schedule == "cosine":
        return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
    if settings.schedule == "step":
        passed = sum(done >= share for share in settings.milestones)
        return settings.learning_rate * settings.decay**passed
    return settings.learning_rate


def noise_factor(settings: TrainingSettings, step: int) -> float:
    """What the noise of step `step`, from 0, is multiplied by.

    "none": 1. "original": 1 - min(0.99975^step, 0.9), and 1 once that exceeds 0.9, which is from
    step 9210.

    Source
        The code of Lecuyer et al., IEEE S&P 2019.
    """
    if settings.noise_ramp == "none" or step >= FULL_NOISE_STEP:
        return 1.0
    return 1.0 - min(RAMP_BASE**step, 1.0 - RAMP_LEAST)
