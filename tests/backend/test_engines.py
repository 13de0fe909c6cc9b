"""Every backend, on every mechanism, reduction and network: the invariants, and the definition."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from pixeldp_fast import Gaussian, config
from pixeldp_fast.backends.reduction import RealParts, SoftmaxSums, Votes
from pixeldp_fast.backends.registry import BACKENDS, select
from pixeldp_fast.backends.tally import GRID, merge
from pixeldp_fast.errors import InvalidArgument, UnsupportedBackend, UnsupportedModel
from pixeldp_fast.noise.sampling import noise_definition
from pixeldp_fast.noise.stream import Purpose, Stream
from pixeldp_fast.plan.plan import make_plan
from tests.cases import MECHANISMS
from tests.helpers.capture import outputs_of
from tests.helpers.close import tolerance, unexplained_flips
from tests.helpers.networks import (
    NETWORKS,
    K,
    conv_behind_prefix,
    examples,
    mlp,
    plan_of,
)

CPU = torch.device("cpu")
BY_NAME = {backend.name: backend for backend in BACKENDS}
NATIVE, TORCH, REFERENCE = (BY_NAME[name] for name in ("native", "torch", "reference"))
# On a CPU the Triton kernels run in their interpreter, which is off where there is a GPU.
RUNNING = [b for b in BACKENDS if b.name != "triton" or config.triton_interpreted()]
STREAM = Stream(99, Purpose.ESTIMATION)
SIZES = (0, 1, 63, 64, 65, 200)
REDUCTIONS = (Votes(K), SoftmaxSums(K))

each_backend = pytest.mark.parametrize("backend", RUNNING, ids=lambda b: b.name)
runs_modules = pytest.mark.parametrize(
    "backend", [b for b in RUNNING if b is not NATIVE], ids=lambda b: b.name
)
each_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS, ids=repr)
each_network = pytest.mark.parametrize("network", NETWORKS, ids=lambda f: f.__name__)
each_reduction = pytest.mark.parametrize("reduction", REDUCTIONS, ids=lambda r: type(r).__name__)


def prepared(backend, plan, mechanism, reduction, **options):
    support = backend.supports(plan, mechanism, reduction, CPU)
    assert support.ok, support.reason
    return backend.prepare(plan, mechanism, reduction, CPU, **options)


@each_backend
@each_mechanism
@each_network
@each_reduction
def test_tallies_add_up_over_any_split(backend, mechanism, network, reduction):
    plan = plan_of(network)
    engine = prepared(backend, plan, mechanism, reduction)
    x, index = examples(plan, 3), np.array([8, 2, 5])
    whole = engine.run(x, index, STREAM, 10, 150)
    assert (whole.draws == 150).all()
    parts = [engine.run(x, index, STREAM, first, n) for first, n in ((10, 1), (11, 70), (81, 79))]
    assert parts[2] + parts[0] + parts[1] == whole
    alone = [engine.run(x[b : b + 1], index[b : b + 1], STREAM, 10, 150) for b in range(3)]
    assert merge(alone) == whole
    swapped = engine.run(x[[2, 0, 1]], index[[2, 0, 1]], STREAM, 10, 150)
    assert swapped == whole.take(np.array([2, 0, 1]))


@each_backend
@each_network
def test_the_tile_moves_nothing_but_last_bits(backend, network):
    plan = plan_of(network)
    x, index = examples(plan, 1), np.array([0])
    tall, short = (
        outputs_of(backend, plan, Gaussian(0.5), x, index, STREAM, 5, 90, tile=tile)
        for tile in (64, 7)
    )
    assert torch.allclose(tall, short, rtol=1e-4, atol=1e-5)


@each_backend
@each_mechanism
@each_network
def test_outputs_and_votes_agree_with_the_definition(backend, mechanism, network):
    plan = plan_of(network)
    x, index = examples(plan, 2), np.array([4, 1])
    exact, eager = definition(plan, mechanism, x, index, 100)
    close = outputs_of(backend, plan, mechanism, x, index, STREAM, 0, 100).flatten(0, 1)
    allowed = tolerance(exact, eager)
    assert float((close.double() - exact).abs().max()) <= allowed
    assert unexplained_flips(exact, close.double(), allowed) == []


def definition(plan, mechanism, x, index, n):
    """Outputs in float64 from first principles, and eager float32's on the same features."""
    exact, eager = [], []
    with torch.inference_mode():
        for b in range(len(x)):
            features = plan.prefix(x[b : b + 1])
            noise = noise_definition(mechanism, STREAM, index[b : b + 1], 0, n, features.numel())
            noisy = features.double() + torch.from_numpy(noise[0]).view(n, *plan.noise_shape)
            eager.append(plan.suffix(noisy.float()))
            exact.append(copy.deepcopy(plan.suffix).double()(noisy))
    return torch.cat(exact), torch.cat(eager)


