"""The sensitivity of whole prefixes: an upper bound for every pair of norms, or a refusal."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pixeldp_fast.errors import InvalidArgument, UnsupportedModel
from pixeldp_fast.plan.normalise import normalise_
from pixeldp_fast.plan.sensitivity import output_shape, sensitivity
from pixeldp_fast.types import Norm

ONE, TWO, INF = Norm.ONE, Norm.TWO, Norm.INF
PAIRS = list(itertools.product(Norm, Norm))


def seeded(build):
    torch.manual_seed(11)
    return build().double().eval()


def matrix_of(module, shape):
    """The linear part of an affine prefix, [D, d]."""
    d = math.prod(shape)
    points = torch.cat([torch.zeros(1, d), torch.eye(d)]).double().reshape(d + 1, *shape)
    with torch.no_grad():
        images = module(points).reshape(d + 1, -1)
    return (images[1:] - images[0]).numpy().T


def least_norm(matrix, p, q, seed=0):
    """The norm from p to q where it has a formula; elsewhere a value that some vector attains."""
    if p is ONE:
        return np.linalg.norm(matrix, q.value, axis=0).max()
    if q is INF:
        dual = {TWO: 2, INF: 1}[p]
        return np.linalg.norm(matrix, dual, axis=1).max()
    if p is TWO and q is TWO:
        return np.linalg.norm(matrix, 2)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(matrix.shape[1], 200))
    x = np.concatenate([x, np.linalg.svd(matrix)[2].T], 1)
    x = np.sign(x) if p is INF else x
    return attained(x.T @ matrix.T, x.T, p, q)


def attained(moved, by, p, q):
    """The largest ratio of norms, over rows."""
    far, near = (np.linalg.norm(a, r.value, axis=1) for a, r in ((moved, q), (by, p)))
    return (far[near > 0] / near[near > 0]).max()


def batch_norm(kind, size):
    layer = kind(size)
    layer.running_var.uniform_(0.2, 3.0)
    layer.running_mean.normal_()
    nn.init.normal_(layer.weight)
    return layer


AFFINE = {
    "linear": (lambda: nn.Linear(7, 4), (7,)),
    "linear chain": (
        lambda: nn.Sequential(nn.Linear(7, 5), batch_norm(nn.BatchNorm1d, 5), nn.Linear(5, 6)),
        (7,),
    ),
    "batch norm of vectors": (lambda: batch_norm(nn.BatchNorm1d, 7), (7,)),
    "batch norm of images": (lambda: batch_norm(nn.BatchNorm2d, 3), (3, 4, 4)),
    "plain batch norm": (lambda: nn.BatchNorm2d(3, affine=False, eps=0.5), (3, 4, 4)),
    "convolution": (lambda: nn.Conv2d(2, 3, 3, 2, 1, dilation=2), (2, 7, 6)),
    "grouped": (
        lambda: nn.Conv2d(4, 6, (2, 3), (1, 2), (0, 1), groups=2, bias=False),
        (4, 5, 6),
    ),
    "more padding than reach": (lambda: nn.Conv2d(1, 2, 2, 3, 4), (1, 3, 2)),
    "same padding, even kernel": (lambda: nn.Conv2d(1, 2, 4, padding="same"), (1, 6, 5)),
    "valid padding": (lambda: nn.Conv2d(1, 2, 3, padding="valid"), (1, 6, 5)),
    "average pool": (lambda: nn.AvgPool2d((2, 3), (1, 2), (1, 0)), (2, 5, 6)),
    "overlapping average": (lambda: nn.AvgPool2d(3, 2, 1), (1, 7, 7)),
    "no padding to count": (lambda: nn.AvgPool2d(2, count_include_pad=False), (1, 6, 6)),
    "chain": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1),
            nn.Sequential(batch_norm(nn.BatchNorm2d, 3), nn.Identity()),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(27, 4),
        ),
        (1, 6, 6),
    ),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", AFFINE)
def test_affine_prefixes_against_their_matrix(name):
    build, shape = AFFINE[name]
    module = seeded(build)
    matrix = matrix_of(module, shape)
    assert matrix.shape[0] == math.prod(output_shape(module, shape))
    for p, q in PAIRS:
        assert sensitivity(module, shape, p, q) >= least_norm(matrix, p, q), (p, q)


@pytest.mark.parametrize(
    "name", ["linear", "batch norm of vectors", "batch norm of images", "plain batch norm"]
)
def test_single_layers_are_exact_where_the_norm_has_a_formula(name):
    build, shape = AFFINE[name]
    module = seeded(build)
    matrix = matrix_of(module, shape)
    for p, q in ((ONE, ONE), (ONE, TWO), (TWO, TWO), (INF, INF)):
        bound = sensitivity(module, shape, p, q)
        assert bound == pytest.approx(least_norm(matrix, p, q), rel=1e-9)


def test_grouped_convolution_is_bounded_group_by_group():
    grouped = seeded(lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False))
    halves = []
    for weight in grouped.weight.detach().chunk(2):
        half = nn.Conv2d(2, 3, 3, padding=1, bias=False).double()
        half.weight = nn.Parameter(weight)
        halves.append(half)
    for pair in ((ONE, ONE), (ONE, TWO), (TWO, TWO), (INF, INF)):
        expected = max(sensitivity(half, (2, 7, 7), *pair) for half in halves)
        assert sensitivity(grouped, (4, 7, 7), *pair) == pytest.approx(expected, rel=1e-9)


def test_average_pooling_of_disjoint_windows_is_exact():
    pool = nn.AvgPool2d(2)
    for pair, norm in {
        (ONE, ONE): 0.25,
        (TWO, TWO): 0.5,
        (INF, INF): 1.0,
        (ONE, TWO): 0.25,
    }.items():
        assert norm <= sensitivity(pool, (3, 6, 6), *pair) <= norm * (1 + 1e-9)


@pytest.mark.parametrize("module", [None, nn.Identity(), nn.Sequential(), nn.ReLU(), nn.Flatten()])
@pytest.mark.parametrize("shape", [(1, 3, 5), (784,), (3, 32, 32)])
def test_identity_compares_norms(module, shape):
    d = math.prod(shape)
    root = sensitivity(module, shape, 2, 1)
    assert d <= Fraction(root) ** 2 <= d * (1 + Fraction(1, 2**51))
    assert d != 784 or root == 28
    expected = dict.fromkeys(PAIRS, 1.0) | {(TWO, ONE): root, (INF, TWO): root, (INF, ONE): d}
    assert {pair: sensitivity(module, shape, *pair) for pair in PAIRS} == expected


@pytest.mark.parametrize(("p", "q"), [("2", "L2"), (2, "l2"), (Norm.TWO, 2.0)])
def test_every_spelling_of_a_norm(p, q):
    assert sensitivity(None, (4,), p, q) == 1.0


def test_other_pairs_follow_from_comparison_of_norms():
    module = seeded(lambda: nn.Linear(9, 4))
    known = {pair: sensitivity(module, (9,), *pair) for pair in PAIRS}
    assert known[TWO, ONE] <= 2.0 * known[TWO, TWO] * (1 + 1e-9)  # sqrt(D), D = 4
    assert known[INF, TWO] <= 3.0 * known[TWO, TWO] * (1 + 1e-9)  # sqrt(d), d = 9
    assert known[INF, ONE] <= 9.0 * known[ONE, ONE] * (1 + 1e-9)


def test_chain_takes_the_best_norm_at_each_joint():
    """1 to 2 and then 2 to 2 beats 1 to 1 and then 1 to 2 here; both are valid."""
    first, second = nn.Linear(1, 4, bias=False), nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        first.weight.fill_(0.5)  # (1, 1): 2; (1, 2): 1
        second.weight.copy_(torch.eye(4))
    assert sensitivity(nn.Sequential(first, second), (1,), 1, 2) == pytest.approx(1.0, rel=1e-9)


def test_a_layer_that_acts_twice_counts_twice():
    layer = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        layer.weight.copy_(2 * torch.eye(3))
    twice = nn.Sequential(layer, layer)
    assert sensitivity(twice, (3,), 2, 2) == pytest.approx(4.0, rel=1e-9)


NONLINEAR = {
    "relu": (lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU()), (1, 6, 6)),
    "leaky relu": (lambda: nn.Sequential(nn.Linear(8, 5), nn.LeakyReLU(-1.0)), (8,)),
    "tanh": (lambda: nn.Sequential(nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 2)), (8,)),
    "sigmoid": (lambda: nn.Sequential(nn.Conv2d(2, 2, 3), nn.Sigmoid()), (2, 5, 5)),
    "max pool": (lambda: nn.MaxPool2d(2), (2, 6, 6)),
    "overlapping max pool": (lambda: nn.MaxPool2d(3, 1, 1), (1, 6, 6)),
    "rectangular max pool": (lambda: nn.MaxPool2d((3, 2), (2, 1), (1, 0)), (1, 7, 5)),
    "ceiling max pool": (lambda: nn.MaxPool2d(2, 3, 1, ceil_mode=True), (1, 7, 6)),
    "chain": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(8, 3)
        ),
        (1, 7, 7),
    ),
}


def attacks(shape, rng):
    """Pairs of inputs: far and near, dense and on one or few pixels, and steps in sign."""
    x = rng.normal(size=(300, *shape))
    step = rng.normal(size=x.shape)
    step[100:200] *= rng.random(step[100:200].shape) < 1.5 / math.prod(shape)
    step[200:] = np.sign(step[200:])
    return x, x + step * 10.0 ** rng.uniform(-3, 1, (300, *(1,) * len(shape)))


@pytest.mark.parametrize("name", NONLINEAR)
def test_no_pair_of_inputs_moves_further(name):
    build, shape = NONLINEAR[name]
    module = seeded(build)
    x, y = attacks(shape, np.random.default_rng(4))
    with torch.no_grad():
        fx, fy = (module(torch.from_numpy(v)) for v in (x, y))
    assert tuple(fx.shape[1:]) == output_shape(module, shape)
    moved, by = (fx - fy).reshape(300, -1).numpy(), (x - y).reshape(300, -1)
    for p, q in PAIRS:
        rounding = 1e-9  # of differences of 1e-3 between numbers of order 1
        assert attained(moved, by, p, q) <= sensitivity(module, shape, p, q) * (1 + rounding)


@pytest.mark.parametrize(("pool", "shared"), [((3, 1), 9), ((3, 2), 4), ((2, 2), 1), ((2, 3), 1)])
def test_max_pooling_bound_is_attained(pool, shared):
    """One bright pixel shows in every window that holds it."""
    module = nn.MaxPool2d(*pool)
    dark, bright = torch.zeros(2, 1, 1, 12, 12).double()
    bright[0, 0, 6, 6] = 1.0
    moved = float((module(bright) - module(dark)).sum())
    assert moved == shared
    assert sensitivity(module, (1, 12, 12), 1, 1) == shared
    assert sensitivity(module, (1, 12, 12), 2, 2) == pytest.approx(math.sqrt(shared), rel=1e-9)
    assert sensitivity(module, (1, 12, 12), "inf", "inf") == 1.0


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2)), max_size=3),
    st.integers(0, 2**16),
)
def test_random_chains_against_the_product_matrix(plan, seed):
    torch.manual_seed(seed)
    channels, layers = 2, []
    for width, kernel, stride in plan:
        layers.append(nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2))
        channels = width
    module, shape = nn.Sequential(*layers).double().eval(), (2, 6, 5)
    matrix = matrix_of(module, shape)
    for p, q in PAIRS:
        norm = least_norm(matrix, p, q) * (1 - 1e-14)  # sampled ratios are rounded
        assert sensitivity(module, shape, p, q) >= norm, (p, q)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_are_read_exactly(dtype):
    module = nn.Linear(2, 1, bias=False).to(dtype)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1 / 3, -0.1]]))
    stored = module.weight.double().abs().max().item()
    assert stored <= sensitivity(module, (2,), 1, 1) <= stored * (1 + 1e-9)


def test_products_never_round_to_zero():
    """Two layers of 1e-200: the product underflows, the sensitivity may not."""
    tiny = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        tiny.weight.fill_(1e-200)
    assert sensitivity(nn.Sequential(tiny, tiny), (1,), 2, 2) > 0
    norm = nn.BatchNorm1d(1).double().eval()
    with torch.no_grad():
        norm.weight.fill_(5e-324)
        norm.running_var.fill_(100.0)
    assert sensitivity(norm, (1,), 2, 2) > 0


def test_zero_weights_have_sensitivity_zero():
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    nn.init.zeros_(module[2].weight)
    assert sensitivity(module, (3,), 2, 2) == 0.0


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


class Wandering(nn.Module):
    """A parametrisation with a state: another weight at each reading."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, weight):
        self.calls += 1
        return weight * self.calls


