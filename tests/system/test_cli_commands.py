"""Every command on the digits with a tiny network: what it prints, writes and refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from pixeldp_fast.cli import checkup
from pixeldp_fast.cli import demo as demo_module
from pixeldp_fast.cli.app import app
from pixeldp_fast.models.resnet import resnet20
from pixeldp_fast.train.recipes import RECIPES
from pixeldp_fast.train.settings import TrainingSettings

SMALL = ("--n", "300", "--skip", "30", "--seed", "5", "--device", "cpu")
runner = CliRunner()


def constant_network(num_classes):
    """A network that answers class 1 for every input, whatever the noise."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network[1].bias[1] = 1.0
    return network.eval()


def brittle_network(num_classes):
    """Right on clean digits only: it compares with the stored images."""
    from pixeldp_fast.data import load

    return Nearest(load("digits", "test")).eval()


class Nearest(nn.Module):
    def __init__(self, data):
        super().__init__()
        self.register_buffer("images", data.images().flatten(1))
        self.register_buffer("labels", torch.from_numpy(data.labels()))

    def forward(self, x):
        """Class of the stored image that is equal, else class 0."""
        equal = (x.flatten(1)[:, None] == self.images[None]).all(-1)  # [B, N]
        found = torch.where(equal.any(1), self.labels[equal.float().argmax(1)], 0)
        return nn.functional.one_hot(found, 10).float()


def run(*words, code=0):
    done = runner.invoke(app, [str(w) for w in words])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done.output.replace("\N{NO-BREAK SPACE}", " ")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train") / "model"
    output = run(
        "train", "--arch", "mlp", "--data", "digits", "--sigma", "0.2", "--option", "widths=[32]",
        "--epochs", "8", "--batch", "64", "--lr", "0.1", "--seed", "1", "--device", "cpu",
        "--out", folder,
    )  # fmt: skip
    assert "train: 100 %, epoch 8 of 8" in output
    assert f"pixeldp-fast certify {folder} --data digits" in output
    return folder


