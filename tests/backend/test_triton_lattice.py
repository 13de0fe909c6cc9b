"""The Triton kernel of lattice noise: the definition's bits in the interpreter, and its code."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from pixeldp_fast import Gaussian, Laplace
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise import lattice as tables
from pixeldp_fast.noise.philox import words_numpy
from pixeldp_fast.noise.sampling import noisy_definition
from pixeldp_fast.noise.stream import Purpose, Stream
from tests.helpers import leaks
from tests.unit.test_triton_code import tools_present

pytest.importorskip("triton")

from pixeldp_fast.backends.triton import lattice
from pixeldp_fast.backends.triton.draws import Draws
from pixeldp_fast.backends.triton.math import INTERPRETED

interpreted = pytest.mark.skipif(
    not INTERPRETED.value, reason="Triton's interpreter is off, and no device is used here"
)
SEED = 0x89ABCDEF12345678
LAWS = [Gaussian(0.5, lattice=255), Laplace(0.3, lattice=255), Gaussian(0.01, lattice=64)]


def draws_of(n, examples, first_draw=0, first_row=0):
    return Draws(0, 1.0, SEED, int(Purpose.ESTIMATION), first_draw, n, examples, first_row)


def made(center, address, draws, law, rows, channels=1):
    pixels = center.shape[1] // channels
    shape = (rows, pixels, channels) if channels > 1 else (rows, pixels)
    out = torch.full(shape, torch.nan)
    lattice.noisy(center, torch.tensor(address), draws, law, out, channels=channels)
    if channels > 1:
        out = out.permute(0, 2, 1).reshape(rows, -1)
    return out.numpy()


def defined(center, address, draws, law):
    wide = center.double().numpy() / law.lattice
    stream = Stream(draws.seed, draws.purpose)
    return noisy_definition(wide, law, stream, address, draws.first_draw, draws.n)


@interpreted
@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize(("channels", "pixels"), [(1, 1), (1, 513), (3, 25), (5, 7)])
def test_it_has_the_bits_of_the_definition(law, channels, pixels):
    generator = torch.Generator().manual_seed(1)
    center = torch.randint(-300, 300, (2, channels * pixels), generator=generator).int()
    address, draws = [4, 2**32 - 2], draws_of(3, 2, first_draw=2**31 - 1)
    found = made(center, address, draws, law, 6, channels)
    expected = defined(center, address, draws, law).reshape(6, -1)
    assert np.array_equal(found, expected)


@interpreted
def test_any_launch_makes_the_same_rows_and_pads_with_the_last_example():
    center = torch.arange(20).view(2, 10).int()
    whole = made(center, [1, 2], draws_of(4, 2), LAWS[0], 8)
    later = made(center, [1, 2], draws_of(4, 2, first_row=3), LAWS[0], 8)
    assert np.array_equal(later[:5], whole[3:])
    assert np.isfinite(later).all()


@interpreted
def test_words_at_the_edges_of_the_table(monkeypatch):
    """Thresholds at, below and above the words that are drawn, through the kernel itself."""
    table = tables.lattice_table(LAWS[0])
    draws, center = draws_of(2, 1), torch.zeros(1, 6, dtype=torch.int32)
    stream = Stream(SEED, Purpose.ESTIMATION)
    words = words_numpy(stream, [9], 0, 2, 3).astype(np.uint64)
    values = ((words[..., 0::2] << np.uint64(32)) | words[..., 1::2]).ravel()
    edges = np.sort(np.concatenate([values - np.uint64(1), values, values + np.uint64(1)]))
    ends = np.array([0, 2**64 - 1], dtype=np.uint64)
    edges = np.concatenate([ends[:1], edges, ends[1:]])
    planted = tables.LatticeTable(edges, len(edges) // 2, table.tau)
    monkeypatch.setattr(tables, "lattice_table", lambda mechanism: planted)
    monkeypatch.setattr(lattice, "lattice_table", lambda mechanism: planted)
    lattice._thresholds.cache_clear()
    try:
        found = made(center, [9], draws, LAWS[0], 2)
        assert np.array_equal(found, defined(center, [9], draws, LAWS[0])[0])
    finally:
        lattice._thresholds.cache_clear()


@interpreted
def test_it_does_not_tell_the_images_apart():
    law = Gaussian(leaks.SIGMA, lattice=leaks.LEVELS)

    def sampler(center):
        steps = torch.from_numpy(tables.to_lattice(center[None], 255)).int()
        return made(steps, [3], draws_of(2, 1), law, 2, 3)

    assert leaks.leaks(sampler) == {}


def test_what_it_would_misread_is_refused():
    center, address = torch.zeros(1, 4, dtype=torch.int32), torch.tensor([1])
    out, draws = torch.zeros(2, 4), draws_of(2, 1)
    for arguments, message in (
        ((center, address, draws, Gaussian(0.5), out), "no lattice"),
        ((center.float(), address, draws, LAWS[0], out), "center"),
        ((center + 2**24, address, draws, LAWS[0], out), "within"),
        ((center, address, draws, LAWS[0], out.double()), "out"),
        ((center, address, draws_of(1, 2), LAWS[0], out), "draws"),
        ((center, address, draws, LAWS[0], torch.zeros(2, 5)), "out"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            lattice.noisy(*arguments, channels=1)


COMPILE = """
import json, torch
from pixeldp_fast import Gaussian
from pixeldp_fast.backends.triton import lattice
from pixeldp_fast.backends.triton.draws import Draws
from tests.helpers.cubins import compiled, recorded
with recorded(lattice) as launches:
    meta = lambda *shape, dtype: torch.empty(shape, dtype=dtype, device="meta")
    lattice.noisy(
        meta(2, 3072, dtype=torch.int32), meta(2, dtype=torch.int64),
        Draws(0, 1.0, 5, 1, 0, 64, 2, 0), Gaussian(0.5, lattice=255),
        meta(128, 1024, 3, dtype=torch.float32), channels=3)
print(json.dumps({str(c): compiled(launches[0], c).asm["ptx"] for c in (80, 90)}))
"""


@pytest.mark.skipif(not tools_present(), reason="Triton has no compiler here")
def test_the_compiled_code_divides_exactly_and_adds_integers():
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=True
    )
    for code in json.loads(done.stdout.splitlines()[-1]).values():
        assert "div.rn.f32" in code
        assert "div.full" not in code
        assert "fma" not in code
        assert "cvt.rn.f32.s32" in code