def parametrised(parametrisation):
    layer = nn.Linear(3, 3)
    nn.utils.parametrize.register_parametrization(layer, "weight", parametrisation)
    return layer


def test_parametrised_weights_are_the_ones_bounded():
    layer = parametrised(Halved())
    plain = nn.Linear(3, 3)
    with torch.no_grad():
        plain.weight.copy_(layer.weight)
    assert sensitivity(layer, (3,), 2, 2) == sensitivity(plain, (3,), 2, 2)


class Shifted(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) + x.mean()


class Reversed(nn.Sequential):
    def __iter__(self):
        return reversed(list(self._modules.values()))


class Renamed(nn.Linear):
    """A subclass that computes what its base does."""


def with_instance_forward():
    layer = nn.ReLU()
    layer.forward = lambda x: 3 * x
    return layer


def hooked(register):
    layer = nn.Linear(4, 4)
    getattr(layer, register)(lambda *arguments: None)
    return layer


def filled(value):
    layer = nn.Linear(4, 4)
    nn.init.constant_(layer.weight, value)
    return layer


def with_infinite_bias():
    layer = nn.Linear(4, 4)
    nn.init.constant_(layer.bias, math.inf)
    return layer


def untrained_norm(**options):
    return nn.BatchNorm2d(3, **options).eval()


