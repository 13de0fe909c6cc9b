"""The GPU measurement, all of it, on the CPU: tiny networks, few draws, a clock of this machine."""

import dataclasses
import itertools
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from bench import __main__ as command
from bench import (
    gpu_cases,
    gpu_gate,
    gpu_plan,
    gpu_profile,
    gpu_roofline,
    gpu_run,
    gpu_unit,
    ledger,
)
from bench.gpu_cases import GpuCase
from bench.gpu_contenders import Cohen, Compiled, Eager, GpuProblem, OursGpu, contenders
from bench.gpu_machine import AbstractMachine, ceilings
from bench.gpu_report import gpu_table
from bench.gpu_resnet50 import resnet50
from bench.ledger import Row
from pixeldp_fast import Gaussian, config
from pixeldp_fast.models import build
from pixeldp_fast.models.resnet import cifar_resnet
from pixeldp_fast.plan.plan import make_plan


class Host(AbstractMachine):
    """This machine's CPU in the place of a GPU."""

    device = torch.device("cpu")
    buffer_bytes = 2**16
    matrix = 32
    slug = "host"
    words = "the CPU"

    def seconds(self, run):
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    def settle(self):
        pass

    def held(self):
        return 1.0

    def peak(self, run):
        run()
        return 3.0


def case(name="small", sides=None, shape=(1, 4, 8), **changes):
    made = sides or (lambda: build("mlp", input_shape=shape, num_classes=10, widths=(16, 16)))
    values = {"examples": 2, "draws": 128, "batch": 100, "chunks": (32, 64), "gate": 128}
    return GpuCase(name, name, made, shape, 10, Gaussian(0.5), **(values | changes))


def thin_resnet():
    layers, _ = cifar_resnet((3, 8, 8), 10, depth=8)
    return None, layers


def behind_a_prefix():
    return build(
        "pixeldp_cnn",
        input_shape=(1, 8, 8),
        num_classes=10,
        noise_after=1,
        channels=(4, 8),
        hidden=16,
    )


NETWORKS = [
    case(),
    case("thin", thin_resnet, (3, 8, 8)),
    case("behind", behind_a_prefix, (1, 8, 8)),
]


def taking_part(dtype):
    """All kinds, with the compiler that needs no other and the backends that are always here."""
    return (
        OursGpu("torch", dtype),
        Cohen(),
        Eager(dtype),
        Compiled(dtype, "aot_eager", None),
    )


def values(rows):
    return {(row.contender.split(", ")[2], row.metric): row for row in rows}


@pytest.mark.parametrize("network", NETWORKS, ids=lambda c: c.name)
@pytest.mark.parametrize("dtype", gpu_unit.DTYPES)
def test_a_unit_becomes_rows(network, dtype, monkeypatch):
    monkeypatch.setattr(gpu_unit, "RUN", 60.0)  # all examples, however busy this machine is
    rows = gpu_unit.measure(
        network, dtype, Host(), taking_part(gpu_unit.DTYPES[dtype]), (2, 2), note="code abc"
    )
    assert all(
        row.case == "gpu" and row.contender.startswith(f"{network.name}, {dtype}, ") for row in rows
    )
    found = values(rows)
    assert found["unit", "complete"].value == 1
    assert "code abc" in found["unit", "complete"].note.split("; ")
    for name in ("pixeldp_fast torch", "Cohen's loop", "eager channels-last", "compiled aot_eager"):
        rate = found[name, "rate"]
        assert 0 < rate.low <= rate.value <= rate.high
        assert "2 examples of 128 draws; 2 rounds" in rate.note
        share = found[name, "share of the serial roofline"].value
        assert share == pytest.approx(rate.value / found["ceiling", "serial roofline"].value)
        assert found[name, "device memory"].value == 2.0
    assert "float32" in found["Cohen's loop", "rate"].note
    assert dtype in found["eager channels-last", "rate"].note


def test_the_engine_is_measured_against_the_strongest_torch_of_its_dtype():
    if not config.triton_interpreted():
        pytest.skip("with a GPU, Triton's interpreter is off")
    network, dtype = case(examples=1), torch.float32
    slow = (OursGpu("triton", dtype), Cohen(), Eager(dtype))
    rows = gpu_unit.measure(network, "float32", Host(), slow, (2, 2))
    found = values(rows)
    ratio = found["pixeldp_fast triton", "over the strongest PyTorch"]
    name = ratio.note.split(";")[0]
    assert found[name, "pixeldp_fast triton over it"].value == ratio.value


