"""The GPU engine's path on a CPU, its kernels in Triton's interpreter."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from triton.errors import TritonError

from pixeldp_fast import Gaussian, Laplace, SmoothedClassifier, config
from pixeldp_fast.backends import registry
from pixeldp_fast.backends.base import Support
from pixeldp_fast.backends.reduction import RealParts, SoftmaxSums, Votes
from pixeldp_fast.backends.registry import select
from pixeldp_fast.backends.triton import engine, operators, tuning
from pixeldp_fast.backends.triton.backend import TritonBackend, graph_of
from pixeldp_fast.backends.triton.checks import blind_to_place
from pixeldp_fast.backends.triton.compiling import compiled
from pixeldp_fast.backends.triton.draws import Draws
from pixeldp_fast.backends.triton.executor import aligned, anywhere
from pixeldp_fast.backends.triton.operators import words_of
from pixeldp_fast.backends.triton.segments import (
    DenseHead,
    PoolHead,
    as_chain,
    peak_elements,
    split_head,
    split_prologue,
)
from pixeldp_fast.backends.triton.suffix import GraphModule
from pixeldp_fast.errors import UnsupportedBackend, UnsupportedModel
from pixeldp_fast.noise.sampling import noise_definition
from pixeldp_fast.noise.stream import Purpose, Stream
from pixeldp_fast.plan.interpret import interpret
from pixeldp_fast.plan.lower import lower
from pixeldp_fast.plan.passes import optimised
from pixeldp_fast.plan.plan import make_plan
from tests.helpers.capture import Capture
from tests.helpers.networks import K, conv_behind_prefix, examples, mlp, plan_of

CPU = torch.device("cpu")
BACKEND = TritonBackend()
STREAM = Stream(2**64 - 3, Purpose.ESTIMATION)

interpreted = pytest.mark.skipif(
    not config.triton_interpreted(), reason="with a GPU, Triton's interpreter is off"
)


def residual():
    """Batch-norm and ReLU on the noise, a shortcut, global pooling."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(4)
            self.first = nn.Conv2d(4, 8, 3, stride=2, padding=1)
            self.second = nn.Conv2d(8, 8, 3, padding=1)
            self.last = nn.Linear(8, K)

        def forward(self, x):
            x = torch.relu(self.first(torch.relu(self.norm(x))))
            x = torch.relu(self.second(x) + x)
            return self.last(x.mean(dim=(2, 3)))

    block = Block()
    with torch.no_grad():
        block.norm.running_mean.uniform_(-1, 1)
        block.norm.running_var.uniform_(0.5, 2)
        block.norm.weight.uniform_(-1, 1)
    return nn.Conv2d(2, 4, 3, padding=1), block, (2, 6, 6)


def two_layers():
    """A map, then two dense layers."""
    suffix = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(27, 20),
        nn.LeakyReLU(0.2),
        nn.Linear(20, K),
    )
    return nn.Identity(), suffix, (2, 6, 6)


def opaque():
    """An operation that does not lower: the module itself runs."""

    class Gelu(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 5, 3), nn.Linear(80, K)

        def forward(self, x):
            return self.b(torch.nn.functional.gelu(self.a(x)).flatten(1))

    return nn.Identity(), Gelu(), (2, 6, 6)


def one_kernel():
    """Three dense layers, the first reading a map, all in one kernel."""
    layers = (nn.Flatten(), nn.Linear(75, 24), nn.ReLU(), nn.Linear(24, 17), nn.LeakyReLU(0.3))
    return nn.Conv2d(2, 3, 2), nn.Sequential(*layers, nn.Linear(17, K)), (2, 6, 6)


def wide():
    """Dense layers too wide for one kernel."""
    return nn.Identity(), nn.Sequential(nn.Linear(7, 260), nn.ReLU(), nn.Linear(260, K)), (7,)


PATHS = {
    "one_kernel": one_kernel,
    "wide": wide,
    "residual": residual,
    "two_layers": two_layers,
    "opaque": opaque,
    "mlp": mlp,
    "conv_behind_prefix": conv_behind_prefix,
}
each_path = pytest.mark.parametrize("network", PATHS.values(), ids=PATHS)


