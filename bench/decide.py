"""How many draws the anytime rule needs: on published radii, and on the MNIST CNN."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.special import ndtr

from bench.ledger import Row
from pixeldp_fast import Gaussian, SmoothedClassifier
from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.bounds import tight_radius
from pixeldp_fast.data import load
from pixeldp_fast.models import checkpoint
from pixeldp_fast.smooth.decide import UNDECIDED, DecisionRule, Statuses, looks
from pixeldp_fast.smooth.stopping import drawn
from pixeldp_fast.types import FloatArray, IntArray

CASE = "decide"
CAP, ALPHA = 100_000, 0.001
PUBLISHED = Path(__file__).parents[1] / "tests/reference_values/cohen_cifar10_sigma050.json"
ASKED = ((0.25,), (0.5,), (1.0,), (0.25, 0.5, 0.75))
MNIST_ASKED, EVERY, SEED = ((0.3,), (0.6,), (1.0,), (0.3, 0.6, 1.0)), 50, 2019


def published() -> list[Row]:
    """Votes simulated at the published lower bounds, as if they were the exact probabilities."""
    log = json.loads(PUBLISHED.read_text())
    prediction, radius = np.array(log["rows"], dtype=np.float64)[:, 2:4].T
    p = np.where(prediction < 0, 0.5, ndtr(radius / log["sigma"]))
    note = f"CIFAR-10 ResNet-110 (published log), {len(p)} images, votes simulated"
    found = []
    for radii in ASKED:
        status, draws = simulated(p, radii, Gaussian(log["sigma"]))
        found += _rows("CIFAR-10, published", radii, status, draws, note)
    return found


def simulated(
    p: FloatArray, radii: Sequence[float], mechanism: Gaussian
) -> tuple[Statuses, IntArray]:
    """What the rule of `decide` finds where the votes are binomial, and the draws it takes."""
    generator = np.random.default_rng(SEED)

    def radius(at: FloatArray) -> FloatArray:
        return tight_radius(mechanism, at, np.clip(np.nextafter(1.0 - at, 2.0), 0.0, 1.0))

    def count(rows: IntArray, _: int, n: int) -> Tally:
        hits = generator.binomial(n, p[rows])
        return Tally(np.stack([hits, n - hits, 0 * hits], axis=1))

    rule = DecisionRule(
        np.zeros(len(p), dtype=np.int64),
        np.array(radii),
        radius,
        alpha=ALPHA,
        ends=tuple(looks(CAP, 16)),
    )
    draws = drawn(count, rule, len(p)).draws
    return rule.status, draws


def mnist(folder: Path) -> list[Row]:
    """The model of `pixeldp-fast train mnist`, every 50th test image."""
    model, _ = checkpoint.load(folder)
    smoothed = SmoothedClassifier(model, num_classes=10, seed=SEED)
    data = load("mnist", "test")
    index = np.arange(0, len(data), EVERY)
    note = f"{model.mechanism}, {len(index)} images, {torch.get_num_threads()} threads"
    found = []
    for radii in MNIST_ASKED:
        decided = smoothed.decide(data.images(index), radii, n_max=CAP, alpha=ALPHA, index=index)
        found += _rows("MNIST CNN", radii, decided.status, decided.draws, note)
    return found


def _rows(
    name: str, radii: Sequence[float], status: Statuses, draws: IntArray, note: str
) -> list[Row]:
    label = f"{name}: {', '.join(f'{r:g}' for r in radii)}"
    low, median, high = (float(v) for v in np.percentile(draws, [20, 50, 80]))
    mean = float(draws.mean())
    undecided = 100 * float((status == UNDECIDED).mean(axis=0).max())
    note = f"{note}; cap {CAP}, alpha = {ALPHA}"
    return [
        Row(CASE, label, "mean draws", mean, mean, mean, "draws", note),
        Row(CASE, label, "draws", median, low, high, "draws", note),
        Row(CASE, label, "fewer than the cap", CAP / mean, CAP / mean, CAP / mean, "1", note),
        Row(CASE, label, "undecided at most", undecided, undecided, undecided, "%", note),
    ]
