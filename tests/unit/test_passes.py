"""The passes keep the outputs, leave nothing that folds, and keep an order of evaluation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixeldp_fast.plan.interpret import interpret
from pixeldp_fast.plan.ops import (
    IDENTITY,
    Activate,
    Activation,
    Add,
    Affine,
    Convolution,
    Dense,
    Graph,
    SlicePad,
)
from pixeldp_fast.plan.passes import fold_affine, fuse, last_uses, operands, optimised, prune
from tests.helpers.lowering import kinds

C, SHAPE = 3, (3, 4, 5)
RELU, LEAKY = Activation(0.0), Activation(0.25)


def normal(*size):
    return torch.randn(size, dtype=torch.float64)


def convolution(source, **options):
    return Convolution(source, normal(C, C, 3, 3), normal(C), padding=((1, 1), (1, 1)), **options)


def affine(source, activation=IDENTITY, channels=C):
    return Affine(source, normal(channels), normal(channels), activation)


def graph_of(*nodes, output=None):
    """A graph of nodes that all keep the shape of the input."""
    shapes = (SHAPE,) * (len(nodes) + 1)
    return Graph(nodes, shapes, len(nodes) if output is None else output)


def check_order(graph):
    assert len(graph.shapes) == len(graph.nodes) + 1
    assert 0 <= graph.output <= len(graph.nodes)
    for i, node in enumerate(graph.nodes):
        assert max(operands(node)) <= i


def check_equal(one, other):
    for graph in (one, other):
        check_order(graph)
    x = normal(2, *one.input_shape)
    expected, got = interpret(one, x), interpret(other, x)
    assert float((expected - got).abs().max()) <= 1e-12 * float(expected.abs().max()) + 1e-300


@pytest.fixture(autouse=True)
def fixed_numbers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def after(graph, apply):
    """The graph behind a pass, found equal to the one in front."""
    nodes = graph.nodes
    better = apply(graph)
    assert graph.nodes is nodes
    check_equal(graph, better)
    return better


def test_an_affine_folds_into_the_convolution_before_it():
    (node,) = after(graph_of(convolution(0), affine(1, RELU)), fold_affine).nodes
    assert isinstance(node, Convolution)
    assert node.activation == RELU


def test_an_affine_folds_into_the_dense_layer_before_it():
    nodes = (Dense(0, normal(C, 60), None), affine(1))
    (node,) = after(Graph(nodes, (SHAPE, (C,), (C,)), 2), fold_affine).nodes
    assert isinstance(node, Dense)
    assert torch.equal(node.bias, nodes[1].shift)


def test_affines_in_a_row_are_one():
    (node,) = after(graph_of(affine(0), affine(1), affine(2, LEAKY)), fold_affine).nodes
    assert isinstance(node, Affine)
    assert node.activation == LEAKY


def test_folding_is_in_float64():
    weight, bias = torch.full((C, C, 1, 1), 0.1), torch.full((C,), 0.2)
    graph = graph_of(Convolution(0, weight, bias), affine(1))
    (node,) = fold_affine(graph).nodes
    assert node.weight.dtype == node.bias.dtype == torch.float64
    assert torch.equal(node.weight, weight.double() * graph.nodes[1].scale.reshape(C, 1, 1, 1))


NOT_FOLDED = {
    "in front": lambda: graph_of(affine(0), convolution(1)),
    "read twice": lambda: graph_of(convolution(0), affine(1), Add(1, 2)),
    "also the output": lambda: graph_of(convolution(0), affine(1), output=1),
    "activated before": lambda: graph_of(convolution(0, activation=RELU), affine(1)),
    "activated affine": lambda: graph_of(affine(0, RELU), affine(1)),
    "behind a sum": lambda: graph_of(Add(0, 0), convolution(1, residual=0), affine(2)),
}


@pytest.mark.parametrize("name", NOT_FOLDED)
def test_what_does_not_fold(name):
    graph = NOT_FOLDED[name]()
    assert kinds(after(graph, fold_affine)) == kinds(prune(graph))


def test_activations_join_what_makes_their_operand():
    makers = (convolution(0), affine(0), Add(0, 0), Convolution(0, normal(C, C, 1, 1), None))
    for maker in makers:
        (node,) = after(graph_of(maker, Activate(1, LEAKY)), fuse).nodes
        assert type(node) is type(maker)
        assert node.activation == LEAKY


def test_activations_that_stay():
    slices = graph_of(SlicePad(0, (1, 1), 0, 0), Activate(1, RELU))
    assert kinds(after(slices, fuse)) == {"SlicePad": 1, "Activate": 1}
    activated = graph_of(convolution(0, activation=LEAKY), Activate(1, RELU))
    assert kinds(after(activated, fuse)) == {"Convolution": 1, "Activate": 1}
    assert kinds(after(graph_of(Activate(0, RELU)), fuse)) == {"Activate": 1}
    shared = graph_of(convolution(0), Activate(1, RELU), Add(1, 2))
    assert kinds(after(shared, fuse)) == {"Convolution": 1, "Activate": 1, "Add": 1}


def test_a_sum_and_its_activation_join_the_later_convolution():
    graph = graph_of(convolution(0), convolution(0), Add(1, 2), Activate(3, RELU))
    first, last = after(graph, fuse).nodes
    assert (first.residual, first.activation) == (None, IDENTITY)
    assert (last.residual, last.activation) == (1, RELU)
    assert last.weight is graph.nodes[1].weight


def test_a_convolution_moves_behind_its_residual():
    graph = graph_of(convolution(0), affine(0, RELU), Add(1, 2))
    first, last = after(graph, fuse).nodes
    assert isinstance(first, Affine)
    assert isinstance(last, Convolution)
    assert (last.source, last.residual) == (0, 1)


def test_sums_of_three_take_one_residual():
    graph = graph_of(convolution(0), affine(0), Add(1, 2), convolution(0), Add(3, 4), Add(5, 0))
    assert kinds(after(graph, fuse)) == {"Convolution": 2, "Affine": 1, "Add": 1}


def test_sums_that_stay():
    assert kinds(after(graph_of(convolution(0), Add(1, 1)), fuse)) == {"Convolution": 1, "Add": 1}
    assert kinds(after(graph_of(affine(0), Add(1, 0)), fuse)) == {"Affine": 1, "Add": 1}
    activated = graph_of(convolution(0, activation=RELU), Add(1, 0))
    assert kinds(after(activated, fuse)) == {"Convolution": 1, "Add": 1}


def test_prune_keeps_what_the_output_needs():
    graph = graph_of(affine(0), convolution(0), affine(1), Add(2, 0), output=4)
    better = after(graph, prune)
    assert kinds(better) == {"Convolution": 1, "Add": 1}
    assert better.output == 2
    assert prune(graph_of(affine(0), output=0)).nodes == ()


def test_last_uses():
    graph = graph_of(convolution(0), affine(0), convolution(1, residual=0), Add(3, 3), affine(1))
    assert last_uses(graph) == (2, 4, 1, 3, 3, 5)
    assert last_uses(Graph((), (SHAPE,), 0)) == (0,)
    dense = Graph((Dense(0, normal(2, 60), None),), (SHAPE, (2,)), 0)
    assert last_uses(dense) == (1, 0)


@st.composite
def graphs(draw):
    """Any graph of up to 12 nodes that keep the input's shape, with any reads and output."""
    nodes = []
    for i in range(draw(st.integers(0, 12))):
        earlier = st.integers(max(0, i - 3), i) | st.integers(0, i)
        source, other = draw(earlier), draw(earlier)
        activation = draw(st.sampled_from([IDENTITY, IDENTITY, RELU, LEAKY]))
        residual = draw(st.sampled_from([None, None, other]))
        make = {
            "conv": lambda s=source, r=residual, a=activation: convolution(
                s, residual=r, activation=a
            ),
            "affine": lambda s=source, a=activation: affine(s, a),
            "add": lambda s=source, o=other, a=activation: Add(s, o, a),
            "activate": lambda s=source, a=activation: Activate(s, a),
            "slice": lambda s=source: SlicePad(s, (1, 1), 0, 0),
        }
        nodes.append(make[draw(st.sampled_from(sorted(make)))]())
    return graph_of(*nodes, output=draw(st.integers(max(0, len(nodes) - 2), len(nodes))))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(graphs())
def test_every_pass_keeps_the_outputs_of_every_graph(graph):
    for apply in (prune, fold_affine, fuse, optimised):
        after(graph, apply)
    best = optimised(graph)
    assert len(best.nodes) <= len(graph.nodes)
    assert [type(n) for n in fold_affine(fuse(best)).nodes] == [type(n) for n in best.nodes]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(graphs())
def test_a_value_may_be_overwritten_behind_its_last_use(graph):
    graph = optimised(graph)
    last = last_uses(graph)
    for i, node in enumerate(graph.nodes):
        assert all(last[value] >= i for value in operands(node))
    assert last[graph.output] == len(graph.nodes)