def prepared(plan, reduction, *, mechanism=None, **options):
    return BACKEND.prepare(plan, mechanism or Gaussian(0.5), reduction, CPU, **options)


def exact_logits(plan, mechanism, x, index, first, n):
    """From first principles in float64, [B, n, K]."""
    rows = []
    suffix = copy.deepcopy(plan.suffix).double()
    with torch.inference_mode():
        for b in range(len(x)):
            center = plan.prefix(x[b : b + 1]).double()
            noise = noise_definition(mechanism, STREAM, index[b : b + 1], first, n, center.numel())
            rows.append(suffix(center + torch.from_numpy(noise[0]).view(n, *plan.noise_shape)))
    return torch.stack(rows)


@interpreted
@each_path
@pytest.mark.parametrize("reduction", [Votes(K), SoftmaxSums(K)], ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_path_counts_what_the_definition_says(network, reduction, dtype):
    plan, mechanism = plan_of(network), Gaussian(0.5)
    x, index = examples(plan, 2), np.array([7, 3])
    made = prepared(plan, reduction, dtype=None if dtype == torch.float32 else dtype)
    tally = made.run(x, index, STREAM, 120, 140)
    exact = exact_logits(plan, mechanism, x, index, 120, 140)
    # The interpreter truncates float32 to bfloat16: a whole last place is allowed per layer.
    allowed = {torch.float32: 1e-5, torch.bfloat16: 0.05, torch.float16: 0.01}[dtype]
    top = exact.topk(2, dim=2).values
    near = (top[..., 0] - top[..., 1] <= allowed * float(exact.abs().max())).sum(dim=1)  # [B]
    for b in range(2):
        votes = torch.bincount(exact[b].argmax(dim=1), minlength=K + 1)
        moved = (torch.from_numpy(tally.counts[b]) - votes).abs().sum()
        assert moved <= 2 * near[b]
    assert (tally.draws == 140).all()
    if tally.sums is not None:
        means = torch.softmax(exact, dim=2).mean(dim=1)
        close = torch.from_numpy(tally.sums) / 2**20 / 140
        assert float((close - means).abs().max()) <= allowed


@interpreted
@each_path
def test_the_tally_is_the_same_however_it_is_split(network):
    plan = plan_of(network)
    made = prepared(plan, SoftmaxSums(K))
    x, index = examples(plan, 2), np.array([0, 2**32 - 2])
    whole = made.run(x, index, STREAM, 100, 130)
    parts = [made.run(x, index, STREAM, first, n) for first, n in ((100, 28), (128, 102))]
    assert parts[0] + parts[1] == whole
    assert made.run(x[1:], index[1:], STREAM, 100, 130) == whole.take(np.array([1]))
    assert made.run(x, index, STREAM, 100, 130) == whole


@interpreted
def test_the_last_draw_of_the_stream():
    plan = plan_of(mlp)
    tally = prepared(plan, Votes(K)).run(examples(plan, 1), np.array([0]), STREAM, 2**32 - 5, 5)
    assert tally.draws.tolist() == [5]


@interpreted
def test_real_outputs_are_reduced_by_torch():
    parts = (nn.Identity(), nn.Sequential(nn.Linear(5, 1), nn.Tanh()), (5,))
    prefix, suffix, shape = parts
    plan = make_plan(prefix.eval(), suffix.eval(), shape, 1)
    reduction, x = RealParts(-1.0, 1.0), torch.rand(2, 5)
    ours = prepared(plan, reduction).run(x, np.arange(2), STREAM, 3, 150)
    theirs = select("torch", plan, Gaussian(0.5), reduction, CPU).prepare(
        plan, Gaussian(0.5), reduction, CPU
    )
    want = theirs.run(x, np.arange(2), STREAM, 3, 150)
    assert (ours.counts == want.counts).all()
    assert np.abs(ours.sums - want.sums).max() <= 150 * 4
    assert (
        prepared(plan, reduction).run(x * torch.nan, np.arange(2), STREAM, 0, 9).counts[:, 1] == 9
    ).all()


@interpreted
@each_path
def test_edited_weights_are_noticed(network):
    plan = plan_of(network)
    made = prepared(plan, Votes(K))
    x, index = examples(plan, 1), np.array([0])
    before = made.run(x, index, STREAM, 0, 128)
    with torch.no_grad():
        for weight in plan.suffix.parameters():
            weight.neg_()
    after = made.run(x, index, STREAM, 0, 128)
    assert after != before
    assert after == prepared(plan, Votes(K)).run(x, index, STREAM, 0, 128)


@interpreted
@each_path
def test_outputs_for_given_features(network):
    plan = plan_of(network)
    features = torch.randn(130, *plan.noise_shape)
    ours = prepared(plan, Votes(K)).outputs(features)
    with torch.inference_mode():
        assert torch.allclose(ours, plan.suffix(features), atol=1e-5, rtol=1e-5)
    assert prepared(plan, Votes(K)).outputs(features[:0]).shape == (0, K)


@interpreted
def test_the_arithmetic_names_what_decides_bits():
    plan = plan_of(residual)
    text = prepared(plan, Votes(K), tile=200, dtype=torch.bfloat16).arithmetic
    for part in ("triton 3.", torch.__version__, "bfloat16", "tile 256", "aligned", "noise(rows"):
        assert part in text
    assert "eager graph of 2 > pool_dense(rows" in text
    plan = plan_of(one_kernel)
    assert " mlp(rows" in prepared(plan, Votes(K)).arithmetic
    assert "> reduced by torch" in prepared(plan, Capture(K)).arithmetic


@interpreted
def test_it_is_never_chosen_silently():
    plan = plan_of(mlp)
    assert BACKEND.supports(plan, Gaussian(1), Votes(K), CPU).only_named
    assert select("auto", plan, Gaussian(1), Votes(K), CPU).name != "triton"
    assert select("triton", plan, Gaussian(1), Votes(K), CPU).name == "triton"
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, K)).eval()
    smoothed = SmoothedClassifier(
        model, Gaussian(0.5), num_classes=K, backend="triton", seed=1, input_range=None
    )
    certificates = smoothed.certify(torch.rand(2, 1, 2, 3), n0=20, n=200)
    assert "interpreter" in certificates.terms.arithmetic


