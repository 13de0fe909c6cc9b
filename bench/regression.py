"""How wide the certified interval of a regressor is by each bound, on wine and on digits' ink.

The regressors are trained here, by the package's own settings; the widths do not depend on time.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from bench.ledger import Row
from pixeldp_fast import Gaussian, SmoothedRegressor
from pixeldp_fast.data.tasks import open_task
from pixeldp_fast.smooth.regression_terms import BOUNDS
from pixeldp_fast.train.regression import train_regressor

CASE = "regression"
TASKS = (("wine", None, 0.5), ("ink", "mnist", 0.25))  # task, images, sigma
SHARES = (0.2, 0.5, 1.0)  # radii, in units of sigma
EXAMPLES, N, ALPHA, SEED = 300, 10_000, 0.001, 2019


def run() -> list[Row]:
    """Median width and its 20th and 80th percentile over the examples, by bound and radius."""
    return [row for task in TASKS for row in _task(*task)]


def _task(task: str, images: str | None, sigma: float) -> list[Row]:
    train, test = (open_task(task, split, images=images) for split in ("train", "test"))
    model = train_regressor(train, Gaussian(sigma))
    smoothed = SmoothedRegressor(
        model, low=test.low, high=test.high, clip=True, seed=SEED, input_range=test.input_range
    )
    rows = np.arange(EXAMPLES)
    start = time.perf_counter()
    found = smoothed.certify(
        test.batch(rows), [share * sigma for share in SHARES], n=N, alpha=ALPHA, index=rows
    )
    rate = EXAMPLES * N / (time.perf_counter() - start)
    error = float(np.abs(found.mean - test.values(rows)).mean())
    note = (
        f"{smoothed.mechanism}, range {test.high - test.low:g}, n = {N}, alpha = {ALPHA}, "
        f"{EXAMPLES} test examples, {torch.get_num_threads()} threads, {found.terms.backend}"
    )
    out = [
        Row(CASE, test.name, "mean absolute error", error, error, error, test.quantity, note),
        Row(CASE, test.name, "rate", rate, rate, rate, "draws/s", note),
    ]
    for bound in BOUNDS:
        width = found.recertify(bound=bound).width  # [B, R]
        for share, column in zip(SHARES, width.T, strict=True):
            low, median, high = (float(v) for v in np.percentile(column, [20, 50, 80]))
            metric = f"{bound} at {share:g} sigma"
            out.append(Row(CASE, test.name, metric, median, low, high, test.quantity, note))
    return out
