"""`attack` and `sanity` on the digits: what they print, write, resume, find and refuse."""

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from pixeldp_fast.cli.app import app

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
    import numpy as np

    from pixeldp_fast.data import load

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
