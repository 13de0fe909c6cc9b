"""What exact noise costs: lattice against float noise, in whole certificates and by itself."""

from __future__ import annotations

import time
from functools import partial

import numpy as np

from bench import cases
from bench.isa import native_isa
from bench.ledger import Row
from bench.threads import torch_threads
from bench.timing import interleaved, ratio
from pixeldp_fast import Gaussian, PixelDP, SmoothedClassifier
from pixeldp_fast.noise.lattice import lattice_table, tau
from pixeldp_fast.noise.sampling import native_lattice, native_module, noisy_definition
from pixeldp_fast.noise.stream import Purpose, Stream

CASE = "lattice"
NETWORK, LEVELS, REPEATS = "resnet20", 255, 10
DRAWS, COORDINATES = 128, 3072  # of the sampler alone: a tile of images
PRICE = "time of lattice over float noise"
STREAM = Stream(1, Purpose.ESTIMATION)


def run() -> list[Row]:
    """One thread, CPU time of the process; every sum is compared with its definition first."""
    if native_module() is None:
        raise SystemExit("The compiled module is not installed: nothing to measure.")
    with torch_threads(1):
        return _network() + _sampler() + [_table()]


def _network() -> list[Row]:
    """Draws through the compiled engine, noise on the image."""
    case = cases.by_name(NETWORK)
    plain = case.model()
    x = (case.example() * LEVELS).round() / LEVELS
    jobs = {}
    for name, law in _laws(case.mechanism.sigma).items():
        model = PixelDP(None, law, plain.suffix).eval()
        jobs[name] = SmoothedClassifier(
            model, num_classes=cases.CLASSES, seed=cases.SEED, backend="native"
        )
    times = interleaved(
        {name: partial(job.count, x, case.draws, index=0) for name, job in jobs.items()},
        REPEATS,
        time.process_time,
    )
    note = f"{case.draws} draws, one thread, CPU time of the process, {native_isa()}"
    rows = [
        Row(CASE, f"{case.title}, {name}", "rate", *times[name].rate(case.draws), "draws/s", note)
        for name in jobs
    ]
    price = ratio(times["lattice"], times["floats"])
    label = f"{case.title}, native"
    return [
        *rows,
        Row(CASE, label, PRICE, *_inverse(price), "1", note),
    ]


def _sampler() -> list[Row]:
    """The sampler alone, features added, per core."""
    isa, module = native_isa(), native_module()
    assert module is not None
    index = np.zeros(1, dtype=np.uint32)
    steps = (np.arange(COORDINATES, dtype=np.float32) % 256)[None]
    laws = _laws(0.25)
    out = np.empty((1, DRAWS, COORDINATES), dtype=np.float32)

    def fill(name: str) -> None:
        table = native_lattice(laws[name]) if laws[name].lattice else None
        module.add_noise(0, 0.25, STREAM.seed, 1, index, 0, steps, out, 1, isa, table)

    fill("lattice")
    exact = noisy_definition(steps.astype(np.float64) / LEVELS, laws["lattice"], STREAM, [0], 0, 8)
    if not np.array_equal(out[:, :8], exact):
        raise SystemExit("Lattice noise differs from its definition: no timing.")
    times = interleaved({name: partial(fill, name) for name in laws}, 6 * REPEATS)
    note = f"sigma = 0.25, {isa}, one thread, CPU time"
    values = DRAWS * COORDINATES / 1e6
    rows = [
        Row(
            CASE,
            f"sampler, {name}",
            "values per core",
            *times[name].rate(values),
            "million/s",
            note,
        )
        for name in laws
    ]
    price = _inverse(ratio(times["lattice"], times["floats"]))
    return [*rows, Row(CASE, "sampler", PRICE, *price, "1", note)]


def _table() -> Row:
    """Making the table, once in a process."""
    law = Gaussian(0.5, lattice=LEVELS)
    lattice_table.cache_clear()
    start = time.process_time()
    table = lattice_table(law)
    seconds = time.process_time() - start
    note = (
        f"{law}, {2 * table.reach + 1} bins, tau = {tau(law, COORDINATES):.2g} at D = {COORDINATES}"
    )
    return Row(CASE, "table", "time", seconds, seconds, seconds, "s", note)


def _laws(sigma: float) -> dict[str, Gaussian]:
    return {"floats": Gaussian(sigma), "lattice": Gaussian(sigma, lattice=LEVELS)}


def _inverse(times_faster: tuple[float, float, float]) -> tuple[float, float, float]:
    """How many times slower, from how many times faster: percentiles change places."""
    middle, low, high = times_faster
    return 1 / middle, 1 / high, 1 / low
