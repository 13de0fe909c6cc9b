"""What a second thread brings: wall clock, and the CPU time of the busier of the two."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from bench.timing import Times, interleaved, ratio

Spread = tuple[float, float, float]


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Torch's number of threads, which is the package's, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def scaling(run: Callable[[], object], repeats: int) -> tuple[Spread, Spread]:
    """Two threads over one: by wall clock, and by CPU time of the busier thread.

    Threads take tiles as they become free. So where other work holds one of them up, the other does
    more than its half, and both figures are too low: they say what the engine can do only on a
    machine with two idle cores.
    """

    def on(threads: int) -> Callable[[], None]:
        def call() -> None:
            with torch_threads(threads):
                run()

        return call

    wall = interleaved({"one": on(1), "two": on(2)}, repeats, time.perf_counter)
    pairs = [(_busiest(on(1)), _busiest(on(2))) for _ in range(repeats)]
    one, two = (Times(np.array(seconds)) for seconds in zip(*pairs, strict=True))
    return ratio(wall["two"], wall["one"]), ratio(two, one)


def _busiest(run: Callable[[], object]) -> float:
    """CPU time of the busier thread, where the caller and at most one other do the work."""
    mine, all_threads = time.thread_time(), time.process_time()
    run()
    mine, all_threads = time.thread_time() - mine, time.process_time() - all_threads
    return max(mine, all_threads - mine)