def test_a_table_shows_complete_runs():
    units = (("mlp128", "float32", 2.0), ("resnet20", "bfloat16", 1.5))
    rows = []
    for at, (name, dtype, ratio) in enumerate(units):
        for contender, metric, value, note in (
            ("pixeldp_fast triton", "rate", 4e6, ""),
            ("pixeldp_fast triton", "share of the serial roofline", 0.25, ""),
            ("pixeldp_fast triton", "over the strongest PyTorch", ratio, "eager; per round"),
            ("Cohen's loop", "pixeldp_fast triton over it", 9.0, ""),
            ("unit", "complete", 1.0, ""),
        ):
            label = f"{name}, {dtype}, {contender}"
            row = vars(Row("gpu", label, metric, value, value, value, "", note))
            rows.append({k: str(v) for k, v in row.items()} | {"time": f"203{at}"})
    lines = gpu_table(rows).splitlines()
    assert len(lines) == 4
    assert "MLP 128-128-128-10" in lines[2]
    assert "(eager)" in lines[2]
    assert "25%" in lines[3]
    assert "9.0" in lines[3]
    older = [row | {"time": "2020", "value": "77"} for row in rows[:5]]
    assert gpu_table(older + rows) == gpu_table(rows)
    newer = [row | {"time": "2040", "value": "0"} for row in rows]  # without a contender
    assert gpu_table(rows + newer) == gpu_table(rows)
    assert len(gpu_table(newer).splitlines()) == 2


def test_a_weak_baseline_is_named(capsys):
    rows = gpu_unit.measure(
        case(expected=1e15), "bfloat16", Host(), (Eager(torch.bfloat16), Cohen()), (2, 2)
    )
    assert values(rows)["eager channels-last", "over its estimate"].value < 1e-3
    assert "small, bfloat16: PyTorch reaches 0% of its estimate" in capsys.readouterr().err


def test_a_slow_contender_gets_fewer_examples(monkeypatch):
    monkeypatch.setattr(gpu_unit, "RUN", 0.0)
    rows = gpu_unit.measure(case(), "float32", Host(), (Eager(torch.float32),), (2, 2))
    rate = values(rows)["eager channels-last", "rate"]
    assert "1 examples of 128 draws" in rate.note


def test_all_contenders_are_on_the_list():
    names = {c.name for c in contenders(torch.bfloat16)}
    assert names == {
        "pixeldp_fast triton",
        "pixeldp_fast torch",
        "Cohen's loop",
        "eager channels-last",
        "compiled max-autotune",
    }


@pytest.mark.parametrize("network", NETWORKS, ids=lambda c: c.name)
def test_contenders_count_every_draw_and_agree(network):
    """Shares of votes differ by less than six standard errors: false alarms once in 1e7 classes."""
    many = dataclasses.replace(network, draws=1024, chunks=(1024,))
    problem = GpuProblem.of(many, Host())
    shares = []
    for contender in taking_part(torch.float32):
        counts = contender.prepare(problem, contender.chunks(many)[0]).count(2)
        assert counts.shape == (2, 10)
        assert (counts.sum(axis=1) == many.draws).all()
        shares.append(counts / many.draws)
    for other in shares[1:]:
        error = np.sqrt(shares[0] * (1 - shares[0]) + other * (1 - other) + 1e-3)
        assert (abs(other - shares[0]) < 6 * error / np.sqrt(many.draws)).all()


class Wrong(Eager):
    """Eager with a fault planted in its outputs."""

    shift = 0.0

    def prepare(self, problem, chunk):
        job = super().prepare(problem, chunk)
        right = job.outputs

        def outputs(noisy):
            found = right(noisy).clone()
            found[7, 3] += self.shift
            return found

        job.outputs = outputs
        return job


