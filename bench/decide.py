"""How many draws the anytime rule needs: on published radii, and on the MNIST CNN."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
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
from pixeldp_fast.smooth.judge import Terms, judge
from pixeldp_fast.smooth.stopping import LossRule, drawn
from pixeldp_fast.types import FloatArray, IntArray

CASE, LOSS_CASE = "decide", "loss"
CAP, ALPHA = 100_000, 0.001
PUBLISHED = Path(__file__).parents[1] / "tests/reference_values/cohen_cifar10_sigma050.json"
LOSSES = (0.01, 0.02, 0.05)
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


def losses() -> list[Row]:
    """What stop="loss" saves and costs on the same probabilities, against all draws at all alpha.

    The radius lost is that of images whose radius all draws prove to be above 0.
    """
    log = json.loads(PUBLISHED.read_text())
    prediction, radius = np.array(log["rows"], dtype=np.float64)[:, 2:4].T
    p = np.where(prediction < 0, 0.5, ndtr(radius / log["sigma"]))
    note = f"{len(p)} images, votes simulated; n = {CAP}, alpha = {ALPHA}"
    found = []
    for loss in LOSSES:
        asked = _terms(Gaussian(log["sigma"]), loss)
        draws, early, whole = _stopped(p, asked)
        lost = 100 * (1 - early / np.where(whole > 0, whole, 1))[whole > 0]
        middle, low, high = (float(v) for v in np.percentile(lost, [50, 20, 80]))
        fewer, label = CAP / float(draws.mean()), f"CIFAR-10, published: loss {loss:g}"
        found += [
            Row(LOSS_CASE, label, "fewer than the cap", fewer, fewer, fewer, "1", note),
            Row(LOSS_CASE, label, "radius lost", middle, low, high, "%", note),
        ]
    return found


def _terms(mechanism: Gaussian, loss: float) -> Terms:
    return Terms(
        mechanism=mechanism,
        norm=mechanism.norm,
        bound="tight",
        scores="argmax",
        alpha=ALPHA,
        n0=1,
        n=CAP,
        sensitivities=(("2", 1.0),),
        seed=SEED,
        num_classes=2,
        input_shape=(1,),
        backend="",
        arithmetic="",
        model_fingerprint="",
        version="",
        stop="loss",
        loss=loss,
    )


def _stopped(p: FloatArray, asked: Terms) -> tuple[IntArray, FloatArray, FloatArray]:
    """Draws taken, radii at the stop, and the radii of all draws, of the same votes."""
    generator = np.random.default_rng(SEED)
    ends = [0, *(draws for draws, _ in asked.looks)]
    votes = {a: generator.binomial(b - a, p) for a, b in pairwise(ends)}

    def count(rows: IntArray, first: int, n: int) -> Tally:
        hits = votes[first][rows]
        return Tally(np.stack([hits, n - hits, 0 * hits], axis=1))

    selection = Tally(np.tile(np.array([1, 0, 0]), (len(p), 1)))
    early = drawn(count, LossRule(asked, selection), len(p))
    hits = sum(votes.values(), start=np.zeros(len(p), dtype=np.int64))
    whole = Tally(np.stack([hits, CAP - hits, 0 * hits], axis=1))
    fixed = replace(asked, stop="fixed", loss=None)
    stopped, all_drawn = judge(asked, selection, early), judge(fixed, selection, whole)
    return early.draws, stopped.radius, all_drawn.radius


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
