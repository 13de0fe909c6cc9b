"""What is true of the compiled engine alone: its invariance, its refusals, its manners."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from pixeldp_fast import Gaussian, Laplace, SmoothedClassifier, Uniform
from pixeldp_fast.backends import network as native_network
from pixeldp_fast.backends.native import NativeBackend
from pixeldp_fast.backends.reduction import RealParts, SoftmaxSums, Votes
from pixeldp_fast.backends.registry import select
from pixeldp_fast.errors import UnsupportedBackend
from pixeldp_fast.noise.sampling import native_module, noise_definition
from pixeldp_fast.noise.stream import Purpose, Stream
from pixeldp_fast.plan.plan import make_plan
from tests.helpers.close import tolerance
from tests.helpers.networks import K, conv_behind_prefix, conv_on_image, examples, mlp, plan_of

CPU = torch.device("cpu")
NATIVE = NativeBackend()
STREAM = Stream(7, Purpose.ESTIMATION)
REDUCTIONS = (Votes(K), SoftmaxSums(K))

pytestmark = pytest.mark.skipif(native_module() is None, reason="the compiled module is not built")
each_reduction = pytest.mark.parametrize("reduction", REDUCTIONS, ids=lambda r: type(r).__name__)


def engine_of(plan, reduction=REDUCTIONS[0], **options):
    return NATIVE.prepare(plan, Gaussian(0.5), reduction, CPU, **options)


def tally_of(plan, reduction=REDUCTIONS[0], n=500, **options):
    x, index = examples(plan, 3), np.array([4, 0, 9])
    return engine_of(plan, reduction, **options).run(x, index, STREAM, 11, n)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@each_reduction
@pytest.mark.parametrize("network", [conv_behind_prefix, conv_on_image, mlp])
def test_threads_and_tiles_change_nothing(network, reduction, threads):
    plan = plan_of(network)
    threads(1)
    alone = tally_of(plan, reduction)
    for count, tile in ((2, None), (3, None), (1, 1), (2, 17), (5, 1000)):
        threads(count)
        assert tally_of(plan, reduction, tile=tile) == alone


@each_reduction
@pytest.mark.parametrize("network", [conv_behind_prefix, conv_on_image, mlp])
def test_instruction_sets_with_fused_products_give_the_same_bits(network, reduction, monkeypatch):
    plan = plan_of(network)
    features = torch.randn(37, *plan.noise_shape, generator=torch.Generator().manual_seed(1))
    found = {}
    for isa in ("portable", "avx2", "avx512"):
        monkeypatch.setenv("PIXELDP_ISA", isa)
        engine = engine_of(plan, reduction)
        result = engine.outputs(features), tally_of(plan, reduction)
        found.setdefault(engine.arithmetic, []).append(result)
    assert len(found) == 2 or native_module().isa() == "portable"
    for results in found.values():
        for outputs, tally in results[1:]:
            assert torch.equal(outputs, results[0][0])
            assert tally == results[0][1]
    arithmetics = [results[0][0] for results in found.values()]
    for outputs in arithmetics[1:]:
        assert torch.allclose(arithmetics[0], outputs, rtol=1e-4, atol=1e-5)


def test_ties_go_to_the_lowest_class_and_non_finite_outputs_vote_against():
    suffix = nn.Linear(1, K)
    with torch.no_grad():
        suffix.weight.copy_(torch.tensor([[0.0], [0.0], [-1.0], [0.0]]))
        suffix.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 1.0]))
    tie = make_plan(nn.Identity().eval(), suffix.eval(), (1,), K)
    tally = engine_of(tie).run(torch.full((1, 1), 1.0), np.array([0]), STREAM, 0, 300)
    assert tally.counts[0, 3] == 0
    assert tally.counts[0, 1] > 250

    huge = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, K))
    with torch.no_grad():
        huge[0].weight.fill_(3e38)
        huge[1].weight.copy_(torch.tensor([[1.0, 1.0], [1.0, -1.0], [0.0, 0.0], [0.0, 0.0]]))
    overflow = make_plan(nn.Identity().eval(), huge.eval(), (1,), K)
    for reduction in REDUCTIONS:
        engine = NATIVE.prepare(overflow, Gaussian(10.0), reduction, CPU)
        tally = engine.run(torch.zeros(1, 1), np.array([0]), STREAM, 0, 300)
        assert tally.counts[0, K] > 250
        assert tally.counts.sum() == 300


def test_a_maximum_keeps_nan():
    suffix = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False),
        nn.Conv2d(1, 1, 1),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1, K),
    )
    with torch.no_grad():
        suffix[0].weight.fill_(3e38)
        suffix[1].weight.fill_(0.0)  # infinity times zero
    plan = make_plan(nn.Identity().eval(), suffix.eval(), (1, 2, 2), K)
    rows = torch.zeros(4, 1, 2, 2)
    for row in range(4):
        rows[row, 0, row // 2, row % 2] = 10.0
    assert bool(engine_of(plan).outputs(rows).isnan().all())


def test_real_outputs_agree_with_their_definition():
    suffix = nn.Linear(5, 1).eval()
    plan = make_plan(nn.Identity().eval(), suffix, (5,), 1)
    x, index = examples(plan, 2), np.array([3, 1])
    reduction = RealParts(-0.5, 0.75)
    engine = NATIVE.prepare(plan, Gaussian(0.5), reduction, CPU)
    fused = engine.run(x, index, STREAM, 0, 400)
    engine._reduction = type("Other", (RealParts,), {})(-0.5, 0.75)  # not fused: outputs, reduced
    assert engine.run(x, index, STREAM, 0, 400) == fused


def test_edited_weights_and_settings_are_noticed():
    plan = plan_of(conv_on_image)
    engine = engine_of(plan)
    features = torch.randn(20, *plan.noise_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        edits = (
            lambda: plan.suffix[0].weight.data.mul_(1.5),
            lambda: plan.suffix[1].running_mean.add_(0.1),
            lambda: setattr(plan.suffix[2], "negative_slope", 0.3),
            lambda: setattr(plan.suffix[6], "bias", nn.Parameter(torch.ones(K))),
        )
        for edit in edits:
            before = engine.outputs(features)
            edit()
            after = engine.outputs(features)
            assert not torch.allclose(before, after, rtol=1e-3)
            assert torch.allclose(after, plan.suffix(features), rtol=1e-4, atol=1e-5)


def test_weights_that_are_not_finite_are_named():
    plan = plan_of(mlp)
    with torch.no_grad():
        plan.suffix[2].weight[0, 0] = torch.nan
    support = NATIVE.supports(plan, Gaussian(0.5), Votes(K), CPU)
    assert "suffix.2" in support.reason
    assert select("auto", plan, Gaussian(0.5), Votes(K), CPU).name == "torch"


def test_every_node_that_does_not_lower_is_named():
    suffix = nn.Sequential(
        nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 8), nn.Softplus(), nn.Linear(8, K)
    )
    plan = make_plan(nn.Identity().eval(), suffix.eval(), (5,), K)
    reason = NATIVE.supports(plan, Gaussian(0.5), Votes(K), CPU).reason
    assert "suffix.1" in reason
    assert "suffix.3" in reason


def test_too_little_memory_is_refused_before_any_work(tmp_path, monkeypatch):
    little = tmp_path / "meminfo"
    little.write_text("MemTotal: 64 kB\nMemAvailable: 16 kB\n")
    monkeypatch.setattr(native_network, "MEMORY", little)
    with pytest.raises(UnsupportedBackend, match="are free"):
        engine_of(plan_of(conv_on_image))
    monkeypatch.setattr(native_network, "MEMORY", tmp_path / "nothing")
    engine_of(plan_of(conv_on_image))


def test_arrays_of_the_wrong_kind_are_refused():
    network = native_module().Network([2, 4, 4], 1.0)
    ones = np.ones((3, 2, 3, 3), dtype=np.float32)
    bias = np.zeros(3, dtype=np.float32)
    square = ([1, 1], [0, 0, 0, 0], [1, 1])
    for weight in (ones.astype(np.float64), np.asfortranarray(ones)):
        with pytest.raises(TypeError):
            network.convolution(0, weight, bias, *square, 1, -1, 1.0, True)
    for wrong in (
        (1, ones, bias, *square, 1, -1, 1.0, True),  # no such value
        (0, ones, bias[:2], *square, 1, -1, 1.0, True),  # a bias too short
        (0, ones[:, :1].copy(), bias, *square, 1, -1, 1.0, True),  # channels
        (0, ones, bias, *square, 1, 0, 1.0, True),  # a residual of another shape
        (0, np.ones((3, 2, 5, 5), np.float32), bias, *square, 1, -1, 1.0, True),  # too large
        (0, ones, bias, [0, 1], *square[1:], 1, -1, 1.0, True),  # stride
    ):
        with pytest.raises(ValueError, match=r"\w"):
            network.convolution(*wrong)
    with pytest.raises(ValueError, match="not finished"):
        network.outputs_of_rows(np.zeros((1, 32), np.float32), 1)
    network.finish(network.convolution(0, ones, bias, *square, 1, -1, 1.0, True))
    with pytest.raises(ValueError, match="features"):
        network.outputs_of_rows(np.zeros((1, 31), np.float32), 1)
    with pytest.raises(TypeError):
        network.outputs_of_rows(np.zeros((1, 32)), 1)


def test_ctrl_c_stops_a_long_call():
    plan = plan_of(conv_on_image)
    engine = engine_of(plan)

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    start = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            engine.run(examples(plan, 1), np.array([0]), STREAM, 0, 2**31)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - start < 10  # a tenth of a second when idle; the call would take hours
    assert tally_of(plan).draws.tolist() == [500] * 3


FORK = """
import os, sys, threading, warnings
import numpy as np, torch
from pixeldp_fast import Gaussian, SmoothedClassifier
warnings.simplefilter("ignore")  # newer Pythons warn of forks beside threads
torch.set_num_threads(2)
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4)).eval()
smoothed = SmoothedClassifier(net, Gaussian(0.5), num_classes=4, seed=1, backend="native")
x = torch.full((1, 64), 0.5)
expected = smoothed.count(x, 2000, index=0).counts
busy = threading.Thread(target=lambda: smoothed.count(x, 400_000, index=1))
busy.start()
child = os.fork()
if child == 0:
    os._exit(0 if (smoothed.count(x, 2000, index=0).counts == expected).all() else 1)
