"""What would make the GPU engine's certificates wrong: old weights, shared buffers, other draws."""

import threading
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from pixeldp_fast.backends.arithmetic import Shared, stated_arithmetic
from pixeldp_fast.backends.reduction import Votes
from pixeldp_fast.backends.triton import engine, executor, fronts, suffix, turns
from pixeldp_fast.backends.triton.backend import graph_of
from pixeldp_fast.backends.triton.compiling import compiled
from pixeldp_fast.backends.triton.suffix import GraphModule
from pixeldp_fast.backends.triton.turns import Turns, pinned
from pixeldp_fast.errors import UnsupportedBackend, UnsupportedModel
from pixeldp_fast.plan.plan import make_plan
from tests.helpers.networks import K, examples, plan_of
from tests.helpers.triton_paths import (
    CPU,
    STREAM,
    interpreted,
    one_kernel,
    opaque,
    prepared,
    residual,
    two_layers,
)


def folded():
    """A batch-norm that lowering folds into a copy of the convolution's weights."""
    layers = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()
    return nn.Identity(), nn.Sequential(*layers, nn.Linear(144, K)), (2, 6, 6)


@interpreted
def test_an_engine_prepared_after_an_edit_has_the_new_weights():
    plan = plan_of(folded)
    features = torch.randn(8, *plan.noise_shape)
    prepared(plan, Votes(K))
    with torch.no_grad():
        plan.suffix[1].weight.mul_(1.0002)  # too little for a check against the module
    made = prepared(plan, Votes(K))
    with torch.inference_mode():
        assert torch.allclose(made.outputs(features), plan.suffix(features), atol=2e-6, rtol=0)


@interpreted
def test_an_edit_while_weights_are_converted_is_seen_afterwards(monkeypatch):
    plan, original = plan_of(folded), engine.assembled

    def late(*arguments, **options):
        parts = original(*arguments, **options)
        with torch.no_grad():
            plan.suffix[1].bias.add_(1e-4)
        monkeypatch.setattr(engine, "assembled", original)
        return parts

    monkeypatch.setattr(engine, "assembled", late)
    made, features = prepared(plan, Votes(K)), torch.randn(8, *plan.noise_shape)
    with torch.inference_mode():
        assert torch.allclose(made.outputs(features), plan.suffix(features), atol=2e-6, rtol=0)


@interpreted
def test_renewing_sees_what_is_kept_outside_the_module():
    class Secret(nn.Linear):
        factor = 1.0

        def forward(self, x):
            return super().forward(x) * Secret.factor

    plan = make_plan(nn.Identity().eval(), Secret(5, K).eval(), (5,), K)
    made = prepared(plan, Votes(K))
    made.renew()
    Secret.factor = 1.0001
    made.renew()
    features = torch.randn(8, 5)
    with torch.inference_mode():
        assert torch.allclose(made.outputs(features), plan.suffix(features), atol=1e-6, rtol=0)


@interpreted
def test_threads_that_share_an_engine_count_the_same():
    plan = plan_of(two_layers)
    made, index = prepared(plan, Votes(K)), np.array([1])
    x = examples(plan, 6)
    alone = [made.run(x[i : i + 1], index, STREAM, 128 * i, 128) for i in range(6)]
    found = [None] * 6

    def count(i):
        found[i] = made.run(x[i : i + 1], index, STREAM, 128 * i, 128)

    threads = [threading.Thread(target=count, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


def test_a_turn_waits_for_the_last():
    turn, inside, seen = Turns(CPU), threading.Event(), []

    def second():
        inside.wait()
        with turn():
            seen.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with turn():
        inside.set()
        thread.join(0.2)
        seen.append("first")
    thread.join()
    assert seen == ["first", "second"]


class FakeStream:
    """A stream of a device that notes what waits for what."""

    def __init__(self, log, name):
        self.log, self.name = log, name

    def wait_event(self, event):
        self.log.append(f"{self.name} waits for {event}")

    def wait_stream(self, other):
        self.log.append(f"{self.name} waits for {other.name}")

    def record_event(self):
        return f"the end of {self.name}"


def test_a_turn_on_another_stream_waits_on_the_device(monkeypatch):
    log = []
    streams = iter([FakeStream(log, "a"), FakeStream(log, "b")])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: next(streams))
    monkeypatch.setattr(turns, "pinned", lambda device: pinned(CPU))
    turn = Turns(torch.device("cuda:1"))
    with turn():
        log.append("a works")
    with turn():
        log.append("b works")
    assert log == ["a works", "b waits for the end of a", "b works"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_capture_has_a_stream_of_its_own_device_and_gives_the_old_one_back(monkeypatch, fails):
    log = []
    now = FakeStream(log, "the caller")

    def new(device):
        assert device == torch.device("cuda:1")
        return FakeStream(log, "capture")

    class Entered:
        def __init__(self, *_, stream=None, **__):
            self.stream = stream

        def __enter__(self):
            log.append(f"graph on {self.stream.name}")

        def __exit__(self, *_):
            if fails:
                raise RuntimeError("capture invalidated")

    class Buffer:
        device = torch.device("cuda:1")

    given = []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: now)
    monkeypatch.setattr(torch.cuda, "set_stream", given.append)
    monkeypatch.setattr(torch.cuda, "Stream", new)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", Entered)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: Entered(stream=now))
    if fails:
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: pinned(CPU))
        with pytest.raises(RuntimeError, match="invalidated"):
            executor._captured(lambda x: x, Buffer())
    else:
        executor._captured(lambda x: x, Buffer())
    assert "graph on capture" in log
    assert given == [now]


