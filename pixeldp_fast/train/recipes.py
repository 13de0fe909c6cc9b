"""Networks, noise and settings that go together, by name.

Measured to the end: "digits" and "mnist". Neither of the others has been run to its end:
"fashion_mnist" keeps the rate at which "mnist" trains without centred steps, "cifar10-resnet20"
follows Cohen et al. (ICML 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pixeldp_fast.noise.gaussian import Gaussian
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.train.settings import TrainingSettings


@dataclass(frozen=True)
class Recipe:
    """What `pixeldp_fast.train.initial.initial_model` and `train` need.

    Parameters
    ----------
    dataset : str
        A name of `pixeldp_fast.data.DATASETS`.
    architecture : str
        A name of `pixeldp_fast.models.NETWORKS`.
    options : mapping
        Of the architecture, plain JSON.
    mechanism : Gaussian, Laplace or Uniform
    settings : TrainingSettings
    """

    dataset: str
    architecture: str
    mechanism: AbstractMechanism
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: TrainingSettings = field(default_factory=TrainingSettings)


RECIPES: dict[str, Recipe] = {
    "digits": Recipe(
        dataset="digits",
        architecture="mlp",
        mechanism=Gaussian(0.35),
        settings=TrainingSettings(epochs=40, batch_size=64, learning_rate=0.1),
    ),
    "mnist": Recipe(
        dataset="mnist",
        architecture="pixeldp_cnn",
        options={"noise_after": 1},
        mechanism=Gaussian(0.7612),  # 0.3 sqrt(2 ln(1.25/0.05)): the paper's L = 0.3
        settings=TrainingSettings(epochs=36, learning_rate=0.1, centred=True, crop_padding=1),
    ),
    "fashion_mnist": Recipe(
        dataset="fashion_mnist",
        architecture="pixeldp_cnn",
        options={"noise_after": 1},
        mechanism=Gaussian(0.25),
        settings=TrainingSettings(epochs=12, learning_rate=0.05),
    ),
    "cifar10-resnet20": Recipe(
        dataset="cifar10",
        architecture="resnet20",
        options={
            "noise_after": 0,
            "normalise": [[0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]],
        },
        mechanism=Gaussian(0.25),
        settings=TrainingSettings(
            epochs=90,
            learning_rate=0.1,
            weight_decay=1e-4,
            schedule="step",
            milestones=(1 / 3, 2 / 3),
            crop_padding=4,
            flip=True,
        ),
    ),
}
