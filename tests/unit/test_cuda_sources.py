"""The CUDA C++ that ships as source: compiled, and run on the host's processor, not on a device."""

import ctypes
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pixeldp_fast import config
from pixeldp_fast.backends.cuda import compiler
from pixeldp_fast.backends.cuda.noise import NoiseLaunch, described, noisy
from pixeldp_fast.backends.triton.draws import Draws
from pixeldp_fast.errors import (
    CompilationFailed,
    InvalidArgument,
    MissingCompiler,
    UnsupportedBackend,
)
from pixeldp_fast.noise.sampling import add_noise, noise_definition, noise_source
from pixeldp_fast.noise.stream import Purpose, Stream
from tests.cases import MECHANISM_IDS, MECHANISMS

STREAM = Stream(2**63 + 12345, Purpose.ESTIMATION)
REGISTERS = 40  # read from the compiler, so that six blocks of 256 threads are resident
HOST = r"""
#include "cuda/noise.cuh"

template <pixeldp::Law kLaw>
static void fill(const pixeldp::NoiseLaunch& a) {
  for (std::int64_t row = 0; row < a.rows; ++row)
    for (std::int64_t at = 0; at < pixeldp::blocks_of(a); ++at)
      pixeldp::noise_block<kLaw, float>(a, row, at, [](float x) { return x; });
}

extern "C" int pixeldp_noise_launch_size() { return sizeof(pixeldp::NoiseLaunch); }

extern "C" void fill_law(const pixeldp::NoiseLaunch* a, int law) {
  if (law == 0) fill<pixeldp::Law::gaussian>(*a);
  if (law == 1) fill<pixeldp::Law::laplace>(*a);
  if (law == 2) fill<pixeldp::Law::uniform>(*a);
}
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """The code of one thread, compiled for this processor and run for every thread of a launch."""
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    folder = tmp_path_factory.mktemp("host")
    (folder / "host.cpp").write_text(HOST)
    source = compiler.sources()
    command = ["g++", "-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
    command += ["-shared", "-fPIC", "-I", str(source), "-I", str(source / "include")]
    subprocess.run([*command, "-o", "host.so", "host.cpp"], cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "host.so"))


def made(host, mechanism, center, index, n, rows, channels, first_draw=0, first_row=0, **options):
    """Rows of a launch, [rows, pixels, channels], from the host's run of the kernel's code."""
    flat = center.flatten(1)
    out = torch.full((rows, flat.shape[1] // channels, channels), torch.nan)
    draws = Draws(
        mechanism.native_law,
        mechanism.noise_scale,
        STREAM.seed,
        int(STREAM.purpose),
        first_draw,
        n,
        len(flat),
        first_row,
    )
    address = torch.tensor(index, dtype=torch.int64)
    affine = (options.get("scale"), options.get("shift"), options.get("slope", 1.0))
    launch = described(flat, address, draws, out, channels, *affine)
    host.fill_law(ctypes.byref(launch), draws.law)
    assert not out.isnan().any()
    return out


def channels_first(rows, shape):
    return rows.view(len(rows), shape[1], shape[2], shape[0]).permute(0, 3, 1, 2)


def test_the_launch_has_the_same_layout_on_both_sides(host):
    assert host.pixeldp_noise_launch_size() == ctypes.sizeof(NoiseLaunch)


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=MECHANISM_IDS)
@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 7, 9), (5, 3, 3), (32, 14, 14)], ids=str)
def test_rows_have_the_bits_of_the_compiled_modules_noise(host, native, mechanism, shape):
    assert noise_source(mechanism) == "native"
    center = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
    index, n, first_draw = [7, 2**32 - 2], 33, 2**32 - 33
    expected = add_noise(center, mechanism, STREAM, index, first_draw, n).flatten(0, 1)
    rows = made(host, mechanism, center, index, n, 66, shape[0], first_draw)
    assert torch.equal(channels_first(rows, shape), expected)


def test_many_values_are_near_the_definition(host):
    mechanism, coordinates = MECHANISMS[0], 40_000
    exact = noise_definition(mechanism, STREAM, [3], 0, 50, coordinates)[0]
    rows = made(host, mechanism, torch.zeros(1, coordinates), [3], 50, 50, 1)
    assert np.abs(rows.view(50, coordinates).numpy() - exact).max() < 1e-5 * mechanism.sigma


def test_launches_of_any_first_row_cut_the_same_rows_out(host):
    mechanism, center = MECHANISMS[0], torch.rand(3, 2, 4, 4)
    whole = made(host, mechanism, center, [4, 5, 6], 10, 30, 2)
    for first in (0, 7, 10, 29):
        part = made(host, mechanism, center, [4, 5, 6], 10, 16, 2, first_row=first)
        kept = min(16, 30 - first)
        assert torch.equal(part[:kept], whole[first : first + kept])
    assert torch.isfinite(part).all()  # padding repeats the last example


def test_affine_and_activation_follow_the_noise(host):
    mechanism, center = MECHANISMS[0], torch.rand(1, 3, 4, 4)
    scale, shift = torch.tensor([1.5, -2.0, 0.25]), torch.tensor([0.0, 1.0, -1.0])
    plain = made(host, mechanism, center, [1], 8, 8, 3)
    found = made(host, mechanism, center, [1], 8, 8, 3, scale=scale, shift=shift, slope=0.1)
    exact = torch.nn.functional.leaky_relu(plain.double() * scale + shift, 0.1)
    assert torch.allclose(found.double(), exact, rtol=1e-6, atol=1e-6)


def test_a_launch_elsewhere_is_refused():
    draws = Draws(0, 1.0, 1, 1, 0, 4, 1, 0)
    tensors = torch.zeros(1, 8), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(UnsupportedBackend, match="run on NVIDIA GPUs, the tensors are on cpu"):
        noisy(*tensors, draws, torch.zeros(4, 8), channels=1)
    with pytest.raises(InvalidArgument, match="`out` must be"):
        noisy(*tensors, draws, torch.zeros(4, 9), channels=1)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return config.cache_folder() / "cuda"


@pytest.fixture
def with_nvcc():
    """NVIDIA's compiler."""
    try:
        return compiler.nvcc()
    except MissingCompiler:
        pytest.skip("nvcc is not installed")


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)], ids=["sm_80", "sm_90a"])
def test_every_kernel_compiles_without_spills(cache, with_nvcc, capability):
    path = compiler.library("noise", compiler.architecture(capability))
    log = path.with_suffix(".log").read_text()
    assert len(re.findall("Compiling entry function", log)) == 9  # laws times types
    counts = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes", log)
    assert counts == [("0", "0", "0")] * 9
    assert max(int(r) for r in re.findall(r"Used (\d+) registers", log)) <= REGISTERS
    # The host's half loads without a driver, and describes the launch as Python does.
    assert compiler.load(path).pixeldp_noise_launch_size() == ctypes.sizeof(NoiseLaunch)