@pytest.fixture(scope="module")
def finished(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("certify") / "run"
    output = run("certify", checkpoint, "--data", "digits", *SMALL, "--out", folder)
    return folder, output


def test_train_writes_a_checkpoint(checkpoint):
    names = {p.name for p in checkpoint.iterdir()}
    assert {"model.safetensors", "config.json", "history.jsonl"} <= names
    assert len((checkpoint / "history.jsonl").read_text().splitlines()) == 8


def test_certify_says_before_drawing_what_to_expect(finished):
    output = finished[1]
    for part in (
        "mlp on digits (test): 12 images, on cpu",
        "noise: Gaussian(sigma=0.2) on the image",
        "units: radii and the noise are in input units, pixels in [0, 1]",
        "largest radius possible at this n and alpha: 0.3999",
        "single draws: ",
        "certify: 100 %, 12 of 12 images",
        "probability at least 99.9 %",
    ):
        assert part in output
    assert output.index("largest radius possible at") < output.index("certify: ")


def test_certify_writes_the_run_and_its_report(finished):
    folder = finished[0]
    names = {p.name for p in folder.iterdir()}
    assert {"manifest.json", "certificates.jsonl", "certificates.tsv", "curve.csv"} <= names
    record = json.loads((folder / "summary.json").read_text())
    assert record["name"] == "mlp on digits (test)"
    assert (record["examples"], record["terms"]["seed"]) == (12, 5)
    assert record["accuracy"] > 0.5


def test_certify_goes_on_with_its_own_folder(checkpoint, finished, tmp_path):
    words = ("certify", checkpoint, "--data", "digits", *SMALL, "--out")
    before = (finished[0] / "certificates.jsonl").read_bytes()
    run(*words, finished[0])
    assert (finished[0] / "certificates.jsonl").read_bytes() == before
    run(*words, tmp_path / "again")
    assert (tmp_path / "again" / "certificates.jsonl").read_bytes() == before
    assert "already holds a run" in run(*words, finished[0], "--no-resume", code=1)
    assert "other settings" in run(*words, finished[0], "--alpha", "0.01", code=1)


def test_certify_understands_cohens_spellings(checkpoint, tmp_path):
    run(
        "certify", checkpoint, "--data", "digits", "--N0", "10", "--N", "50", "--skip", "5",
        "--max", "12", "--split", "train", "--batch", "25", "--alpha", "0.01", "--norm", "L2",
        "--table-radii", "8/255", "--out", tmp_path / "run",
    )  # fmt: skip
    record = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (record["terms"]["n0"], record["terms"]["n"], record["examples"]) == (10, 50, 3)
    assert [r["radius"] for r in record["certified_accuracy"]] == [0, 8 / 255]
    lines = (tmp_path / "run" / "certificates.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["idx", "0", "5", "10"]


def test_certify_a_factory(tmp_path):
    words = ("certify", f"{__name__}:constant_network", "--data", "digits", *SMALL)
    output = run(*words, "--laplace", "0.5", "--norm", "1", "--out", tmp_path / "run")
    assert "Laplace(scale=0.5)" in output
    record = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert record["abstained"] == 0
    assert "give --sigma" in run(*words, "--out", tmp_path / "other", code=1)


def test_certify_warns_of_a_model_that_noise_breaks(tmp_path):
    output = run(
        "certify", f"{__name__}:brittle_network", "--data", "digits", *SMALL, "--sigma", "0.1",
        "--max", "61", "--out", tmp_path / "run",
    )  # fmt: skip
    assert "warning: The model looks untrained for this noise" in output
    assert "100% without" in output


def test_certify_a_published_checkpoint(tmp_path):
    path, images = tmp_path / "checkpoint.pth.tar", tmp_path / "own.npz"
    network = resnet20((3, 32, 32), 10).layers
    state = {f"1.module.{k}": v for k, v in network.state_dict().items()}
    torch.save({"arch": "cifar_resnet20", "state_dict": state}, path)
    np.savez(images, x=np.zeros((2, 32, 32, 3), np.uint8), y=np.array([1, 9]))
    words = ("certify", path, "--data", images, "--N0", "4", "--N", "12", "--device", "cpu")
    assert "give --sigma" in run(*words, "--out", tmp_path / "none", code=1)
    run(*words, "--sigma", "0.25", "--out", tmp_path / "run")
    assert (tmp_path / "run" / "certificates.tsv").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--n", "9"), "at least 10 are needed"),
        (("--sigma", "0.3"), "Leave --sigma"),
        (("--data", "nonsense"), "is no data set"),
        (("--split", "dev"), "`split` must be"),
        (("--norm", "3"), "`norm` must be one of"),
        (("--alpha", "2"), "`alpha` must lie in"),
        (("--bound", "loose"), "`bound` must be one of"),
        (("--scores", "votes"), "`scores` must be one of"),
        (("--backend", "gpu"), "`backend` must be one of"),
        (("--dtype", "int8"), "--dtype must be one of"),
        (("--device", "cuda:77"), "--device"),
        (("--seed", "-1"), "`seed` must be"),
        (("--skip", "0"), "--skip must be at least 1"),
        (("--max", "0"), "--max must be at least 1"),
        (("--radii", "a"), "finite number"),
    ],
)
def test_certify_refuses(checkpoint, tmp_path, words, message):
    output = run(
        "certify", checkpoint, "--data", "digits", *SMALL, "--out", tmp_path / "run", *words, code=1
    )
    assert output.startswith("error: ")
    assert message in output
    assert not (tmp_path / "run").exists()


def test_certify_refuses_models_that_are_none(tmp_path):
    words = ("--data", "digits", "--out", tmp_path / "run")
    assert "is no model" in run("certify", tmp_path / "nothing", *words, code=1)
    assert "config.json" in run("certify", tmp_path, *words, code=1)
    (tmp_path / "a.pth.tar").write_text("x")
    run("certify", tmp_path / "a.pth.tar", "--sigma", "1", *words, code=1)


def test_predict(checkpoint, tmp_path):
    words = ("predict", checkpoint, "digits", "--skip", "60", "--n", "100", "--device", "cpu")
    output = run(*words)
    assert output.splitlines()[0].split() == ["index", "label", "prediction", "votes"]
    rows = json.loads(run(*words, "--json", "--seed", "3"))
    assert [row["index"] for row in rows] == [0, 60, 120, 180, 240, 300]
    assert rows == json.loads(run(*words, "--json", "--seed", "3"))
    for row in rows:
        assert 0 < row["votes"] <= 1
        assert row["prediction"] in (row["top"], -1)
    assert sum(row["prediction"] == row["label"] for row in rows) >= 3


