"""The GPU engine's path on a CPU, its kernels in Triton's interpreter: what it counts."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from pixeldp_fast import Gaussian
from pixeldp_fast.backends.reduction import RealParts, SoftmaxSums, Votes
from pixeldp_fast.backends.registry import select
from pixeldp_fast.backends.triton.executor import anywhere
from pixeldp_fast.errors import UnsupportedBackend
from pixeldp_fast.noise.sampling import noise_definition
from pixeldp_fast.plan.plan import make_plan
from tests.helpers.capture import Capture
from tests.helpers.networks import K, examples, mlp, plan_of
from tests.helpers.triton_paths import (
    CPU,
    STREAM,
    each_path,
    interpreted,
    one_kernel,
    prepared,
    residual,
    two_layers,
)


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