def negative_variance():
    norm = nn.BatchNorm2d(3).eval()
    norm.running_var.fill_(-1.0)
    return norm


IMAGE, VECTOR = (3, 6, 6), (4,)
REFUSED = {
    "unknown": (nn.Dropout(), VECTOR, r"prefix \(Dropout\): nothing is proved.*Accepted before"),
    "path": (
        nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh(), nn.GELU())),
        VECTOR,
        r"prefix\.1\.1 \(GELU\)",
    ),
    "norm layer": (nn.GroupNorm(1, 3), IMAGE, r"prefix \(GroupNorm\)"),
    "relu6": (nn.ReLU6(), VECTOR, r"prefix \(ReLU6\)"),
    "overridden": (Shifted(3, 3, 3), IMAGE, r"prefix \(Shifted\): it overrides Conv2d\.forward"),
    "reordered": (Reversed(nn.ReLU()), VECTOR, r"it overrides Sequential\.__iter__"),
    "instance": (with_instance_forward(), VECTOR, r"it overrides ReLU\.forward"),
    "hook": (hooked("register_forward_hook"), VECTOR, r"prefix \(Linear\): its forward hooks"),
    "pre-hook": (hooked("register_forward_pre_hook"), VECTOR, "hooks or pre-hooks may change"),
    "lazy": (nn.LazyLinear(3), VECTOR, r"prefix \(LazyLinear\): its forward hooks"),
    "moving weight": (parametrised(Wandering()), (3,), r"changes from one reading.*\.eval\(\)"),
    "reflect": (
        nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"),
        IMAGE,
        "padding_mode 'reflect' repeats pixels; only 'zeros'",
    ),
    "replicate": (nn.Conv2d(3, 3, 3, padding_mode="replicate"), IMAGE, "'replicate'"),
    "circular": (nn.Conv2d(3, 3, 3, padding_mode="circular"), IMAGE, "'circular'"),
    "nan": (filled(math.nan), VECTOR, "weight holds NaN or infinite"),
    "infinite": (filled(math.inf), VECTOR, "weight holds NaN or infinite"),
    "infinite bias": (with_infinite_bias(), VECTOR, "bias holds NaN or infinite"),
    "complex": (
        nn.Linear(4, 4, dtype=torch.complex64),
        VECTOR,
        "weight must be real floating-point numbers in memory, got torch.complex64",
    ),
    "meta": (nn.Linear(4, 4, device="meta"), VECTOR, "in memory, got torch.float32 on meta"),
    "linear on images": (nn.Linear(6, 4), IMAGE, "flat input of 6 coordinates.*add a Flatten"),
    "linear width": (nn.Linear(5, 4), VECTOR, r"flat input of 5 coordinates, got \(4,\)"),
    "channels": (nn.Conv2d(4, 2, 3), IMAGE, r"needs an input \[4, H, W\], got \(3, 6, 6\)"),
    "convolution of vectors": (nn.Conv2d(4, 2, 3), VECTOR, r"\[4, H, W\], got \(4,\)"),
    "kernel too large": (nn.Conv2d(3, 2, 7), IMAGE, "no output is left"),
    "pool too large": (nn.MaxPool2d(7), IMAGE, "no output is left"),
    "pool of vectors": (nn.AvgPool2d(2), VECTOR, r"needs an input \[C, H, W\]"),
    "flatten": (nn.Flatten(2), IMAGE, r"flatten all but the batch \(1 to -1\), got 2 to -1"),
    "flatten batch": (nn.Flatten(0), IMAGE, "got 0 to -1"),
    "slope": (nn.LeakyReLU(1.5), VECTOR, r"slope must lie in \[-1, 1\], got 1\.5"),
    "nan slope": (nn.LeakyReLU(math.nan), VECTOR, "got nan"),
    "batch statistics": (nn.BatchNorm2d(3), IMAGE, r"other examples of the batch; call \.eval"),
    "no statistics": (untrained_norm(track_running_stats=False), IMAGE, "keep running statistics"),
    "variance": (negative_variance(), IMAGE, "running variance plus eps must be above 0"),
    "norm channels": (nn.BatchNorm2d(4).eval(), IMAGE, r"4 channels and cannot take \(3, 6, 6\)"),
    "norm rank": (nn.BatchNorm1d(3).eval(), IMAGE, "3 channels and cannot take"),
    "average ceil": (nn.AvgPool2d(4, ceil_mode=True), IMAGE, "ceil_mode and divisor_override"),
    "average divisor": (nn.AvgPool2d(2, divisor_override=1), IMAGE, "divisor_override"),
    "average border": (
        nn.AvgPool2d(2, padding=1, count_include_pad=False),
        IMAGE,
        "count_include_pad=False weights the border more",
    ),
    "max dilation": (nn.MaxPool2d(2, dilation=2), IMAGE, "dilation and return_indices"),
    "max indices": (nn.MaxPool2d(2, return_indices=True), IMAGE, "return_indices"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_layer_and_the_reason(name):
    module, shape, message = REFUSED[name]
    for call in (lambda: sensitivity(module, shape, 2, 2), lambda: output_shape(module, shape)):
        with pytest.raises(UnsupportedModel, match=message):
            call()


def test_hooked_weight_norms_are_refused():
    with pytest.warns(FutureWarning):
        module = nn.utils.weight_norm(nn.Linear(4, 4))
    with pytest.raises(UnsupportedModel, match=r"torch\.nn\.utils are hooks"):
        sensitivity(module, VECTOR, 2, 2)


def test_global_hooks_are_refused():
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *arguments: None)
    try:
        with pytest.raises(UnsupportedModel, match="hooks"):
            sensitivity(nn.ReLU(), VECTOR, 2, 2)
    finally:
        handle.remove()
    assert sensitivity(nn.ReLU(), VECTOR, 2, 2) == 1.0