@interpreted
def test_auto_passes_over_kernels_that_fail_and_an_explicit_choice_does_not(monkeypatch, caplog):
    plan = plan_of(mlp)
    monkeypatch.setattr(TritonBackend, "supports", lambda *_, **__: Support(True))

    def broken(*_, **__):
        raise TritonError("no such instruction\nand more")

    monkeypatch.setattr(engine.TritonEngine, "__init__", broken)
    case = plan, Gaussian(1.0), Votes(K), CPU
    with caplog.at_level("INFO", logger="pixeldp_fast"):
        name, made = registry.prepared("auto", *case)
    assert name in ("native", "torch")
    assert "no such instruction" in caplog.text
    assert made.run(examples(plan, 1), np.array([0]), STREAM, 0, 5).draws == 5
    with pytest.raises(UnsupportedBackend, match="TritonError: no such instruction"):
        registry.prepared("triton", *case)


def refusal(plan, *, mechanism=None, device=CPU, dtype=None):
    support = BACKEND.supports(plan, mechanism or Gaussian(1.0), Votes(K), device, dtype=dtype)
    assert not support.ok
    return support.reason


def test_without_a_gpu_it_says_what_works(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    reason = refusal(plan_of(mlp))
    assert "NVIDIA GPU" in reason
    assert "native" in reason
    with pytest.raises(UnsupportedBackend, match="triton: it runs on an NVIDIA GPU"):
        prepared(plan_of(mlp), Votes(K))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no NVIDIA GPU" in refusal(plan_of(mlp), device=torch.device("cuda"))


def test_without_triton_it_says_so(monkeypatch):
    FakeDevice(monkeypatch)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install triton" in refusal(plan_of(mlp), device=torch.device("cuda:0"))


def test_compiled_kernels_and_the_interpreter_are_not_mixed(monkeypatch):
    FakeDevice(monkeypatch)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert "unset it" in refusal(plan_of(mlp), device=torch.device("cuda:0"))


@interpreted
def test_named_refusals():
    plan = plan_of(mlp)
    assert "float64" in refusal(plan, dtype=torch.float64)
    assert "float32's safe range" in refusal(plan, mechanism=Gaussian(1e35))

    class Shifted(Laplace):
        def unit_noise(self, words, xp):
            return super().unit_noise(words, xp) + 10

    assert "Shifted" in refusal(plan, mechanism=Shifted(1.0))


class FakeDevice:
    """An NVIDIA GPU as torch would describe it, for refusals that come before it is touched."""

    def __init__(self, monkeypatch, *, capability=(9, 0), free=2**36, total=2**37):
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        properties = type("Properties", (), {"total_memory": total})
        for name, value in {
            "is_available": True,
            "get_device_capability": capability,
            "get_device_name": "NVIDIA Test",
            "mem_get_info": (free, total),
            "memory_reserved": 0,
            "memory_allocated": 0,
            "get_device_properties": properties,
        }.items():
            monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
        monkeypatch.setattr(
            "pixeldp_fast.backends.triton.backend.weights_on", lambda plan, device: None
        )


def test_a_gpu_that_is_too_old(monkeypatch):
    FakeDevice(monkeypatch, capability=(7, 5))
    reason = refusal(plan_of(mlp), device=torch.device("cuda:0"), dtype=torch.bfloat16)
    assert "need a GPU of compute capability 8.0" in reason
    assert "torch" in reason


def test_too_little_memory_names_a_tile_that_fits(monkeypatch):
    plan = plan_of(two_layers)
    FakeDevice(monkeypatch, free=2**20, total=2**37)
    reason = refusal(plan, device=torch.device("cuda:0"))
    assert "name tile=" in reason
    FakeDevice(monkeypatch, free=2**10, total=2**37)
    assert "bfloat16" in refusal(plan, device=torch.device("cuda:0"))
    FakeDevice(monkeypatch)
    assert BACKEND.supports(plan, Gaussian(1.0), Votes(K), torch.device("cuda:0")).ok


@interpreted
def test_a_dtype_that_overflows_is_refused():
    plan = plan_of(lambda: (nn.Identity(), nn.Sequential(nn.Linear(5, 9), nn.Linear(9, K)), (5,)))
    with torch.no_grad():
        plan.suffix[0].weight.mul_(1e5)
    with pytest.raises(UnsupportedBackend, match="bfloat16"):
        prepared(plan, Votes(K), dtype=torch.float16)
    prepared(plan, Votes(K), dtype=torch.bfloat16)


@interpreted
def test_a_module_that_keeps_a_secret_is_refused():
    class Secret(nn.Linear):
        factor = 1

        def forward(self, x):
            return super().forward(x) * Secret.factor

    plan = make_plan(nn.Identity().eval(), Secret(5, K).eval(), (5,), K)
    assert graph_of(plan) is not None
    Secret.factor = 2
    with pytest.raises(UnsupportedModel, match="outside its weights"):
        prepared(plan, Votes(K))


def test_segments():
    behind = graph_of(plan_of(residual))
    prologue, rest = split_prologue(behind)
    assert prologue.scale is not None
    assert prologue.slope == 0
    body, head = split_head(rest, two_layers=True)
    assert isinstance(head, PoolHead)
    assert (head.pixels, tuple(head.weight.shape), len(body.nodes)) == (9, (K, 8), 2)
    body, head = split_head(graph_of(plan_of(two_layers)), two_layers=True)
    assert isinstance(head, DenseHead)
    assert (head.slope, body.shapes[body.output]) == (0.2, (3, 3, 3))
    chain = as_chain(graph_of(plan_of(mlp)))
    assert (chain.widths, chain.slopes) == ((5, 16, K), (0.0,))
    assert as_chain(behind) is None
    assert peak_elements(graph_of(plan_of(mlp))) == 21


@pytest.mark.parametrize(
    "module",
    [
        nn.MaxPool2d(3, 2, 1),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.AvgPool2d(3, 1, 1),
        nn.AdaptiveAvgPool2d((3, 2)),
        nn.AdaptiveMaxPool2d(1),
        nn.Conv2d(3, 4, (2, 3), stride=(2, 1), padding="valid", bias=False),
        nn.Conv2d(3, 6, 2, padding="same", groups=3),
        nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=2, dilation=2), nn.LeakyReLU()),
        nn.Sequential(nn.Flatten(), nn.Linear(105, 7), nn.ReLU(), nn.BatchNorm1d(7)),
    ],
    ids=str,
)
def test_graph_modules_mean_what_the_graph_means(module):
    graph = optimised(lower(module.eval(), (3, 5, 7)))
    x = torch.randn(4, 3, 5, 7)
    want = interpret(graph, x)
    made = GraphModule(graph, torch.float32, CPU)
    assert torch.allclose(made(x.to(memory_format=torch.channels_last)), want, atol=1e-5)
    head = GraphModule(graph, torch.float32, CPU, for_head=True)(x)
    if head.ndim == 4:
        head = head.permute(0, 3, 1, 2)
    assert torch.allclose(head.flatten(1), want, atol=1e-5)


