"""Settings, schedules, batches and recipes: values, ranges, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from pixeldp_fast.data import DATASETS, from_arrays, load
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.train import RECIPES, TrainingSettings
from pixeldp_fast.train.batches import augmented, batches, steps_per_epoch
from pixeldp_fast.train.initial import initial_model
from pixeldp_fast.train.schedule import FULL_NOISE_STEP, learning_rate, noise_factor
from pixeldp_fast.types import Norm

WRONG = [
    ("epochs", 0),
    ("epochs", 1.5),
    ("batch_size", 0),
    ("learning_rate", 0.0),
    ("learning_rate", -1),
    ("learning_rate", math.nan),
    ("learning_rate", math.inf),
    ("momentum", 1.0),
    ("weight_decay", -1e-9),
    ("weight_decay", "much"),
    ("schedule", "linear"),
    ("noise_ramp", None),
    ("decay", 0),
    ("milestones", (0.5, 0.5)),
    ("milestones", (0.75, 0.5)),
    ("milestones", (0.5, 1.0)),
    ("milestones", 3),
    ("crop_padding", -1),
    ("norm", 3),
    ("seed", -1),
    ("seed", 2**63),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda v: repr(v))
def test_settings_refuse(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"`{name}` must be"):
        TrainingSettings(**{name: value})


def test_settings_are_plain_json() -> None:
    settings = TrainingSettings(norm=Norm.INF, milestones=(0.25,), seed=2**63 - 1)
    record = json.loads(json.dumps(settings.to_dict(), allow_nan=False))
    assert TrainingSettings(**record) == settings
    assert record.keys() == {f.name for f in dataclasses.fields(TrainingSettings)}


def test_cosine_falls_from_the_full_rate_towards_zero() -> None:
    settings = TrainingSettings(learning_rate=0.2)
    rates = [learning_rate(settings, step, 10) for step in range(10)]
    assert rates[0] == 0.2
    assert rates[5] == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.01


def test_step_schedule_multiplies_at_its_milestones() -> None:
    settings = TrainingSettings(learning_rate=1.0, schedule="step", milestones=(0.5, 0.8))
    rates = [learning_rate(settings, step, 10) for step in range(10)]
    assert rates == pytest.approx([1.0] * 5 + [0.1] * 3 + [0.01] * 2)
    constant = dataclasses.replace(settings, schedule="constant")
    assert {learning_rate(constant, step, 10) for step in range(10)} == {1.0}


def test_original_noise_ramp() -> None:
    settings = TrainingSettings(noise_ramp="original")
    assert noise_factor(settings, 0) == pytest.approx(0.1)
    assert noise_factor(settings, 1000) == pytest.approx(0.2212, abs=1e-4)
    assert FULL_NOISE_STEP == 9210
    assert 0.8999 < noise_factor(settings, 9209) <= 0.9
    assert noise_factor(settings, 9210) == 1.0
    assert noise_factor(TrainingSettings(), 0) == 1.0


def test_an_epoch_is_every_example_once_in_an_order_of_its_own() -> None:
    data = load("digits", "train").subset(slice(0, 101))
    settings = TrainingSettings(batch_size=10)
    drawn = [list(batches(data, settings, epoch)) for epoch in (0, 1, 0)]
    sizes = {len(labels) for _, labels in drawn[0]}
    assert len(drawn[0]) == steps_per_epoch(data, settings) == 11
    assert sizes == {9, 10}
    images = [torch.cat([x for x, _ in epoch]) for epoch in drawn]
    labels = [torch.cat([y for _, y in epoch]) for epoch in drawn]
    assert torch.equal(images[0], images[2])
    assert torch.equal(labels[0], labels[2])
    assert not torch.equal(images[0], images[1])
    assert sorted(map(hash, map(tuple, images[0].flatten(1).tolist()))) == sorted(
        map(hash, map(tuple, data.images().flatten(1).tolist()))
    )
    other = torch.cat([x for x, _ in batches(data, dataclasses.replace(settings, seed=1), 0)])
    assert not torch.equal(other, images[0])


def test_crops_are_windows_of_the_padded_image() -> None:
    images = torch.arange(1.0, 5 * 3 * 6 * 4 + 1).reshape(5, 3, 6, 4)
    settings = TrainingSettings(crop_padding=2)
    cropped = augmented(images, settings, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images, (2,) * 4)
    assert cropped.shape == images.shape
    seen = set()
    for example in range(5):
        windows = {
            (i, j)
            for i in range(5)
            for j in range(5)
            if torch.equal(cropped[example], padded[example, :, i : i + 6, j : j + 4])
        }
        assert len(windows) == 1
        seen |= windows
    assert len(seen) > 1


def test_flip_mirrors_about_half_of_the_images() -> None:
    images = torch.rand(1000, 1, 2, 3)
    flipped = augmented(images, TrainingSettings(flip=True), torch.Generator().manual_seed(0))
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    same = (flipped == images).flatten(1).all(1)
    assert (mirrored | same).all()
    assert 400 < mirrored.sum() < 600
    untouched = augmented(images, TrainingSettings(), torch.Generator())
    assert untouched is images


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_build_and_the_seed_decides_their_weights(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.dataset in DATASETS
    shape = {"digits": (1, 8, 8), "cifar10": (3, 32, 32)}.get(recipe.dataset, (1, 28, 28))
    before = torch.get_rng_state()
    models = [
        initial_model(
            recipe.architecture,
            recipe.mechanism,
            dataclasses.replace(recipe.settings, seed=seed),
            input_shape=shape,
            num_classes=10,
            options=recipe.options,
        )
        for seed in (0, 0, 1)
    ]
    weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(before, torch.get_rng_state())
    assert models[0](torch.zeros(2, *shape)).shape == (2, 10)


def test_names_and_settings_come_without_torch() -> None:
    code = "import pixeldp_fast.train, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_labels_outside_the_classes_never_become_a_data_set() -> None:
    images = np.zeros((2, 1, 4, 4), np.float32)
    with pytest.raises(ValueError, match="labels must lie in"):
        from_arrays("blank", images, np.array([0, 3]), num_classes=3)
