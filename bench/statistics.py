"""Time per confidence interval, vectorised."""

from __future__ import annotations

import numpy as np

from bench.ledger import Row
from bench.timing import interleaved
from pixeldp_fast.stats import clopper_pearson_lower, confidence_sequence

CASE = "statistics"
INTERVALS, N, ALPHA = 100_000, 100_000, 0.001
REPEATS = 7


def run() -> list[Row]:
    """Microseconds per interval on one core, hits spread evenly over 0..n."""
    hits = np.linspace(0, N, INTERVALS).astype(np.int64)
    times = interleaved(
        {
            "Clopper-Pearson": lambda: clopper_pearson_lower(hits, N, ALPHA),
            "confidence sequence (two ends)": lambda: confidence_sequence(hits, N, ALPHA),
        },
        REPEATS,
    )
    rows = []
    for name, seconds in times.items():
        low, value, high = np.percentile(seconds.seconds / INTERVALS * 1e6, [20, 50, 80])
        note = f"n = {N}, alpha = {ALPHA}, {INTERVALS} intervals at once, one thread, CPU time"
        rows.append(Row(CASE, name, "time per interval", value, low, high, "us", note))
    return rows
