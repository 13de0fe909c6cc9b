"""The order and the time of the GPU measurement: `python -m bench gpu --minutes 10`, three times.

A unit is a network in one dtype. Each has a share of time after which its process is ended; shares
are below three minutes and fill three calls of ten, even where every unit takes all of its own:

    call 1    mlp784, mlp128, pixeldp_cnn, resnet20, resnet110 in bfloat16, mlp784 in float32
    call 2    resnet50, wide_resnet28_10 in bfloat16; mlp128, pixeldp_cnn, resnet20 in float32
    call 3    resnet110, resnet50, wide_resnet28_10 in float32; what was left incomplete, once more

By value: bfloat16 first, whose figures are the aim; in a dtype the networks that our kernels take
whole, then those of the convolution libraries. A call begins no unit that could end too late, and
fills the rest of its time with later units that fit. The ledger is what is remembered between
calls: carry `bench/results` along where each call has a fresh machine, and `build/gpu-cache`, in
which the compilers find what they made before a unit's time was up.

Within a unit, by parts of its share: all contenders are prepared (ours, eager, Cohen's loop, ours
by torch, and last the compiled one, which takes what is left), pass the gate, and are timed in
turns, at least `REPEATS[0]` times each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

# Parts of a unit's share at whose end a phase is over, and the most that one contender's preparing
# takes. What is left at the end is for starting, and for printing the rows.
PREPARED, GATED, TIMED = 0.74, 0.84, 0.95
ONE = 0.5
REPEATS = (3, 15)
MARGIN = 20.0  # seconds of a call: before its first unit, and for ending the last


@dataclass(frozen=True)
class Share:
    """A unit and the seconds after which it is ended."""

    case: str
    dtype: str
    seconds: float

    @property
    def key(self) -> tuple[str, str]:
        """Network and dtype."""
        return self.case, self.dtype


BF16, FP32 = "bfloat16", "float32"
# By call. A call that does its own part in order always can: whatever is faster only leaves time.
PARTS = (
    (
        Share("mlp784", BF16, 70),
        Share("mlp128", BF16, 60),
        Share("pixeldp_cnn", BF16, 80),
        Share("resnet20", BF16, 110),
        Share("resnet110", BF16, 170),
        Share("mlp784", FP32, 70),
    ),
    (
        Share("resnet50", BF16, 170),
        Share("wide_resnet28_10", BF16, 150),
        Share("mlp128", FP32, 60),
        Share("pixeldp_cnn", FP32, 80),
        Share("resnet20", FP32, 110),
    ),
    (
        Share("resnet110", FP32, 170),
        Share("resnet50", FP32, 170),
        Share("wide_resnet28_10", FP32, 150),
    ),
)
PLAN = tuple(share for part in PARTS for share in part)


@dataclass
class Budget:
    """The time of a unit, from when its process was begun: imports are part of it."""

    seconds: float
    start: float = field(default_factory=time.time)
    clock: Callable[[], float] = time.time

    def until(self, part: float) -> float:
        """Seconds until this part of the share is over; below 0 where it is."""
        return self.start + part * self.seconds - self.clock()

    @property
    def one(self) -> float:
        """The most that preparing one contender takes, now."""
        return min(self.until(PREPARED), ONE * self.seconds)


def order(
    plan: Sequence[Share], complete: Collection[tuple[str, str]], tried: Collection[tuple[str, str]]
) -> list[Share]:
    """The units that are not complete, those that were never tried first."""
    left = [share for share in plan if share.key not in complete]
    return sorted(left, key=lambda share: share.key in tried)  # stable


def units(
    waiting: Sequence[Share], minutes: float | None, clock: Callable[[], float] = time.monotonic
) -> Iterator[Share]:
    """Each unit once, the first that fits what is left of the call; ends where none does.

    Parameters
    ----------
    minutes : float or None
        Of the call; None: as long as it takes.
    """
    left = list(waiting)
    end = float("inf") if minutes is None else clock() + 60 * minutes - MARGIN
    while fitting := [share for share in left if clock() + share.seconds <= end]:
        left.remove(fitting[0])
        yield fitting[0]
