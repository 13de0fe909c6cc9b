"""The user's own data: .npz, folders of images, factories, and the entry that tells them apart."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pixeldp_fast.data import Dataset, from_folder, from_npz, load, open_dataset, resolve
from pixeldp_fast.errors import DataError, InvalidArgument, MissingExtra

RNG = np.random.default_rng(3)
IMAGES = RNG.integers(0, 256, (6, 3, 8, 10), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def npz(folder: Path, **arrays: Any) -> Path:
    path = folder / "mine.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("keys", [("x", "y"), ("images", "labels")])
def test_npz_in_both_layouts_and_types(tmp_path: Path, keys: tuple[str, str]) -> None:
    expected = torch.from_numpy(IMAGES.astype(np.float32)) / 255
    for images in (
        IMAGES,
        IMAGES.transpose(0, 2, 3, 1),
        expected.numpy(),
        expected.numpy().transpose(0, 2, 3, 1),
    ):
        dataset = from_npz(npz(tmp_path, **{keys[0]: images, keys[1]: LABELS}))
        assert torch.equal(dataset.images(), expected)
        assert dataset.labels().tolist() == LABELS.tolist()
        assert (dataset.name, dataset.num_classes) == ("mine", 3)


def test_npz_of_grey_images_without_a_channel_axis(tmp_path: Path) -> None:
    dataset = from_npz(npz(tmp_path, x=IMAGES[:, 0], y=LABELS))
    assert dataset.input_shape == (1, 8, 10)


def test_npz_class_names_and_number(tmp_path: Path) -> None:
    names = np.array(["cat", "dog", "eel", "fox"])
    dataset = from_npz(npz(tmp_path, x=IMAGES, y=LABELS, class_names=names))
    assert dataset.class_names == ("cat", "dog", "eel", "fox")
    assert from_npz(npz(tmp_path, x=IMAGES, y=LABELS), num_classes=7).num_classes == 7


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": LABELS}, "it holds y"),
        ({"x": IMAGES, "images": IMAGES}, "must hold the arrays"),
        ({"x": IMAGES, "labels": LABELS}, "must hold the arrays"),
        ({"x": IMAGES / np.float32(1), "y": LABELS}, "without standardising"),
        ({"x": np.full((6, 3, 8, 8), np.nan, np.float32), "y": LABELS}, "finite"),
        ({"x": IMAGES.astype(np.int64), "y": LABELS}, "uint8"),
        ({"x": IMAGES, "y": LABELS.astype(float)}, "integers"),
        ({"x": IMAGES, "y": LABELS - 1}, "labels must lie"),
        ({"x": IMAGES, "y": LABELS[:5]}, "one per image"),
        ({"x": IMAGES, "y": np.eye(6, dtype=int)}, "integers"),
        ({"x": IMAGES[:0], "y": LABELS[:0]}, "no images"),
        ({"x": IMAGES[0, 0], "y": LABELS}, r"\[N, H, W\]"),
        ({"x": RNG.integers(0, 9, (6, 3, 8, 3), dtype=np.uint8), "y": LABELS}, "both axes"),
        ({"x": RNG.integers(0, 9, (6, 4, 8, 9), dtype=np.uint8), "y": LABELS}, "neither axis"),
        ({"x": np.array([None] * 6), "y": LABELS}, "cannot be read"),  # a pickle
    ],
)
def test_bad_npz_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_npz(npz(tmp_path, **arrays))


def test_npz_without_labels(tmp_path: Path) -> None:
    dataset = from_npz(npz(tmp_path, x=IMAGES))
    assert (dataset.labels(), dataset.num_classes) == (None, None)
    assert repr(dataset) == "<Dataset mine: 6 images 3x8x10, no labels>"
    image, label = dataset[2]
    assert torch.equal(image, dataset.images(2 * [2])[0])
    assert label is None
    part = dataset.subset([4, 1])
    assert (len(part), part.labels(), len(list(part))) == (2, None, 2)
    assert dataset.fingerprint() == from_npz(npz(tmp_path, images=IMAGES)).fingerprint()
    assert dataset.fingerprint() != from_npz(npz(tmp_path, x=IMAGES, y=LABELS)).fingerprint()
    assert part.fingerprint() != dataset.fingerprint()
    assert from_npz(npz(tmp_path, x=IMAGES), num_classes=7).num_classes == 7
    names = np.array(["cat", "dog"])
    assert from_npz(npz(tmp_path, x=IMAGES, class_names=names)).class_names == ("cat", "dog")
    for needs in (dataset.known_labels, dataset.known_classes):
        with pytest.raises(DataError, match="mine has no labels"):
            needs()


def test_a_stated_layout_settles_the_ambiguous_cases(tmp_path: Path) -> None:
    path = npz(tmp_path, x=RNG.integers(0, 9, (6, 3, 8, 1), dtype=np.uint8), y=LABELS)
    assert from_npz(path, layout="NCHW").input_shape == (3, 8, 1)
    assert from_npz(path, layout="NHWC").input_shape == (1, 3, 8)
    with pytest.raises(DataError, match="layout"):
        from_npz(path, layout="CHWN")


def test_damaged_npz_is_refused(tmp_path: Path) -> None:
    path = npz(tmp_path, x=IMAGES, y=LABELS)
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[300] ^= 1
    for damaged in (b"", data[:100], data[:-30], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"mine\.npz"):
            from_npz(path)
    with pytest.raises(DataError, match="not there"):
        from_npz(tmp_path / "absent.npz")


# Folders of images


def write_images(folder: Path, *, mode: str = "RGB", size: tuple[int, int] = (10, 8)) -> None:
    from PIL import Image

    for i, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        target = folder / ["cat", "dog", "eel"][label]
        target.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(image.transpose(1, 2, 0)).resize(size)
        picture.convert(mode).save(target / f"{i}.png")


def test_folder_with_one_folder_per_class(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    write_images(tmp_path)
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    dataset = from_folder(tmp_path)
    order = [0, 3, 1, 4, 2, 5]  # by class, then by file name
    assert dataset.class_names == ("cat", "dog", "eel")
    assert dataset.labels().tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(dataset.images(), torch.from_numpy(IMAGES[order].astype("f4")) / 255)


def test_folder_modes(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    write_images(tmp_path / "grey", mode="L")
    assert from_folder(tmp_path / "grey").input_shape == (1, 8, 10)
    write_images(tmp_path / "mixed", mode="L")
    write_images(tmp_path / "colour")
    (tmp_path / "colour" / "cat" / "0.png").rename(tmp_path / "mixed" / "cat" / "0.png")
    mixed = from_folder(tmp_path / "mixed")
    assert mixed.input_shape == (3, 8, 10)
    grey = mixed.images([1])[0]
    assert torch.equal(grey[0], grey[2])
    write_images(tmp_path / "alpha", mode="RGBA")
    with pytest.raises(DataError, match="alpha"):
        from_folder(tmp_path / "alpha")


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    with pytest.raises(DataError, match="not a folder"):
        from_folder(tmp_path / "absent")
    with pytest.raises(DataError, match="no image"):
        from_folder(tmp_path)
    write_images(tmp_path / "sizes")
    write_images(tmp_path / "large", size=(12, 8))
    (tmp_path / "large" / "eel" / "5.png").rename(tmp_path / "sizes" / "eel" / "5.png")
    with pytest.raises(DataError, match="12x8"):
        from_folder(tmp_path / "sizes")
    write_images(tmp_path / "damaged")
    file = tmp_path / "damaged" / "dog" / "1.png"
    whole = file.read_bytes()
    for data in (b"", b"text", whole[:60], whole[:-40]):
        file.write_bytes(data)
        with pytest.raises(DataError, match=r"1\.png"):
            from_folder(tmp_path / "damaged")


def test_folder_without_pillow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "0.png").touch()
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtra, match="plot"):
        from_folder(tmp_path)


# Factories and the one entry


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_data_module.py").write_text(
        "import numpy as np\n"
        "from pixeldp_fast.data import load\n"
        "def digits(split): return load('digits', split)\n"
        "def pair(): return np.zeros((4, 1, 2, 2), np.uint8), np.arange(4) % 2\n"
        "def wrong(): return [1]\n"
        "def needy(size): return None\n"
        "def failing(): raise KeyError('mine')\n"
        "value = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_data_module", raising=False)


@pytest.mark.usefixtures("factories")
def test_factories() -> None:
    assert len(resolve("own_data_module:digits", "test")) == 360
    assert len(open_dataset("own_data_module:digits", "train")) == 1437
    pair = open_dataset("own_data_module:pair")
    assert (len(pair), pair.num_classes) == (4, 2)
    with pytest.raises(DataError, match="list"):
        resolve("own_data_module:wrong")
    for spec, message in (
        ("own_data_module:absent", "no callable"),
        ("own_data_module:value", "no callable"),
        ("own_data_module:needy", "size"),
        ("no_such_module_here:x", "PYTHONPATH"),
        ("own_data_module", "module:factory"),
        ("own_data_module:a.b", "module:factory"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            resolve(spec)
    with pytest.raises(KeyError, match="mine"):  # the user's own error, as it is
        resolve("own_data_module:failing")


def test_one_entry_opens_everything(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    assert isinstance(open_dataset("digits"), Dataset)
    assert open_dataset("digits").fingerprint() == load("digits", "test").fingerprint()
    path = npz(tmp_path, x=IMAGES, y=LABELS)
    assert open_dataset(path).fingerprint() == open_dataset(str(path), "train").fingerprint()
    write_images(tmp_path / "plain")
    assert len(open_dataset(tmp_path / "plain")) == 6
    write_images(tmp_path / "split" / "train")
    write_images(tmp_path / "split" / "test", mode="L")
    assert open_dataset(tmp_path / "split", "train").input_shape == (3, 8, 10)
    assert open_dataset(tmp_path / "split", "test").input_shape == (1, 8, 10)
    with pytest.raises(DataError, match="no data set"):
        open_dataset("cifar100")
    with pytest.raises(InvalidArgument, match="split"):
        open_dataset("digits", "both")
