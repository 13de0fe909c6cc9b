"""Wine quality and ink of digits: what is loaded, what is refused, and a regressor for them."""

import numpy as np
import pytest
import torch

from pixeldp_fast.data import Dataset, load
from pixeldp_fast.data.ink import ink_of
from pixeldp_fast.data.real import RealDataset
from pixeldp_fast.data.tasks import default_images, open_task
from pixeldp_fast.data.wine import FEATURES, parse_wine
from pixeldp_fast.errors import CheckpointError, DataError, InvalidArgument, TrainingDiverged
from pixeldp_fast.models.fingerprint import fingerprint
from pixeldp_fast.models.regressor import (
    RegressorConfig,
    build_regressor,
    load_regressor,
    save_regressor,
)
from pixeldp_fast.noise import Gaussian
from pixeldp_fast.train.regression import train_regressor
from pixeldp_fast.train.settings import TrainingSettings

HEADER = ";".join(f'"{name}"' for name in (*FEATURES, "quality"))
ROW = "7.4;0.7;0;1.9;0.076;11;34;0.9978;3.51;0.56;9.4;5"


def test_ink_is_the_mean_of_the_pixels_from_its_average():
    train, test = load("digits", "train"), load("digits", "test")
    ink = open_task("ink", "test", images="digits")
    assert (ink.name, len(ink), ink.input_shape) == ("ink of digits", 360, (1, 8, 8))
    pixels = test.images().numpy().reshape(360, -1).mean(axis=1, dtype=np.float64)
    np.testing.assert_allclose(ink.values() + ink.origin, pixels, rtol=1e-12)
    inks = train.images().numpy().reshape(len(train), -1).mean(axis=1, dtype=np.float64)
    assert ink.origin == round(inks.mean(), 2)
    assert ink.low <= inks.min() - ink.origin <= ink.low + 0.01
    assert ink.high - 0.01 <= inks.max() - ink.origin <= ink.high
    assert ink.low < 0 < ink.high
    assert torch.equal(ink.batch([3, 1]), test.images([3, 1]))
    assert torch.equal(ink.batch(torch.tensor([2])), test.images([2]))
    assert "360 examples 1x8x8" in repr(ink)


def test_ink_of_equal_images_still_has_a_range():
    blank = Dataset("blank", np.zeros((3, 1, 2, 2), np.uint8), None, None)
    ink = ink_of(blank, blank)
    assert (ink.low, ink.high) == (-0.01, 0.01)
    with pytest.raises(DataError, match="no training images"):
        ink_of(blank.subset([]), blank)


def test_where_no_images_are_named(monkeypatch, tmp_path):
    monkeypatch.delenv("PIXELDP_DATA", raising=False)
    assert default_images() == "digits"
    monkeypatch.setenv("PIXELDP_DATA", str(tmp_path))
    assert default_images() == "mnist"
    with pytest.raises(DataError, match="MNIST"):
        open_task("ink", "test")


def test_tasks_are_checked(monkeypatch):
    with pytest.raises(InvalidArgument, match="ink, wine"):
        open_task("beer", "test")
    with pytest.raises(InvalidArgument, match="'train' or 'test'"):
        open_task("wine", "all")
    with pytest.raises(InvalidArgument, match="no images"):
        open_task("wine", "test", images="mnist")
    monkeypatch.delenv("PIXELDP_DATA", raising=False)
    with pytest.raises(DataError, match="PIXELDP_DATA"):
        open_task("wine", "test")


def test_wine(data_folder):
    train, test = open_task("wine", "train"), open_task("wine", "test")
    assert (len(train), len(test), train.input_shape) == (5197, 1300, (11,))
    assert set(np.unique(train.values())) == set(range(-3, 4))
    assert (train.low, train.high, train.origin) == (-3.0, 3.0, 6.0)
    inputs = train.batch().numpy()
    np.testing.assert_allclose(inputs.mean(axis=0, dtype=float), 0, atol=1e-6)
    np.testing.assert_allclose(inputs.std(axis=0, dtype=float), 1, atol=1e-6)


def test_another_number_of_decimals_is_the_same_wine(data_folder, tmp_path):
    """One copy writes 9.95333333333333 where another has 9.9533."""
    (tmp_path / "wine").mkdir()
    for colour in ("red", "white"):
        name = f"wine/winequality-{colour}.csv"
        text = (data_folder / name).read_text().replace(",", ";")
        rows = [line.split(";") for line in text.splitlines()[1:]]
        longer = [[*row[:10], f"{float(row[10]) + 3e-6:.9f}", row[11]] for row in rows]
        spelt = [";".join(row) for row in longer]
        (tmp_path / name).write_text("\n".join([HEADER, *spelt]) + "\n")
    ours, theirs = (open_task("wine", "test", root=root) for root in (data_folder, tmp_path))
    assert torch.equal(ours.batch(), theirs.batch())
    path = tmp_path / "wine" / "winequality-red.csv"
    path.write_text(path.read_text().replace(";9.400003000;", ";9.500003000;"))
    with pytest.raises(DataError, match="not the published values"):
        open_task("wine", "test", root=tmp_path)
    path.write_text(path.read_text().replace(";9.500003000;", ";nan;"))
    with pytest.raises(DataError, match="finite"):
        open_task("wine", "test", root=tmp_path)