@interpreted
@pytest.mark.parametrize("network", [residual, opaque, two_layers], ids=lambda f: f.__name__)
def test_compiled_suffixes(network, monkeypatch):
    plan = plan_of(network)
    x, index = examples(plan, 2), np.array([3, 1])
    plain = prepared(plan, SoftmaxSums(K)).run(x, index, STREAM, 0, 130)
    monkeypatch.setattr(engine, "ways", lambda device: ((True, False),))
    made = prepared(plan, SoftmaxSums(K))
    assert "compiled" in made.arithmetic
    tally = made.run(x, index, STREAM, 0, 130)
    assert np.abs(tally.counts - plain.counts).sum() <= 2
    assert np.abs(tally.sums - plain.sums).max() <= 130 * 4


@interpreted
def test_what_does_not_compile_runs_plainly_and_says_so(monkeypatch):
    plan = plan_of(opaque)
    monkeypatch.setattr(engine, "ways", lambda device: ((True, False),))
    plan.suffix.register_forward_hook(lambda module, args, out: print(end="") or out)
    made = prepared(plan, Votes(K))
    assert "eager module" in made.arithmetic


@interpreted
@pytest.mark.parametrize(("first", "n"), [(0, 128), (5, 3), (126, 260)])
def test_both_placements_cover_every_draw_once(first, n):
    asked = Draws(0, 1.0, 1, 1, first, n, 3, 0)
    for place in (anywhere, aligned):
        seen = []
        for launch in place(asked, 128):
            rows = range(128)[launch.kept]
            assert len(rows) <= 128
            for i, row in enumerate(rows):
                g = launch.draws.first_row + row
                b, draw = divmod(g, launch.draws.n)
                counted = divmod(launch.counted.first_row + i, launch.counted.n)
                if launch.first + b < launch.last:
                    seen.append((launch.first + b, launch.draws.first_draw + draw))
                    where = launch.first + counted[0], launch.counted.first_draw + counted[1]
                    assert where == seen[-1]
                    assert place is anywhere or seen[-1][1] % 128 == row
        assert seen == [(b, draw) for b in range(3) for draw in range(first, first + n)]


