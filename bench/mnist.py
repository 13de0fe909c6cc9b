"""The PixelDP CNN on MNIST: accuracy of the vote and certified accuracy, beside the paper's.

Both parts take a model trained by `pixeldp-fast train mnist --out FOLDER`.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from pathlib import Path

import numpy as np
import torch

from bench.ledger import Row
from pixeldp_fast import PixelDP, SmoothedClassifier
from pixeldp_fast.data import Dataset, load
from pixeldp_fast.models import checkpoint
from pixeldp_fast.train.initial import initial_model
from pixeldp_fast.train.loop import train
from pixeldp_fast.train.recipes import RECIPES

CASE = "mnist"
RADII = (0.19, 0.39, 0.6)  # the paper reports the first two; its bound stops before the third
VOTE_DRAWS, N, ALPHA, EVERY = 1_000, 10_000, 0.001, 10
SEED = 2019
TIMED_EPOCHS = 2
BATCH = 100


def vote(folder: Path) -> list[Row]:
    """The share of the test set that the majority of the draws gets right."""
    model, config = checkpoint.load(folder)
    note = _note(model)
    return [
        *_training_rows(config),
        *_vote_rows(_smoothed(model), load("mnist", "test"), note),
    ]


def training() -> list[Row]:
    """What the recipe takes on this machine, idle: its first epochs, and all at their pace."""
    recipe = RECIPES["mnist"]
    data = load("mnist", "train")
    settings = dataclasses.replace(recipe.settings, epochs=TIMED_EPOCHS)
    model = initial_model(
        recipe.architecture,
        recipe.mechanism,
        settings,
        input_shape=data.input_shape,
        num_classes=10,
        options=recipe.options,
    )
    config = {"architecture": recipe.architecture, "options": dict(recipe.options)}
    with tempfile.TemporaryDirectory() as folder:
        summary = train(model, data, settings, out=Path(folder) / "model", config=config)
    epochs = recipe.settings.epochs
    seconds = summary["seconds"] / TIMED_EPOCHS * epochs
    threads = torch.get_num_threads()
    note = f"{epochs} epochs at the pace of {TIMED_EPOCHS}, {threads} torch threads, idle machine"
    return [Row(CASE, "pixeldp_fast", "training at idle", seconds, seconds, seconds, "s", note)]


def certified(folder: Path) -> list[Row]:
    """Certified accuracy at the radii."""
    model, _ = checkpoint.load(folder)
    note = _note(model)
    return _certified_rows(_smoothed(model), load("mnist", "test"), note)


def _note(model: PixelDP) -> str:
    return f"{model.mechanism}, seed {SEED}, {torch.get_num_threads()} torch threads"


def _smoothed(model: PixelDP) -> SmoothedClassifier:
    return SmoothedClassifier(model, num_classes=10, seed=SEED)


def _training_rows(config: checkpoint.CheckpointConfig) -> list[Row]:
    summary = config.training["summary"]
    seconds, note = summary["seconds"], f"{summary['epochs']} epochs"
    return [Row(CASE, "pixeldp_fast", "training time", seconds, seconds, seconds, "s", note)]


def _vote_rows(smoothed: SmoothedClassifier, data: Dataset, note: str) -> list[Row]:
    labels = data.known_labels()
    right = 0
    for first in range(0, len(data), BATCH):
        rows = np.arange(first, min(first + BATCH, len(data)))
        tally = smoothed.count(data.images(rows), VOTE_DRAWS, index=rows, purpose="prediction")
        right += int(np.sum(tally.counts[:, :-1].argmax(axis=1) == labels[rows]))
    share = 100 * right / len(data)
    error = _standard_error(share, len(data))
    note = f"{note}; majority of {VOTE_DRAWS} draws, all {len(data)} test images"
    return [
        Row(CASE, "pixeldp_fast", "right by vote", share, share - error, share + error, "%", note),
    ]


def _certified_rows(smoothed: SmoothedClassifier, data: Dataset, note: str) -> list[Row]:
    rows = np.arange(0, len(data), EVERY)
    certificates = smoothed.certify(data.images(rows), n=N, alpha=ALPHA, index=rows)
    labels = data.known_labels(rows)
    note = f"{note}; n = {N}, alpha = {ALPHA}, tight, every {EVERY}th test image"
    out = []
    for radius, share in zip(RADII, certificates.accuracy_at(RADII, labels), strict=True):
        percent = 100 * float(share)
        error = _standard_error(percent, len(rows))
        out.append(
            Row(
                CASE,
                "pixeldp_fast",
                f"certified at {radius}",
                percent,
                percent - error,
                percent + error,
                "%",
                note,
            )
        )
    mean = certificates.average_radius(labels)
    out.append(Row(CASE, "pixeldp_fast", "average certified radius", mean, mean, mean, "", note))
    return out


def _standard_error(percent: float, examples: int) -> float:
    return math.sqrt(percent * (100 - percent) / examples)