def test_other_values_than_the_published_ones_are_refused(tmp_path):
    (tmp_path / "wine").mkdir()
    for colour in ("red", "white"):
        (tmp_path / "wine" / f"winequality-{colour}.csv").write_text(f"{HEADER}\n{ROW}\n")
    with pytest.raises(DataError, match="not the published values"):
        open_task("wine", "train", root=tmp_path)


def test_both_spellings_of_the_file_are_read(tmp_path):
    published = parse_wine(f"{HEADER}\n{ROW}\n".encode(), tmp_path)
    commas = HEADER.replace('"', "").replace(";", ",") + "\n" + ROW.replace(";", ",") + "\n"
    assert published.tolist() == parse_wine(commas.encode(), tmp_path).tolist()
    assert published.shape == (1, 12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first row"),
        ("a;b;c\n1;2;3\n", "first row"),
        (f"{HEADER}\n{ROW};1\n", "12 numbers"),
        (f"{HEADER}\n{ROW}\n1;2\n", "table of numbers|12 numbers"),
        (f"{HEADER}\n{ROW.replace('7.4', 'x')}\n", "table of numbers"),
        (f"{HEADER}\n", "12 numbers"),
    ],
)
def test_a_file_that_is_no_wine_is_refused(text, message, tmp_path):
    with pytest.raises(DataError, match=message):
        parse_wine(text.encode(), tmp_path)


def small(inputs=None, targets=None):
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    return RealDataset(
        "small",
        rows if inputs is None else inputs,
        rows[:, 0].astype(np.float64) if targets is None else targets,
        -3.0, 3.0, 0.0, "height", "input units", None,
    )  # fmt: skip


def test_real_data_is_checked():
    with pytest.raises(DataError, match="targets"):
        small(targets=np.zeros(39))
    with pytest.raises(DataError, match="float32"):
        small(inputs=np.zeros((40, 3)))
    with pytest.raises(DataError, match="finite"):
        small(targets=np.full(40, np.nan))


SETTINGS = TrainingSettings(epochs=60, batch_size=8, learning_rate=0.05, seed=1)


def test_training_learns_and_depends_on_its_seed_alone():
    before = torch.get_rng_state()
    model = train_regressor(small(), Gaussian(0.05), SETTINGS, (16,))
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    again = train_regressor(small(), Gaussian(0.05), SETTINGS, (16,))
    assert fingerprint(model) == fingerprint(again)
    with torch.inference_mode():
        error = model.suffix(small().batch())[:, 0].double().numpy() - small().values()
    assert np.abs(error).mean() < 0.2


def test_training_that_diverges_says_so():
    wild = TrainingSettings(epochs=50, batch_size=8, learning_rate=1e6)
    with pytest.raises(TrainingDiverged, match="smaller learning rate"):
        train_regressor(small(), Gaussian(0.05), wild, (16,))


CONFIG = RegressorConfig("small", (3,), (5, 4), -3.0, 3.0, 0.0)


def test_a_saved_regressor_is_the_one_that_is_loaded(tmp_path):
    model = build_regressor((3,), (5, 4), Gaussian(0.4)).eval()
    save_regressor(tmp_path / "model", model, CONFIG)
    loaded, config = load_regressor(tmp_path / "model")
    assert config == CONFIG
    assert fingerprint(loaded) == fingerprint(model)
    assert loaded.mechanism == Gaussian(0.4)
    assert not loaded.training


def test_a_regressors_file_is_checked(tmp_path):
    path = tmp_path / "model"
    with pytest.raises(CheckpointError, match="not a regressor"):
        load_regressor(path)
    model = build_regressor((3,), (5, 4), Gaussian(0.4)).eval()
    save_regressor(path, model, CONFIG)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(CheckpointError, match="not a regressor"):
        load_regressor(path)
    path.write_bytes(whole[:-4] + b"\0\0\1\1")  # a weight
    with pytest.raises(CheckpointError, match="edited"):
        load_regressor(path)
    # The metadata is JSON within the header's JSON, hence the backslashes.
    path.write_bytes(whole.replace(rb"\"format_version\": 1", rb"\"format_version\": 2"))
    with pytest.raises(CheckpointError, match="format version 2"):
        load_regressor(path)


@pytest.mark.parametrize("widths", [(), (0,), (5, -1)])
def test_widths_are_checked(widths):
    with pytest.raises(InvalidArgument, match="widths"):
        build_regressor((3,), widths, Gaussian(0.4))
