"""The engine's measurement from gate to rows, with contenders that cost nothing to prepare."""

import dataclasses
from dataclasses import dataclass

import pytest

from bench import cases, engine
from bench.baselines.base import AbstractContender, AbstractJob
from bench.baselines.eager import Eager
from bench.baselines.layouts import CHANNELS_LAST, PLAIN
from bench.baselines.ours import Ours
from bench.engine_report import engine_table, measured


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """One chunk's draws per run."""
    case = dataclasses.replace(cases.by_name("mlp"), draws=64)
    monkeypatch.setattr(cases, "by_name", lambda name: case)


def as_read(rows):
    return [{k: str(v) for k, v in vars(row).items()} | {"time": "2030"} for row in rows]


def test_a_case_becomes_rows_that_the_report_reads(capsys):
    contenders = (Ours("torch"), Eager(PLAIN), Eager(CHANNELS_LAST))
    rows = engine.measure("mlp", contenders, repeats=2, extras=False)
    assert "without eager channels-last" in capsys.readouterr().err
    (one,) = measured(as_read(rows))
    assert one.network == "mlp"
    assert set(one.contenders()) == {"pixeldp_fast torch", "eager"}
    assert one.strongest() == "eager"
    rates = [row for row in rows if row.metric == "rate"]
    assert all(0 < row.low <= row.value <= row.high for row in rates)
    assert all("64 draws" in row.note and "torch" in row.note for row in rates[1:])
    assert "eager" in engine_table(as_read(rows))


def test_the_ratio_is_against_the_native_backend():
    rows = engine.measure("mlp", (Ours("native"), Eager(PLAIN)), repeats=2, extras=False)
    found = {(row.contender.split(", ")[2], row.metric): row.value for row in rows}
    if ("pixeldp_fast native", "rate") not in found:
        pytest.skip("the compiled module is not installed")
    ratio = found["pixeldp_fast native", "best rate"] / found["eager", "best rate"]
    assert found["eager", "pixeldp_fast native over it, best"] == pytest.approx(ratio)
    if ("ceiling", "float32 FMA peak") in found:
        assert 0 < found["eager", "share of the FMA peak"] < 1


@dataclass(frozen=True)
class Wrong(AbstractContender):
    """Eager with one logit moved."""

    name = "wrong"
    version = "1"

    def prepare(self, problem, chunk):
        return _WrongJob(Eager(PLAIN).prepare(problem, chunk))


class _WrongJob(AbstractJob):
    def __init__(self, job):
        self._job = job

    def outputs(self, noisy):
        outputs = self._job.outputs(noisy)
        outputs[7, 3] += 1e-3
        return outputs

    def count(self, draws):
        return self._job.count(draws)


def test_nothing_is_timed_when_outputs_are_wrong(monkeypatch):
    monkeypatch.setattr(engine, "interleaved", None)  # calling it would be a TypeError
    with pytest.raises(SystemExit, match=r"mlp, wrong: outputs differ by .* Nothing is timed"):
        engine.measure("mlp", (Wrong(),), repeats=1, extras=False)


def test_every_case_has_a_name_that_labels_can_hold():
    assert not any("," in case.name for case in cases.CASES)
