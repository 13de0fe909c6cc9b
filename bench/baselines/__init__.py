"""The contenders, each at its best; the list is literal."""

from __future__ import annotations

from bench.baselines.art import Art
from bench.baselines.base import AbstractContender
from bench.baselines.compiled import Compiled
from bench.baselines.eager import Eager
from bench.baselines.frozen import Frozen
from bench.baselines.layouts import CHANNELS_LAST, PLAIN
from bench.baselines.ours import Ours

OURS: AbstractContender = Ours("native")
CONTENDERS: tuple[AbstractContender, ...] = (
    OURS,
    Ours("torch"),
    Eager(PLAIN),
    Eager(CHANNELS_LAST),
    Frozen(PLAIN),
    Frozen(CHANNELS_LAST),
    Compiled(PLAIN, freezing=False),
    Compiled(CHANNELS_LAST, freezing=False),
    Compiled(PLAIN, freezing=True),
    Compiled(CHANNELS_LAST, freezing=True),
    Art(),
)


def by_name(name: str) -> AbstractContender:
    """The contender of that name."""
    return {contender.name: contender for contender in CONTENDERS}[name]
