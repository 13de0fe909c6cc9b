"""The GPU engine on the networks that are measured, at full size, against the definition.

Inputs and seeds are fresh at every run; a failure prints them.
"""

import copy
import secrets
import threading

import numpy as np
import pytest
import torch

from bench import gpu_cases
from bench.gpu_gate import FLOORS
from pixeldp_fast import SmoothedClassifier
from pixeldp_fast.backends.arithmetic import in_arithmetic, stated_arithmetic
from pixeldp_fast.backends.cuda import compiler
from pixeldp_fast.backends.reduction import SoftmaxSums, Votes
from pixeldp_fast.backends.tally import merge
from pixeldp_fast.backends.triton import tuning
from pixeldp_fast.backends.triton.backend import TritonBackend
from pixeldp_fast.errors import MissingCompiler
from pixeldp_fast.noise.sampling import noise_definition
from pixeldp_fast.noise.stream import Purpose, Stream
from pixeldp_fast.plan.plan import make_plan
from tests.cases import MECHANISM_IDS, MECHANISMS
from tests.helpers.networks import NETWORKS, K, examples, plan_of

DEVICE = torch.device("cuda", 0)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]
DTYPES = (torch.float32, torch.bfloat16)
DRAWS = 48  # compared one by one, each a whole tile
CASES = gpu_cases.CASES


@pytest.fixture
def stream():
    """A fresh stream, printed where a test fails."""
    value = secrets.randbits(64)
    print(f"seed {value}")
    return Stream(value, Purpose.ESTIMATION)