@pytest.mark.parametrize("shift", [1e-2, float("nan")])
def test_a_wrong_contender_is_named_and_not_timed(shift, capsys):
    wrong = Wrong(torch.float32)
    object.__setattr__(wrong, "shift", shift)
    rows = gpu_unit.measure(case(), "float32", Host(), (Cohen(), wrong), (2, 2))
    found = values(rows)
    assert ("Cohen's loop", "rate") in found
    assert ("eager channels-last", "rate") not in found
    assert found["unit", "complete"].value == 0
    assert "outputs differ by" in found["unit", "complete"].note
    assert "without eager channels-last: not timed, outputs differ" in capsys.readouterr().err


def test_votes_of_other_draws_are_noticed():
    problem = GpuProblem.of(case(gate=1024), Host())
    truth = gpu_gate.GpuTruth.of(problem)
    contender = OursGpu("torch", torch.float32)
    job = contender.prepare(problem, 128)
    assert gpu_gate.judge(contender, job, truth).fault == ""
    job.smoothed = job.smoothed.with_seed(1)
    job.outputs = lambda noisy: truth.exact
    assert "votes of its own draws differ" in gpu_gate.judge(contender, job, truth).fault


def test_a_graph_that_counts_other_votes_than_its_outputs_are_for_is_not_timed():
    problem = GpuProblem.of(case(), Host())
    contender = Compiled(torch.float32, "aot_eager", None)
    job, truth = contender.prepare(problem, 64), gpu_gate.GpuTruth.of(problem)
    verdict = gpu_gate.judge(contender, job, truth)
    assert verdict.fault == ""
    right = job._step

    def planted(center, sigma):
        votes, outputs = right(center, sigma)
        return votes.roll(1), outputs

    job._step = planted
    with pytest.raises(RuntimeError, match="other votes"):
        gpu_gate.judge(contender, job, truth)


def test_a_gate_that_breaks_costs_its_contender_alone():
    class Broken(Eager):
        name = "broken"

        def prepare(self, problem, chunk):
            job = super().prepare(problem, chunk)
            job.outputs = lambda noisy: noisy.no_such_thing
            return job

    rows = gpu_unit.measure(case(), "float32", Host(), (Cohen(), Broken(torch.float32)), (2, 2))
    found = values(rows)
    assert ("Cohen's loop", "rate") in found
    assert "without broken: not timed, AttributeError" in found["unit", "complete"].note


def test_what_does_not_prepare_costs_itself_alone():
    class Broken(Eager):
        name = "broken"

        def prepare(self, problem, chunk):
            raise RuntimeError("the compiler\nis ill")

    class Slow(Eager):
        name = "slow"

        def prepare(self, problem, chunk):
            time.sleep(60)

    three = (Cohen(), Broken(torch.float32), Slow(torch.float32))
    late = gpu_plan.Budget(10.0)  # of which preparing one takes 5 s at most, and all 7.4
    rows = gpu_unit.measure(case(), "float32", Host(), three, (2, 2), budget=late)
    note = values(rows)["unit", "complete"].note
    assert "without broken: RuntimeError: the compiler" in note
    assert "without slow: preparing took more than" in note


# The study's table: draws/s at 790 TFLOP/s and 4.3 TB/s in bfloat16, operations, and megabytes.
# ResNet-50's 61 k leave its poolings out, which read and write 2 MB here.
STUDY = {
    "pixeldp_cnn": (67e6, 11.46e6, 0.029),
    "resnet20": (4.2e6, 81.6e6, 1.00),
    "resnet110": (0.79e6, 506e6, 5.30),
    "wide_resnet28_10": (74e3, 10_486e6, 12.5),
    "resnet50": (61e3, 8178e6, 54.6),
    "mlp784": (1.15e9, 0.538e6, 0.0036),
    "mlp128": (3.3e9, 0.068e6, 0.0013),
}


@pytest.mark.parametrize("network", gpu_cases.CASES, ids=lambda c: c.name)
def test_rooflines_are_those_of_the_study(network):
    prefix, suffix = network.sides()
    plan = make_plan(
        (prefix or nn.Identity()).eval(), suffix.eval(), network.input_shape, network.classes
    )
    graph = gpu_roofline.graph_of(plan)
    draws, flop, megabytes = STUDY[network.name]
    assert gpu_roofline.flop(graph) == pytest.approx(flop, rel=5e-3)
    assert gpu_roofline.megabytes(graph, 2) == pytest.approx(megabytes, rel=0.05)
    assert gpu_roofline.serial(graph, 2, 790e12, 4.3e12) == pytest.approx(draws, rel=0.035)