def test_predict_images_without_labels(checkpoint, tmp_path):
    from pixeldp_fast.data import load

    images = load("digits", "test").images(slice(0, 3)).numpy()
    np.savez(tmp_path / "own.npz", x=images)
    rows = json.loads(
        run("predict", checkpoint, tmp_path / "own.npz", "--json", "--n", "50", "--device", "cpu")
    )
    assert len(rows) == 3
    assert "label" not in rows[0]
    output = run("predict", checkpoint, tmp_path / "own.npz", "--n", "50", "--device", "cpu")
    assert "label" not in output
    np.savez(tmp_path / "odd.npz", z=images)
    assert "must hold the arrays" in run("predict", checkpoint, tmp_path / "odd.npz", code=1)


def test_images_without_labels_are_certified_reported_and_predicted(checkpoint, tmp_path):
    from pixeldp_fast.data import load

    data, folder = tmp_path / "own.npz", tmp_path / "run"
    np.savez(data, x=load("digits", "test").images(slice(0, 4)).numpy())
    words = ("certify", checkpoint, "--data", data, "--n", "300", "--seed", "5", "--device", "cpu")
    output = run(*words, "--out", folder)
    assert "predictions certified" in output
    assert "certificates.tsv needs labels" in output
    for word in ("single draws", "accuracy"):
        assert word not in output
    assert {"summary.json", "curve.csv", "certificates.jsonl"} <= {p.name for p in folder.iterdir()}
    assert not (folder / "certificates.tsv").exists()
    record = json.loads((folder / "summary.json").read_text())
    assert record["examples"] == 4
    assert record["certified_share"] == 1 - record["abstained"] / 4 > 0
    again = run("report", folder, "--out", tmp_path / "report")
    assert "predictions certified" in again
    assert (tmp_path / "report" / "curve.csv").read_text() == (folder / "curve.csv").read_text()
    rows = json.loads(run("predict", checkpoint, data, "--json", "--n", "50", "--device", "cpu"))
    assert [sorted(row) for row in rows] == 4 * [["index", "prediction", "top", "votes"]]


def test_what_needs_labels_says_so(tmp_path):
    data, out = tmp_path / "own.npz", tmp_path / "out"
    np.savez(data, x=np.zeros((3, 8, 8), np.uint8))
    factory = (f"{__name__}:constant_network", "--sigma", "0.5", "--n", "50", "--device", "cpu")
    words = ("certify", *factory, "--data", data, "--out", out)
    assert "give --num-classes" in run(*words, code=1)
    run(*words, "--num-classes", "4")
    assert json.loads((out / "summary.json").read_text())["certified_share"] == 1
    model = tmp_path / "model"
    output = run("train", "digits", "--data", data, "--device", "cpu", "--out", model, code=1)
    assert "own has no labels" in output
    assert not model.exists()


def test_predict_refuses_damaged_files(checkpoint, tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, x=np.array([None] * 6))
    assert "cannot be read" in run("predict", checkpoint, path, code=1)
    np.savez(path, x=np.zeros((3, 8, 8), np.uint8))
    path.write_bytes(path.read_bytes()[:-30])
    assert "is not an .npz file" in run("predict", checkpoint, path, code=1)


def test_report_of_a_run(finished, tmp_path):
    folder = finished[0]
    again = run("report", folder, "--radii", "0.1,8/255", "--out", tmp_path / "report")
    assert "mlp on digits (test)" in again
    assert "0.0313725" in again
    assert (tmp_path / "report" / "curve.csv").read_text() == (folder / "curve.csv").read_text()


def test_report_compares_runs_of_every_kind(finished, tmp_path):
    folder = finished[0]
    names = ("--name", "run", "--name", "lines", "--name", "table")
    sources = (folder, folder / "certificates.jsonl", folder / "certificates.tsv")
    output = run("report", *sources, *names, "--out", tmp_path / "all", "--no-plot")
    assert "run" in output.splitlines()[0]
    assert "lines" in output.splitlines()[0]
    assert not (tmp_path / "all" / "curve.png").exists()
    assert len(json.loads((tmp_path / "all" / "summary.json").read_text())["runs"]) == 3


