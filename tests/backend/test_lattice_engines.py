"""Lattice noise through every engine: the same features, bit by bit, with nothing to read."""

import numpy as np
import pytest
import torch
from torch import nn

from pixeldp_fast import Gaussian, Laplace, PixelDP, SmoothedClassifier
from pixeldp_fast.backends.native import NativeBackend
from pixeldp_fast.backends.reduction import RealParts, SoftmaxSums, Votes
from pixeldp_fast.backends.registry import prepared
from pixeldp_fast.noise import lattice, sampling
from pixeldp_fast.noise.sampling import noisy_definition
from pixeldp_fast.noise.stream import Purpose, Stream
from pixeldp_fast.plan.plan import make_plan
from pixeldp_fast.plan.rounding_budget import rounding_budget
from tests.helpers import leaks

STREAM = Stream(11, Purpose.ESTIMATION)
CPU = torch.device("cpu")
ISAS = ("portable", "avx2", "avx512")
LAWS = [Gaussian(0.5, lattice=255), Laplace(0.3, lattice=255)]
BACKENDS = ("reference", "torch", "native")
SHAPE = (3, 5, 5)
INDEX = np.array([4, 0], dtype=np.uint32)

each_law = pytest.mark.parametrize("law", LAWS, ids=repr)
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def network(outputs=4):
    torch.manual_seed(2)
    layers = (nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(150, outputs))
    return nn.Sequential(*layers).eval()


def images(examples=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (examples, *SHAPE), generator=generator).float() / 255


def engine_of(backend, law, reduction, **more):
    outputs = reduction.num_outputs
    plan = make_plan(nn.Identity().eval(), network(outputs), SHAPE, outputs)
    return prepared(backend, plan, law, reduction, CPU, **more)[1]


def bare(native, isa, shape):
    """The compiled engine without a network: its outputs are the noisy features."""
    try:
        network = native.Network(list(shape), 1.0, isa)
    except ValueError as error:
        pytest.skip(str(error))
    network.finish(0)
    return network


@each_law
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 3), (3, 19, 27)])
def test_the_fused_engine_has_the_features_of_the_definition(native, law, isa, shape):
    size, draws = int(np.prod(shape)), 21
    steps = np.arange(2 * size).reshape(2, size) % 256
    exact = noisy_definition(steps / 255, law, STREAM, INDEX, 40, draws)
    for threads, tile in ((1, 0), (3, 5)):
        made = bare(native, isa, shape).outputs_of_draws(
            law.native_law, law.noise_scale, STREAM.seed, int(STREAM.purpose), INDEX, 40, draws,
            steps.astype(np.float32), threads, tile, sampling.native_lattice(law),
        )  # fmt: skip
        assert np.array_equal(made, exact)


@pytest.mark.parametrize("isa", ISAS)
def test_the_fused_engine_does_not_tell_the_images_apart(native, isa):
    law = Gaussian(leaks.SIGMA, lattice=leaks.LEVELS)
    network = bare(native, isa, (3, 32, 32))

    def sampler(center, table):
        steps = lattice.whole_steps(center[None], 255) if table else center[None]
        return network.outputs_of_draws(
            0, law.sigma, 5, 1, INDEX[:1], 0, 200, steps, 1, 0, table
        )[0]  # fmt: skip

    table = sampling.native_lattice(law)
    assert leaks.leaks(lambda center: sampler(center, table)) == {}
    # The same engine's float noise is caught.
    assert "finer_than_2_to_minus_32" in leaks.leaks(lambda center: sampler(center, None))


@each_law
@pytest.mark.parametrize("reduction", [Votes(4), SoftmaxSums(4), RealParts(-1.0, 2.0)], ids=repr)
def test_engines_agree_but_for_draws_at_a_tie(law, reduction):
    x = images()
    tallies = [
        engine_of(backend, law, reduction).run(x, INDEX, STREAM, 7, 600) for backend in BACKENDS
    ]
    for other in tallies[1:]:
        assert np.abs(other.counts - tallies[0].counts).max() <= 2
        if reduction != Votes(4):
            assert np.allclose(other.sums, tallies[0].sums, rtol=1e-4, atol=600)


@each_law
@each_backend
def test_tallies_add_up_over_any_split(law, backend):
    x, engine = images(3), engine_of(backend, law, Votes(4))
    index = np.array([4, 0, 9], dtype=np.uint32)
    whole = engine.run(x, index, STREAM, 3, 130)
    parts = engine.run(x, index, STREAM, 3, 65) + engine.run(x, index, STREAM, 68, 65)
    assert whole == parts
    for b in range(3):
        alone = engine.run(x[b : b + 1], index[b : b + 1], STREAM, 3, 130)
        assert (alone.counts == whole.counts[b]).all()
    assert engine.run(x, index, STREAM, 3, 0).counts.sum() == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_tiles_change_nothing(native, threads):
    x, before = images(), torch.get_num_threads()
    expected = engine_of("native", LAWS[0], Votes(4)).run(x, INDEX, STREAM, 0, 300)
    torch.set_num_threads(threads)
    try:
        for tile in (1, 16, 4096):
            engine = engine_of("native", LAWS[0], Votes(4), tile=tile)
            assert engine.run(x, INDEX, STREAM, 0, 300) == expected
    finally:
        torch.set_num_threads(before)


@each_backend
def test_the_arithmetic_does_not_name_a_source_of_noise_that_changes_no_bit(backend):
    words = engine_of(backend, LAWS[0], Votes(4)).arithmetic
    assert "noise native" not in words
    assert "noise torch" not in words