busy.join()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_in_the_middle_of_a_call_gives_correct_results_on_both_sides():
    done = subprocess.run([sys.executable, "-c", FORK], timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_choice_is_recorded_and_certificates_do_not_depend_on_threads(threads):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, K)).eval()
    smoothed = SmoothedClassifier(net, Gaussian(0.5), num_classes=K, seed=3)
    x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    threads(1)
    one = smoothed.certify(x, n=1000, index=0)
    threads(2)
    two = smoothed.certify(x, n=1000, index=0)
    assert one.terms.backend == "native"
    assert one.terms == two.terms
    assert (one.counts == two.counts).all()


def random_block(random, shape):
    """A layer or residual block for a map [C, H, W], and the map behind it."""
    channels, height, width = shape
    kind = random.integers(9)
    if kind == 0:
        return nn.Sequential(nn.LeakyReLU(float(random.uniform(0, 1)))), shape
    if kind == 1:
        norm = nn.BatchNorm2d(channels)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
        return nn.Sequential(norm, nn.ReLU()), shape
    if kind == 2 and min(height, width) >= 2:
        window = tuple(int(n) for n in random.integers(1, 3, 2))
        pool = (nn.MaxPool2d, nn.AvgPool2d)[random.integers(2)](
            window, ceil_mode=bool(random.integers(2))
        )
        return pool, tuple(pool(torch.zeros(1, *shape)).shape[1:])
    if kind == 3:
        size = (int(random.integers(1, height + 1)), int(random.integers(1, width + 1)))
        return nn.AdaptiveAvgPool2d(size), (channels, *size)
    if kind in (4, 5):
        return Residual(channels), shape
    groups = int(random.choice([g for g in (1, 2, 3) if channels % g == 0]))
    kernel = [int(random.integers(1, min(5, n) + 1)) for n in (height, width)]
    convolution = nn.Conv2d(
        channels,
        groups * int(random.integers(1, 12)),
        kernel,
        stride=tuple(int(n) for n in random.integers(1, 3, 2)),
        padding=tuple(int(random.integers(0, k)) for k in kernel),
        groups=groups,
        bias=bool(random.integers(2)),
    )
    out = tuple(convolution(torch.zeros(1, *shape)).shape[1:])
    return nn.Sequential(convolution, nn.ReLU()), out


