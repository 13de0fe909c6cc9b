"""Verification of intervals: what the package writes agrees, and every edit is named."""

import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from pixeldp_fast import Gaussian, Laplace, PixelDP, SmoothedRegressor
from pixeldp_fast.cli.app import app
from pixeldp_fast.errors import RecordError
from pixeldp_fast.report.words import program
from pixeldp_fast.smooth.regression_record import Intervals
from pixeldp_fast.smooth.regression_terms import BOUNDS, MEAN_BOUNDS
from pixeldp_fast.verify.regression import intervals_file, verify_intervals
from tests.cases import MECHANISM_IDS, MECHANISMS

RATIOS = [0.0, 0.3, 0.9]
each_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS, ids=MECHANISM_IDS)


class Wave(nn.Module):
    """Smooth, and not finite now and then."""

    def forward(self, x):
        out = torch.sin(3 * x[:, :1]) + 0.2 * x[:, 1:2]
        return torch.where(x[:, :1] > 1.2, torch.nan, out)


def certified(mechanism, inputs=None, **options):
    regressor = SmoothedRegressor(
        Wave().eval(), mechanism, low=-0.5, high=0.9, clip=True, non_finite=0.3, bins=40,
        seed=4, backend="torch", inputs=inputs,
    )  # fmt: skip
    x = torch.tensor([[0.0, 0.2], [0.7, 0.9]])
    radii = [ratio * mechanism.noise_scale for ratio in RATIOS]
    return regressor.certify(x, radii, n=250, alpha=0.01, index=3, **options)


def verified(intervals, path):
    intervals.to_jsonl(path)
    return verify_intervals(path)


@each_mechanism
@pytest.mark.parametrize("bound", BOUNDS)
def test_what_is_written_agrees_in_40_digits(mechanism, bound, tmp_path):
    found = verified(certified(mechanism, bound=bound), tmp_path / "intervals.jsonl")
    assert [str(d) for d in found.disagreements] == []
    assert {c.name: c.examined for c in found.checks}["ends"] == 12


@pytest.mark.parametrize("mean_bound", MEAN_BOUNDS)
def test_every_confidence_bound_of_means_agrees(mean_bound, tmp_path):
    for bound in ("mean", "parts"):
        intervals = certified(MECHANISMS[0], bound=bound, mean_bound=mean_bound)
        assert verified(intervals, tmp_path / "intervals.jsonl").passed


@pytest.mark.parametrize("law", [Gaussian(0.4, lattice=255), Laplace(0.3, lattice=255)])
def test_intervals_of_lattice_noise_agree(law, tmp_path):
    for bound in BOUNDS:
        intervals = certified(law, bound=bound, inputs="real")
        assert intervals.terms.slack > 0
        found = verified(intervals, tmp_path / "intervals.jsonl")
        assert [str(d) for d in found.disagreements] == []
    edit(tmp_path / "intervals.jsonl", lambda one: one["terms"].update(tau=1e-30), (0, 1))
    fields = {d.field for d in verify_intervals(tmp_path / "intervals.jsonl").disagreements}
    assert "terms.tau" in fields


def test_intervals_behind_a_prefix_state_their_range(tmp_path):
    prefix = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        prefix.weight.copy_(torch.eye(2))
    model = PixelDP(prefix, Gaussian(0.4, lattice=4096), Wave()).eval()
    regressor = SmoothedRegressor(
        model, low=-0.5, high=0.9, clip=True, seed=4, backend="torch", input_range=(-1.0, 2.0)
    )
    found = regressor.certify(torch.tensor([[0.0, 0.2]]), [0.1], n=250, index=3)
    path = tmp_path / "intervals.jsonl"
    checked = verified(found, path)
    assert [str(d) for d in checked.disagreements] == []
    assert any("not checked without the model" in check.against for check in checked.checks)
    assert found.terms.to_dict()["input_range"] == [-1.0, 2.0]
    assert "on inputs within [-1, 2]" in program(found.terms)
    assert Intervals.from_jsonl(path).terms == found.terms
    edit(path, lambda one: one["terms"].pop("input_range"), (0,))
    with pytest.raises(RecordError, match=r"`input_range` must be stated"):
        Intervals.from_jsonl(path)
    fields = {d.field for d in verify_intervals(path).disagreements}
    assert "terms.slack" in fields
    edit(path, lambda one: one["terms"].update(input_range=[2.0, -1.0]), (0,))
    with pytest.raises(RecordError, match="input_range"):
        verify_intervals(path)


@pytest.fixture
def record(tmp_path):
    path = tmp_path / "intervals.jsonl"
    certified(MECHANISMS[0]).to_jsonl(path)
    return path


def edit(path, change, lines=(1,)):
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        change(records[line])
    path.write_text("".join(json.dumps(one, separators=(",", ":")) + "\n" for one in records))


