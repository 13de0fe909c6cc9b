"""`Dataset`: conversion, indexing, fingerprint, refusals."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from pixeldp_fast.data import Dataset, from_arrays, load
from pixeldp_fast.errors import DataError, InvalidArgument

NAMES = ("a", "b", "c")


def made(count: int = 6, **changes: Any) -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 4, 5), dtype=np.uint8)
    fields = {
        "name": "made",
        "pixels": pixels,
        "targets": np.arange(count) % 3,
        "class_names": NAMES,
    }
    return Dataset(**{**fields, **changes})


def test_every_byte_becomes_its_quotient_in_float32() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    dataset = Dataset("bytes", pixels, np.zeros(1, np.int64), ("a",))
    values = dataset.images().flatten()
    quotients = torch.arange(256, dtype=torch.float32) / 255
    assert torch.equal(values, quotients)
    assert not torch.equal(values, torch.arange(256) * torch.tensor(1 / 255))  # the other way
    assert values[255] == 1


def test_access_by_position_slice_mask_and_tensor() -> None:
    dataset = made()
    image, label = dataset[4]
    assert image.dtype == torch.float32
    assert image.shape == dataset.input_shape == (3, 4, 5)
    assert isinstance(label, int)
    everything = dataset.images()
    mask = np.array([False, True, False, False, True, True])
    for indices, positions in (
        ([4, 1], [4, 1]),
        (slice(1, None, 2), [1, 3, 5]),
        (range(2), [0, 1]),
        (torch.tensor([5, 5]), [5, 5]),
        (np.array([-1]), [5]),
        (mask, [1, 4, 5]),
        ([], []),
        (None, list(range(6))),
    ):
        assert torch.equal(dataset.images(indices), everything[positions])
        labels = dataset.labels(indices)
        assert labels.dtype == np.int64
        assert labels.tolist() == [p % 3 for p in positions]
        assert len(dataset.subset(indices)) == len(positions)


def test_iteration_ends_and_agrees_with_access() -> None:
    pairs = list(made(3))
    assert [label for _, label in pairs] == [0, 1, 2]
    assert torch.equal(torch.stack([image for image, _ in pairs]), made(3).images())


@pytest.mark.parametrize("indices", [[6], [-7], [0.5], np.ones(5, bool), [[0, 1]]])
def test_bad_indices_are_refused(indices: Any) -> None:
    with pytest.raises(InvalidArgument, match="indices"):
        made().images(indices)


def test_position_outside_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        made()[6]


def test_images_are_copies_and_storage_is_read_only() -> None:
    dataset = made()
    before = dataset.fingerprint()
    dataset.images().zero_()
    dataset.images(slice(2)).zero_()
    dataset.labels()[:] = 0
    assert dataset.fingerprint() == before
    with pytest.raises(ValueError, match="read-only"):
        dataset.pixels[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.name = "other"  # type: ignore[misc]


def test_float_storage_gives_the_same_images_and_fingerprint() -> None:
    stored = made()
    floats = Dataset("made", stored.images().numpy(), stored.labels(), NAMES)
    assert torch.equal(floats.images(), stored.images())
    assert floats.fingerprint() == stored.fingerprint()


def test_fingerprint_sees_value_label_order_and_shape() -> None:
    base = made()
    pixels = base.pixels.copy()
    pixels[5, 2, 3, 4] ^= 1
    labels = base.labels()
    labels[0] = 2
    others = [
        made(pixels=pixels),
        made(targets=labels),
        base.subset([1, 0, 2, 3, 4, 5]),
        base.subset(range(5)),
        made(pixels=base.pixels.reshape(6, 3, 5, 4)),
    ]
    prints = {d.fingerprint() for d in [base, *others]}
    assert len(prints) == 1 + len(others)
    assert made(name="renamed").fingerprint() == base.fingerprint()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixels": np.zeros((6, 4, 5), np.uint8)}, r"\[N, C, H, W\]"),
        ({"pixels": np.zeros((6, 3, 4, 0), np.uint8)}, r"\[N, C, H, W\]"),
        ({"pixels": np.zeros((6, 3, 4, 5), np.float64)}, "uint8 or float32"),
        ({"pixels": np.full((6, 3, 4, 5), np.nan, np.float32)}, "nan"),
        ({"pixels": np.full((6, 3, 4, 5), 1.5, np.float32)}, r"\[0, 1\]"),
        ({"pixels": np.full((6, 3, 4, 5), -0.1, np.float32)}, r"\[0, 1\]"),
        ({"pixels": np.full((6, 3, 4, 5), 17, np.uint8), "levels": 16}, r"\[0, 16\]"),
        ({"levels": 0}, "levels"),
        ({"targets": np.arange(5) % 3}, "one per image"),
        ({"targets": np.full(6, 3)}, r"\[0, 2\]"),
        ({"targets": np.full(6, -1)}, r"\[0, 2\]"),
        ({"targets": np.zeros(6)}, "integers"),
        ({"class_names": None}, "needed with labels"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        made(**changes)


def test_one_nan_among_good_values_is_found() -> None:
    pixels = made().images().numpy()
    pixels[3, 1, 2, 0] = np.nan
    with pytest.raises(DataError, match="finite"):
        made(pixels=pixels)


def test_arrays_and_tensors_of_any_float_width_are_accepted() -> None:
    images = made().images()
    for array in (images, images.numpy(), images.double().numpy()):
        dataset = from_arrays("mine", array, torch.arange(6) % 3)
        assert torch.equal(dataset.images(), images)
        assert dataset.class_names == ("0", "1", "2")
    assert from_arrays("mine", images, torch.arange(6) % 3, num_classes=5).num_classes == 5
    with pytest.raises(DataError, match="class names"):
        from_arrays("mine", images, torch.arange(6) % 3, num_classes=5, class_names=NAMES)


def test_digits_need_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIXELDP_DATA", raising=False)
    train, test = load("digits", "train"), load("digits", "test")
    assert (len(train), len(test), test.num_classes) == (1437, 360, 10)
    assert train.input_shape == test.input_shape == (1, 8, 8)
    assert (train.images().min(), train.images().max()) == (0, 1)
    assert torch.equal((train.images() * 16) % 1, torch.zeros(1437, 1, 8, 8))
    # The first row of the original file.
    first = train.images([0]).reshape(8, 8) * 16
    assert first[0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    counts = np.bincount(np.concatenate([train.labels(), test.labels()]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