def poison():
    """Leave NaN in memory that the next engine is going to be given."""
    if DEVICE.type == "cuda":
        free, _ = torch.cuda.mem_get_info()
        torch.full((min(free // 8, 2**31) // 4,), torch.nan, device=DEVICE)


def prepared(case, dtype, reduction=None, **options):
    model = case.model(DEVICE)
    plan = make_plan(model.prefix, model.suffix, case.input_shape, case.classes)
    chosen = reduction or Votes(case.classes)
    poison()
    return plan, TritonBackend().prepare(
        plan, case.mechanism, chosen, DEVICE, dtype=dtype, **options
    )


def fresh(case, stream, count):
    return case.images(count, seed=stream.seed % 2**62).to(DEVICE)


def allowed_for(plan, features, exact, dtype):
    """Twice eager torch's own error in the dtype, or the floor."""
    with stated_arithmetic(DEVICE):
        eager = in_arithmetic(plan.suffix, dtype)(features.float()).double()
    own = float((eager - exact).abs().max())
    return max(2 * own, FLOORS[dtype] * float(exact.abs().max()))


def definition(plan, mechanism, x, address, stream, n):
    """Float64 features of the draws of one example, and outputs for them."""
    size = int(np.prod(plan.noise_shape))
    noise = noise_definition(mechanism, stream, [address], 0, n, size)[0]
    with torch.inference_mode():
        center = plan.prefix(x).double()
        features = center + torch.from_numpy(noise).view(n, *plan.noise_shape).to(DEVICE)
        suffix = copy.deepcopy(plan.suffix).double()
        exact = torch.cat([suffix(some) for some in features.split(16)])
    return features, exact


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_every_draw_votes_as_the_definition_does(case, dtype, stream):
    plan, engine = prepared(case, dtype)
    x, index = fresh(case, stream, 1), np.array([stream.seed % (2**32 - 1)])
    features, exact = definition(plan, case.mechanism, x, int(index[0]), stream, DRAWS)
    allowed = allowed_for(plan, features, exact, dtype)
    outputs = engine.outputs(features.float()).double()
    assert float((outputs - exact).abs().max()) <= allowed

    alone = [engine.run(x, index, stream, draw, 1).counts[0] for draw in range(DRAWS)]
    votes = torch.tensor([int(counts.argmax()) for counts in alone], device=DEVICE)
    assert all(counts.sum() == 1 for counts in alone)
    assert (votes < case.classes).all()
    best = exact.argmax(dim=1)
    margin = exact.gather(1, best[:, None]) - exact.gather(1, votes[:, None])
    assert float(margin.max()) <= 2 * allowed
    assert (engine.run(x, index, stream, 0, DRAWS).counts[0] == sum(alone)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_tallies_do_not_depend_on_batch_split_or_order(case, dtype, stream):
    _, engine = prepared(case, dtype)
    x, index = fresh(case, stream, 3), np.array([8, 2**32 - 2, 5])
    whole = engine.run(x, index, stream, 10, 700)
    assert (whole.draws == 700).all()
    assert engine.run(x, index, stream, 10, 700) == whole
    parts = [engine.run(x, index, stream, *part) for part in ((10, 1), (11, 130), (141, 569))]
    assert parts[1] + parts[0] + parts[2] == whole
    assert (
        merge([engine.run(x[b : b + 1], index[b : b + 1], stream, 10, 700) for b in range(3)])
        == whole
    )
    order = np.array([2, 0, 1])
    assert engine.run(x[order], index[order], stream, 10, 700) == whole.take(order)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["pixeldp_cnn", "mlp784", "resnet20"])
def test_another_engine_counts_the_same(name, dtype, stream):
    case = gpu_cases.by_name(name)
    x, index = fresh(case, stream, 2), np.array([0, 1])
    first, second = (prepared(case, dtype)[1] for _ in range(2))
    assert first.arithmetic == second.arithmetic
    assert first.run(x, index, stream, 0, 5000) == second.run(x, index, stream, 0, 5000)


@pytest.mark.parametrize("name", ["pixeldp_cnn", "mlp784", "resnet20"])
def test_the_tile_moves_only_votes_within_rounding(name, stream):
    case, n = gpu_cases.by_name(name), 512
    x, index = fresh(case, stream, 1), np.array([3])
    plan, engine = prepared(case, torch.float32)
    features, exact = definition(plan, case.mechanism, x, 3, stream, n)
    allowed = allowed_for(plan, features, exact, torch.float32)
    best = exact.topk(2, dim=1).values
    # Noise of approximate functions: features within 1e-5 of its scale.
    close = int((best[:, 0] - best[:, 1] <= 8 * allowed).sum())
    whole = engine.run(x, index, stream, 0, n).counts
    for tile in (128, 1024):
        other = prepared(case, torch.float32, tile=tile)[1].run(x, index, stream, 0, n).counts
        assert abs(other - whole).sum() <= 2 * close


@pytest.mark.parametrize("network", NETWORKS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("mechanism", MECHANISMS, ids=MECHANISM_IDS)
@pytest.mark.parametrize("reduction", [Votes(K), SoftmaxSums(K)], ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float16], ids=str)
def test_every_mechanism_and_reduction(network, mechanism, reduction, dtype, stream):
    plan = plan_of(network)
    plan.prefix.to(DEVICE)
    plan.suffix.to(DEVICE)
    poison()
    engine = TritonBackend().prepare(plan, mechanism, reduction, DEVICE, dtype=dtype)
    x, index = examples(plan, 3, seed=stream.seed % 2**62).to(DEVICE), np.array([8, 2, 5])
    whole = engine.run(x, index, stream, 10, 3000)
    assert (whole.draws == 3000).all()
    assert engine.run(x, index, stream, 10, 3000) == whole
    parts = [engine.run(x, index, stream, first, n) for first, n in ((10, 1), (11, 2999))]
    assert parts[0] + parts[1] == whole


def test_features_that_are_not_finite_are_counted_apart(stream):
    case = gpu_cases.by_name("mlp784")
    _, engine = prepared(case, torch.float32)
    x = fresh(case, stream, 2)
    x[1, 0, 0, 0] = torch.nan
    counts = engine.run(x, np.array([0, 1]), stream, 0, 1000).counts
    assert counts[0, -1] == 0
    assert counts[1, -1] == 1000


def test_it_certifies_where_it_is_named():
    case = gpu_cases.by_name("pixeldp_cnn")
    model = case.model(DEVICE)
    named = {"num_classes": case.classes, "seed": 1, "backend": "triton"}
    smoothed = SmoothedClassifier(model, **named)
    certificates = smoothed.certify(case.images(4).to(DEVICE), n=10_000)
    assert certificates.terms.backend == "triton"
    assert torch.cuda.get_device_name(DEVICE) in certificates.terms.arithmetic
    assert (certificates.counts.sum(axis=1) == 10_000).all()
    again = SmoothedClassifier(model, dtype=torch.bfloat16, **named)
    assert "bfloat16" in again.certify(case.images(1).to(DEVICE), n=1000).terms.arithmetic
    chosen = SmoothedClassifier(model, num_classes=case.classes, seed=1)
    assert chosen.certify(case.images(1).to(DEVICE), n=1000).terms.backend == "torch"


def test_the_suffix_runs_compiled_and_as_a_cuda_graph():
    _, engine = prepared(gpu_cases.by_name("resnet20"), torch.bfloat16)
    assert "compiled graph" in engine.arithmetic
    assert " captured " in engine.arithmetic


@pytest.mark.parametrize("name", ["mlp784", "resnet20"])
def test_weights_edited_in_place_are_noticed_by_a_captured_graph(name, stream):
    case = gpu_cases.by_name(name)
    plan, engine = prepared(case, torch.float32)
    x, index = fresh(case, stream, 1), np.array([0])
    engine.run(x, index, stream, 0, 1000)
    with torch.no_grad():
        for weight in plan.suffix.parameters():
            weight.mul_(1.01)
    after = engine.run(x, index, stream, 0, 1000)
    other = TritonBackend().prepare(plan, case.mechanism, Votes(case.classes), DEVICE)
    assert other.run(x, index, stream, 0, 1000) == after
    features = torch.randn(64, *plan.noise_shape, device=DEVICE)
    with stated_arithmetic(DEVICE):
        want = plan.suffix(features)
    assert torch.allclose(engine.outputs(features), want, rtol=1e-4, atol=1e-4)


def test_other_streams_and_threads_count_the_same(stream):
    case = gpu_cases.by_name("pixeldp_cnn")
    with torch.cuda.stream(torch.cuda.Stream(DEVICE)):
        _, engine = prepared(case, torch.bfloat16)
    x, index = fresh(case, stream, 1), np.array([3])
    torch.cuda.synchronize(DEVICE)
    alone = [engine.run(x, index, stream, 50_000 * i, 50_000) for i in range(6)]
    found = [None] * 6

    def count(i):
        with torch.cuda.stream(torch.cuda.Stream(DEVICE)):
            engine.outputs(torch.randn(300, *engine._plan.noise_shape, device=DEVICE))
            found[i] = engine.run(x, index, stream, 50_000 * i, 50_000)

    threads = [threading.Thread(target=count, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU")
@pytest.mark.parametrize("name", ["mlp784", "resnet20"])
def test_a_second_gpu_of_the_same_kind_counts_the_same(name, stream):
    case, found = gpu_cases.by_name(name), []
    for device in (torch.device("cuda:0"), torch.device("cuda:1")):
        model = case.model(device)
        plan = make_plan(model.prefix, model.suffix, case.input_shape, case.classes)
        engine = TritonBackend().prepare(plan, case.mechanism, Votes(case.classes), device)
        x = case.images(2).to(device)
        found.append((engine.arithmetic, engine.run(x, np.arange(2), stream, 0, 5000)))
        assert torch.cuda.current_device() == 0
    if found[0][0] == found[1][0]:
        assert found[0][1] == found[1][1]


def test_the_cuda_prologue_makes_the_noise_where_the_table_names_it(stream):
    try:
        compiler.nvcc()
    except MissingCompiler:
        pytest.skip("nvcc is not installed")
    case, n = gpu_cases.by_name("pixeldp_cnn"), 2000
    line = {"kernel": "cuda_noise", "shape": "32x6272", "dtype": "float32", "config": {}}
    with tuning.trial({**line, "device": torch.cuda.get_device_name(DEVICE)}):
        plan, ours = prepared(case, torch.float32)
    assert "cuda_noise()" in ours.arithmetic
    _, triton = prepared(case, torch.float32)
    x, index = fresh(case, stream, 2), np.array([3, 2**32 - 2])
    moved = ours.run(x, index, stream, 0, n).counts - triton.run(x, index, stream, 0, n).counts
    features, exact = definition(plan, case.mechanism, x[:1], 3, stream, n)
    allowed = allowed_for(plan, features, exact, torch.float32)
    best = exact.topk(2, dim=1).values
    close = int((best[:, 0] - best[:, 1] <= 8 * allowed).sum())
    assert abs(moved[0]).sum() <= 2 * close
