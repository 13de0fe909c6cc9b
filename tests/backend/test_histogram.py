"""The histogram of a real output: what it counts, on every backend that runs it."""

import numpy as np
import pytest
import torch
from torch import nn

from pixeldp_fast import config
from pixeldp_fast.backends.histogram import RealHistogram, grid_edges
from pixeldp_fast.backends.reduction import RealParts
from pixeldp_fast.backends.registry import BACKENDS
from pixeldp_fast.backends.tally import GRID, merge
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.stream import Purpose, Stream
from pixeldp_fast.plan.plan import make_plan
from tests.cases import MECHANISMS
from tests.helpers.capture import outputs_of

CPU = torch.device("cpu")
BY_NAME = {backend.name: backend for backend in BACKENDS}
STREAM = Stream(99, Purpose.ESTIMATION)
# On a CPU the Triton kernels run in their interpreter, which is off where there is a GPU.
RUNNING = [name for name in BY_NAME if name != "triton" or config.triton_interpreted()]
each_backend = pytest.mark.parametrize("name", RUNNING)
each_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS, ids=repr)


def counted(reduction, values):
    outputs = torch.tensor(values, dtype=torch.float32)[:, None]
    return reduction.tally(reduction.reduce(outputs)[None].numpy())


def test_every_value_has_its_column():
    reduction = RealHistogram(-1.0, 2.0, 6)  # edges at -1, -0.5, 0, 0.5, 1, 1.5, 2
    inf, nan = float("inf"), float("nan")
    values = [-1.5, -1.0, -0.75, -0.5, 0.0, 0.49, 0.5, 1.99, 2.0, 2.01, nan, inf, -inf]
    tally = counted(reduction, values)
    assert tally.counts.tolist() == [[1, 2, 1, 2, 1, 0, 2, 1, 3]]
    assert tally.draws.tolist() == [13]
    assert counted(reduction, []).counts.sum() == 0


def test_edges_end_exactly_and_ascend():
    for low, high, bins in ((-0.1, 0.3, 7), (-3.0, 3.0, 1024), (0.0, 1e-3, 65536)):
        edges = grid_edges(low, high, bins)
        assert (edges[0], edges[-1], len(edges)) == (low, high, bins + 1)
        assert (np.diff(edges) > 0).all()


def test_sums_are_those_of_the_parts_within_the_range():
    values = np.random.default_rng(0).uniform(-1, 2, 500).tolist()
    ours, parts = (
        counted(RealHistogram(-1.0, 2.0, 16), values),
        counted(RealParts(-1.0, 2.0), values),
    )
    assert ours.sums.tolist() == parts.sums.tolist()
    assert ours.squares.tolist() == parts.squares.tolist()


def test_beyond_the_range_the_sums_are_of_the_ends_and_of_the_declared_value():
    reduction = RealHistogram(-1.0, 2.0, 4, non_finite=-0.5)
    tally = counted(reduction, [-7.0, 9.0, float("nan")])
    assert tally.sums.tolist() == [[GRID, GRID + GRID // 2]]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((0.5, 1.0, 4), "low"),
        ((-1.0, -0.5, 4), "low"),
        ((0.0, 0.0, 4), "low"),
        ((-np.inf, 1.0, 4), "low"),
        ((np.nan, 1.0, 4), "low"),
        ((-1.0, 1.0, 0), "bins"),
        ((-1.0, 1.0, 2**17), "bins"),
        ((0.0, 5e-324, 2), "bins"),
        ((-1.0, 1.0, 4, 2.0), "non_finite"),
        ((-1.0, 1.0, 4, np.nan), "non_finite"),
    ],
)
def test_arguments_are_checked(arguments, name):
    with pytest.raises(InvalidArgument, match=f"`{name}`"):
        RealHistogram(*arguments)


def plan_of_one_output():
    torch.manual_seed(3)
    suffix = nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 1))
    return make_plan(nn.Identity().eval(), suffix.eval(), (3, 2, 2), 1)


@each_backend
@each_mechanism
def test_backends_count_their_own_outputs_over_any_split(name, mechanism):
    plan, reduction, backend = plan_of_one_output(), RealHistogram(-0.2, 0.1, 32), BY_NAME[name]
    assert backend.supports(plan, mechanism, reduction, CPU).ok
    engine = backend.prepare(plan, mechanism, reduction, CPU)
    x, index = torch.rand(3, 3, 2, 2), np.array([8, 2, 5])
    whole = engine.run(x, index, STREAM, 10, 150)
    assert (whole.draws == 150).all()
    parts = [engine.run(x, index, STREAM, first, n) for first, n in ((10, 1), (11, 70), (81, 79))]
    assert parts[2] + parts[0] + parts[1] == whole
    alone = [engine.run(x[b : b + 1], index[b : b + 1], STREAM, 10, 150) for b in range(3)]
    assert merge(alone) == whole
    outputs = outputs_of(backend, plan, mechanism, x, index, STREAM, 10, 150)
    direct = [reduction.reduce(o).numpy() for o in outputs]
    assert reduction.tally(np.stack(direct)) == whole
    assert 0 < whole.counts[:, 0].sum() + whole.counts[:, -2].sum() < 450


@each_backend
def test_features_that_are_not_finite_lose_every_draw(name):
    plan = make_plan(nn.Linear(2, 3, bias=False).eval(), nn.Linear(3, 1).eval(), (2,), 1)
    with torch.no_grad():
        plan.prefix.weight.fill_(torch.inf)
    engine = BY_NAME[name].prepare(plan, MECHANISMS[0], RealHistogram(-1.0, 1.0, 4), CPU)
    tally = engine.run(torch.ones(1, 2), np.array([0]), STREAM, 0, 70)
    assert tally.counts.tolist() == [[0, 0, 0, 0, 0, 0, 70]]


def test_too_many_draws_are_refused():
    with pytest.raises(InvalidArgument, match="at most"):
        RealHistogram(-1.0, 1.0, 4).check_draws(2**22 + 1)