def test_resnet50_is_the_published_one():
    network = resnet50(1000)
    assert sum(p.numel() for p in network.parameters()) == 25_557_032
    thin = resnet50(10, thinner=16, side=32).eval()
    assert thin(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_calibrated_networks_send_draws_to_several_classes():
    network = case("thin50", lambda: (None, resnet50(10, thinner=16, side=32)), (3, 32, 32))
    problem = GpuProblem.of(network, Host())
    truth = gpu_gate.GpuTruth.of(problem)
    assert torch.isfinite(truth.exact).all()
    assert not problem.model.training
    assert all(m.momentum == 0.1 for m in problem.model.modules() if isinstance(m, nn.BatchNorm2d))


def test_ceilings_are_positive():
    found = ceilings(Host(), (torch.float32,), repeats=2)
    assert found.bandwidth > 0
    assert found.rates[torch.float32] > 0


@pytest.fixture
def results(tmp_path, monkeypatch):
    """An empty ledger."""
    monkeypatch.setattr(ledger, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def fake(asked, complete=1.0):
    """A measurement that notes what it was asked for."""

    def measure(share, note):
        asked.append(share.key)
        label = f"{share.case}, {share.dtype}"
        if complete is None:
            return None
        return [
            Row("gpu", f"{label}, eager", "rate", 5.0, 4.0, 6.0, "draws/s"),
            Row("gpu", f"{label}, unit", "complete", complete, 1.0, 1.0, "1", f"{note}; x"),
        ]

    return measure


def test_what_is_in_the_ledger_is_not_measured_again(results, monkeypatch):
    asked = []
    gpu_run.run(["mlp128"], None, Host(), fake(asked))
    assert asked == [("mlp128", "bfloat16"), ("mlp128", "float32")]
    assert [p.name for p in results.iterdir()] == ["host.csv"]
    rows = ledger.read()
    assert {row["hardware"] for row in rows} == {"host"}
    assert len(rows) == 4
    gpu_run.run(["mlp128", "mlp784"], None, Host(), fake(asked))
    assert asked[2:] == [("mlp784", "bfloat16"), ("mlp784", "float32")]
    gpu_run.run([], None, Host(), fake(asked))
    assert sorted(asked) == sorted(share.key for share in gpu_plan.PLAN)
    monkeypatch.setattr(gpu_run, "fingerprint", lambda: "other code")
    gpu_run.run(["mlp128"], None, Host(), fake(asked))
    assert asked[-2:] == [("mlp128", "bfloat16"), ("mlp128", "float32")]


@pytest.mark.parametrize("complete", [0.0, None])
def test_a_unit_that_failed_or_lacks_a_contender_is_measured_again(results, complete, capsys):
    asked = []
    for _ in range(2):
        gpu_run.run(["mlp128"], None, Host(), fake(asked, complete))
        assert "to run again: mlp128, bfloat16; mlp128, float32" in capsys.readouterr().err
    assert len(asked) == 4


def test_what_was_never_tried_goes_before_what_was_left_incomplete(results):
    asked = []
    gpu_run.run(["mlp784"], None, Host(), fake(asked, None))
    gpu_run.run(["mlp784", "mlp128"], None, Host(), fake(asked))
    assert [name for name, _ in asked] == ["mlp784"] * 2 + ["mlp128"] * 2 + ["mlp784"] * 2


def test_the_plan_is_of_every_case_in_every_dtype():
    every = {(c.name, dtype) for c in gpu_cases.CASES for dtype in gpu_unit.DTYPES}
    assert {share.key for share in gpu_plan.PLAN} == every
    assert len(gpu_plan.PLAN) == len(every)
    assert all(share.seconds < 180 for share in gpu_plan.PLAN)
    phases = [gpu_plan.ONE, gpu_plan.PREPARED, gpu_plan.GATED, gpu_plan.TIMED, 1.0]
    assert phases == sorted(phases)
    for part in gpu_plan.PARTS:
        assert sum(share.seconds for share in part) <= 600 - gpu_plan.MARGIN


class Clock:
    """Time that passes where a test says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def calls_of(results, taken, complete=lambda key: 1.0):
    """The units of each call of ten minutes, every unit taking its share times `taken(key)`."""
    calls = []
    while len(calls) < 10:
        clock, asked = Clock(), []

        def measure(share, note, clock=clock, asked=asked):
            clock.now += share.seconds * taken(share.key)
            assert clock.now <= 600 - gpu_plan.MARGIN
            return fake(asked, complete(share.key))(share, note)

        gpu_run.run([], 10.0, Host(), measure, clock)
        if not asked:
            return calls
        calls.append(asked)
    return calls


def test_three_calls_of_ten_minutes_are_enough_for_all(results):
    calls = calls_of(results, lambda key: 1.0)
    assert calls == [[share.key for share in part] for part in gpu_plan.PARTS]


@given(st.lists(st.floats(0.2, 1.0), min_size=14, max_size=14))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_faster_units_never_need_a_fourth_call(results, parts):
    for path in results.glob("*"):
        path.unlink()
    taken = dict(zip((share.key for share in gpu_plan.PLAN), parts, strict=True))
    calls = calls_of(results, taken.__getitem__)
    assert len(calls) <= 3
    assert sorted(itertools.chain(*calls)) == sorted(taken)


def test_what_was_left_incomplete_is_tried_again_where_time_is_left(results):
    ill = ("pixeldp_cnn", "bfloat16")
    tries = []

    def complete(key):
        tries.append(key)
        return 1.0 if key != ill or tries.count(ill) > 1 else None

    calls = calls_of(results, lambda key: 0.9, complete)
    assert len(calls) == 3
    assert calls[0].count(ill) == 1
    assert list(itertools.chain(*calls)).count(ill) == 2


def test_a_plan_with_too_little_time_needs_a_fourth_call(results, monkeypatch):
    """That the checks above can fail."""
    more = tuple(dataclasses.replace(s, seconds=1.2 * s.seconds) for s in gpu_plan.PLAN)
    monkeypatch.setattr(gpu_plan, "PLAN", more)
    assert len(calls_of(results, lambda key: 1.0)) > 3


def test_a_call_that_is_too_short_begins_nothing(results, capsys):
    asked = []
    assert gpu_run.run(["resnet110"], 1.0, Host(), fake(asked)) == []
    assert asked == []
    assert "to run again: resnet110, bfloat16" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["gpu", "--minutes", "1"])
    assert "the longest unit takes 3" in capsys.readouterr().err


def test_a_budget_counts_from_the_start_of_the_process():
    clock = Clock()
    budget = gpu_plan.Budget(100.0, start=-20.0, clock=clock)
    assert budget.until(0.5) == 30
    assert budget.one == 50
    clock.now = 40.0
    assert budget.one == pytest.approx(14)
    assert budget.until(0.5) < 0


def test_a_unit_that_does_not_end_is_ended(capsys):
    share = gpu_plan.Share("mlp128", "float32", 0.2)
    assert gpu_run.in_a_process(share, "code") is None
    assert "stopped after" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(results, capsys):
    for words in (["gpu"], ["gpu", "--case", "resnet20"], ["gpu", "--profile"], ["tune"]):
        with pytest.raises(SystemExit, match="NVIDIA GPU"):
            command.main(words)
    share = gpu_plan.Share("mlp128", "float32", 100.0)
    assert gpu_run.in_a_process(share, "code") is None
    assert "failed with status 1" in capsys.readouterr().err
    assert not results.exists()


def test_cases_are_those_of_the_measurement(capsys):
    with pytest.raises(SystemExit):
        command.main(["engine", "--case", "resnet110"])
    assert "engine has no network resnet110" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["tune", "--case", "resnet50"])
    assert "tune has no network resnet50" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["engine", "--minutes", "10"])
    assert "belong to gpu" in capsys.readouterr().err


def test_a_profile_lists_what_ran():
    problem = GpuProblem.of(case(), Host())
    found = gpu_profile.kernels(OursGpu("torch", torch.float32), problem, 128)
    assert sum(one.share for one in found) == pytest.approx(1)
    assert any("addmm" in one.name for one in found)