def test_report_refuses(finished, tmp_path, monkeypatch):
    assert "cannot be read" in run("report", tmp_path / "nothing.tsv", code=1)
    assert "not the folder of a run" in run("report", tmp_path, code=1)
    assert "--name is given 2 times" in run(
        "report", finished[0], "--name", "a", "--name", "b", code=1
    )
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    output = run("report", finished[0], "--out", tmp_path / "out", code=1)
    assert "pixeldp_fast[plot]" in output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nonsense",), "must be one of digits"),
        (("--arch", "mlp"), "--data, --sigma"),
        (("digits", "--arch", "nonsense"), "`name` must be one of"),
        (("digits", "--option", "hidden"), "name=value"),
        (("digits", "--option", "depth=3"), "does not take the option"),
        (("digits", "--sigma", "1", "--L", "1"), "One kind of noise"),
        (("digits", "--epochs", "0"), "`epochs` must be"),
        (("digits", "--schedule", "none"), "`schedule` must be"),
        (("digits", "--norm", "3"), "`norm` must be"),
        (("digits", "--data", "nonsense"), "is no data set"),
    ],
)
def test_train_refuses(tmp_path, words, message):
    output = run("train", *words, "--device", "cpu", "--out", tmp_path / "model", code=1)
    assert output.startswith("error: ")
    assert message in output
    assert not (tmp_path / "model" / "config.json").exists()


def test_the_demo(tmp_path, monkeypatch):
    short = RECIPES["digits"].settings.to_dict() | {"epochs": 2}
    short["milestones"] = tuple(short["milestones"])
    recipe = RECIPES["digits"].__class__(
        dataset="digits",
        architecture="mlp",
        mechanism=RECIPES["digits"].mechanism,
        options={"widths": [16]},
        settings=TrainingSettings(**short),
    )
    monkeypatch.setitem(RECIPES, "digits", recipe)
    monkeypatch.setattr(demo_module, "DRAWS", 50)
    tables = []
    for name in ("a", "b"):
        output = run("demo", "--out", tmp_path / name)
        assert "demo with the fixed seed 2019" in output
        assert "certified accuracy" in output
        tables.append(output[output.index("radius (2-norm") : output.index("written to")])
    assert tables[0] == tables[1]
    files = [(tmp_path / n / "run" / "certificates.jsonl").read_bytes() for n in ("a", "b")]
    assert files[0] == files[1]
    run("demo", "--out", tmp_path / "a")
    output = run("demo", "--out", tmp_path / "a", "--seed", "1", code=1)
    assert "another training run" in output
    assert "same table" not in output


def test_doctor():
    output = run("doctor")
    for part in ("pixeldp_fast", "torch", "noise on the CPU", "PIXELDP_ISA", "digits", "pass"):
        assert part in output
    assert "All self-tests passed." in output


def test_doctor_without_the_compiled_module(monkeypatch):
    from pixeldp_fast.noise import sampling

    monkeypatch.setenv("PIXELDP_NATIVE", "0")
    sampling.native_module.cache_clear()
    try:
        assert "torch, slower (PIXELDP_NATIVE=0)" in run("doctor")
    finally:
        monkeypatch.undo()
        sampling.native_module.cache_clear()


def test_doctor_exits_with_3_when_a_self_test_fails(monkeypatch):
    counter, key, words = checkup.KNOWN_ANSWERS[0]
    wrong = (words[0] ^ 1, *words[1:])
    monkeypatch.setattr(checkup, "KNOWN_ANSWERS", ((counter, key, wrong),))
    output = run("doctor", code=3)
    assert "FAIL" in output
    assert "known answer 1 is wrong" in output