@each_backend
@each_mechanism
def test_without_noise_it_is_the_plain_network(backend, mechanism):
    plan = plan_of(NETWORKS[0])
    quiet = type(mechanism)(1e-30)
    x = examples(plan, 6)
    tally = prepared(backend, plan, quiet, Votes(K)).run(x, np.arange(6), STREAM, 0, 20)
    plain = plan.suffix(plan.prefix(x)).argmax(dim=1)
    assert (tally.counts[np.arange(6), plain.numpy()] == 20).all()


@each_backend
@each_reduction
@pytest.mark.parametrize("n", SIZES)
def test_sizes(backend, reduction, n):
    plan = plan_of(mlp)
    engine = prepared(backend, plan, Gaussian(0.5), reduction)
    tally = engine.run(examples(plan, 2), np.arange(2), STREAM, 3, n)
    assert (tally.draws == n).all()
    empty = engine.run(examples(plan, 0), np.arange(0), STREAM, 0, n)
    assert empty.counts.shape == (0, K + 1)
    assert (empty.sums is None) == (tally.sums is None)


@each_backend
def test_purposes_and_addresses_give_other_draws(backend):
    plan = plan_of(mlp)
    x = examples(plan, 1)
    outputs = [
        outputs_of(backend, plan, Gaussian(0.5), x, np.array([index]), stream, 0, 50)
        for index, stream in (
            (0, STREAM),
            (1, STREAM),
            (0, Stream(STREAM.seed, Purpose.SELECTION)),
            (0, Stream(STREAM.seed + 1, Purpose.ESTIMATION)),
        )
    ]
    for other in outputs[1:]:
        assert not torch.isclose(outputs[0], other).all(dim=-1).any()


class NonFinite(nn.Module):
    """NaN where the first coordinate is negative, a tie of classes 1 and 3 elsewhere."""

    def forward(self, x):
        out = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=x.dtype).repeat(len(x), 1)
        out[:, 2] = torch.where(x[:, 0] < 0, torch.nan, 0.0)
        return out


@runs_modules
@each_reduction
def test_non_finite_outputs_vote_against_and_ties_go_to_the_lowest_class(backend, reduction):
    plan = make_plan(nn.Identity().eval(), NonFinite().eval(), (5,), K)
    engine = prepared(backend, plan, Gaussian(1.0), reduction)
    x = torch.zeros(1, 5)
    tally = engine.run(x, np.array([0]), STREAM, 0, 500)
    noise = noise_definition(Gaussian(1.0), STREAM, [0], 0, 500, 5)[0, :, 0]
    negative = int((noise < 0).sum())
    assert tally.counts.tolist() == [[0, 500 - negative, 0, 0, negative]]
    if tally.sums is not None:
        assert tally.sums.sum() <= (500 - negative) * GRID