@pytest.fixture
def small(tmp_path):
    """A folder of sources with one short kernel."""
    (tmp_path / "source" / "cuda").mkdir(parents=True)
    (tmp_path / "source" / "cuda" / "small.cu").write_text(
        '#include "cuda/part.cuh"\n__global__ void add(float* x) { *x += kStep; }\n'
    )
    (tmp_path / "source" / "cuda" / "part.cuh").write_text("constexpr float kStep = 1.0f;\n")
    return tmp_path / "source"


def test_the_cache_is_keyed_by_content(cache, with_nvcc, small, monkeypatch):
    first = compiler.library("small", "80", folder=small)
    stamp = first.stat().st_mtime_ns
    assert compiler.library("small", "80", folder=small) == first
    assert first.stat().st_mtime_ns == stamp
    assert compiler.key(small, "90a", with_nvcc) != compiler.key(small, "80", with_nvcc)
    part = small / "cuda" / "part.cuh"
    part.write_text(part.read_text().replace("1", "2"))
    second = compiler.library("small", "80", folder=small)
    assert second != first
    assert {first, second} <= set(cache.glob("*.so"))
    assert not [p for p in cache.iterdir() if p.is_dir()]  # no scratch folder is left
    monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, "-lineinfo"))
    assert compiler.key(small, "80", with_nvcc) not in (
        p.stem.split("-")[-1] for p in (first, second)
    )


def test_a_failed_compile_says_what_the_compiler_said(cache, with_nvcc, small):
    (small / "cuda" / "part.cuh").write_text("constexpr float kStep = nonsense;\n")
    with pytest.raises(CompilationFailed, match=r'(?s)nvcc failed.*small\.cu.*"nonsense"'):
        compiler.library("small", "80", folder=small)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_has_a_name(tmp_path, with_nvcc, small, monkeypatch):
    (tmp_path / "file").write_text("in the way of a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(CompilationFailed, match=r"cannot be written .*XDG_CACHE_HOME"):
        compiler.library("small", "80", folder=small)


def test_a_missing_compiler_has_a_name(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(MissingCompiler, match=r"neither in CUDA_HOME .* nor on the path"):
        compiler.library("noise", "80")


def test_a_broken_library_and_an_old_device_are_named(tmp_path):
    broken = tmp_path / "broken.so"
    broken.write_text("no library")
    with pytest.raises(CompilationFailed, match=r"broken\.so does not load"):
        compiler.load(broken)
    with pytest.raises(CompilationFailed, match=r"8\.0 and above, the device has 7\.5"):
        compiler.architecture((7, 5))


def test_nothing_is_compiled_at_import():
    code = (
        "import subprocess; subprocess.run = None; subprocess.Popen = None\n"
        "import pixeldp_fast.backends.cuda.noise"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_build_ships_every_source():
    tomllib = pytest.importorskip("tomllib")
    root = Path(__file__).parents[2]
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["scikit-build"]
    shipped = {root / place for place in settings["wheel"]["packages"].values()}
    needed = list(compiler.sources().rglob("*.cu*"))
    assert needed
    assert all(any(folder in path.parents for folder in shipped) for path in needed)