def test_overlapping_users_of_a_switch_keep_it_turned():
    switch = {"on": False}

    class Turned:
        def __enter__(self):
            switch["on"] = True

        def __exit__(self, *_):
            switch["on"] = False

    shared = Shared(Turned)
    first, second = shared(), shared()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert switch["on"]
    second.__exit__(None, None, None)
    assert not switch["on"]


def test_tf32_by_a_name_that_outweighs_the_others_is_refused():
    top, matmul = torch.backends.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    try:
        torch.backends.fp32_precision = "tf32"
        with (
            pytest.raises(UnsupportedBackend, match=r"TF32|fp32_precision"),
            stated_arithmetic(torch.device("cuda:0")),
        ):
            pass
    finally:
        torch.backends.fp32_precision = top
        torch.backends.cuda.matmul.fp32_precision = matmul
    with stated_arithmetic(torch.device("cuda:0")):
        pass


def test_what_torch_would_silently_run_uncompiled_is_an_error(monkeypatch):
    layer = nn.Linear(5, 3)
    with torch.inference_mode():
        compiled(layer, backend="eager")(torch.ones(2, 5))
        with torch.compiler.set_stance("force_eager"), pytest.raises(RuntimeError, match="off"):
            compiled(layer, backend="eager")(torch.ones(2, 5))


def test_values_are_let_go_after_their_last_use(monkeypatch):
    layers = [nn.Conv2d(2, 2, 3, padding=1) for _ in range(8)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, K))
    plan = plan_of(lambda: (nn.Identity(), network, (2, 4, 4)))
    made = GraphModule(graph_of(plan), torch.float32, CPU)
    alive, most, kind = [], [], type(graph_of(plan).nodes[0])
    meaning = suffix._MEANINGS[kind]

    def watched(*arguments):
        most.append(sum(value() is not None for value in alive))
        out = meaning(*arguments)
        alive.append(weakref.ref(out))
        return out

    monkeypatch.setitem(suffix._MEANINGS, kind, watched)
    with torch.inference_mode():
        made(torch.randn(3, 2, 4, 4))
    assert len(most) == 8
    assert max(most) == 1


@interpreted
@pytest.mark.parametrize("network", [one_kernel, residual], ids=lambda f: f.__name__)
@pytest.mark.parametrize("fault", ["address", "draw", "nothing"])
def test_draws_that_are_not_those_asked_for_are_refused(network, fault, monkeypatch):
    original = fronts.operators.noisy

    def planted(center, address, out, scale, shift, channels, slope, noise_scale, words, config):
        words = list(words)
        if fault == "address":
            address = address[:1].expand(len(address)).contiguous()
        elif fault == "draw" and words[5] > 1:  # only of several examples
            words[3] += 1
        if fault != "nothing" or words[5] == 1:
            rest = (scale, shift, channels, slope, noise_scale, words, config)
            original(center, address, out, *rest)
        else:
            out.fill_(torch.nan)

    monkeypatch.setattr(fronts.operators, "noisy", planted)
    with pytest.raises(UnsupportedBackend, match="not what the definition gives"):
        prepared(plan_of(network), Votes(K))


@interpreted
@pytest.mark.parametrize("network", [one_kernel, opaque], ids=lambda f: f.__name__)
def test_votes_of_the_wrong_example_are_refused(network, monkeypatch):
    original = engine.checks.check_counts
    seen = []

    def rolled(table, logits, dtype):
        seen.append(table.clone())
        original(seen[-2] if len(seen) == 2 else table, logits, dtype)

    monkeypatch.setattr(engine.checks, "check_counts", rolled)
    with pytest.raises(UnsupportedBackend, match="the head's kernel counts"):
        prepared(plan_of(network), Votes(K))


@interpreted
def test_a_module_that_does_not_lower_is_compared_too(monkeypatch):
    plan = plan_of(opaque)
    prepared(plan, Votes(K))
    original = engine.assembled

    def planted(*arguments, **options):
        parts = original(*arguments, **options)
        network = parts.network
        object.__setattr__(parts, "network", lambda x: network(x) + x.flatten(1)[:, :K])
        return parts

    monkeypatch.setattr(engine, "assembled", planted)
    with pytest.raises(UnsupportedModel, match="different outputs"):
        prepared(plan, Votes(K))