def test_softmax_sums_are_floored_scores():
    logits = torch.tensor([[0.0, 1.0, -2.0, 0.5], [3.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    reduction = SoftmaxSums(K)
    tally = reduction.tally(reduction.reduce(logits)[None].numpy())
    scores = np.floor(torch.softmax(logits, dim=1).numpy() * GRID).astype(np.int64)
    assert tally.sums.tolist() == [scores.sum(axis=0).tolist()]
    assert tally.squares.tolist() == [(scores**2).sum(axis=0).tolist()]
    assert tally.counts.tolist() == [[1, 1, 0, 0, 0]]


def test_real_outputs_are_kept_as_floored_parts():
    outputs = torch.tensor([[0.5], [-1.0], [2.0], [float("nan")], [-0.25], [7.0]])
    reduction = RealParts(-1.0, 2.0)
    tally = reduction.tally(reduction.reduce(outputs)[None].numpy())
    assert tally.counts.tolist() == [[4, 2]]
    assert tally.sums.tolist() == [[GRID // 4 + GRID, GRID + GRID // 4]]
    with pytest.raises(InvalidArgument, match="low"):
        RealParts(0.5, 1.0)


def test_sums_refuse_more_draws_than_they_can_hold():
    plan = plan_of(mlp)
    engine = prepared(TORCH, plan, Gaussian(0.5), SoftmaxSums(K))
    with pytest.raises(InvalidArgument, match="at most"):
        engine.run(examples(plan, 1), np.array([0]), STREAM, 0, 2**22 + 1)


def test_another_dtype_only_when_named():
    plan = plan_of(mlp)
    x, index = examples(plan, 1), np.array([0])
    backend = TORCH
    default = outputs_of(backend, plan, Gaussian(0.5), x, index, STREAM, 0, 64)
    named = outputs_of(backend, plan, Gaussian(0.5), x, index, STREAM, 0, 64, dtype=torch.bfloat16)
    assert default.dtype == torch.float32
    assert named.dtype == torch.bfloat16
    assert next(plan.suffix.parameters()).dtype == torch.float32
    with pytest.raises(InvalidArgument, match="float64"):
        REFERENCE.prepare(plan, Gaussian(0.5), Votes(K), CPU, dtype=torch.float32)
    with pytest.raises(UnsupportedBackend, match="bfloat16"):
        NATIVE.prepare(plan, Gaussian(0.5), Votes(K), CPU, dtype=torch.bfloat16)


class MinusBatchMean(nn.Module):
    def forward(self, x):
        return (x - x.mean(dim=0))[:, :K]


class OwnNoise(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5, training=True)[:, :K]


class FollowFirst(nn.Module):
    def forward(self, x):
        return x[:1, :K].expand(len(x), K)


class RunningMaximum(nn.Module):
    def forward(self, x):
        return x[:, :K].cummax(dim=0).values


class PlaceInBatch(nn.Module):
    def forward(self, x):
        return x[:, :K] + torch.linspace(0, 5, len(x), dtype=x.dtype)[:, None]


@runs_modules
@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        (MinusBatchMean, "batch statistics"),
        (OwnNoise, "of its own"),
        (FollowFirst, "other rows"),
        (RunningMaximum, "other rows"),
        (PlaceInBatch, "another place"),
    ],
)
def test_a_suffix_that_is_not_a_function_is_refused(backend, suffix, message):
    plan = make_plan(nn.Identity().eval(), suffix().eval(), (5,), K)
    with pytest.raises(UnsupportedModel, match=message):
        backend.prepare(plan, Gaussian(0.5), Votes(K), CPU)


class Steps(nn.Module):
    """Quantised activations: rows may jump where rounding meets a step."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(5, 16)
        self.out = nn.Linear(16, K)

    def forward(self, x):
        return self.out(torch.round(8 * self.mix(x)))


@pytest.mark.parametrize(
    "suffix", [MinusBatchMean, OwnNoise, FollowFirst, RunningMaximum, PlaceInBatch, NonFinite]
)
def test_the_compiled_engine_takes_only_what_it_understands(suffix):
    plan = make_plan(nn.Identity().eval(), suffix().eval(), (5,), K)
    support = NATIVE.supports(plan, Gaussian(0.5), Votes(K), CPU)
    assert not support.ok
    assert "suffix" in support.reason
    with pytest.raises(UnsupportedBackend, match="suffix"):
        NATIVE.prepare(plan, Gaussian(0.5), Votes(K), CPU)


@runs_modules
def test_a_network_with_steps_in_it_is_a_function(backend):
    plan = plan_of(lambda: (nn.Identity(), Steps(), (5,)))
    prepared(backend, plan, Gaussian(0.5), Votes(K))


@each_backend
def test_an_examples_place_in_memory_changes_nothing(backend):
    plan = plan_of(lambda: (nn.Linear(49, 33), nn.Linear(33, K), (49,)))
    engine = prepared(backend, plan, Gaussian(0.5), SoftmaxSums(K))
    x, index = examples(plan, 40), np.arange(40)
    whole = engine.run(x, index, STREAM, 0, 30)
    alone = [engine.run(x[b : b + 1].clone(), index[b : b + 1], STREAM, 0, 30) for b in range(40)]
    assert merge(alone) == whole
    assert engine.run(x.T.contiguous().T, index, STREAM, 0, 30) == whole


@each_backend
def test_the_callers_examples_stay_as_they_are(backend):
    parts = (
        nn.LeakyReLU(0.5, inplace=True),
        nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, K)),
        (5,),
    )
    plan = plan_of(lambda: parts)
    engine = prepared(backend, plan, Gaussian(0.5), Votes(K))
    x = -examples(plan, 2)
    before = x.clone()
    for n in (0, 10, 200):
        engine.run(x, np.arange(2), STREAM, 0, n)
        assert torch.equal(x, before)


@each_backend
def test_autocast_and_global_switches_change_nothing(backend):
    plan = plan_of(conv_behind_prefix)
    x, index = examples(plan, 1), np.array([0])
    engine = prepared(backend, plan, Gaussian(0.5), SoftmaxSums(K))
    whole, arithmetic = engine.run(x, index, STREAM, 0, 100), engine.arithmetic
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert engine.run(x, index, STREAM, 0, 100) == whole
            assert engine.arithmetic == arithmetic
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_prefix_keeps_its_weights_whatever_the_dtype():
    plan = plan_of(lambda: (nn.Linear(5, K), nn.Identity(), (5,)))
    x, index = examples(plan, 1), np.array([0])
    backend, quiet = TORCH, Gaussian(1e-30)
    features = outputs_of(
        backend, plan, quiet, x, index, STREAM, 0, 1, dtype=torch.bfloat16
    ).flatten()
    assert torch.equal(features, plan.prefix(x).flatten().bfloat16())
    plan.prefix.double()
    wide = outputs_of(backend, plan, quiet, x, index, STREAM, 0, 1).flatten()
    assert torch.equal(wide, plan.prefix(x.double()).flatten().float())


class Doubled(nn.Module):
    """A parametrisation that gives other weights in another dtype, as rounding ones do a little."""

    def forward(self, weight):
        return weight if weight.dtype is torch.bfloat16 else 2 * weight


@each_backend
@pytest.mark.parametrize("mechanism", [Gaussian(0.5), Gaussian(0.5, lattice=4096)], ids=repr)
def test_parametrised_weights_of_a_prefix_are_those_whose_sensitivity_is_proved(backend, mechanism):
    plan = plan_of(conv_behind_prefix)
    plan.prefix.bfloat16()
    parametrised = copy.deepcopy(plan)
    nn.utils.parametrize.register_parametrization(parametrised.prefix, "weight", Doubled())
    assert torch.equal(parametrised.prefix.weight, plan.prefix.weight)
    x, index = examples(plan, 2), np.array([0, 1])
    plain, tally = (
        prepared(backend, p, mechanism, Votes(K)).run(x, index, STREAM, 0, 200)
        for p in (plan, parametrised)
    )
    assert tally == plain
    assert nn.utils.parametrize.is_parametrized(parametrised.prefix, "weight")  # left as it is
    assert torch.equal(parametrised.prefix.weight, plan.prefix.weight)
    again = prepared(backend, parametrised, mechanism, Votes(K))
    assert again.run(x, index, STREAM, 0, 200) == plain
    plan.prefix.weight.data *= 2  # what it would be from converted originals
    assert prepared(backend, plan, mechanism, Votes(K)).run(x, index, STREAM, 0, 200) != tally


@each_backend
def test_features_that_overflow_cannot_hide_the_noise(backend):
    parts = (nn.Linear(2, 3, bias=False), nn.Linear(3, K), (2,))
    plan = plan_of(lambda: parts)
    with torch.no_grad():
        plan.prefix.weight.fill_(torch.inf)
    tally = prepared(backend, plan, Gaussian(1.0), Votes(K)).run(
        torch.ones(1, 2), np.array([0]), STREAM, 0, 70
    )
    assert tally.counts.tolist() == [[0, 0, 0, 0, 70]]


def test_a_noise_scale_beyond_float32_is_refused():
    plan = plan_of(mlp)
    for scale in (1e-40, 1e35):
        for backend in (NATIVE, TORCH):
            support = backend.supports(plan, Gaussian(scale), Votes(K), CPU)
            assert not support.ok
            assert "float32" in support.reason


def test_a_subclass_with_another_law_does_not_get_the_compiled_one():
    class Shifted(Gaussian):
        def unit_noise(self, words, xp):
            return super().unit_noise(words, xp) + 10

    plan = plan_of(mlp)
    x, index = examples(plan, 1), np.array([0])
    plain, shifted = (
        outputs_of(TORCH, plan, mechanism, x, index, STREAM, 0, 20)
        for mechanism in (Gaussian(0.5), Shifted(0.5))
    )
    assert not torch.allclose(plain, shifted)
    support = NATIVE.supports(plan, Shifted(0.5), Votes(K), CPU)
    assert "Shifted" in support.reason


def test_the_choice_of_a_backend():
    plan = plan_of(mlp)
    assert select("auto", plan, Gaussian(1), Votes(K), CPU).name == "native"
    bf16 = select("auto", plan, Gaussian(1), Votes(K), CPU, dtype=torch.bfloat16)
    assert bf16.name == "torch"
    assert select("reference", plan, Gaussian(1), Votes(K), CPU).name == "reference"
    with pytest.raises(InvalidArgument, match="'auto'"):
        select("fastest", plan, Gaussian(1), Votes(K), CPU)
    with pytest.raises(UnsupportedBackend, match="runs on the CPU"):
        select("reference", plan, Gaussian(1), Votes(K), torch.device("cuda"))
    with pytest.raises(UnsupportedBackend, match=r"suffix\.0\.weight is on cpu"):
        select("auto", plan, Gaussian(1), Votes(K), torch.device("meta"))


def test_the_arithmetic_names_what_the_last_bits_depend_on():
    plan = plan_of(mlp)
    text = prepared(TORCH, plan, Gaussian(0.5), Votes(K), tile=32).arithmetic
    for part in (torch.__version__, "float32", "tile 32", "noise", "threads"):
        assert part in text
