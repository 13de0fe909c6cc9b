"""Noise per core: our sampler, with the features added, against bare `torch.randn`."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import torch

from bench.isa import native_isa
from bench.ledger import Row
from bench.timing import interleaved, ratio
from pixeldp_fast import Gaussian, Laplace, Uniform
from pixeldp_fast.noise.sampling import native_module, noise_definition
from pixeldp_fast.noise.stream import Purpose, Stream

CASE = "noise"
DRAWS, COORDINATES = 128, 6272  # a tile of the PixelDP CNN behind its first convolution
REPEATS = 60
STREAM = Stream(1, Purpose.ESTIMATION)


def run() -> list[Row]:
    """Rows for the machine's own instruction set, and for AVX2 against torch limited to AVX2."""
    rows = measure()
    if native_isa() == "avx512":
        rows += _in_child("avx2")
    return rows


def measure() -> list[Row]:
    """One thread, CPU time; correctness first."""
    torch.set_num_threads(1)
    isa, module = native_isa(), native_module()
    if module is None:
        raise SystemExit("The compiled module is not installed: nothing to measure.")
    index = np.array([0], dtype=np.uint32)
    center = np.zeros((1, COORDINATES), dtype=np.float32)
    out = np.empty((1, DRAWS, COORDINATES), dtype=np.float32)
    theirs = torch.empty(DRAWS, COORDINATES)

    def ours(law: int) -> None:
        module.add_noise(law, 1.0, STREAM.seed, 1, index, 0, center, out, 1, isa)

    mechanisms = (Gaussian(1.0), Laplace(1.0), Uniform(1.0))
    for mechanism in mechanisms:
        assert mechanism.native_law is not None
        ours(mechanism.native_law)
        exact = noise_definition(mechanism, STREAM, [0], 0, 8, COORDINATES)
        if np.abs(out[:, :8] - exact).max() > 2e-6:
            raise SystemExit(f"{mechanism} differs from its definition: no timing.")
    contenders = {type(m).__name__: (lambda law=m.native_law: ours(law)) for m in mechanisms} | {
        "torch.randn": theirs.normal_
    }
    times = interleaved(contenders, REPEATS)
    rows = []
    for name, seconds in times.items():
        label = name if name == "torch.randn" else f"{name}, {isa}"
        rate = seconds.rate(DRAWS * COORDINATES / 1e6)
        rows.append(Row(CASE, label, "values per core", *rate, "million/s", _note(isa)))
        if name != "torch.randn":
            pair = ratio(seconds, times["torch.randn"])
            rows.append(Row(CASE, label, "times torch.randn", *pair, "1", _note(isa)))
    return rows


def _note(isa: str) -> str:
    return f"{isa}, torch {torch.backends.cpu.get_cpu_capability()}, one thread, CPU time"


def _in_child(isa: str) -> list[Row]:
    """The same measurement in a process in which torch, too, is limited to `isa`."""
    environment = os.environ | {"ATEN_CPU_CAPABILITY": isa, "PIXELDP_ISA": isa}
    code = "from bench.noise import measure; print([tuple(vars(r).values()) for r in measure()])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    import ast

    return [Row(*values) for values in ast.literal_eval(done.stdout)]
