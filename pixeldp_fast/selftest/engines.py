"""Engines against the linear classifier: counts, single votes, and how these scatter."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from scipy import special

from pixeldp_fast.backends.base import AbstractEngine
from pixeldp_fast.backends.reduction import Votes
from pixeldp_fast.backends.registry import BACKENDS
from pixeldp_fast.config import triton_interpreted
from pixeldp_fast.noise.gaussian import Gaussian
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.stream import Purpose, Stream
from pixeldp_fast.selftest.laws import binomial_p_value
from pixeldp_fast.selftest.linear import LinearTask, linear_task
from pixeldp_fast.selftest.outcome import LEVEL, Outcome, Source
from pixeldp_fast.types import FloatArray, IntArray

# Per example: a scale that is 1 % off is then 8.7 standard errors away for Laplace noise and 12 for
# Gaussian noise. The reference takes fewer: its noise is the definition, which is tested by itself.
DRAWS, REFERENCE_DRAWS = 2**19, 2**14
SINGLE = 96  # draws per example and purpose whose votes are compared one by one
EXAMPLES, CELLS, CELL_DRAWS = 16, 48, 64  # whose counts are compared with each other
_NEAR = 1e-4  # of the noise: a score nearer to 0 may fall either way in float32
_TILE = 4096  # for the engines that evaluate modules: small networks want large tiles


def engine_tests(
    name: str, mechanism: AbstractMechanism, device: torch.device, seed: int
) -> Iterator[Outcome]:
    """The tests of one backend and mechanism; none where the backend does not run it."""
    backend = next(b for b in BACKENDS if b.name == name)
    task, votes = linear_task(mechanism, device), Votes(2)
    if not backend.supports(task.plan, mechanism, votes, device).ok:
        return
    engine = backend.prepare(task.plan, mechanism, votes, device, tile=_TILE)
    source = Source(f"{name} engine, {device}", repr(mechanism))
    yield counts(source, engine, task, seed, REFERENCE_DRAWS if name == "reference" else DRAWS)
    yield single_votes(source, engine, task, seed)
    yield scatter(source, engine, task, seed)


def runs_here(name: str, device: torch.device) -> bool:
    """Whether a backend runs the first of the tasks on this device."""
    backend = next(b for b in BACKENDS if b.name == name)
    task = linear_task(Gaussian(1.0), device)
    return backend.supports(task.plan, task.mechanism, Votes(2), device).ok


def backends_here(device: torch.device) -> list[str]:
    """The backends to test where none is named: not kernels in an interpreter."""
    slow = {"triton"} if triton_interpreted() or device.type == "cpu" else set()
    return [b.name for b in BACKENDS if b.name not in slow]


def counts(
    source: Source, engine: AbstractEngine, task: LinearTask, seed: int, draws: int = DRAWS
) -> Outcome:
    """Votes against their exact probabilities: each example's, and all together as a scale."""
    stream, index = Stream(seed, Purpose.ESTIMATION), np.arange(len(task.x))
    hits = engine.run(task.x, index, stream, 5000, draws).counts[:, 1]
    p, slopes = task.probabilities(), task.slopes()
    values = [binomial_p_value(int(k), draws, float(q)) for k, q in zip(hits, p, strict=True)]
    # The score of the scale: these weights make it as sensitive as it can be.
    weights = slopes / (p * (1 - p))
    information = draws * float(np.sum(slopes * weights))
    off = float(np.sum(weights * (hits - draws * p))) / information
    error = 1 / math.sqrt(information)
    limit = float(-special.ndtri(LEVEL / 4)) * error
    passed = min(values) >= LEVEL / (2 * len(values)) and abs(off) <= limit
    detail = f"scale {100 * off:+.2f} % off, of {100 * limit:.2f} %; counts p = {min(values):.1g}"
    return Outcome(source, "known p", passed, detail, LEVEL)


def single_votes(source: Source, engine: AbstractEngine, task: LinearTask, seed: int) -> Outcome:
    """Draws one at a time against the definition's votes at the same addresses."""
    wrong = compared = 0
    for purpose, first in ((Purpose.SELECTION, 0), (Purpose.ESTIMATION, 2**32 - SINGLE)):
        stream, index = Stream(seed, purpose), np.arange(7, 7 + len(task.x))
        scores = task.scores(stream, index, first, SINGLE)
        made = np.stack(
            [engine.run(task.x, index, stream, first + i, 1).counts[:, 1] for i in range(SINGLE)],
            axis=1,
        )
        sure = np.abs(scores) > _NEAR * task.mechanism.noise_scale
        wrong += int(np.sum(sure & (made != (scores > 0))))
        compared += int(np.sum(sure))
    detail = f"{wrong} of {compared} votes are not those of the definition"
    return Outcome(source, "single votes", wrong == 0, detail, 0.0)


def scatter(source: Source, engine: AbstractEngine, task: LinearTask, seed: int) -> Outcome:
    """Counts of small groups of draws: as scattered as independent draws, in every direction.

    Draws that several examples share add up in a group, those of several groups in an example,
    those that repeat within a group widen its count, and those of two purposes agree.
    """
    first, second = (
        _standardised(engine, task, Stream(seed, purpose))
        for purpose in (Purpose.SELECTION, Purpose.ESTIMATION)
    )
    sums = {
        "examples": np.sum(first, axis=1) / math.sqrt(EXAMPLES),
        "groups": np.sum(first, axis=0) / math.sqrt(CELLS),
        "draws": first.ravel(),
        "purposes": ((first + second) / math.sqrt(2)).ravel(),
    }
    values = {name: _chi_square_p_value(z) for name, z in sums.items()}
    worst = min(values, key=lambda name: values[name])
    passed = values[worst] >= LEVEL / len(values)
    return Outcome(source, "scatter", passed, f"between {worst}: p = {values[worst]:.1g}", LEVEL)


def _standardised(engine: AbstractEngine, task: LinearTask, stream: Stream) -> FloatArray:
    """Counts of one input at many addresses as standard scores, float64 [CELLS, EXAMPLES]."""
    x = task.x[:1].expand(EXAMPLES, *task.x.shape[1:]).contiguous()
    index: IntArray = np.arange(100, 100 + EXAMPLES)
    p = float(task.probabilities()[0])
    made = [
        engine.run(x, index, stream, cell * CELL_DRAWS, CELL_DRAWS).counts[:, 1]
        for cell in range(CELLS)
    ]
    counted: FloatArray = np.array(made, dtype=np.float64)
    return (counted - CELL_DRAWS * p) / math.sqrt(CELL_DRAWS * p * (1 - p))


def _chi_square_p_value(z: FloatArray) -> float:
    """Two-sided, for standard scores; of binomial counts it errs towards passing."""
    total, freedom = float(np.sum(z**2)), z.size
    return float(2 * min(special.chdtr(freedom, total), special.chdtrc(freedom, total)))
