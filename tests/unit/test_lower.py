"""Lowered networks compute what the modules compute, and what does not lower is named."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from pixeldp_fast.errors import UnsupportedModel
from pixeldp_fast.models import build
from pixeldp_fast.models.normalize import Normalize
from pixeldp_fast.models.wide_resnet import wide_resnet
from pixeldp_fast.plan.interpret import interpret
from pixeldp_fast.plan.lower import lower
from pixeldp_fast.plan.ops import Activation, Affine, Convolution, Dense, Pool, SlicePad
from tests.helpers.lowering import kinds, lowered, randomised, resnet18, resnet50


class Function(nn.Module):
    """A function of the features as a module, with layers and tensors it may use as `m`."""

    def __init__(self, function, **members):
        super().__init__()
        self.function = function
        for name, member in members.items():
            if isinstance(member, torch.Tensor):
                self.register_buffer(name, member)
            else:
                setattr(self, name, member)

    def forward(self, x):
        return self.function(self, x)


def bn(channels):
    return nn.BatchNorm2d(channels)


C = 4
MAP = (C, 7, 9)
K = torch.tensor([0.5, -2.0, 3.0, 1.5])
KP = K.reshape(C, 1, 1)


def _written_and_read(x):
    y = functional.relu(x, inplace=True)
    return x + 2 * y


def _written_over(x, view):
    before = view(x)
    return before + view(x.relu_())


def _written_unread(x):
    flat = x.view(x.shape[0], -1)
    x.relu_()
    return flat


def _padded(x):
    return functional.pad(x, (0, 0, 0, 0, 1, 3))


def _without_gradients(x):
    with torch.no_grad():
        return x * 2


LAYERS = {
    "conv": nn.Conv2d(C, 6, 3),
    "conv-asymmetric": nn.Conv2d(C, 5, (3, 2), stride=(2, 3), padding=(1, 0), dilation=(1, 2)),
    "conv-no-bias": nn.Conv2d(C, 6, 1, bias=False),
    "conv-same": nn.Conv2d(C, 6, 3, padding="same"),
    "conv-same-even": nn.Conv2d(C, 6, (2, 4), padding="same"),
    "conv-same-even-dilated": nn.Conv2d(C, 6, (4, 2), padding="same", dilation=(1, 3)),
    "conv-valid": nn.Conv2d(C, 6, 3, padding="valid", stride=2),
    "conv-groups": nn.Conv2d(C, 6, 3, groups=2, padding=2),
    "conv-depthwise": nn.Conv2d(C, 8, 3, groups=C, dilation=2, padding=2),
    "batch-norm": bn(C),
    "batch-norm-plain": nn.BatchNorm2d(C, affine=False, eps=0.1),
    "relu": nn.ReLU(),
    "relu-in-place": nn.ReLU(inplace=True),
    "leaky": nn.LeakyReLU(0.3),
    "leaky-above-one": nn.LeakyReLU(1.5),
    "leaky-negative-in-place": nn.LeakyReLU(-0.2, inplace=True),
    "max": nn.MaxPool2d(2),
    "max-padding": nn.MaxPool2d(3, stride=2, padding=1),
    "max-ceil": nn.MaxPool2d((2, 3), stride=(2, 3), padding=(1, 1), ceil_mode=True),
    "max-ceil-dropped": nn.MaxPool2d(2, stride=4, padding=1, ceil_mode=True),
    "mean": nn.AvgPool2d(2),
    "mean-asymmetric": nn.AvgPool2d((3, 2), stride=(1, 2), padding=(1, 0)),
    "mean-inside": nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
    "mean-ceil": nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True),
    "mean-ceil-beyond": nn.AvgPool2d(4, stride=3, padding=2, ceil_mode=True),
    "mean-ceil-inside": nn.AvgPool2d(4, 3, 2, ceil_mode=True, count_include_pad=False),
    "mean-divisor": nn.AvgPool2d(3, padding=1, ceil_mode=True, divisor_override=5),
    "adaptive": nn.AdaptiveAvgPool2d(1),
    "adaptive-uneven": nn.AdaptiveAvgPool2d((3, 4)),
    "adaptive-wider": nn.AdaptiveAvgPool2d((None, 11)),
    "adaptive-max": nn.AdaptiveMaxPool2d((3, 4)),
    "normalize": Normalize(K.tolist(), [1.0, 2.0, 0.5, 3.0]),
    "dropout": nn.Sequential(nn.Dropout(), nn.Dropout2d(), nn.AlphaDropout(), nn.Identity()),
    "dropout-in-place": nn.Sequential(bn(C), nn.Dropout(inplace=True)),
    "weight-norm": nn.utils.parametrizations.weight_norm(nn.Conv2d(C, 3, 2).double()).float(),
}
FUNCTIONS = {
    "relu": lambda m, x: functional.relu(x),
    "tensor-relu-in-place": lambda m, x: (x + 1).relu_(),
    "leaky": lambda m, x: functional.leaky_relu(x, 0.1),
    "mean": lambda m, x: x.mean([2, 3]),
    "mean-keep": lambda m, x: x.mean((-1, -2), keepdim=True),
    "mean-squeeze": lambda m, x: x.mean((-1, -2), keepdim=True).squeeze(-1).squeeze(-1),
    "mean-select": lambda m, x: functional.adaptive_avg_pool2d(x, 1)[:, :, 0, 0],
    "view-and-back": lambda m, x: x.view(x.size(0), -1).relu().view(x.shape) * 2,
    "reshape": lambda m, x: x.reshape(-1, C * 63),
    "flat-sum": lambda m, x: x.flatten(1) + (2 * x).flatten(1),
    "nothing": lambda m, x: x,
    "no-ops": lambda m, x: x.contiguous().clone().detach().to(x.dtype)[:],
    "add": lambda m, x: x + 2 * x,
    "add-itself": lambda m, x: x + x,
    "add-in-place": lambda m, x: (x * 2).add_(x),
    "constants": lambda m, x: 2 - (3 * x / m.k - m.k) + m.flat.view(1, -1, 1, 1) / 7,
    "constants-in-place": lambda m, x: (x + 1).mul_(m.k).div_(2).sub_(m.k, alpha=0.5).neg_(),
    "scaled-constant": lambda m, x: torch.add(m.k, torch.sub(m.k, x, alpha=3), alpha=2),
    "constant-scalar": lambda m, x: x * m.one,
    "literal": lambda m, x: x - torch.tensor([0.1, 0.2, 0.3, 0.4]).to(x)[None, :, None, None],
    "written-and-read": lambda m, x: _written_and_read(x + 1),
    "written-input": lambda m, x: _written_and_read(x),
    "written-behind-a-clone": lambda m, x: _written_over(x + 1, torch.clone),
    "no-grad": lambda m, x: _without_gradients(x),
    "slice": lambda m, x: x[:, :, ::2, ::3],
    "slice-rows": lambda m, x: x[:, :, ::3],
    "pad": lambda m, x: functional.pad(x, (0, 0, 0, 0, 1, 2)),
    "slice-pad": lambda m, x: functional.pad(x[..., ::2, ::2], (0, 0, 0, 0, 3, 0)),
    "pad-slice-pad": lambda m, x: functional.pad(_padded(x)[:, :, ::2], (0, 0, 0, 0, 2, 1)),
    "slice-used-twice": lambda m, x: x[..., ::2, ::2] + functional.relu(x[..., ::2, ::2][..., :]),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer(name):
    layer = randomised(LAYERS[name])
    lowered(layer, MAP)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function(name):
    module = Function(FUNCTIONS[name], k=KP, flat=K, one=torch.tensor([2.5])).eval()
    lowered(module, MAP)
    lowered(nn.Sequential(nn.Conv2d(C, C, 1), module), MAP)


VECTORS = {
    "linear": nn.Linear(6, 5),
    "linear-no-bias": nn.Linear(6, 5, bias=False),
    "batch-norm": nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU()),
    "constants": Function(lambda m, x: x * m.k - 1, k=torch.arange(1.0, 7.0)),
    "residual": Function(lambda m, x: (m.fc(x) + x).relu(), fc=nn.Linear(6, 6)),
}


@pytest.mark.parametrize("name", VECTORS)
def test_vectors(name):
    lowered(randomised(VECTORS[name]), (6,))


def test_batch_norm_of_pooled_channels():
    module = nn.Sequential(
        nn.Conv2d(C, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(5)
    )
    lowered(randomised(module), MAP)


def test_a_flattened_map_is_read_in_c_order():
    module = nn.Sequential(nn.Conv2d(C, 3, 3), nn.Flatten(), nn.ReLU(), nn.Linear(3 * 35, 5))
    graph, better = lowered(module.eval(), MAP)
    assert kinds(graph) == {"Convolution": 1, "Activate": 1, "Dense": 1}
    assert graph.shapes == (MAP, (3, 5, 7), (3, 5, 7), (5,))
    assert kinds(better) == {"Convolution": 1, "Dense": 1}


def test_a_map_may_be_the_output():
    graph, _ = lowered(nn.Conv2d(C, 3, 3).eval(), MAP)
    assert graph.shapes[graph.output] == (3, 5, 7)
    assert interpret(graph, torch.zeros(2, *MAP)).shape == (2, 105)


def test_no_prefix_is_the_empty_graph():
    graph = lower(nn.Identity(), MAP)
    assert (graph.nodes, graph.shapes, graph.output) == ((), (MAP,), 0)


def test_a_shared_layer_is_two_nodes_of_one_weight():
    layer = nn.Conv2d(C, C, 3, padding=1)
    graph, _ = lowered(nn.Sequential(layer, nn.ReLU(), layer).eval(), MAP)
    first, _, last = graph.nodes
    assert first.weight.data_ptr() == last.weight.data_ptr() == layer.weight.data_ptr()


def test_slices_and_pads_are_one_node():
    module = Function(lambda m, x: functional.pad(x[:, :, ::2, ::3], (0, 0, 0, 0, 1, 2)))
    (node,) = lower(module, MAP).nodes
    assert isinstance(node, SlicePad)
    assert (node.source, node.stride, node.low, node.high) == (0, (2, 3), 1, 2)


def test_what_nothing_reads_is_left_out():
    module = Function(lambda m, x: (m.fc(x), x.relu())[1], fc=nn.Linear(6, 6))
    assert kinds(lower(module, (6,))) == {"Activate": 1}


def test_nodes_say_what_the_layers_say():
    convolution = nn.Conv2d(C, 6, (3, 2), 2, (1, 0), groups=2)
    pool = nn.AvgPool2d((2, 3), 2, padding=(1, 0), ceil_mode=True)
    module = nn.Sequential(convolution, nn.LeakyReLU(0.2), pool, nn.Flatten(), nn.Linear(36, 3))
    conv, leaky, mean, last = lower(module, MAP).nodes
    assert isinstance(conv, Convolution)
    assert (conv.stride, conv.padding, conv.dilation) == ((2, 2), ((1, 1), (0, 0)), (1, 1))
    assert (conv.groups, conv.residual, conv.source) == (2, None, 0)
    assert leaky.activation == Activation(0.2)
    assert isinstance(mean, Pool)
    assert (mean.kind, mean.rows, mean.columns) == (
        "mean",
        ((0, 1), (1, 3), (3, 4)),
        ((0, 3), (2, 4)),
    )
    assert mean.divisors == ((6, 4), (6, 4), (6, 4))
    assert isinstance(last, Dense)
    assert last.source == 3


def test_windows_that_overlap_where_sizes_do_not_divide():
    (node,) = lower(nn.AdaptiveAvgPool2d((3, 4)), MAP).nodes
    assert node.rows == ((0, 3), (2, 5), (4, 7))
    assert node.columns == ((0, 3), (2, 5), (4, 7), (6, 9))
    assert node.divisors == ((9,) * 4,) * 3


def network(name, **options):
    shape = options.pop("input_shape", (3, 32, 32))
    prefix, suffix = build(name, input_shape=shape, num_classes=10, **options)
    prefix = randomised(prefix or nn.Identity())
    with torch.no_grad():
        shape_behind = tuple(prefix(torch.zeros(1, *shape)).shape[1:])
    return prefix, randomised(suffix), shape, shape_behind


LOOSE = ("Affine", "Activate", "Add")  # what folds and fuses
SHIPPED = [
    ("pixeldp_cnn", {"noise_after": 0}, 4),
    ("pixeldp_cnn", {"noise_after": 1, "input_shape": (1, 28, 28)}, 4),
    ("pixeldp_cnn", {"noise_after": 2}, 3),
    ("mlp", {}, 3),
    ("mlp", {"noise_after": 1}, 3),
    ("resnet20", {}, 23),
    ("resnet20", {"shortcut": "pad"}, 23),
    ("resnet20", {"noise_after": 1}, 23),
    ("resnet20", {"normalise": ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4])}, 24),
    ("resnet110", {}, 113),
]


@pytest.mark.parametrize(("name", "options", "count"), SHIPPED)
def test_shipped_networks(name, options, count):
    prefix, suffix, shape, behind = network(name, **options)
    lowered(prefix, shape)
    _, better = lowered(suffix, behind, examples=2)
    assert len(better.nodes) == count
    loose = {node.source for node in better.nodes if type(node).__name__ in LOOSE}
    assert loose <= {0}  # only what stands at the noise point has nothing to join


@pytest.mark.parametrize(("depth", "widening", "blocks"), [(10, 2, 3), (28, 1, 12)])
def test_wide_resnets(depth, widening, blocks):
    layers, _ = wide_resnet((3, 16, 16), 10, depth=depth, widening=widening)
    _, better = lowered(randomised(layers), (3, 16, 16))
    shortcuts = 3 if widening > 1 else 2  # without one, the first batch-norm folds, the last stays
    assert kinds(better) == {
        "Convolution": 1 + 2 * blocks + shortcuts,
        "Affine": blocks + (widening == 1),
        "Pool": 1,
        "Dense": 1,
    }


def test_the_full_wide_resnet():
    _, suffix, shape, _ = network("wide_resnet28_10")
    assert len(lower(suffix, shape).nodes) == 92


@pytest.mark.parametrize(("make", "count"), [(resnet18, 20 + 3), (resnet50, 53 + 3)])
def test_torchvision_style_networks(make, count):
    _, better = lowered(randomised(make()), (3, 40, 48), examples=2)
    assert len(better.nodes) == count
    assert not set(kinds(better)) & set(LOOSE)


CHAIN = st.lists(
    st.sampled_from(["conv", "bn", "relu", "leaky", "residual", "max", "mean", "slice", "scale"]),
    min_size=1,
    max_size=6,
)


def chain(names):
    make = {
        "conv": lambda: nn.Conv2d(C, C, 3, padding=1, groups=2),
        "bn": lambda: bn(C),
        "relu": nn.ReLU,
        "leaky": lambda: nn.LeakyReLU(0.1),
        "residual": lambda: Function(lambda m, x: m.a(x) + m.b(x), a=nn.Conv2d(C, C, 1), b=bn(C)),
        "max": lambda: nn.MaxPool2d(2, stride=1, padding=1),
        "mean": lambda: nn.AdaptiveAvgPool2d((3, 5)),
        "slice": lambda: Function(lambda m, x: x[:, :, ::2]),
        "scale": lambda: Function(lambda m, x: x * m.k + 1, k=KP),
    }
    return nn.Sequential(*(make[name]() for name in names))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(CHAIN, st.integers(0, 99))
def test_chains_of_layers(names, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = randomised(chain(names), seed)
    lowered(module, MAP)


@st.composite
def pools(draw):
    """A pooling layer that torch accepts, and a map it fits."""
    pairs = [(draw(st.integers(1, 5)), draw(st.integers(1, 4))) for _ in range(2)]
    kernel, stride = zip(*pairs, strict=True)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    size = tuple(
        draw(st.integers(max(1, k - 2 * p), 9)) for k, p in zip(kernel, padding, strict=True)
    )
    ceil = draw(st.booleans())
    if draw(st.booleans()):
        return nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil), (2, *size)
    divisor = draw(st.sampled_from([None, None, 3]))
    return nn.AvgPool2d(kernel, stride, padding, ceil, draw(st.booleans()), divisor), (2, *size)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(pools())
def test_pools_of_any_geometry(pool):
    lowered(*pool)


def refusals(module, shape=MAP, part="suffix"):
    with pytest.raises(UnsupportedModel) as caught:
        lower(module, shape, part=part)
    assert str(caught.value).startswith(part)
    return [line.strip() for line in str(caught.value).split("\n")[1:]]


def test_every_offending_node_is_listed():
    module = nn.Sequential()
    module.add_module("conv", nn.Conv2d(C, 6, 3))
    module.add_module("act", nn.GELU())
    module.add_module("pool", nn.MaxPool2d(2, dilation=2))
    module.add_module("norm", nn.Sequential(nn.GroupNorm(2, 6), nn.ReLU()))
    assert refusals(module.eval()) == [
        "suffix.act (aten.gelu.default): not an operation of the engines",
        "suffix.pool (aten.max_pool2d.default): its window has gaps (dilation)",
        "suffix.norm.0 (aten.group_norm.default): not an operation of the engines",
    ]


REFUSED = {
    "mixes-examples": (lambda m, x: x - x.mean(0), "aten.mean.dim"),
    "mixes-by-view": (lambda m, x: x.view(-1, 7, 9), "one row per example"),
    "transposed": (lambda m, x: x.transpose(2, 3), "aten.transpose.int"),
    "flipped-batch": (lambda m, x: x.flip(0), "aten.flip.default"),
    "part-of-the-batch": (lambda m, x: x[::2], "cannot be traced"),
    "cropped": (lambda m, x: x[:, :, 1:], "cuts a part out"),
    "cropped-end": (lambda m, x: x[:, :, :-1], "cuts a part out"),
    "some-channels": (lambda m, x: x[:, ::2], "cuts a part out"),
    "one-pixel": (lambda m, x: x[:, :, 0, 0], "takes a part"),
    "padded-pixels": (lambda m, x: functional.pad(x, (1, 1)), "pads other than"),
    "padded-by-ones": (lambda m, x: functional.pad(x, (0,) * 4 + (1, 1), value=1.0), "pads other"),
    "padded-around": (
        lambda m, x: functional.pad(x, (1,) * 4, mode="circular"),
        "aten.pad.default",
    ),
    "product": (lambda m, x: x * x, "multiplies features by features"),
    "quotient": (lambda m, x: 1 / (x + 9), "aten.reciprocal.default"),
    "difference": (lambda m, x: x - x.relu(), "subtracts features from features"),
    "scaled-sum": (lambda m, x: torch.add(x, x.relu(), alpha=2), "scales what it adds"),
    "pixel-constant": (lambda m, x: x + m.pixels, "differs from pixel to pixel"),
    "wide-constant": (lambda m, x: m.narrow(x) + m.k, "one value per channel"),
    "zero-divisor": (lambda m, x: x / (m.k - m.k), "NaN or infinite"),
    "infinite-constant": (lambda m, x: x + float("inf"), "NaN or infinite"),
    "batch-size": (lambda m, x: x / x.size(0), "aten.div.Tensor"),
    "integers": (lambda m, x: x.to(torch.int64), "returns torch.int64"),
    "half": (lambda m, x: x.half(), "returns torch.float16"),
    "random": (lambda m, x: x + torch.randn_like(x), "aten.randn_like.default"),
    "random-constant": (lambda m, x: x + torch.rand_like(m.k), "aten.rand_like.default"),
    "broadcast": (lambda m, x: x + x.mean((2, 3), keepdim=True), "adds features of shapes"),
    "mean-of-rows": (lambda m, x: x.mean(2), "averages over other dimensions"),
    "flat-scale": (lambda m, x: x.flatten(1) * 2, "acts per channel"),
    "unflattened": (lambda m, x: m.conv(x.view(-1, 7, C, 9).view(-1, 9, 7, C)), "reshaped"),
    "rows-of-dense": (lambda m, x: m.fc(x), "needs a vector"),
    "positions": (
        lambda m, x: functional.adaptive_max_pool2d(x, 1, True)[1].to(x),
        r"\(getitem\): returns torch.int64",
    ),
    "two-outputs": (lambda m, x: (x, x + 1), "one tensor"),
    "no-input": (lambda m, x: m.k.flatten()[None], "one tensor"),
    "active-dropout": (lambda m, x: functional.dropout(x, training=True), "drops at random"),
    "counter": (lambda m, x: x + m.k.add_(1), "writes to a parameter or buffer"),
    "written-over": (lambda m, x: _written_over(x + 1, lambda y: y.flatten(1)), "writes over"),
    "written-over-slice": (lambda m, x: _written_over(x + 1, lambda y: y[..., ::2]), "writes over"),
    "written-unread": (lambda m, x: _written_unread(x + 1), "writes over"),
    "control-flow": (lambda m, x: x.relu() if x.sum() > 0 else x, "cannot be traced"),
    "bound-batch": (lambda m, x: x if x.shape[0] == 2 else x.relu(), "cannot be traced"),
    "own-error": (lambda m, x: [][0], "IndexError"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    function, reason = REFUSED[name]
    module = Function(
        function,
        k=KP.clone(),
        pixels=torch.ones(7, 9),
        conv=nn.Conv2d(9, 2, 1),
        narrow=nn.Conv2d(C, 1, 1),
        fc=nn.Linear(9, 2),
    )
    with pytest.raises(UnsupportedModel, match=reason):
        lower(module.eval(), MAP)


def test_batch_statistics_are_refused():
    lines = refusals(nn.BatchNorm2d(C, track_running_stats=False).eval())
    assert len(lines) == 1
    assert "uses the statistics of the batch" in lines[0]
    assert any("statistics of the batch" in line for line in refusals(nn.BatchNorm2d(C).train()))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value):
    module = nn.Sequential(nn.Conv2d(C, C, 3), nn.BatchNorm2d(C)).eval()
    module[0].weight.data[1, 2, 0, 0] = value
    module[1].running_mean[0] = value
    assert refusals(module) == [
        "suffix.0 (aten.conv2d.default): its 0.weight holds NaN or infinite values",
        "suffix.1 (aten.batch_norm.default): its 1.running_mean holds NaN or infinite values",
    ]


def test_a_negative_variance_is_refused():
    layer = nn.BatchNorm2d(C).eval()
    layer.running_var[1] = -1
    assert "not above 0" in refusals(layer)[0]


@pytest.mark.parametrize("shape", [(), (3, 4), (2, 3, 4, 5), (3, 0, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(UnsupportedModel, match="prefix reads features of shape"):
        lower(nn.Identity(), shape, part="prefix")


def test_an_input_that_the_module_rejects():
    with pytest.raises(UnsupportedModel, match=r"suffix cannot be traced .* RuntimeError"):
        lower(nn.Linear(5, 3), (4,), part="suffix")


class Stateful(nn.Module):
    """Keeps its input and counts its calls."""

    def __init__(self):
        super().__init__()
        self.seen = None
        self.calls = 0
        self.act = nn.GELU()

    def forward(self, x):
        self.seen = x
        self.calls += 1
        return self.act(x)


def test_a_refused_module_stays_as_it_was():
    module = Stateful()
    lines = refusals(nn.Sequential(module, nn.ReLU()).eval(), (5,))
    assert lines == ["suffix.0.act (aten.gelu.default): not an operation of the engines"]
    assert (module.seen, module.calls) == (None, 0)


def test_a_failed_trace_prints_nothing(capfd):
    module = Function(lambda m, x: x if x.sum() > 0 else -x)
    with pytest.raises(UnsupportedModel):
        lower(module, (5,))
    assert "def forward" not in "".join(capfd.readouterr())


def test_lowering_leaves_the_module_as_it_was():
    module = resnet18().train()
    module.eval()
    module.relu.train()
    before = {name: t.clone() for name, t in module.state_dict().items()}
    modes = [m.training for m in module.modules()]
    gradients = [p.requires_grad for p in module.parameters()]
    attributes = [set(vars(m)) for m in module.modules()]
    lower(module, (3, 32, 32))
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
    assert [m.training for m in module.modules()] == modes
    assert [p.requires_grad for p in module.parameters()] == gradients
    assert [set(vars(m)) for m in module.modules()] == attributes
    assert all(p.grad is None for p in module.parameters())


def test_lowering_in_inference_mode_and_without_gradients():
    layer = nn.Linear(5, 3)
    for mode in (torch.inference_mode(), torch.no_grad()):
        with mode:
            assert kinds(lower(layer, (5,))) == {"Dense": 1}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_floating_modules(dtype):
    module = randomised(nn.Sequential(nn.Conv2d(C, 3, 3), nn.BatchNorm2d(3))).to(dtype)
    graph, _ = lowered(module, MAP)
    convolution, affine = graph.nodes
    assert convolution.weight.dtype == dtype
    assert isinstance(affine, Affine)
    assert affine.scale.dtype == affine.shift.dtype == torch.float64


def test_weights_are_shared_with_the_module():
    layer = nn.Linear(3, 2)
    (node,) = lower(layer, (3,)).nodes
    layer.weight.data.fill_(7)
    assert (node.weight == 7).all()
    assert not node.weight.requires_grad


def test_importing_the_plan_is_light():
    code = (
        "import sys, pixeldp_fast.plan, pixeldp_fast.plan.lower\n"
        "print([m for m in ('torch._dynamo', 'sympy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_module_made_in_inference_mode_lowers():
    with torch.inference_mode():
        module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU()).eval()
        x = torch.randn(3, 5)
        assert torch.allclose(interpret(lower(module, (5,)), x), module(x), atol=1e-6)