def test_a_network_that_minds_the_place_of_a_row_is_seen():
    trial = torch.randn(128, 5)
    layer = nn.Linear(5, K)

    def by_tile(x):  # as where sums are divided by the place of a tile
        out = layer(x)
        out[256:384] += 1e-7 + out[256:384].abs() * 1e-6
        return out

    with torch.inference_mode():
        assert blind_to_place(lambda x: 2 * x, trial, 512)
        assert not blind_to_place(by_tile, trial, 512)
        for place in (0, 100, 511):

            def one_row(x, place=place):
                out = 2 * x
                out[place] += 1
                return out

            assert not blind_to_place(one_row, trial, 512)


@interpreted
def test_an_engine_survives_weights_that_it_refuses():
    plan = plan_of(two_layers)
    made = prepared(plan, Votes(K), dtype=torch.float16)
    x, index = examples(plan, 1), np.array([0])
    before = made.run(x, index, STREAM, 0, 64)
    good = copy.deepcopy(plan.suffix.state_dict())
    with torch.no_grad():
        plan.suffix[0].weight.mul_(1e6)
    for _ in range(2):
        with pytest.raises(UnsupportedBackend, match="bfloat16"):
            made.run(x, index, STREAM, 0, 64)
    plan.suffix.load_state_dict(good)
    assert made.run(x, index, STREAM, 0, 64) == before


