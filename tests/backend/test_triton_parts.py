"""The GPU engine's parts: segments, graph modules, placements, compiling, operators."""

import numpy as np
import pytest
import torch
from torch import nn

from pixeldp_fast.backends.reduction import SoftmaxSums, Votes
from pixeldp_fast.backends.triton import engine, operators, tuning
from pixeldp_fast.backends.triton.backend import graph_of
from pixeldp_fast.backends.triton.checks import blind_to_place
from pixeldp_fast.backends.triton.compiling import compiled
from pixeldp_fast.backends.triton.draws import Draws
from pixeldp_fast.backends.triton.executor import aligned, anywhere
from pixeldp_fast.backends.triton.operators import words_of
from pixeldp_fast.backends.triton.runs import Run
from pixeldp_fast.backends.triton.segments import (
    DenseHead,
    PoolHead,
    as_chain,
    leading,
    peak_elements,
    prologue_of,
    split_head,
)
from pixeldp_fast.backends.triton.suffix import GraphModule
from pixeldp_fast.plan.interpret import interpret
from pixeldp_fast.plan.lower import lower
from pixeldp_fast.plan.passes import optimised
from tests.helpers.networks import K, examples, mlp, plan_of
from tests.helpers.triton_paths import (
    CPU,
    STREAM,
    interpreted,
    opaque,
    prepared,
    residual,
    two_layers,
)


def test_segments():
    behind = graph_of(plan_of(residual))
    run = Run(behind, -1, leading(behind))
    prologue, rest = prologue_of(run.nodes), run.rest
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
                if b < launch.draws.examples:
                    seen.append((b, launch.draws.first_draw + draw))
                    where = counted[0], launch.counted.first_draw + counted[1]
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