def moved(name, r, by):
    return lambda record: record[name].__setitem__(r, record[name][r] + by)


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        (moved("lower", 1, 1e-7), "lower", "not proved"),
        (moved("upper", 2, -1e-7), "upper", "not proved"),
        (moved("lower", 1, -1e-3), "lower", "far outside"),
        (moved("upper", 0, 1e-3), "upper", "far outside"),
        (lambda r: r.update(mean=r["mean"] + 1e-3), "mean", "the draws' is"),
        (lambda r: r["tally"]["counts"][0].__setitem__(1, 1), "tally.counts", "draws, not 250"),
        (lambda r: r["tally"]["sums"].__setitem__(0, 0), "tally.squares", "do not fit"),
        (lambda r: r["tally"]["counts"].reverse(), None, None),
        (lambda r: r.update(index=3), "index", "share their draws"),
    ],
)
def test_an_edited_field_is_named(record, change, field, words):
    edit(record, change)
    found = verify_intervals(record)
    if field is None:  # the order of the cells is no claim
        assert found.passed
        return
    assert [d.field for d in found.disagreements][:1] == [field]
    assert words in str(found.disagreements[0])
    assert "(line 2)" in str(found.disagreements[0])


def test_moved_draws_do_not_fit_their_sums(record):
    def into_one_cell(one):
        one["tally"]["counts"] = [[1, sum(draws for _, draws in one["tally"]["counts"])]]

    edit(record, into_one_cell)
    assert [d.field for d in verify_intervals(record).disagreements] == ["tally.sums"]


@pytest.mark.parametrize(
    "change",
    [
        {"alpha": 0.02},
        {"bound": "lemma2"},
        {"mean_bound": "hoeffding"},
        {"high": 1.1},
        {"non_finite": -0.4},
        {"radii": [0.0, 0.1, 0.2]},
        {"sensitivities": {"2": 1.5}},
        {"mechanism": {"law": "Gaussian", "sigma": 0.6}},
    ],
)
def test_edited_terms_are_noticed(record, change):
    """Of both lines alike, so that only the numbers can tell."""
    edit(record, lambda one: one["terms"].update(change), (0, 1))
    if "non_finite" in change:
        edit(record, lambda one: one["terms"].update(bound="distribution"), (0, 1))
    assert not verify_intervals(record).passed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 2.0}, "alpha"),
        ({"bound": "tight"}, "bound"),
        ({"mean_bound": "student"}, "mean_bound"),
        ({"low": 0.5}, "low"),
        ({"n": 250.0}, "terms.n"),
        ({"radii": [-1.0]}, "radii"),
        ({"stop": "loss"}, "stop"),
        ({"guarantee": "lattice"}, "guarantee"),
        ({"input_shape": [2, "2"]}, "input_shape"),
        ({"slack": 0.1}, "slack"),
        ({"input_range": [0.0, 1.0]}, "input_range"),
        ({"clip": 1}, "clip"),
        ({"quantile": 1.0}, "quantile"),
        ({"non_finite": 7.0}, "non_finite"),
        ({"sensitivities": {}}, "sensitivities"),
        ({"mechanism": {"law": "Cauchy"}}, "Cauchy"),
        ({"mechanism": {"law": "Gaussian", "sigma": 0.5, "lattice": 255}}, "guarantee"),
        ({"more": 1}, "more"),
    ],
)
def test_terms_that_no_result_could_have_are_refused(record, change, message):
    edit(record, lambda one: one["terms"].update(change), (0, 1))
    with pytest.raises(RecordError, match=message):
        verify_intervals(record)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(format=2), "format 1"),
        (lambda r: r.pop("mean"), "mean"),
        (lambda r: r.update(index=-1), "index"),
        (lambda r: r.update(index=1.5), "index"),
        (lambda r: r["lower"].pop(), "lower"),
        (lambda r: r["upper"].__setitem__(0, "a"), "upper"),
        (lambda r: r.update(target="a"), "target"),
        (lambda r: r["tally"].pop("sums"), "tally"),
        (lambda r: r["tally"]["counts"].append([99, 1]), "tally"),
        (lambda r: r["terms"].update(alpha=0.02), "differ"),
    ],
)
def test_records_that_cannot_be_read_are_refused(record, change, message):
    edit(record, change)
    with pytest.raises(RecordError, match=message):
        verify_intervals(record)


def test_files_are_told_apart(record, tmp_path):
    assert intervals_file(record) == record
    assert intervals_file(tmp_path) == record
    other = tmp_path / "certificates.jsonl"
    other.write_text('{"format":1,"index":0}\n')
    assert intervals_file(other) is None
    assert intervals_file(tmp_path / "missing") is None
    record.write_text("\n")
    with pytest.raises(RecordError, match="no intervals"):
        verify_intervals(record)


def test_the_command(record):
    runner = CliRunner()
    done = runner.invoke(app, ["verify", str(record)])
    assert done.exit_code == 0, done.output
    assert "Nothing that was checked disagrees" in done.output
    done = runner.invoke(app, ["verify", str(record), "--data", "digits"])
    assert done.exit_code == 1
    edit(record, moved("lower", 2, 0.01))
    done = runner.invoke(app, ["verify", str(record.parent)])
    assert done.exit_code == 3
    assert "`lower` at radius" in done.output
