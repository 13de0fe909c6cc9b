"""Whether noise belongs to its address: as defined, at any address, and nowhere twice."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
from scipy import special

from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.stream import Purpose, Stream
from pixeldp_fast.selftest.outcome import LEVEL, Outcome, Source
from pixeldp_fast.selftest.samplers import DEFINITION, Sampler
from pixeldp_fast.types import FloatArray

# Of a scale, float32 against the definition in float64. The largest difference over 10^7 values
# of every law was 1.3e-6; another device's elementary functions may round differently.
TOLERANCE = 1e-5
ADDRESSES = 10  # of every purpose, at random
COORDINATES = 67  # not a multiple of anything
# Draws and examples of seed 0 whose first block holds a word within 60 of an end, found by search:
# Gaussian noise 6.3 sigma from 0 (a clamp of u at 1e-7 stops at 5.7), Laplace noise at 19 scales,
# and a u that float32 rounds to 1.
EXTREMES = ((191030, 24), (995677, 11), (1020714, 31), (654638, 21))
_PAIRED = 2**18  # values on each side of a correlation
_ROWS = 2**10  # draws that are looked through for repetitions, at every example and purpose


def stream_tests(sampler: Sampler, mechanism: AbstractMechanism, seed: int) -> Iterator[Outcome]:
    """The tests of one sampler and mechanism."""
    source = Source(sampler.name, repr(mechanism))
    if sampler is not DEFINITION:
        yield as_defined(source, sampler, mechanism, seed)
    yield uncorrelated(source, sampler, mechanism, seed)
    yield nowhere_twice(source, sampler, mechanism, seed)


def as_defined(
    source: Source, sampler: Sampler, mechanism: AbstractMechanism, seed: int
) -> Outcome:
    """Noise at scattered and at extreme addresses against the definition."""
    worst, at = 0.0, ""
    for stream, index, draw, n in _addresses(seed):
        asked = (mechanism, stream, index, draw, n, COORDINATES)
        difference = np.abs(sampler.draw(*asked) - DEFINITION.draw(*asked))
        error = float(difference.max()) / mechanism.noise_scale
        if not error <= worst:
            worst, at = error, f"{stream.purpose.name.lower()} draw {draw} of example {index[0]}"
    passed = worst <= TOLERANCE
    detail = f"largest difference {worst:.1e} of the scale" + ("" if passed else f", {at}")
    return Outcome(source, "addresses", passed, detail, 0.0)


def _addresses(seed: int) -> Iterator[tuple[Stream, list[int], int, int]]:
    """Stream, examples, first draw and number of draws."""
    generator = np.random.default_rng(seed)
    for purpose in Purpose:
        for example, draw in generator.integers(0, 2**32 - 4, (ADDRESSES, 2)).tolist():
            yield Stream(seed, purpose), [example, example + 1], draw, 3
    for draw, example in EXTREMES:
        yield Stream(0, Purpose.ESTIMATION), [example], draw, 1


def uncorrelated(
    source: Source, sampler: Sampler, mechanism: AbstractMechanism, seed: int
) -> Outcome:
    """Neighbouring coordinates, draws, examples, purposes and seeds, by their correlation."""
    draws = 64
    width = _PAIRED // draws

    def noise(example: int = 5, first: int = 0, purpose: int = 5, other: int = 0) -> FloatArray:
        stream = Stream((seed + other) % 2**64, Purpose(purpose))
        return np.asarray(sampler.draw(mechanism, stream, [example], first, draws, width)[0])

    base = noise()
    pairs = {
        "coordinates": (base[:, :-1], base[:, 1:]),
        "draws": (base, noise(first=1)),
        "distant draws": (base, noise(first=draws)),
        "examples": (base, noise(example=6)),
        "purposes": (base, noise(purpose=4)),
        "seeds": (base, noise(other=1)),
        "halves of the seed": (base, noise(other=2**32)),
    }
    scores = {name: _score(*pair) for name, pair in pairs.items()}
    worst = max(scores, key=lambda name: abs(scores[name]))
    limit = float(-special.ndtri(LEVEL / (2 * len(scores))))
    detail = f"{worst} {scores[worst]:+.1f} standard errors, of {limit:.1f}"
    return Outcome(source, "correlation", abs(scores[worst]) <= limit, detail, LEVEL)


def _score(first: FloatArray, second: FloatArray) -> float:
    """The correlation of two samples with mean 0, in standard errors."""
    scale = math.sqrt(float(np.mean(first**2)) * float(np.mean(second**2)))
    return float(np.mean(first * second)) / scale * math.sqrt(first.size)


def nowhere_twice(
    source: Source, sampler: Sampler, mechanism: AbstractMechanism, seed: int
) -> Outcome:
    """Many draws, examples and purposes, no two of which may be equal in 32 coordinates.

    Two coordinates coincide with probability below 1/100, two of these 2 10^5 rows with 1e-53.
    """
    rows = [
        sampler.draw(mechanism, Stream(seed, purpose), np.arange(16), first, _ROWS, 32)
        for purpose, first in itertools.product(Purpose, (0, 2**31))
    ]
    flat = np.concatenate([part.reshape(-1, part.shape[-1]) for part in rows])
    keys = np.ascontiguousarray(flat).view(np.dtype((np.void, flat.itemsize * flat.shape[1])))
    repeated = len(keys) - len(np.unique(keys))
    detail = f"{repeated} of {len(keys)} rows of noise are there before"
    return Outcome(source, "repetition", repeated == 0, detail, 1e-50)
