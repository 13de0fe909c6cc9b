"""`pixeldp-fast regress` on the embedded digits and on wine: what it prints, writes and refuses."""

import json

import pytest
from typer.testing import CliRunner

from pixeldp_fast.cli.app import app
from pixeldp_fast.smooth.regression_record import Intervals

runner = CliRunner()
FAST = ("--epochs", "2", "--n", "200", "--max", "20", "--seed", "5")


def run(*words, code=0):
    done = runner.invoke(app, ["regress", *(str(w) for w in words)])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return " ".join(done.output.replace("\N{NO-BREAK SPACE}", " ").split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regress") / "run"
    return folder, run("ink", "--data", "digits", *FAST, "--out", folder)


def test_what_it_prints_and_writes(finished):
    folder, output = finished
    for words in ("train on ink of digits (1437 examples)", "clipped to [", "Lemma 2", "99.9 %"):
        assert words in output
    names = {p.name for p in folder.iterdir()}
    assert names >= {"regressor.safetensors", "intervals.jsonl", "widths.png", "intervals.svg"}
    found = Intervals.from_jsonl(folder / "intervals.jsonl")
    assert (len(found), len(found.radii)) == (20, 21)
    assert found.terms.clip
    assert found.targets is not None
    assert json.loads((folder / "summary.json").read_text())["bound"] == "parts"


def test_a_saved_regressor_gives_the_same_records(finished, tmp_path):
    folder, _ = finished
    model = folder / "regressor.safetensors"
    output = run("ink", "--data", "digits", "--model", model, *FAST, "--out", tmp_path / "again")
    assert "train on" not in output
    records = [(f / "intervals.jsonl").read_bytes() for f in (folder, tmp_path / "again")]
    assert records[0] == records[1]


def test_digits_serve_where_there_is_no_data_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("PIXELDP_DATA", raising=False)
    output = run(*FAST, "--radii", "0.05", "--bound", "distribution", "--out", tmp_path / "run")
    assert "ink of digits (test)" in output
    assert "(bound distribution)" in output


def test_noise_on_a_lattice(finished, tmp_path):
    model = finished[0] / "regressor.safetensors"
    words = ("ink", "--data", "digits", "--model", model, *FAST, "--lattice")
    output = run(*words, 16, "--out", tmp_path / "run")
    assert "lattice=16" in output
    assert "for the program that runs (noise on a lattice)" in output
    assert "not on the lattice" in run(*words, 255, code=1)
    run(*words, 255, "--inputs", "real", "--out", tmp_path / "real")


def test_wine(data_folder, tmp_path):
    output = run("wine", *FAST, "--laplace", "0.3", "--out", tmp_path / "run")
    assert "output in [3, 9] (clipped)" in output
    assert "1-norm, standard deviations" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("beer",), "ink, wine"),
        (("ink", "--data", "nonsense"), "no data set"),
        (("ink", "--data", "digits", "--n", "1"), "at least 2"),
        (("ink", "--data", "digits", "--alpha", "2"), "alpha"),
        (("ink", "--data", "digits", "--bound", "tight"), "lemma2"),
        (("ink", "--data", "digits", "--mean-bound", "student"), "betting"),
        (("ink", "--data", "digits", "--radii", "-1"), "size"),
        (("ink", "--data", "digits", "--norm", "3"), "norm"),
        (("ink", "--data", "digits", "--sigma", "0"), "above 0"),
        (("ink", "--data", "digits", "--skip", "0"), "--skip"),
        (("ink", "--data", "digits", "--backend", "abacus"), "backend"),
        (("ink", "--data", "digits", "--model", "missing"), "not a regressor"),
        (("wine", "--data", "digits"), "no images"),
    ],
)
def test_bad_words_are_refused_before_any_training(words, message, tmp_path):
    output = run(*words, "--out", tmp_path / "run", code=1)
    assert message in output
    assert "train on" not in output
    assert not (tmp_path / "run").exists()


def test_a_regressor_of_another_task_or_noise_is_refused(finished, tmp_path, data_folder):
    model = finished[0] / "regressor.safetensors"
    assert "was trained for 'ink of digits'" in run("wine", "--model", model, code=1)
    words = ("ink", "--data", "digits", "--model", model, "--sigma", "0.9")
    assert "brings the noise" in run(*words, code=1)
