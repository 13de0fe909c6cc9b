"""What the GPU engine refuses, with what would work, and what is never chosen silently."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from triton.errors import TritonError

from pixeldp_fast import Gaussian, Laplace, SmoothedClassifier
from pixeldp_fast.backends import registry
from pixeldp_fast.backends.base import Support
from pixeldp_fast.backends.reduction import Votes
from pixeldp_fast.backends.registry import select
from pixeldp_fast.backends.triton import backend, engine, workspace
from pixeldp_fast.backends.triton.backend import TritonBackend, graph_of
from pixeldp_fast.errors import UnsupportedBackend, UnsupportedModel
from pixeldp_fast.plan.plan import make_plan
from tests.helpers.networks import K, examples, mlp, plan_of
from tests.helpers.triton_paths import (
    BACKEND,
    CPU,
    STREAM,
    interpreted,
    prepared,
    two_layers,
)


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


def test_auto_does_not_choose_what_has_never_run_on_a_device():
    assert "triton" not in registry.AUTO


@interpreted
def test_auto_passes_over_kernels_that_fail_and_an_explicit_choice_does_not(monkeypatch, caplog):
    plan = plan_of(mlp)
    monkeypatch.setattr(TritonBackend, "supports", lambda *_, **__: Support(True))

    def broken(*_, **__):
        raise TritonError("no such instruction\nand more")

    monkeypatch.setattr(engine.TritonEngine, "__init__", broken)
    monkeypatch.setattr(registry, "AUTO", ("triton", "native", "torch"))
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


def test_too_little_memory_for_the_smallest_tile(monkeypatch):
    plan = plan_of(two_layers)
    FakeDevice(monkeypatch, free=2**10, total=2**37)
    assert "bfloat16" in refusal(plan, device=torch.device("cuda:0"))
    FakeDevice(monkeypatch, free=2**20, total=2**37)
    assert BACKEND.supports(plan, Gaussian(1.0), Votes(K), torch.device("cuda:0")).ok


@interpreted
def test_too_little_memory_names_a_tile_and_that_one_works(monkeypatch):
    plan = plan_of(two_layers)
    monkeypatch.setattr(workspace, "free_bytes", lambda device: 2**18)
    with pytest.raises(UnsupportedBackend, match="name tile=") as refused:
        prepared(plan, Votes(K), tile=2**12)
    tile = int(re.search(r"tile=(\d+)", str(refused.value))[1])
    assert f"tile {tile} " in prepared(plan, Votes(K), tile=tile).arithmetic


@interpreted
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_noise_that_overflows_a_dtype_is_refused():
    plan = plan_of(mlp)
    with pytest.raises(UnsupportedBackend, match=r"not finite in torch.float16; name torch.bfl"):
        prepared(plan, Votes(K), mechanism=Gaussian(1e5), dtype=torch.float16)


@interpreted
def test_a_reduction_of_other_outputs_is_refused():
    with pytest.raises(UnsupportedBackend, match="of 7 outputs, the network has 4"):
        prepared(plan_of(mlp), Votes(7))


@interpreted
def test_a_cache_that_cannot_be_written_has_a_name(monkeypatch):
    def unwritable(*_, **__):
        raise PermissionError("[Errno 13] Permission denied: '/.triton'")

    monkeypatch.setattr(engine, "assembled", unwritable)
    with pytest.raises(UnsupportedBackend, match=r"PermissionError.*/\.triton"):
        prepared(plan_of(mlp), Votes(K))


@interpreted
def test_running_out_of_memory_has_a_name(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine, "Pipeline", full)
    with pytest.raises(UnsupportedBackend, match="name a smaller `tile`"):
        prepared(plan_of(two_layers), Votes(K))


@interpreted
def test_a_dtype_that_overflows_is_refused():
    plan = plan_of(lambda: (nn.Identity(), nn.Sequential(nn.Linear(5, 9), nn.Linear(9, K)), (5,)))
    with torch.no_grad():
        plan.suffix[0].weight.mul_(1e5)
    with pytest.raises(UnsupportedBackend, match="bfloat16"):
        prepared(plan, Votes(K), dtype=torch.float16)
    prepared(plan, Votes(K), dtype=torch.bfloat16)


@interpreted
def test_a_graph_that_is_not_the_module_is_refused(monkeypatch):
    class Secret(nn.Linear):
        factor = 1

        def forward(self, x):
            return super().forward(x) * Secret.factor

    plan = make_plan(nn.Identity().eval(), Secret(5, K).eval(), (5,), K)
    old = graph_of(plan)
    Secret.factor = 2
    prepared(plan, Votes(K))
    monkeypatch.setattr(backend, "graph_of", lambda plan: old)
    with pytest.raises(UnsupportedModel, match="outside its weights"):
        prepared(plan, Votes(K))
