"""Whether noise follows its law: moments, tails, and the whole distribution."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy import special

from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.stream import Purpose, Stream
from pixeldp_fast.selftest.ideal import Ideal
from pixeldp_fast.selftest.outcome import LEVEL, Outcome, Source
from pixeldp_fast.selftest.samplers import Sampler
from pixeldp_fast.types import FloatArray

# 4 million values: a scale that is 1 % off is 18 standard errors of the variance away (Laplace; 28
# for Gaussian noise), and twice what the Kolmogorov-Smirnov test lets pass.
EXAMPLES, DRAWS, COORDINATES = 4, 1024, 1024
TAILS = (1e-2, 1e-3, 1e-4, 1e-5)  # on either side; the least has 42 values beyond


def law_tests(sampler: Sampler, mechanism: AbstractMechanism, seed: int) -> Iterator[Outcome]:
    """The tests of one sampler and mechanism, from one sample."""
    index = [3, 2**31, 77, 2**32 - 2]
    stream = Stream(seed, Purpose.VERIFICATION)
    values = sampler.draw(mechanism, stream, index, 1000, DRAWS, COORDINATES)
    assert values.shape == (EXAMPLES, DRAWS, COORDINATES)
    source, ideal = Source(sampler.name, repr(mechanism)), Ideal(mechanism)
    sample = np.sort(values.ravel().astype(np.float32)).astype(np.float64)  # twice as fast
    yield moments(source, sample, ideal)
    yield tails(source, sample, ideal)
    yield kolmogorov_smirnov(source, sample, ideal)


def moments(source: Source, sample: FloatArray, ideal: Ideal) -> Outcome:
    """Mean and variance, in standard errors; at this size both are normal to the level's digits."""
    variance, kurtosis = ideal.moments()
    n = len(sample)
    mean_z = float(sample.mean()) / math.sqrt(variance / n)
    found = float(np.mean(sample**2)) / variance
    variance_z = (found - 1) / math.sqrt((kurtosis - 1) / n)
    limit = float(-special.ndtri(LEVEL / 4))
    detail = f"mean {mean_z:+.1f}, variance {variance_z:+.1f} standard errors, of {limit:.1f}"
    return Outcome(source, "moments", max(abs(mean_z), abs(variance_z)) <= limit, detail, LEVEL)


def tails(source: Source, sample: FloatArray, ideal: Ideal) -> Outcome:
    """How many values lie beyond far points on either side, against the exact binomial law."""
    n, worst, detail = len(sample), 1.0, ""
    for probability in TAILS:
        at, exact = ideal.upper_tail(probability)
        above = n - int(np.searchsorted(sample, at, side="right"))
        below = int(np.searchsorted(sample, -at, side="left"))
        for side, count in ((">", above), ("< -", below)):
            p = binomial_p_value(count, n, exact)
            if p < worst:
                worst, detail = p, f"{count} values {side}{at:.3g}, expected {n * exact:.0f}"
    passed = worst >= LEVEL / (2 * len(TAILS))
    return Outcome(source, "tails", passed, f"{detail}, p = {worst:.1g}", LEVEL)


def binomial_p_value(k: int, n: int, p: float) -> float:
    """Two-sided: twice the smaller tail."""
    low = special.betainc(n - k, k + 1, 1 - p) if k < n else 1.0
    high = special.betainc(k, n - k + 1, p) if k > 0 else 1.0
    return float(min(2 * low, 2 * high, 1.0))


def kolmogorov_smirnov(source: Source, sample: FloatArray, ideal: Ideal) -> Outcome:
    """The largest gap between the sample's distribution and the law; on a lattice conservative."""
    n = len(sample)
    law = ideal.cdf(sample)
    above = (np.arange(1, n + 1) / n - law).max()
    if ideal.mechanism.lattice is None:
        below = (law - np.arange(n) / n).max()
    else:  # only at the values themselves, of which many are equal
        last = np.flatnonzero(np.append(sample[1:] != sample[:-1], True))
        above = below = float(np.abs((last + 1) / n - law[last]).max())
    gap = float(max(above, below))
    p = float(special.kolmogorov(math.sqrt(n) * gap))
    detail = f"Kolmogorov-Smirnov: largest gap {gap:.2g}, p = {p:.2g}"
    return Outcome(source, "distribution", p >= LEVEL, detail, LEVEL)
