"""All tests of randomness on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

import torch

from pixeldp_fast.backends.registry import BACKENDS
from pixeldp_fast.errors import InvalidArgument, UnsupportedBackend
from pixeldp_fast.noise.gaussian import Gaussian
from pixeldp_fast.noise.laplace import Laplace
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.stream import checked_seed
from pixeldp_fast.noise.uniform import Uniform
from pixeldp_fast.selftest.engines import backends_here, engine_tests, runs_here
from pixeldp_fast.selftest.laws import law_tests
from pixeldp_fast.selftest.outcome import Outcome
from pixeldp_fast.selftest.samplers import samplers
from pixeldp_fast.selftest.streams import stream_tests

SEED = 20190519  # fixed, so that a run on a healthy machine is the same every time
MECHANISMS: tuple[AbstractMechanism, ...] = (
    Gaussian(0.5),
    Laplace(0.3),
    Uniform(0.8),
    Gaussian(0.5, lattice=255),
    Laplace(0.3, lattice=255),
)


Report = Callable[[int, int, str], None]


def steps(backend: str = "all", seed: int = SEED) -> list[tuple[str, Iterator[Outcome]]]:
    """The parts of the suite, named and not yet run.

    Parameters
    ----------
    backend : str
        One engine, or "all" that run here.
    seed : int
        In [0, 2^64).

    Raises
    ------
    InvalidArgument
        For a backend that does not exist, and for a seed out of range.
    """
    checked_seed(seed)
    known = [b.name for b in BACKENDS]
    if backend not in ("all", *known):
        raise InvalidArgument(f"`backend` must be all, {', '.join(known)}; got {backend!r}.")
    parts: list[tuple[str, Iterator[Outcome]]] = []
    for mechanism in MECHANISMS:
        for sampler in samplers(mechanism):
            tests = chain(
                law_tests(sampler, mechanism, seed), stream_tests(sampler, mechanism, seed)
            )
            parts.append((f"{sampler.name}, {mechanism!r}", tests))
        for device in _devices():
            for name in backends_here(device) if backend == "all" else [backend]:
                tests = chain(engine_tests(name, mechanism, device, seed))
                parts.append((f"{name} engine, {mechanism!r}", tests))
    return parts


def run(
    backend: str = "all", seed: int = SEED, report: Report = lambda done, total, name: None
) -> list[Outcome]:
    """Run the suite; `report` gets the parts done, those in all, and the name of the next one.

    Raises
    ------
    UnsupportedBackend
        When the named engine runs on no device here: it is not to pass for tested.
    """
    outcomes: list[Outcome] = []
    parts = steps(backend, seed)
    if backend != "all" and not any(runs_here(backend, device) for device in _devices()):
        raise UnsupportedBackend(f"The backend {backend} runs on no device of this machine.")
    for done, (name, tests) in enumerate(parts):
        report(done, len(parts), name)
        outcomes += tests
    report(len(parts), len(parts), "")
    return outcomes


def _devices() -> list[torch.device]:
    return [
        torch.device("cpu"),
        *(torch.device("cuda", i) for i in range(torch.cuda.device_count())),
    ]
