"""A report's folder: complete, repeatable, readable again; plots without global state."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from pixeldp_fast.errors import InvalidArgument, MissingExtra, RecordError
from pixeldp_fast.report import Named, load_named, plot, write_comparison, write_report
from pixeldp_fast.report.summary import summarise
from pixeldp_fast.smooth.certificate import Certificates
from tests.unit.test_report_curve import certified

FILES = {"summary.json", "summary.md", "curve.csv", "certificates.tsv"}
PLOTS = {"curve.png", "curve.svg"}


@pytest.fixture
def certificates():
    return certified([999, 990, 970, 900, 500], labels=[0, 0, 0, 1, 0])


def names(folder):
    return {p.name for p in folder.iterdir()}


def test_a_report_is_complete_and_repeatable(certificates, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("pyarrow")
    for folder in ("a", "b"):
        write_report(tmp_path / folder, certificates, name="net on data")
    assert names(tmp_path / "a") == FILES | PLOTS | {"certificates.parquet"}
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert b"<dc:date>" not in (tmp_path / "a" / "curve.svg").read_bytes()
    assert (tmp_path / "a" / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_summary_of_a_report(certificates, tmp_path):
    write_report(tmp_path, certificates, name="net on data", radii=[0.5], with_plot=False)
    record = json.loads((tmp_path / "summary.json").read_text())
    assert record["name"] == "net on data"
    assert [r["radius"] for r in record["certified_accuracy"]] == [0, 0.5]
    assert "at least 99.9" in record["guarantee"]
    page = (tmp_path / "summary.md").read_text()
    assert "| 0.5 | 60.0 ± 21.9 % |" in page
    assert "curve.svg" not in page
    assert not names(tmp_path) & PLOTS


def test_labels_given_to_the_report(certificates, tmp_path):
    summary = write_report(tmp_path, certificates, labels=[0] * 5, with_plot=False)
    assert summary.accuracy == 0.8


def test_a_report_without_labels(certificates, tmp_path):
    unlabelled = replace(certificates, labels=None)
    summary = write_report(tmp_path, unlabelled, with_plot=False)
    assert (summary.share, summary.accuracy, summary.certified_accuracy) == (0.8, None, None)
    assert not (tmp_path / "certificates.tsv").exists()
    for name in ("summary.json", "summary.md", "curve.csv"):
        assert "accuracy" not in (tmp_path / name).read_text()
    assert "predictions certified (% of examples)" in (tmp_path / "summary.md").read_text()
    record = json.loads((tmp_path / "summary.json").read_text())
    assert record["certified_shares"][0] == {
        "radius": 0.0, "share": 0.8, "standard_error": record["certified_share_standard_error"]
    }  # fmt: skip
    with pytest.raises(InvalidArgument, match="cannot be compared"):
        write_comparison(tmp_path, [Named("a", unlabelled), Named("b", certificates)])


def test_the_plot_without_labels_does_not_speak_of_accuracy(certificates):
    pytest.importorskip("matplotlib")
    summary = summarise(Named("net", replace(certificates, labels=None)))
    axes = plot._figure([summary]).axes[0]
    assert axes.get_ylabel() == "predictions certified (% of examples)"
    assert not [t for t in axes.texts if "accuracy" in t.get_text()]


def test_several_runs_on_one_plot(certificates, tmp_path):
    pytest.importorskip("matplotlib")
    runs = [Named("one", certificates), Named("two", certified([999] * 4, n=2000))]
    write_comparison(tmp_path, runs)
    assert names(tmp_path) == {"summary.json", "summary.md", "curve.csv"} | PLOTS
    record = json.loads((tmp_path / "summary.json").read_text())
    assert [r["name"] for r in record["runs"]] == ["one", "two"]


def test_without_matplotlib(certificates, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    write_report(tmp_path / "a", certificates)
    assert not names(tmp_path / "a") & PLOTS
    with pytest.raises(MissingExtra, match=r"pixeldp_fast\[plot\]"):
        write_report(tmp_path / "b", certificates, with_plot=True)
    assert not (tmp_path / "b").exists()


def test_the_plot_draws_every_step_where_it_is(certificates):
    pytest.importorskip("matplotlib")
    summary = summarise(Named("net", certificates))
    (axes,) = plot._figure([summary]).axes
    drawn = next(line for line in axes.lines if line.get_drawstyle() == "steps-pre")
    x, y = (np.asarray(values) for values in drawn.get_data())
    curve = summary.curve
    assert x.tolist() == [*curve.radius, curve.radius[-1]]
    assert y.tolist() == [*(100 * curve.share), 0]
    # "pre": the value at a point holds back to the point before, as the curve's does.
    middle = (curve.radius[1:] + curve.radius[:-1]) / 2
    assert np.array_equal(y[np.searchsorted(x, middle)] / 100, curve.at(middle))
    assert axes.get_xlabel() == "radius (2-norm, input units)"


def test_infinite_radii_of_a_tsv_do_not_break_the_plot(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "a.tsv"
    path.write_text("idx\tlabel\tpredict\tradius\tcorrect\n0\t1\t1\tinf\t1\n1\t1\t1\t0.5\t1\n")
    summary = summarise(load_named(path))
    assert set(plot.plot_files([summary])) == {"png", "svg"}
    assert summary.to_dict()["average_certified_radius"] == "inf"


def test_matplotlib_keeps_its_global_state(certificates, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "a.jsonl"
    certificates.to_jsonl(path)
    code = f"""
import sys, matplotlib
matplotlib.rcParams["font.size"] = 31
matplotlib.rcParams["svg.fonttype"] = "none"
before = matplotlib.rcParams.copy()
from pixeldp_fast.report import load_named, plot, summarise
summaries = [summarise(load_named({str(path)!r}))]
first = plot.plot_files(summaries)
assert "matplotlib.pyplot" not in sys.modules
keys = set(before) - {{"backend"}}  # looking that one up imports pyplot
assert {{k: matplotlib.rcParams[k] for k in keys}} == {{k: before[k] for k in keys}}
matplotlib.rcdefaults()
assert plot.plot_files(summaries) == first, "the user's settings reached the plot"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_runs_are_read_from_jsonl_and_tsv(certificates, tmp_path):
    certificates.to_jsonl(tmp_path / "a.jsonl")
    certificates.to_tsv(tmp_path / "b.tsv")
    lines = load_named(tmp_path / "a.jsonl")
    table = load_named(tmp_path / "b.tsv", name="theirs")
    assert (lines.name, table.name) == ("a", "theirs")
    assert isinstance(lines.certificates, Certificates)
    assert np.array_equal(lines.certificates.radius, certificates.radius)
    close = summarise(table)
    assert np.allclose(close.average_radius, certificates.average_radius(), atol=2e-6)
    assert close.largest_radius is None


def test_unreadable_runs_are_refused(tmp_path):
    with pytest.raises(RecordError, match="cannot be read"):
        load_named(tmp_path / "nothing.tsv")
    (tmp_path / "other.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(RecordError, match="Cohen"):
        load_named(tmp_path / "other.tsv")
    (tmp_path / "torn.jsonl").write_text('{"format": 1')
    with pytest.raises(RecordError, match="truncated"):
        load_named(tmp_path / "torn.jsonl")
