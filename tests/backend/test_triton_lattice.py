"""The Triton kernel of lattice noise: the definition's bits in the interpreter, and its code."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from pixeldp_fast import Gaussian, Laplace, SmoothedClassifier
from pixeldp_fast.backends import registry
from pixeldp_fast.backends.pytorch import TorchBackend
from pixeldp_fast.backends.reduction import Votes
from pixeldp_fast.errors import InvalidArgument, UnsupportedBackend
from pixeldp_fast.noise import lattice as tables
from pixeldp_fast.noise.philox import words_numpy
from pixeldp_fast.noise.sampling import noisy_definition
from pixeldp_fast.noise.stream import Purpose, Stream
from tests.helpers import leaks
from tests.helpers.capture import outputs_of
from tests.helpers.networks import K, conv_behind_prefix, examples, mlp, plan_of
from tests.unit.test_triton_code import tools_present

pytest.importorskip("triton")

from pixeldp_fast.backends.triton import kernels, lattice
from pixeldp_fast.backends.triton.draws import Draws
from pixeldp_fast.backends.triton.fronts import TritonNoise
from pixeldp_fast.backends.triton.math import INTERPRETED
from pixeldp_fast.backends.triton.whole import TritonChain
from tests.helpers.triton_paths import BACKEND, CPU, STREAM
from tests.helpers.triton_paths import prepared as engine_of

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
        ((center, address, draws, LAWS[0], out.double()), "out"),
        ((center, address, draws_of(1, 2), LAWS[0], out), "draws"),
        ((center, address, draws, LAWS[0], torch.zeros(2, 5)), "out"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            lattice.noisy(*arguments, channels=1)


# --- in the engine -----------------------------------------------------------------------------


def whole_weights(make):
    """A plan whose sums are exact on a lattice of a power of two: any order, the same logits."""
    plan = plan_of(make)
    with torch.no_grad():
        for weight in plan.suffix.parameters():
            weight.copy_((weight * 20).round().clamp(-3, 3))
    return plan


def small_map():
    layers = (nn.ReLU(), nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(27, K))
    return nn.Identity(), nn.Sequential(*layers), (2, 3, 3)


def dense_map():
    """What the kernel of a whole network takes where noise is made in floats."""
    layers = (nn.Flatten(), nn.Linear(18, 16), nn.ReLU(), nn.Linear(16, K))
    return nn.Identity(), nn.Sequential(*layers), (2, 3, 3)


EXACT = [Gaussian(0.5, lattice=256), Laplace(0.3, lattice=256)]
NETWORKS = [mlp, small_map, dense_map]
INDEX = np.array([7, 2**32 - 2], dtype=np.uint32)


@interpreted
@pytest.mark.parametrize("law", EXACT, ids=repr)
@pytest.mark.parametrize("network", NETWORKS, ids=lambda f: f.__name__)
def test_votes_are_those_of_the_other_engines_draw_by_draw(network, law):
    plan, x = whole_weights(network), examples(plan_of(network), 2)
    made = engine_of(plan, Votes(K), mechanism=law)
    others = [registry.prepared(b, plan, law, Votes(K), CPU)[1] for b in ("torch", "reference")]
    for first, n in ((0, 1), (1, 1), (2**32 - 1, 1), (120, 20)):
        votes = made.run(x, INDEX, STREAM, first, n)
        for other in others:
            assert votes == other.run(x, INDEX, STREAM, first, n)
    # All outputs of many draws, none of them counted by a kernel.
    case = plan, law, x, INDEX, STREAM, 100, 40
    assert torch.equal(outputs_of(BACKEND, *case), outputs_of(TorchBackend(), *case))


@interpreted
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_narrower_networks_read_the_same_lattice(dtype):
    made = engine_of(plan_of(mlp), Votes(K), mechanism=LAWS[0], dtype=dtype)
    assert "noise lattice" in made.arithmetic
    assert made.run(examples(plan_of(mlp), 2), INDEX, STREAM, 0, 30).draws.tolist() == [30, 30]


@interpreted
def test_kernels_that_make_noise_in_floats_are_not_asked_for_a_lattice(monkeypatch):
    class Greedy(TritonChain):
        def claim(self, graph, first, target):
            raise AssertionError("asked")

    plan = plan_of(dense_map)
    assert " mlp(" in engine_of(plan, Votes(K)).arithmetic
    monkeypatch.setattr(kernels, "WHOLES", (Greedy(),))
    words = engine_of(plan, Votes(K), mechanism=LAWS[0]).arithmetic
    assert "noise lattice >" in words
    assert "mlp(" not in words
    with pytest.raises(AssertionError, match="asked"):
        engine_of(plan, Votes(K))
    monkeypatch.undo()
    assert "lattice" not in engine_of(plan_of(small_map), Votes(K)).arithmetic


@interpreted
def test_one_that_claims_a_lattice_and_makes_floats_is_refused(monkeypatch):
    class Floats(TritonNoise):
        on_lattice = True

    monkeypatch.setattr(kernels, "FRONTS", (Floats(),))
    with pytest.raises(UnsupportedBackend, match="the kernel's noise is"):
        engine_of(plan_of(mlp), Votes(K), mechanism=LAWS[0])


@interpreted
@pytest.mark.parametrize("fault", ["center", "draw", "floats first"])
def test_a_tile_that_is_one_step_off_is_refused(fault, monkeypatch):
    original = lattice.noisy

    def planted(center, address, draws, law, out, *, channels):
        several = draws.examples > 1  # the plain noise passes
        if fault == "center" and several:
            center = center + 1
        if fault == "draw" and several:
            draws = draws._replace(first_draw=draws.first_draw + 1)
        original(center, address, draws, law, out, channels=channels)
        if fault == "floats first" and several:
            out.mul_(law.lattice).mul_(np.float32(1 / law.lattice).item())

    monkeypatch.setattr(lattice, "noisy", planted)
    with pytest.raises(UnsupportedBackend, match="not what the definition gives"):
        engine_of(plan_of(mlp), Votes(K), mechanism=LAWS[0])


@interpreted
def test_features_that_are_not_finite_lose_every_draw_and_far_ones_are_refused():
    plan = whole_weights(mlp)
    made = engine_of(plan, Votes(K), mechanism=EXACT[0])
    x = torch.stack([torch.full((5,), torch.nan), torch.zeros(5), torch.zeros(5)])
    x[2, 1] = -torch.inf
    index = np.array([1, 2, 3], dtype=np.uint32)
    counts = made.run(x, index, STREAM, 0, 20).counts
    assert counts[[0, 2]].tolist() == [[0] * K + [20]] * 2
    assert counts[1, K] == 0
    with pytest.raises(InvalidArgument, match="steps of 1/256"):
        made.run(torch.full((1, 5), 2.0**16), index[:1], STREAM, 0, 20)


@interpreted
def test_centres_behind_a_prefix_are_summed_in_float64_as_its_budget_has_it():
    plan = plan_of(conv_behind_prefix)
    made = engine_of(plan, Votes(K), mechanism=Gaussian(0.5, lattice=4096))
    x = examples(plan, 1)
    with torch.inference_mode():
        exact = nn.functional.conv2d(x.double(), plan.prefix.weight.double(), stride=2, padding=1)
        assert torch.equal(made._centers(x), exact.float().flatten(1))


@interpreted
def test_a_certificate_says_lattice():
    model = nn.Sequential(nn.Linear(3, K)).eval()
    smoothed = SmoothedClassifier(model, LAWS[0], num_classes=K, backend="triton", seed=1)
    made = smoothed.certify(torch.eye(3)[:1], n0=20, n=200)
    assert made.sound == "lattice"
    assert "noise lattice" in made.terms.arithmetic


COMPILE = """
import json, torch
from pixeldp_fast import Gaussian, Laplace
from pixeldp_fast.backends.triton import lattice
from pixeldp_fast.backends.triton.draws import Draws
from tests.helpers.cubins import compiled, reading, recorded
with recorded(lattice) as launches:
    meta = lambda *shape, dtype: torch.empty(shape, dtype=dtype, device="meta")
    lattice.noisy(
        meta(2, 3072, dtype=torch.int32), meta(2, dtype=torch.int64),
        Draws(0, 1.0, 5, 1, 0, 64, 2, 0), Gaussian(0.5, lattice=255),
        meta(128, 1024, 3, dtype=torch.float32), channels=3)
    lattice.noisy(
        meta(2, 13, dtype=torch.int32), meta(2, dtype=torch.int64),
        Draws(0, 1.0, 5, 1, 0, 64, 2, 0), Laplace(0.3, lattice=255),
        meta(128, 13, dtype=torch.bfloat16), channels=1)
made = []
for launch in launches:
    for c in (80, 90):
        found = reading(launch, c)
        made.append([compiled(launch, c).asm["ptx"], found["stack"], found["spills"]])
print(json.dumps(made))
"""


@pytest.mark.skipif(not tools_present(), reason="Triton has no compiler here")
def test_the_compiled_code_divides_exactly_and_adds_integers():
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=True
    )
    made = json.loads(done.stdout.splitlines()[-1])
    assert len(made) == 4
    for code, stack, spills in made:
        assert (stack, spills) == (0, 0)
        assert "div.rn.f32" in code
        assert "div.full" not in code
        assert "fma" not in code
        assert "cvt.rn.f32.s32" in code
