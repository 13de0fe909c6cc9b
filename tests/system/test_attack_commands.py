"""`attack` and `sanity` on the digits: what they print, write, resume, find and refuse."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from pixeldp_fast.cli.app import app
from pixeldp_fast.data import load

runner = CliRunner()


def run(*words, code=0):
    done = runner.invoke(app, [str(w) for w in words])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done.output.replace("\N{NO-BREAK SPACE}", " ")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train") / "model"
    run(
        "train", "--arch", "mlp", "--data", "digits", "--sigma", "0.2", "--option", "widths=[32]",
        "--epochs", "8", "--batch", "64", "--lr", "0.1", "--seed", "1", "--device", "cpu",
        "--out", folder,
    )  # fmt: skip
    return folder


class Quantised(nn.Module):
    """A network whose activations come in steps, so that its gradient is zero."""

    def __init__(self, num_classes):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(num_classes, 64, generator=generator))

    def forward(self, x):
        return (16 * x.flatten(1) @ self.weight.T).round()


def quantised(num_classes):
    return Quantised(num_classes).eval()


FEW = ("--seed", "5", "--device", "cpu", "--draws", "6", "--steps", "10")


def test_sanity_prints_what_it_saw_of_an_honest_model(checkpoint):
    output = run("sanity", checkpoint, "--data", "digits", "--examples", "40", *FEW)
    assert "mlp on digits (test): 40 images" in output
    assert "0 not finite, 0 zero of" in output
    assert "accuracy reaches 0 as the size grows" in output
    assert "sanity: 100 %" in output
    assert output.count("pass ") == 6
    assert "no proof of robustness" in output


def test_sanity_fails_a_masked_model_with_code_3(tmp_path):
    # Labels that the network itself gives, so that it is right without an attack.
    data = load("digits", "test")
    x = data.images(range(24))
    labels = quantised(10)(x).argmax(1).numpy()
    np.savez(tmp_path / "own.npz", x=x.numpy(), y=labels)
    words = ("--data", tmp_path / "own.npz", "--sigma", "0.05", "--num-classes", "10", *FEW)
    model = "tests.system.test_attack_commands:quantised"
    output = run("sanity", model, *words, "--examples", "24", code=3)
    assert "FAIL" in output
    assert "attacks do not measure this model's robustness" in output


def test_sanity_refuses(checkpoint):
    output = run("sanity", checkpoint, "--data", "digits", "--examples", "0", code=1)
    assert "--examples must be at least 1" in output
    output = run("sanity", checkpoint, "--data", "digits", "--examples", "5", code=1)
    assert "at least 10 are needed" in output


CURVE = ("--sizes", "0.5,1,2", "--restarts", "1", "--verify", "200", "--skip", "30")


@pytest.fixture(scope="module")
def attacked(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("attack") / "run"
    output = run("attack", checkpoint, "--data", "digits", *CURVE, *FEW, "--out", folder)
    return folder, output


def test_attack_draws_the_curve(attacked):
    folder, output = attacked
    names = {p.name for p in folder.iterdir()}
    assert {"manifest.json", "attack.csv", "adversarial.npz", "blocks"} <= names
    assert "accuracy under attack" in output
    assert "size of the attack (2-norm, input units)" in output
    assert "attack: 100 %" in output
    rows = [line.split(",") for line in (folder / "attack.csv").read_text().splitlines()[1:]]
    assert [float(row[0]) for row in rows] == [0, 0.5, 1, 2]
    right = [int(row[3]) for row in rows]
    assert right[0] > 8 > right[3]
    assert right == sorted(right, reverse=True)


def test_what_an_attack_wrote_is_a_data_set_and_fools_the_served_prediction(attacked, checkpoint):
    path = attacked[0] / "adversarial.npz"
    stored = np.load(path)
    output = run("predict", checkpoint, path, "--json", "--device", "cpu")
    rows = json.loads(output)
    broken = stored["broken"] < 4
    answers = np.array([row["prediction"] for row in rows])
    assert broken.any()
    # A fresh seed: decided by other draws than all those of the run.
    assert not (answers == stored["y"])[broken].any()


def test_a_killed_attack_resumes_to_the_same_numbers(attacked, checkpoint, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(attacked[0], folder)
    (folder / "blocks" / "00000.npz").unlink()
    before = (folder / "attack.csv").read_bytes()
    (folder / "attack.csv").unlink()
    words = [word for word in FEW if word not in ("--seed", "5")]  # taken from the run
    run("attack", checkpoint, "--data", "digits", *CURVE, *words, "--out", folder)
    assert (folder / "attack.csv").read_bytes() == before
    output = run(
        "attack", checkpoint, "--data", "digits", *CURVE, *FEW, "--verify", "300", "--out", folder,
        code=1,
    )  # fmt: skip
    assert "these differ: verify" in output


def test_the_certified_curve_lies_beneath(attacked, checkpoint, tmp_path):
    certified = tmp_path / "certified"
    run(
        "certify", checkpoint, "--data", "digits", "--n", "300", "--skip", "30", "--seed", "5",
        "--device", "cpu", "--out", certified,
    )  # fmt: skip
    folder = attacked[0]
    pytest.importorskip("matplotlib")
    plain = (folder / "attack.svg").read_bytes()
    words = ("attack", checkpoint, "--data", "digits", *CURVE, *FEW, "--out", folder)
    run(*words, "--certified", certified)
    assert (folder / "attack.svg").read_bytes() != plain
    output = run(*words, "--certified", tmp_path, code=1)
    assert "holds no finished run of certify" in output


def test_inside_finds_nothing_in_sound_certificates(checkpoint, tmp_path):
    output = run(
        "attack", checkpoint, "--data", "digits", "--inside", *FEW, "--restarts", "1", "--skip",
        "30", "--n", "1000", "--rejudge", "5000", "--out", tmp_path / "run",
    )  # fmt: skip
    assert "attacked just inside their radii" in output
    assert "no violation that alpha does not allow" in output


def test_inside_catches_certificates_that_claim_too_much(checkpoint, tmp_path, monkeypatch):
    from pixeldp_fast.smooth import classifier

    honest = classifier.sensitivities

    def planted(plan, asked, norm):
        return tuple((name, value / 2) for name, value in honest(plan, asked, norm))

    monkeypatch.setattr(classifier, "sensitivities", planted)
    words = ("--restarts", "2", "--skip", "12", "--n", "1000", "--rejudge", "5000")
    folder = tmp_path / "run"
    output = run(
        "attack", checkpoint, "--data", "digits", "--inside", *FEW, *words, "--out", folder, code=3
    )
    assert "UNSOUND" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--sizes"),
        (("--sizes", "1", "--inside"), "either --sizes"),
        (("--sizes", "1", "--n", "100"), "--n and --sizes do not go together"),
        (("--inside", "--certified", "x"), "--certified and --inside"),
        (("--sizes", "wide"), "A size must be"),
        (("--sizes", "9"), "0 to 255"),
        (("--sizes", "1", "--method", "cw"), "`method` must be one of"),
        (("--sizes", "1", "--verify", "3"), "confirm nothing"),
        (("--sizes", "1", "--norm", "3"), "`norm`"),
    ],
)
def test_attack_refuses(checkpoint, tmp_path, words, message):
    output = run(
        "attack", checkpoint, "--data", "digits", *words, "--out", tmp_path / "run", code=1
    )
    assert message in " ".join(output.split())
    assert not (tmp_path / "run" / "blocks").exists()