def hear_interrupts():
    """A shell that starts the tests in the background makes its children deaf to SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupted_run_says_how_to_go_on_and_does(checkpoint, tmp_path):
    out = tmp_path / "run"
    words = ["certify", str(checkpoint), "--data", "digits", "--skip", "60", "--n", "1000000"]
    words += ["--device", "cpu", "--out", str(out)]
    command = [sys.executable, "-m", "pixeldp_fast.cli", *words]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    )
    deadline = time.monotonic() + 60
    while not list(Path(out).glob("shards/estimation-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
        assert process.poll() is None, process.communicate()
    os.kill(process.pid, signal.SIGINT)
    _, notes = process.communicate(timeout=60)
    assert process.returncode == 130, notes
    assert "pixeldp-fast certify" in notes
    assert "Traceback" not in notes
    assert not (out / "certificates.jsonl").exists()
    kept = {p.name: p.stat().st_mtime_ns for p in out.glob("shards/estimation-*")}
    run(*words)
    assert (out / "certificates.jsonl").is_file()
    assert kept.items() <= {p.name: p.stat().st_mtime_ns for p in out.glob("shards/*")}.items()


@pytest.fixture(scope="module")
def decided(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("decide") / "run"
    words = ("certify", checkpoint, "--data", "digits", "--n", "2000", *SMALL[2:])
    return folder, run(*words, "--radii", "0.1,0.3", "--out", folder), words


def test_certify_decides_asked_radii(decided):
    folder, output, _ = decided
    for part in (
        "asked: 0.1, 0.3 in the 2-norm, n0 = 100 and at most 2 000 draws per image",
        "largest radius that so many draws can prove",
        "decide: 100 %, 12 of 12 images",
        "undecided",
        "times fewer than the cap",
        "With probability at least 99.9 %",
    ):
        assert part in " ".join(output.split())
    record = json.loads((folder / "summary.json").read_text())
    assert [r["radius"] for r in record["radii"]] == [0.1, 0.3]
    for row in record["radii"]:
        assert row["certified"] + row["refuted"] + row["undecided"] == record["examples"] == 12
        assert row["right"] <= row["certified"]
    assert record["draws"]["mean"] < 2000
    assert (folder / "decisions.jsonl").is_file()
    assert "| undecided |" in (folder / "summary.md").read_text()


def test_decisions_resume_and_are_reported_at_other_radii(decided, tmp_path):
    folder, _, words = decided
    before = (folder / "decisions.jsonl").read_bytes()
    run(*words, "--radii", "0.1,0.3", "--out", folder)
    assert (folder / "decisions.jsonl").read_bytes() == before
    output = run("report", folder, "--radii", "0.2", "--out", tmp_path / "report")
    assert "0.2" in output
    record = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert [r["radius"] for r in record["radii"]] == [0.2]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--radii", "5"), "can prove a radius of 5"),
        (("--radii", "-1"), "finite number"),
        (("--radii", "0.1", "--scores", "softmax"), "--scores and --radii"),
        (("--radii", "0.1", "--stop", "loss"), "--stop and --radii"),
        (("--radii", "0.1", "--table-radii", "0.2"), "--table-radii and --radii"),
        (("--loss", "0.1"), "stop='loss'"),
        (("--mean-bound", "betting"), "scores='softmax'"),
    ],
)
def test_certify_refuses_before_drawing(decided, tmp_path, more, message):
    output = run(*decided[2], *more, "--out", tmp_path / "run", code=1)
    assert message in " ".join(output.split())
    assert not (tmp_path / "run").exists()


def test_certify_stops_at_a_loss_against_all_classes(checkpoint, tmp_path):
    words = ("certify", checkpoint, "--data", "digits", *SMALL, "--competitor", "all")
    output = run(*words, "--stop", "loss", "--loss", "0.2", "--out", tmp_path / "run")
    assert "stopped at a loss of 0.2" in " ".join(output.split())
    record = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert record["terms"]["competitor"] == "all"
    assert record["for_all_at_once"] is None
    header = (tmp_path / "run" / "certificates.tsv").read_text().splitlines()[0]
    assert header.split("\t")[-2:] == ["competitor", "draws"]


def test_a_report_speaks_of_all_examples_at_once(finished):
    output = " ".join(finished[1].split())
    assert "all 12 claims hold at once when each is judged at alpha/12 (Bonferroni)" in output
    record = json.loads((finished[0] / "summary.json").read_text())
    assert 0 <= record["for_all_at_once"]["share"] <= record["accuracy"]
