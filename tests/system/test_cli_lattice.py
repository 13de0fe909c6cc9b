"""--lattice: certificates for the program that runs, from the command line."""

import json

import pytest
import torch
from torch import nn

from pixeldp_fast import Gaussian, Laplace, PixelDP, Uniform
from pixeldp_fast.cli.opening import NoiseWords
from pixeldp_fast.errors import InvalidArgument
from tests.system.test_cli_commands import SMALL, run

NETWORK = "tests.system.test_cli_commands:constant_network"
DIGITS = ("--data", "digits", *SMALL, "--sigma", "0.5")


def test_certify_on_the_lattice_of_the_images(tmp_path):
    """Digits have pixels in sixteenths."""
    words = ("certify", NETWORK, *DIGITS, "--lattice", "16", "--out", tmp_path / "run")
    output = run(*words)
    assert "Gaussian(sigma=0.5, lattice=16)" in output
    assert "for the program that runs" in output
    certificates = next((tmp_path / "run").glob("certificates*.jsonl"))
    terms = json.loads(certificates.read_text().splitlines()[0])["terms"]
    assert (terms["guarantee"], terms["inputs"]) == ("lattice", "lattice")
    assert terms["tau"] > 0


def test_verify_derives_tau_anew_and_draws_again(tmp_path):
    pytest.importorskip("mpmath")
    run("certify", NETWORK, *DIGITS, "--lattice", "16", "--out", tmp_path / "run")
    output = run("verify", tmp_path / "run", "--model", NETWORK, "--data", "digits")
    assert "tau from the table's masses" in " ".join(output.split())
    path = next((tmp_path / "run").glob("certificates*.jsonl"))
    path.write_text(path.read_text().replace('"lattice":16', '"lattice":17'))
    assert "`terms.tau`" in run("verify", path, code=3)


def test_certify_in_floats_says_that_it_is_of_real_arithmetic(tmp_path):
    assert "in real arithmetic" in run("certify", NETWORK, *DIGITS, "--out", tmp_path / "run")


def test_images_off_the_lattice_are_refused(tmp_path):
    words = ("certify", NETWORK, *DIGITS, "--lattice", "255", "--out", tmp_path / "run")
    assert "not on the lattice of multiples of 1/255" in run(*words, code=1)
    assert not (tmp_path / "run").exists()


def test_predict_on_a_lattice():
    words = ("predict", NETWORK, "digits", "--n", "50", "--sigma", "0.5", "--device", "cpu")
    assert "0" in run(*words, "--lattice", "16")
    assert "not on the lattice" in run(*words, "--lattice", "255", code=1)


def test_a_models_own_noise_goes_onto_the_lattice():
    model = PixelDP(nn.Conv2d(1, 2, 3), Laplace(0.5), nn.Flatten()).eval()
    on = NoiseWords(lattice=4096).onto_lattice(model)
    assert on.mechanism == Laplace(0.5, lattice=4096)
    assert (on.prefix, on.suffix, on.training) == (model.prefix, model.suffix, False)
    assert torch.equal(on.prefix.weight, model.prefix.weight)
    assert NoiseWords().onto_lattice(model) is model
    assert NoiseWords(lattice=4096).onto_lattice(on) is on


def test_what_cannot_go_onto_a_lattice_is_refused():
    model = PixelDP(None, Gaussian(0.5, lattice=255), nn.Flatten())
    with pytest.raises(InvalidArgument, match="leave --lattice out"):
        NoiseWords(lattice=16).onto_lattice(model)
    with pytest.raises(InvalidArgument, match="no lattice mode"):
        NoiseWords(uniform="0.5", lattice=255).mechanism()
    with pytest.raises(InvalidArgument, match="no lattice mode"):
        NoiseWords(lattice=255).onto_lattice(PixelDP(None, Uniform(0.5), nn.Flatten()))
    with pytest.raises(InvalidArgument, match="whole number"):
        NoiseWords(sigma="0.5", lattice=0).mechanism()
