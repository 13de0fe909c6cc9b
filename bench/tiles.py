"""The price of batch invariance on PyTorch: tiles of a fixed shape, against batches cut to fit."""

from __future__ import annotations

import time

import torch

from bench.ledger import Row
from bench.timing import interleaved, ratio
from pixeldp_fast import Gaussian, PixelDP, SmoothedClassifier
from pixeldp_fast.models import build

CASE = "tiles"
REPEATS = 5
NETWORKS = {"pixeldp_cnn": (1, 28, 28), "resnet20": (3, 32, 32), "mlp": (1, 8, 8)}
DRAWS = (100, 1_000, 10_000)


def run() -> list[Row]:
    """Time at the default tile over time with one batch of exactly n rows (at most 1 000)."""
    rows = []
    for name, shape in NETWORKS.items():
        for n in DRAWS if name != "resnet20" else DRAWS[:2]:
            price = _price(name, shape, n)
            note = f"n = {n}, {torch.get_num_threads()} threads, wall clock"
            label = f"{name}, n = {n}"
            rows.append(Row(CASE, label, "time of fixed over fitted", *price, "1", note))
    return rows


def _price(name: str, shape: tuple[int, int, int], n: int) -> tuple[float, float, float]:
    torch.manual_seed(0)
    prefix, suffix = build(name, input_shape=shape, num_classes=10)
    model = PixelDP(prefix, Gaussian(0.5), suffix).eval()
    x = torch.rand(1, *shape)
    fixed, fitted = (
        SmoothedClassifier(model, num_classes=10, seed=1, backend="torch", tile=tile)
        for tile in (None, min(n, 1_000))
    )
    times = interleaved(
        {
            "fixed": lambda: fixed.count(x, n, index=0),
            "fitted": lambda: fitted.count(x, n, index=0),
        },
        REPEATS,
        time.perf_counter,
    )
    return ratio(times["fitted"], times["fixed"])