class Residual(nn.Module):
    """relu(x + conv(relu(conv(x)))), 3x3 of stride 1."""

    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.second = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, x):
        return torch.relu(x + self.second(torch.relu(self.first(x))))


@pytest.mark.parametrize("seed", range(40))
def test_random_networks_agree_with_float64(seed):
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    shape = input_shape = tuple(int(n) for n in random.integers(1, (8, 14, 14)))
    blocks = []
    for _ in range(random.integers(1, 6)):
        block, shape = random_block(random, shape)
        blocks.append(block)
    suffix = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(int(np.prod(shape)), K)).eval()
    plan = make_plan(nn.Identity().eval(), suffix, input_shape, K)
    engine = engine_of(plan)
    for rows in (1, 3, 63, 64, 65):
        features = torch.randn(rows, *input_shape)
        with torch.no_grad():
            eager = suffix(features)
            exact = suffix.double()(features.double())
        suffix.float()
        outputs = engine.outputs(features).double()
        assert float((outputs - exact).abs().max()) <= tolerance(exact, eager)


@pytest.mark.parametrize("mechanism", [Gaussian(0.5), Laplace(0.3), Uniform(0.8)], ids=repr)
@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
def test_the_noise_inside_the_engine_is_the_addressed_one(mechanism, isa):
    """A network without operations: its outputs are the features under noise, lane by lane."""
    native = native_module()
    try:
        native.isa(isa)
    except ValueError:
        pytest.skip(f"this processor has no {isa}")
    stream, index = Stream(2**64 - 5, Purpose.ESTIMATION), np.array([4, 2**32 - 2], np.uint32)
    for shape in ([1, 1, 1], [3, 1, 1], [2, 3, 3], [1, 1, 513], [511, 1, 1], [3, 19, 27]):
        size = int(np.prod(shape))
        network = native.Network(shape, 1.0, isa)
        network.finish(0)
        centers = np.random.default_rng(0).random((2, size)).astype(np.float32)
        for first, n in ((0, 1), (11, 37), (2**32 - 19, 19)):
            exact = centers[:, None] + noise_definition(mechanism, stream, index, first, n, size)
            law = (mechanism.native_law, mechanism.noise_scale, stream.seed, int(stream.purpose))
            for spread in ((1, 0), (3, 5)):
                found = network.outputs_of_draws(*law, index, first, n, centers, *spread)
                assert np.abs(found - exact).max() < 5e-6


