"""The ledger, the README's tables, the chart and the benchmark's command line."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench import __main__ as program
from bench import chart, ledger, report
from bench.engine_report import contenders_table, engine_table, measured
from bench.ledger import Row
from pixeldp_fast.cli import bench as command
from pixeldp_fast.cli.app import app

STAMP = {"time": "2030-01-01T00:00:00Z", "commit": "abc", "versions": "v 1"}
OVER = "pixeldp_fast native over it"


@pytest.fixture
def results(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    monkeypatch.setattr(ledger, "RESULTS", folder)
    return folder


def engine_rows(network="mlp", isa="avx512", native=900.0):
    def row(contender, metric, value, unit="1", note="chunk 128"):
        label = f"{network}, {isa}, {contender}"
        return Row("engine", label, metric, value, value - 0.1, value + 0.1, unit, note)

    rates = {"pixeldp_fast native": native, "pixeldp_fast torch": 700.0, "eager": 600.0}
    rows = [row("ceiling", "float32 FMA peak", 100.0, "GFLOP/s")]
    for name, rate in rates.items():
        rows += [
            row(name, "rate", rate - 10, "draws/s"),
            row(name, "best rate", rate, "draws/s"),
            row(name, "share of the FMA peak", rate / 1000),
            row(name, "largest error", 1e-6),
        ]
        if name != "pixeldp_fast native":
            rows += [row(name, OVER, 1.4), row(name, f"{OVER}, best", native / rate)]
    rows.append(row("pixeldp_fast native", "two threads over one, wall clock", 1.95))
    rows.append(row("eager", "peak resident", 300.0, "MiB"))
    return rows


def read_back(rows, stamp=STAMP):
    ledger.append(rows, stamp)
    return ledger.latest("engine")


def test_rows_are_only_appended(results):
    path = ledger.append([Row("a", "x", "m", 1, 1, 1, "s")], STAMP)
    before = path.read_text()
    assert before.splitlines()[0] == ",".join(ledger.COLUMNS)
    ledger.append([Row("a", "x", "m", 2, 2, 2, "s")], STAMP | {"time": "2031-01-01T00:00:00Z"})
    after = path.read_text()
    assert after.startswith(before)
    assert len(after.splitlines()) == 3
    assert [row["value"] for row in ledger.latest("a")] == ["2"]


def test_a_row_says_what_it_was_measured_with(results):
    stamp = ledger.stamp()
    ledger.append([Row("a", "x", "m", 1, 1, 1, "s")], stamp)
    (row,) = ledger.read()
    assert "torch" in row["versions"]
    assert row["commit"]
    assert row["hardware"] == ledger.hardware.slug()
    header = ledger.hardware.header(stamp["commit"])
    assert all(part in header for part in (row["hardware"], row["versions"], row["commit"]))


def test_the_engine_table_compares_with_the_strongest_other(results):
    table = engine_table(read_back(engine_rows()))
    (line,) = table.splitlines()[2:]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == [
        "MLP 64-256-256-10, noise on the image",
        "avx512",
        "eager",
        "600",
        "900",
        "1.50",
        "1.40 (1.30 to 1.50)",
        "0.90",
        "1.95",
    ]


def test_tables_are_of_the_newest_run_only(results):
    read_back([Row("engine", "mlp, avx512, gone", "best rate", 9e9, 9e9, 9e9, "draws/s")])
    rows = read_back(engine_rows(), STAMP | {"time": "2031-01-01T00:00:00Z"})
    (one,) = measured(rows)
    assert "gone" not in one.contenders()
    assert one.contenders() == ["pixeldp_fast native", "pixeldp_fast torch", "eager"]
    assert "gone" not in contenders_table(rows)


def test_tables_work_without_the_native_backend(results):
    rows = [r for r in engine_rows() if "native" not in r.contender + r.metric]
    table = engine_table(read_back(rows))
    assert "eager" in table
    assert "900" not in table


def test_networks_stand_in_the_order_of_the_cases(results):
    rows = read_back(
        engine_rows("mlp") + engine_rows("pixeldp_cnn", "avx2") + engine_rows("pixeldp_cnn")
    )
    assert [(one.network, one.isa) for one in measured(rows)] == [
        ("pixeldp_cnn", "avx512"),
        ("pixeldp_cnn", "avx2"),
        ("mlp", "avx512"),
    ]


def test_the_report_rewrites_its_blocks_and_nothing_else(results):
    read_back(engine_rows())
    text = "a\n<!-- bench:engine -->\nold\n<!-- end -->\nb\n"
    text += "<!-- bench:engine-contenders -->\n<!-- end -->\nc\n"
    shown = report.rendered(text)
    assert shown.startswith("a\n<!-- bench:engine -->\n| network |")
    assert "old" not in shown
    assert shown.endswith("<!-- end -->\nc\n")
    assert report.rendered(shown) == shown


def test_rows_without_a_block_are_an_error_and_a_block_without_rows_is_empty(results):
    emptied = report.rendered("<!-- bench:engine -->\nold\n<!-- end -->")
    assert emptied == "<!-- bench:engine -->\n\n<!-- end -->"
    read_back(engine_rows())
    with pytest.raises(SystemExit, match="no block"):
        report.rendered("nothing")


def test_the_table_of_cohens_loop(results):
    ledger.append(
        [
            Row("cohen", "compat.Smooth", "time of a certificate", 2, 1.9, 2.1, "s", "batch 400"),
            Row("cohen", "Cohen's loop", "time of a certificate", 4, 3.9, 4.1, "s", "batch 200"),
            Row("cohen", "compat.Smooth", "over Cohen's loop", 2, 1.9, 2.1, "1", "n = 9"),
        ],
        STAMP,
    )
    table = report.TABLES["cohen"][1](ledger.latest("cohen"))
    assert "| ratio | 2.00 (1.90 to 2.10) | n = 9 |" in table


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_chart_is_the_same_bytes_every_time(results, tmp_path, suffix):
    pytest.importorskip("matplotlib")
    rows = read_back(engine_rows() + engine_rows("resnet20", "avx2"))
    paths = [tmp_path / f"{i}{suffix}" for i in range(2)]
    for path in paths:
        chart.draw(rows, path, "machine")
    assert paths[0].read_bytes() == paths[1].read_bytes()
    if suffix == ".svg":
        assert "ResNet-20" in paths[0].read_text()


def test_no_case_lists_the_cases(capsys):
    program.main([])
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*program.MEASUREMENTS, "report"))


@pytest.mark.parametrize("words", [["nope"], ["mnist-vote"], ["engine", "--case", "nope"]])
def test_usage_errors(words, capsys):
    with pytest.raises(SystemExit) as ending:
        program.main(words)
    assert ending.value.code == 2
    assert capsys.readouterr().err


def test_a_case_is_measured_and_appended(results, monkeypatch, capsys):
    seen = []

    def run(words):
        seen.append(words.networks)
        return [Row("engine", "mlp, avx2, eager", "rate", 1, 1, 1, "draws/s")]

    monkeypatch.setitem(program.MEASUREMENTS, "engine", program.Measurement("", run))
    program.main(["engine", "--case", "mlp"])
    assert seen == [["mlp"]]
    assert len(ledger.read()) == 1
    assert "appended to" in capsys.readouterr().out


def test_the_command_passes_its_words_on(monkeypatch):
    seen = []
    monkeypatch.setattr(program, "main", lambda words, prog: seen.append((list(words), prog)))
    monkeypatch.setattr(sys, "path", list(sys.path))
    done = CliRunner().invoke(app, ["bench", "engine", "--case", "mlp"])
    assert done.exit_code == 0
    assert seen == [(["engine", "--case", "mlp"], "pixeldp-fast bench")]


def test_the_command_outside_a_checkout(monkeypatch, tmp_path):
    installed = tmp_path / "site-packages" / "pixeldp_fast" / "cli" / "bench.py"
    monkeypatch.setattr(command, "__file__", str(installed))
    done = CliRunner().invoke(app, ["bench"])
    assert done.exit_code == 2
    assert "checkout" in done.output
    assert Path(program.__file__).parent.name == "bench"


def test_help_imports_nothing_heavy():
    code = """
import contextlib, io, sys
from pixeldp_fast.cli.app import app
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:
    app(["bench", "--help"], prog_name="pixeldp-fast")
assert "ledger" in out.getvalue()
assert not {"torch", "numpy", "bench"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