def test_unchanged_subclasses_are_accepted():
    torch.manual_seed(0)
    assert sensitivity(Renamed(4, 2), VECTOR, 2, 2) > 0


@pytest.mark.parametrize("shape", [(), (0, 3, 3), (3.0,), 5, (-1,)])
def test_malformed_shapes_are_refused(shape):
    with pytest.raises(InvalidArgument, match="`input_shape` must be positive integers"):
        sensitivity(None, shape, 2, 2)


def test_malformed_arguments_are_refused():
    with pytest.raises(InvalidArgument, match="`module` must be a torch module"):
        sensitivity(lambda x: x, (3,), 2, 2)
    with pytest.raises(InvalidArgument, match="`norm` must be one of 1, 2, inf"):
        sensitivity(None, (3,), 3, 2)


PREFIXES = {
    "single": (lambda: nn.Conv2d(1, 8, 5, 2, 2), (1, 12, 12)),
    "dense": (lambda: nn.Linear(30, 20), (30,)),
    "chain": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(36, 5)
        ),
        (1, 9, 9),
    ),
}


@pytest.mark.parametrize("target", [1.0, 0.03, 40.0])
@pytest.mark.parametrize(("p", "q"), [(1, 1), (1, 2), (2, 2), ("inf", 2)])
@pytest.mark.parametrize("name", PREFIXES)
def test_normalise_reaches_its_target(name, p, q, target):
    build, shape = PREFIXES[name]
    torch.manual_seed(8)
    module = build()
    bias = [v.clone() for k, v in module.named_parameters() if k.endswith("bias")]
    after = normalise_(module, shape, p, q, target)
    assert after == sensitivity(module, shape, p, q)
    assert target * (1 - 1e-5) <= after <= target
    left = [v for k, v in module.named_parameters() if k.endswith("bias")]
    assert all(torch.equal(a, b) for a, b in zip(bias, left, strict=True))
    weights = [p.clone() for p in module.parameters()]
    assert normalise_(module, shape, p, q, target) == after
    assert all(torch.equal(a, b) for a, b in zip(weights, module.parameters(), strict=True))


