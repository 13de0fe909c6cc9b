"""A certificate of one MNIST image: `compat.Smooth` against Cohen's loop, on two threads.

His loop, written here from its description: for every batch the image is repeated, `torch.randn`
times sigma is added, the network runs, and the argmax is counted on the host. Counting is by
`bincount`, where his code adds up in Python, which is slower. Both at the batch that suits them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from bench.ledger import Row
from bench.threads import torch_threads
from bench.timing import fastest, interleaved, ratio
from pixeldp_fast import config
from pixeldp_fast.compat import Smooth
from pixeldp_fast.data import load
from pixeldp_fast.models import build
from pixeldp_fast.stats import clopper_pearson_lower
from pixeldp_fast.types import ABSTAIN, IntArray

CASE = "cohen"
SIGMA, N0, N, ALPHA, CLASSES = 0.25, 100, 100_000, 0.001, 10
BATCHES = (100, 200, 400, 1000, 2000)
THREADS, REPEATS, TRIAL = 2, 3, 10_000
SEED = 2019

Certify = Callable[[Tensor, int, int, float, int], tuple[int, float]]


def run() -> list[Row]:
    """Wall-clock seconds of one certificate, and their ratio."""
    image, source = _image()
    network = _network()
    with torch_threads(min(THREADS, len(os.sched_getaffinity(0)))):
        threads = torch.get_num_threads()
        ours = Smooth(network, CLASSES, SIGMA, seed=SEED)
        certifiers: dict[str, Certify] = {
            "compat.Smooth": ours.certify,
            "Cohen's loop": CohenLoop(network, CLASSES, SIGMA).certify,
        }
        batches = {name: best_batch(certify, image) for name, certify in certifiers.items()}
        times = interleaved(
            {
                name: lambda name=name, certify=certify: certify(  # type: ignore[misc]
                    image, N0, N, ALPHA, batches[name]
                )
                for name, certify in certifiers.items()
            },
            REPEATS,
            time.perf_counter,
        )
    settings = f"n = {N}, {source}, PixelDP CNN, {threads} threads, wall clock"
    rows = []
    for name, measured in times.items():
        low, middle, high = (float(v) for v in np.percentile(measured.seconds, [20, 50, 80]))
        note = f"batch {batches[name]}; {settings}"
        rows.append(Row(CASE, name, "time of a certificate", middle, low, high, "s", note))
    pair = ratio(times["compat.Smooth"], times["Cohen's loop"])
    rows.append(Row(CASE, "compat.Smooth", "over Cohen's loop", *pair, "1", settings))
    return rows


def best_batch(certify: Certify, image: Tensor, draws: int = TRIAL) -> int:
    """The batch size with the shortest trial, by wall clock."""

    def trial(batch: int) -> None:
        certify(image, N0, draws, ALPHA, batch)

    return fastest(BATCHES, trial, 1, clock=time.perf_counter)[0]


class CohenLoop:
    """Cohen's `Smooth`, as published but for the counting."""

    def __init__(self, base_classifier: nn.Module, num_classes: int, sigma: float) -> None:
        self._base_classifier = base_classifier
        self._num_classes = num_classes
        self._sigma = sigma

    def certify(
        self, x: Tensor, n0: int, n: int, alpha: float, batch_size: int
    ) -> tuple[int, float]:
        """The class of [C, H, W] and its radius, or (ABSTAIN, 0.0)."""
        guess = int(self.count(x, n0, batch_size).argmax())
        hits = np.array([self.count(x, n, batch_size)[guess]])
        lower = clopper_pearson_lower(hits, n, alpha)
        if lower[0] < 0.5:
            return ABSTAIN, 0.0
        return guess, self._sigma * float(torch.special.ndtri(torch.tensor(lower[0])))

    def count(self, x: Tensor, n: int, batch_size: int) -> IntArray:
        """Votes [K] of n draws."""
        counts = np.zeros(self._num_classes, dtype=np.int64)
        with torch.no_grad():
            for first in range(0, n, batch_size):
                rows = min(batch_size, n - first)
                batch = x.repeat((rows, 1, 1, 1))
                noise = torch.randn_like(batch) * self._sigma
                predictions = self._base_classifier(batch + noise).argmax(1)
                counts += np.bincount(predictions.numpy(), minlength=self._num_classes)
        return counts


def _network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        _, suffix = build("pixeldp_cnn", input_shape=(1, 28, 28), num_classes=CLASSES)
    return suffix.eval()


def _image() -> tuple[Tensor, str]:
    """The first MNIST test image, or random pixels where the data set is not at hand."""
    if config.data_folder() is None:
        generator = torch.Generator().manual_seed(SEED)
        return torch.rand((1, 28, 28), generator=generator), "random 28x28 pixels"
    return load("mnist", "test").images(range(1))[0], "MNIST test image 0"