@each_backend
def test_features_that_are_not_finite_lose_every_draw(backend):
    prefix = nn.Conv2d(3, 3, 1, bias=False)
    nn.init.constant_(prefix.weight, 3e38)
    law = Gaussian(0.5, lattice=4096)
    plan = make_plan(prefix.eval(), network(), SHAPE, 4)
    engine = prepared(backend, plan, law, Votes(4), CPU)[1]
    x = torch.stack([torch.zeros(SHAPE), torch.full(SHAPE, torch.inf)])
    counts = engine.run(x, INDEX, STREAM, 0, 50).counts
    assert counts[1].tolist() == [0, 0, 0, 0, 50]
    assert counts[0, -1] == 0


# --- what the leak is worth --------------------------------------------------------------------


class LowBits(nn.Module):
    """A classifier that answers a question about low-order bits: class 1 for yes."""

    def __init__(self, question):
        super().__init__()
        self.question = question

    def forward(self, x):
        yes = torch.from_numpy(self.question(x.flatten(1).float().numpy()))
        return torch.stack([~yes, yes], dim=1).to(x.dtype)


BLACK = torch.zeros(1, 3, 32, 32)
GREY = torch.full((1, 3, 32, 32), leaks.IMAGES["grey"].item())


@pytest.mark.parametrize("question", leaks.QUESTIONS, ids=lambda q: q.__name__)
def test_lattice_certificates_hold_where_those_of_float_noise_are_false(question):
    """The whole point: the images are 0.217 apart, well within the certified radius."""
    distance = float((GREY - BLACK).norm())
    assert distance == pytest.approx(0.217, abs=1e-3)
    law = Gaussian(leaks.SIGMA, lattice=leaks.LEVELS)
    model = LowBits(question).eval()
    sound = SmoothedClassifier(model, law, num_classes=2, backend="torch", seed=1)
    certificate = sound.certify(BLACK, n=1000, index=0)
    assert certificate.sound == "lattice"
    assert certificate.radius[0] > distance
    assert sound.predict(GREY, 200, index=0) == certificate.prediction


def test_a_certificate_of_float_noise_is_false_and_says_that_it_is_of_real_arithmetic():
    question = leaks.finer_than_2_to_minus_32
    classifier = SmoothedClassifier(
        LowBits(question).eval(), Gaussian(leaks.SIGMA), num_classes=2, backend="torch", seed=1
    )
    certificate = classifier.certify(BLACK, n=1000, index=0)
    assert certificate.radius[0] > float((GREY - BLACK).norm())
    assert classifier.predict(GREY, 200, index=0) != certificate.prediction
    assert certificate.sound == "real arithmetic"


# --- behind a prefix ---------------------------------------------------------------------------


@each_backend
def test_sums_behind_a_prefix_start_from_centres_within_the_budget(backend, monkeypatch):
    """The centre that the engine rounds and adds to, taken from its sums at no noise at all."""
    torch.manual_seed(1)
    prefix = nn.Conv2d(3, 3, 3, padding=1).eval()
    law, budget = Gaussian(0.5, lattice=4096), rounding_budget(prefix, SHAPE, (0.0, 1.0))
    table = lattice.LatticeTable(np.array([1, 2**64 - 1], dtype=np.uint64), 1, 0)  # of no noise
    monkeypatch.setattr(lattice, "lattice_table", lambda mechanism: table)
    sampling.native_lattice.cache_clear()
    seen = []

    class Seeing(nn.Module):
        def forward(self, x):
            seen.append(x.detach().double().clone())
            return x.flatten(1)[:, :4]

    x = images()
    with torch.inference_mode():
        exact = nn.functional.conv2d(
            x.double(), prefix.weight.double(), prefix.bias.double(), padding=1
        )
    try:
        if backend == "native":
            plan = make_plan(prefix, network(), SHAPE, 4)
            engine = NativeBackend().prepare(plan, law, Votes(4), CPU)
            centers = lattice.whole_steps(engine._centers(engine._packed, x), 4096) / 4096
        else:
            plan = make_plan(prefix, Seeing().eval(), SHAPE, 4)
            engine = prepared(backend, plan, law, Votes(4), CPU)[1]
            rows = []
            for b in range(2):
                seen.clear()
                engine.run(x[b : b + 1], INDEX[:1], STREAM, 0, 1)
                rows.append(seen[-1][0].flatten())
            centers = torch.stack(rows).numpy()
    finally:
        sampling.native_lattice.cache_clear()
    off = np.abs(centers.reshape(2, -1) - exact.flatten(1).numpy())
    assert (off <= budget + 0.5 / 4096).all()
    assert off.max() > 0.25 / 4096  # rounded to the lattice indeed


def test_a_model_behind_a_prefix_is_certified_on_every_backend():
    torch.manual_seed(1)
    model = PixelDP(nn.Conv2d(3, 3, 3, padding=1), Gaussian(0.5, lattice=4096), network()).eval()
    radii = []
    for backend in BACKENDS:
        smoothed = SmoothedClassifier(model, num_classes=4, seed=1, backend=backend)
        made = smoothed.certify(images(), n=500, index=0)
        assert made.sound == "lattice"
        assert made.terms.inputs == "real"
        radii.append(made.radius)
    assert np.allclose(radii[0], radii[1], atol=0.02)
    assert np.allclose(radii[0], radii[2], atol=0.02)