def test_normalise_shares_the_factor_between_layers():
    torch.manual_seed(9)
    module = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    before = [layer.weight.clone() for layer in (module[0], module[2])]
    normalise_(module, (6,), 2, 2)
    factors = [
        float((layer.weight / old).detach().mean())
        for layer, old in zip((module[0], module[2]), before, strict=True)
    ]
    assert factors[0] == pytest.approx(factors[1], rel=1e-6)


def test_normalise_counts_a_shared_layer_twice():
    torch.manual_seed(9)
    layer = nn.Linear(6, 6)
    tied = nn.Linear(6, 6)
    tied.weight = layer.weight
    module = nn.Sequential(layer, nn.ReLU(), layer, tied)
    assert normalise_(module, (6,), 2, 2) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_normalise_stays_below_its_target_at_every_precision(dtype):
    torch.manual_seed(10)
    module = nn.Linear(30, 20).to(dtype)
    after = normalise_(module, (30,), 2, 2)
    assert 1 - 20 * torch.finfo(dtype).eps - 1e-5 <= after <= 1


def test_normalise_keeps_gradients_usable():
    torch.manual_seed(10)
    module = nn.Linear(4, 4)
    module(torch.ones(1, 4)).sum().backward()
    normalise_(module, (4,), 2, 2)
    assert module.weight.requires_grad
    assert module.weight.grad is not None


def test_normalise_without_layers_to_scale():
    assert normalise_(None, (4,), 2, 2) == 1.0
    assert normalise_(nn.ReLU(), (4,), 2, 2, target=3.0) == 1.0
    with pytest.raises(UnsupportedModel, match="sensitivity 2 and 0 Linear or Conv2d layers"):
        normalise_(None, (4,), "inf", 2)


def test_normalise_refusals():
    with pytest.raises(UnsupportedModel, match="sensitivity 0 and 1 Linear"):
        normalise_(filled(0.0), VECTOR, 2, 2)
    with pytest.raises(UnsupportedModel, match="parametrised and cannot be scaled"):
        normalise_(parametrised(Halved()), (3,), 2, 2)
    for target in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InvalidArgument, match="`target` must be a finite number above 0"):
            normalise_(nn.Linear(4, 4), VECTOR, 2, 2, target)