class Tangle(nn.Module):
    """Maps of one shape that are read long after they are made, and sums of all kinds of them."""

    def __init__(self, random, channels):
        super().__init__()
        self.layers = nn.ModuleList()
        self.plan = []
        for made in range(1, int(random.integers(3, 9))):
            kind = int(random.integers(4))
            kernel = int(random.choice([1, 3]))
            self.layers.append(nn.Conv2d(channels, channels, kernel, padding=kernel // 2))
            self.plan.append((kind, *(int(v) for v in random.integers(0, made, 2))))

    def forward(self, x):
        values = [x]
        for layer, (kind, first, second) in zip(self.layers, self.plan, strict=True):
            a, b = values[first], values[second]
            made = (layer(a), layer(a) + b, torch.relu(layer(a) + b), torch.relu(a + b))[kind]
            values.append(made)
        return sum(values[1:], values[0])


@pytest.mark.parametrize("seed", range(30))
def test_values_that_are_read_late_are_still_there(seed):
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    shape = tuple(int(n) for n in random.integers(1, (6, 11, 11)))
    suffix = nn.Sequential(
        Tangle(random, shape[0]), nn.Flatten(), nn.Linear(int(np.prod(shape)), K)
    ).eval()
    plan = make_plan(nn.Identity().eval(), suffix, shape, K)
    features = torch.randn(35, *shape)
    outputs = engine_of(plan).outputs(features).double()
    with torch.no_grad():
        eager, exact = suffix(features), suffix.double()(features.double())
    assert float((outputs - exact).abs().max()) <= tolerance(exact, eager)


class Counting(nn.Module):
    """A function of its input and of how often it was called."""

    def __init__(self):
        super().__init__()
        self.linear, self.calls = nn.Linear(5, K), [0]

    def forward(self, x):
        self.calls[0] += 1
        return self.linear(x) * (1 + self.calls[0] % 7)


class BatchMinded(nn.Module):
    def forward(self, x):
        return -x[:, :K] if x.shape[0] >= 100 else x[:, :K]


class EveryThird(nn.Module):
    def forward(self, x):
        return -x[:, :K] if x.shape[0] % 3 == 0 else x[:, :K]


@pytest.mark.parametrize("suffix", [Counting, BatchMinded, EveryThird])
def test_what_is_no_function_of_one_example_is_not_compiled(suffix):
    plan = make_plan(nn.Identity().eval(), suffix().eval(), (5,), K)
    with pytest.raises(UnsupportedBackend):
        engine_of(plan)


class Scaled(nn.Module):
    """Scaled by what stands in a list, a plain tensor, and an object."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, K)
        self.steps, self.offset, self.inner = [1.0], torch.zeros(K), nn.Identity()

    def forward(self, x):
        return self.inner(self.linear(x) * self.steps[0] + self.offset)


def test_edits_outside_the_parameters_are_noticed():
    model = Scaled().eval()
    plan = make_plan(nn.Identity().eval(), model, (5,), K)
    engine = engine_of(plan)
    features = torch.randn(9, 5)
    model.steps[0] = 2.0
    assert torch.allclose(engine.outputs(features), model(features), atol=1e-5)
    model.offset += 1.0
    assert torch.allclose(engine.outputs(features), model(features), atol=1e-5)
    model.inner = nn.ReLU().eval()
    assert torch.allclose(engine.outputs(features), model(features), atol=1e-5)


class Acting(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.act = nn.Linear(5, K), lambda x: x

    def forward(self, x):
        return self.act(self.linear(x))


def test_an_exchanged_function_is_noticed_whatever_its_place_in_memory():
    model = Acting().eval()
    plan = make_plan(nn.Identity().eval(), model, (5,), K)
    engine = engine_of(plan)
    features = torch.randn(9, 5)
    for sign in (-1.0, 1.0, -1.0, 1.0):
        model.act = lambda x, sign=sign: x * sign
        assert torch.allclose(engine.outputs(features), model(features), atol=1e-5)


def test_a_certificate_is_of_the_module_whatever_was_edited():
    class Gain:
        value = 1.0

    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.gain = nn.Linear(5, K), Gain()

        def forward(self, x):
            return self.linear(x) * self.gain.value

    model = Hidden().eval()
    smoothed = SmoothedClassifier(
        model, Gaussian(0.5), num_classes=K, seed=3, backend="native", input_range=None
    )
    x = torch.randn(3, 5)
    before = smoothed.certify(x, n=200, index=0).counts
    model.gain.value = -1.0
    after = smoothed.certify(x, n=200, index=0).counts
    assert (before != after).any()
    fresh = SmoothedClassifier(
        model, Gaussian(0.5), num_classes=K, seed=3, backend="native", input_range=None
    )
    assert (after == fresh.certify(x, n=200, index=0).counts).all()


def test_flushed_subnormals_are_no_part_of_the_arithmetic():
    plan = plan_of(mlp)
    with torch.no_grad():
        plan.suffix[0].weight.mul_(1e-39)
        plan.suffix[2].weight.mul_(1e38)
    engine, x = engine_of(plan), examples(plan, 2)
    before = engine.run(x, np.arange(2), STREAM, 0, 300)
    torch.set_flush_denormal(True)
    try:
        assert engine.run(x, np.arange(2), STREAM, 0, 300) == before
    finally:
        torch.set_flush_denormal(False)


def test_lowering_leaves_the_model_to_the_other_threads():
    plan = plan_of(conv_on_image)
    x, broken = torch.randn(4, *plan.noise_shape), []
    done = threading.Event()

    def serve():
        while not done.is_set():
            try:
                plan.suffix(x).sum().item()
            except Exception as error:  # whatever a swapped weight brings about
                broken.append(error)
                return

    server = threading.Thread(target=serve)
    server.start()
    try:
        for _ in range(3):
            engine_of(plan)
    finally:
        done.set()
        server.join()
    assert broken == []


def test_auto_goes_on_where_the_engine_has_no_room():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 1, 33, padding=16), nn.Flatten(), nn.Linear(16, K)).eval()
    smoothed = SmoothedClassifier(net, Gaussian(0.5), num_classes=K, seed=1)
    x = torch.rand(1, 1, 4, 4, requires_grad=True)
    assert smoothed.certify(x, n=100, index=0).terms.backend == "torch"
    with pytest.raises(UnsupportedBackend, match="1024 taps"):
        SmoothedClassifier(net, Gaussian(0.5), num_classes=K, backend="native").count(x, 10)
