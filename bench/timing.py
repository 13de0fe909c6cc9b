"""Interleaved timing: contenders take turns, so that a busy moment meets all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Times:
    """Seconds per repeat of one contender."""

    seconds: npt.NDArray[np.float64]

    def rate(self, work: float) -> tuple[float, float, float]:
        """Work per second: median, 20th and 80th percentile."""
        rates = work / self.seconds
        return tuple(float(v) for v in np.percentile(rates, [50, 20, 80]))  # type: ignore[return-value]


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.thread_time,
) -> dict[str, Times]:
    """Time every contender `repeats` times in turn, after one warm-up each.

    The default clock is the CPU time of this thread: right for single-threaded work, and blind to
    what else the machine does. Pass `time.perf_counter` for work on several threads.
    """
    for run in contenders.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return {name: Times(np.array(values)) for name, values in seconds.items()}


def ratio(ours: Times, theirs: Times) -> tuple[float, float, float]:
    """How many times faster, pair by pair: median, 20th and 80th percentile."""
    pairs = theirs.seconds / ours.seconds
    return tuple(float(v) for v in np.percentile(pairs, [50, 20, 80]))  # type: ignore[return-value]