@interpreted
@each_path
def test_packed_tiles_count_the_same(network, monkeypatch):
    plan = plan_of(network)
    x, index = examples(plan, 3), np.array([3, 1, 6])
    for reduction in (Votes(K), Capture(K)):
        made = prepared(plan, reduction)
        tidy = made.run(x, index, STREAM, 7, 60)
        made._place = anywhere
        packed = made.run(x, index, STREAM, 7, 60)
        if isinstance(reduction, Votes):
            assert np.abs(packed.counts - tidy.counts).sum() <= 2
        else:
            first, second = reduction.outputs().split(180)
            assert torch.allclose(first, second, atol=1e-5)


def convolutions(*shapes):
    return [
        {
            "kernel": "convolution",
            "shape": shape,
            "dtype": "float32",
            "device": "interpreter",
            "config": {"pixels": 512},
        }
        for shape in shapes
    ]


@interpreted
@pytest.mark.parametrize("compiling", [False, True])
def test_convolutions_by_the_kernel_where_the_table_says_so(compiling, monkeypatch):
    plan = plan_of(residual)
    features = torch.randn(20, *plan.noise_shape)
    if compiling:
        monkeypatch.setattr(engine, "ways", lambda device: ((True, False),))
    # Stride 2 and a shortcut behind the second.
    with tuning.trial(*convolutions("4x6x6x8x3x3x2x2", "8x3x3x8x3x3x1x1")):
        made = prepared(plan, Votes(K))
    assert "graph of 2 convolution(pixels=512" in made.arithmetic
    assert ("compiled graph" in made.arithmetic) == compiling
    with torch.inference_mode():
        assert torch.allclose(made.outputs(features), plan.suffix(features), atol=1e-5)
    plain = prepared(plan, Votes(K))
    assert "convolution" not in plain.arithmetic
    x, index = examples(plan, 1), np.array([4])
    moved = made.run(x, index, STREAM, 0, 100).counts - plain.run(x, index, STREAM, 0, 100).counts
    assert np.abs(moved).sum() <= 2


@interpreted
def test_operators_say_what_they_do():
    f32, config = torch.zeros, [128, 0, 0, 4, 1]
    words = words_of(Draws(0, 1.0, 2**64 - 1, 1, 0, 64, 2, 0))
    address, table = torch.arange(2), torch.zeros(2, K + 1, dtype=torch.int64)
    tiles = [128, 1, 4, 4]
    noisy = (f32(2, 12), address, f32(128, 12), None, None, 1, 1.0, 0.5, words, tiles)
    torch.library.opcheck(operators.noisy, noisy)
    torch.library.opcheck(operators.count, (f32(128, K), table, words, "votes", config))
    config[2] = 16
    pool = (f32(128, 4, 5), f32(K, 5), f32(K), table, words, "votes", config)
    torch.library.opcheck(operators.pool_dense_count, pool)
    config[1] = 16
    two = (f32(128, 5), f32(9, 5), f32(9), f32(K, 9), f32(K), table, words, 0.0, "votes", config)
    torch.library.opcheck(operators.dense_dense_count, two)
    tile = [64, 16, 16, 4, 2]
    window = (f32(2, 4, 5, 3), f32(6, 3, 3, 3), f32(6), None, [2, 1], [1, 0, 1, 1], 0.0, tile)
    torch.library.opcheck(operators.convolve, window)


def test_every_engine_is_compiled_however_many_there_are():
    x = torch.randn(6, 5)
    for i in range(12):
        layer = nn.Linear(5, i + 1)
        with torch.inference_mode():
            assert torch.equal(compiled(layer, backend="eager")(x), layer(x))


def test_what_cannot_be_compiled_whole_is_an_error():
    def network(x):
        print(x)
        return x

    with pytest.raises(RuntimeError):
        compiled(network, backend="eager")(torch.ones(2))
