"""Interleaved timing: contenders take turns, so that a busy moment meets all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Times:
    """Seconds per repeat of one contender."""

    seconds: npt.NDArray[np.float64]

    def rate(self, work: float) -> tuple[float, float, float]:
        """Work per second: median, 20th and 80th percentile."""
        rates = work / self.seconds
        return tuple(float(v) for v in np.percentile(rates, [50, 20, 80]))  # type: ignore[return-value]

    @property
    def best(self) -> float:
        """Seconds of the fastest repeat."""
        return float(self.seconds.min())


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.thread_time,
) -> dict[str, Times]:
    """Time every contender `repeats` times in turn, after one warm-up each.

    The default clock is the CPU time of this thread: right for single-threaded work, and blind to
    what else the machine does. Pass `time.process_time` where a contender could have threads that
    should not be there, and `time.perf_counter` for work on several threads.
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


def fastest(
    choices: Iterable[Choice],
    run: Callable[[Choice], object],
    repeats: int,
    work: Callable[[Choice], float] = lambda choice: 1.0,
    clock: Callable[[], float] = time.process_time,
) -> tuple[Choice, dict[Choice, float]]:
    """The choice that takes the least time per unit of work, and every choice's best repeat so.

    Each choice runs once before it is timed.
    """
    best: dict[Choice, float] = {}
    for choice in choices:
        run(choice)
        for _ in range(repeats):
            start = clock()
            run(choice)
            best[choice] = min(best.get(choice, float("inf")), (clock() - start) / work(choice))
    return min(best, key=lambda choice: best[choice]), best
