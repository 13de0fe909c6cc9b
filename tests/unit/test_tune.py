"""The table of configurations: looked up by engines, written by `bench tune`."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from bench import gpu_tune
from pixeldp_fast import Gaussian, config
from pixeldp_fast.backends.reduction import Votes
from pixeldp_fast.backends.triton import tuning
from pixeldp_fast.backends.triton.backend import TritonBackend
from pixeldp_fast.backends.triton.noise import NoiseConfig
from tests.helpers.networks import K, examples, plan_of

CPU = torch.device("cpu")
DEFAULT = NoiseConfig(rows=128, channels=1, quads=4, warps=4)


def line(machine, **fields):
    return {
        "kernel": "noise",
        "shape": "1x16",
        "dtype": "bfloat16",
        "device": machine,
        "config": fields,
    }


def asked(*, shape="1x16", dtype=torch.bfloat16, device=CPU):
    return tuning.chosen("noise", shape, dtype, device, DEFAULT)


def test_a_line_counts_for_its_key_alone():
    assert asked() == DEFAULT
    with tuning.trial(line("interpreter", warps=8)) as trial:
        assert asked() == NoiseConfig(rows=128, channels=1, quads=4, warps=8)
        assert asked(shape="1x20") == DEFAULT
        assert asked(dtype=torch.float32) == DEFAULT
    assert [request.shape for request in trial.requests] == ["1x16", "1x20", "1x16"]
    assert asked() == DEFAULT


def test_a_device_goes_before_its_architecture(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA Test")
    gpu = torch.device("cuda:0")
    with tuning.trial(line("sm_90", warps=2), line("NVIDIA Test", warps=8)):
        assert asked(device=gpu).warps == 8
    with tuning.trial(line("sm_90", warps=2), line("NVIDIA Other", warps=8)):
        assert asked(device=gpu).warps == 2


def test_the_shipped_table_names_fields_that_exist():
    for shipped in tuning.shipped():
        assert tuning.key_of(shipped)
        assert shipped["gain"] > 1


def test_lines_replace_their_like(tmp_path):
    table = tmp_path / "table.json"
    table.write_text('{"lines": []}')
    gpu_tune.write([line("sm_90", warps=2), line("sm_80", warps=2)], table)
    gpu_tune.write([line("sm_90", warps=8)], table)
    lines = json.loads(table.read_text())["lines"]
    assert [(one["device"], one["config"]) for one in lines] == [
        ("sm_80", {"warps": 2}),
        ("sm_90", {"warps": 8}),
    ]


def test_variants_change_one_field_within_limits():
    found = list(gpu_tune.variants(DEFAULT))
    now = dataclasses.asdict(DEFAULT)
    assert {**now, "rows": 64} in found
    assert all(sum(one[name] != now[name] for name in now) == 1 for one in found)
    assert all(one["rows"] <= 128 and one["quads"] >= 4 for one in found)


@pytest.mark.skipif(
    not config.triton_interpreted(), reason="with a GPU, Triton's interpreter is off"
)
def test_tuning_keeps_what_is_faster_and_engines_then_use_it(monkeypatch):
    gains = iter([1.0, 2.0])
    monkeypatch.setattr(gpu_tune, "_gain", lambda *_: next(gains, 1.0))
    layers = nn.Linear(7, 260), nn.ReLU(), nn.Linear(260, K)  # too wide for one kernel
    plan = plan_of(lambda: (nn.Identity(), nn.Sequential(*layers), (7,)))
    lines = gpu_tune.tuned(plan, Gaussian(0.5), examples(plan, 1), 10, torch.float32)
    (found,) = lines
    assert found["gain"] == 2.0
    with tuning.trial(*lines):
        engine = TritonBackend().prepare(plan, Gaussian(0.5), Votes(K), CPU)
    values = ",".join(f"{name}={value}" for name, value in found["config"].items())
    assert f"{found['kernel']}({values})" in engine.arithmetic


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="NVIDIA GPU"):
        gpu_tune.run()
