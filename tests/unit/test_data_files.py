"""The published formats: real files where they are, small made ones otherwise."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import io as scipy_io

from pixeldp_fast.config import data_folder
from pixeldp_fast.data import cifar, idx, load, svhn
from pixeldp_fast.errors import DataError, InvalidArgument

needs_data = pytest.mark.skipif(data_folder() is None, reason="PIXELDP_DATA is not set")
RNG = np.random.default_rng(7)


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


# IDX


@pytest.mark.parametrize("packed", [True, False])
def test_idx_round_trip(tmp_path: Path, packed: bool) -> None:
    array = RNG.integers(0, 256, (3, 5, 4), dtype=np.uint8)
    data = idx_bytes(array)
    path = tmp_path / ("x-idx3-ubyte" + (".gz" if packed else ""))
    path.write_bytes(gzip.compress(data) if packed else data)
    assert np.array_equal(idx.read_idx(path), array)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[:-1], "truncated"),
        (lambda d: d + b"\0", "announces"),
        (lambda d: b"\0\0\x0d" + d[3:], "first four bytes"),  # float32
        (lambda d: b"\1" + d[1:], "first four bytes"),
        (lambda d: d[:3] + b"\xff" + d[4:], "first four bytes"),
        (lambda d: d[:9], "cut off"),
        (lambda d: b"", "first four bytes"),
        (lambda d: d[:4] + b"\xff" * 12 + d[16:], "announces"),
    ],
)
def test_damaged_idx_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "x-idx3-ubyte"
    path.write_bytes(change(idx_bytes(np.zeros((2, 3, 3), np.uint8))))
    with pytest.raises(DataError, match=message):
        idx.read_idx(path)


@pytest.mark.parametrize("keep", [0, 1, 10, -4])
def test_damaged_gzip_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x-idx3-ubyte.gz"
    whole = gzip.compress(idx_bytes(RNG.integers(0, 256, (4, 9, 9), dtype=np.uint8)))
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x10
    for data in (whole[:keep], b"not gzip at all", bytes(flipped)):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"gzip|first four bytes"):
            idx.read_idx(path)


@pytest.fixture
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files in MNIST's places whose checksums stand in the table."""
    for split, count in (("train", 5), ("t10k", 3)):
        images = RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", np.arange(count, dtype="u1"))):
            path = tmp_path / "mnist" / f"{split}-{kind}-ubyte.gz"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(gzip.compress(idx_bytes(array), mtime=0))
            monkeypatch.setitem(idx._MNIST.checksums, path.name, md5(path))
            unpacked = md5_of(gzip.decompress(path.read_bytes()))
            monkeypatch.setitem(idx._MNIST.checksums, path.stem, unpacked)
    return tmp_path


def md5_of(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def test_mnist_packed_unpacked_and_in_torchvisions_layout(small_mnist: Path) -> None:
    expected = load("mnist", "test", root=small_mnist)
    assert (len(expected), expected.input_shape) == (3, (1, 28, 28))
    assert expected.labels().tolist() == [0, 1, 2]
    (small_mnist / "MNIST").mkdir()
    (small_mnist / "mnist").rename(small_mnist / "MNIST" / "raw")
    assert load("mnist", "test", root=small_mnist).fingerprint() == expected.fingerprint()
    for packed in list((small_mnist / "MNIST" / "raw").iterdir()):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    assert load("mnist", "test", root=small_mnist).fingerprint() == expected.fingerprint()


def test_a_flipped_bit_fails_the_checksum(small_mnist: Path) -> None:
    path = small_mnist / "mnist" / "t10k-labels-idx1-ubyte.gz"
    sound = md5(path)
    path.write_bytes(gzip.compress(idx_bytes(np.array([0, 1, 3], "u1")), mtime=0))
    with pytest.raises(DataError, match="MD5") as caught:
        load("mnist", "test", root=small_mnist)
    for part in (str(path), sound, md5(path), "yann.lecun.com", "replace it"):
        assert part in str(caught.value)


def test_missing_files_name_paths_variable_and_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, part in (
        ("mnist", "MNIST/raw/train-images-idx3-ubyte"),
        ("fashion_mnist", "FashionMNIST/raw"),
        ("cifar10", "cifar-10-batches-py/data_batch_1"),
        ("svhn", "svhn/train_32x32.mat"),
    ):
        with pytest.raises(DataError, match="PIXELDP_DATA") as caught:
            load(name, "train", root=tmp_path)
        assert str(tmp_path / part) in str(caught.value)
        assert "http" in str(caught.value)
        monkeypatch.delenv("PIXELDP_DATA", raising=False)
        with pytest.raises(DataError, match="PIXELDP_DATA is not set"):
            load(name, "train")


def test_unknown_names_and_splits_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="digits, mnist"):
        load("cifar-10", "test")
    with pytest.raises(InvalidArgument, match="split"):
        load("digits", "validation")


# CIFAR-10


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 wrote: bytes as its `str`, arrays under their old names, protocol 2."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_bytes(self, value: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes

    def save_array(self, value: np.ndarray) -> None:
        order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
        self.write(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n")
        self.write(pickle.INT + b"0\n" + pickle.TUPLE1)
        self.save(b"b")
        self.write(pickle.TUPLE3 + pickle.REDUCE + pickle.MARK)
        self.save(1)
        self.save(value.shape)
        self.write(b"cnumpy\ndtype\n")
        self.save((b"u1" if value.dtype == np.uint8 else b"i4", 0, 1))
        self.write(pickle.REDUCE)
        self.save((3, b"|", None, None, None, -1, -1, 0))
        self.write(pickle.BUILD)
        self.save(order == "F")
        self.save(value.tobytes(order))
        self.write(pickle.TUPLE + pickle.BUILD)

    dispatch[np.ndarray] = save_array


def write_python2(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump(content)


def batch(count: int) -> dict[bytes, Any]:
    data = RNG.integers(0, 256, (count, 3072), dtype=np.uint8)
    labels = [int(k) for k in RNG.integers(0, 10, count)]
    names = [b"image_%d.png" % i for i in range(count)]
    return {b"batch_label": b"made", b"labels": labels, b"data": data, b"filenames": names}


def test_the_emulated_pickle_is_what_python_and_numpy_read(tmp_path: Path) -> None:
    content = batch(4)
    write_python2(tmp_path / "batch", content)
    with (tmp_path / "batch").open("rb") as file:
        read = pickle.load(file, encoding="bytes")
    assert np.array_equal(read[b"data"], content[b"data"])
    assert read[b"labels"] == content[b"labels"]


@pytest.mark.parametrize("order", ["C", "F"])
def test_python_version_is_read(tmp_path: Path, order: str) -> None:
    content = batch(7)
    content[b"data"] = np.array(content[b"data"], order=order)  # type: ignore[call-overload]
    write_python2(tmp_path / "batch", content)
    images, labels = cifar.read_python(tmp_path / "batch")
    assert images.dtype == np.uint8
    assert np.array_equal(images.reshape(7, 3072), content[b"data"])
    assert labels.tolist() == content[b"labels"]


class Malicious:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    path, witness = tmp_path / "batch", tmp_path / "witness"
    for content in (
        Malicious(os.mkdir, str(witness)),
        {"data": Malicious(os.mkdir, str(witness)), "labels": [0]},
        {"data": Malicious(eval, f"__import__('os').mkdir({str(witness)!r})"), "labels": [0]},
    ):
        path.write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(DataError, match="refused"):
            cifar.read_python(path)
        assert not witness.exists()
        with path.open("rb") as file:  # the planted code works where nothing restricts it
            pickle.load(file)
        witness.rmdir()


def test_pickles_that_are_no_batches_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    good = batch(2)
    for content in (
        [1, 2],
        {b"labels": [0, 1]},
        {**good, b"labels": [0]},
        {**good, b"labels": [0, 1.5]},
        {**good, b"data": b"raw"},
        {**good, b"data": good[b"data"][:, :3071]},
        {**good, b"data": good[b"data"].astype(np.int32)},
    ):
        write_python2(path, content)
        with pytest.raises(DataError, match="batch"):
            cifar.read_python(path)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02}r\xff\xff\xff\x7f.",  # object number 2^31 - 1: gigabytes of table
        b"\x80\x05\x96\0\0\0\0\0\0\0\x10.",  # a bytearray of an exabyte
        b"\x80\x04\x95\0\0\0\0\0\0\0\0}.",
    ],
)
def test_pickles_python2_never_wrote_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DataError, match=r"refused|bytes"):
        cifar.parse_python(data, tmp_path / "batch")


def test_damaged_batches_raise_nothing_but_data_errors(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    write_python2(path, batch(1))
    data = path.read_bytes()
    refused = 0
    for position in [*range(0, len(data), 61), *range(200)]:
        for damaged in (data[:position], data[:position] + b"\xff" + data[position + 1 :]):
            try:
                cifar.parse_python(damaged, path)
            except DataError:
                refused += 1
    assert refused > 250  # every truncation, and the flips outside the values


def test_binary_version_is_read(tmp_path: Path) -> None:
    rows = RNG.integers(0, 10, (6, 3073), dtype=np.uint8)
    path = tmp_path / "batch.bin"
    path.write_bytes(rows.tobytes())
    images, labels = cifar.read_binary(path)
    assert np.array_equal(images.reshape(6, 3072), rows[:, 1:])
    assert np.array_equal(labels, rows[:, 0])
    for size in (0, 3072, 6 * 3073 - 1):
        path.write_bytes(rows.tobytes()[:size])
        with pytest.raises(DataError, match="3073-byte rows"):
            cifar.read_binary(path)


def test_both_versions_load_to_the_same_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        content = batch(3)
        python = tmp_path / "cifar-10-batches-py" / name
        write_python2(python, content)
        binary = tmp_path / "cifar-10-batches-bin" / f"{name}.bin"
        binary.parent.mkdir(exist_ok=True)
        labels = np.array(content[b"labels"], np.uint8)[:, None]
        binary.write_bytes(np.concatenate([labels, content[b"data"]], axis=1).tobytes())
        for path in (python, binary):
            monkeypatch.setitem(cifar._CHECKSUMS, path.name, md5(path))
    train, test = (load("cifar10", split, root=tmp_path) for split in ("train", "test"))
    assert (len(train), len(test), train.class_names[1]) == (15, 3, "automobile")
    (tmp_path / "cifar-10-batches-bin").rename(tmp_path / "away")
    assert load("cifar10", "train", root=tmp_path).fingerprint() == train.fingerprint()
    assert load("cifar10", "test", root=tmp_path).fingerprint() == test.fingerprint()
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(DataError, match="data_batch_3"):
        load("cifar10", "train", root=tmp_path)


# SVHN


def mat(path: Path, **changes: Any) -> dict[str, np.ndarray]:
    content = {
        "X": RNG.integers(0, 256, (32, 32, 3, 11), dtype=np.uint8),
        "y": np.arange(11, dtype=np.uint8).reshape(-1, 1) % 10 + 1,
    }
    content.update(changes)
    path.parent.mkdir(exist_ok=True)
    scipy_io.savemat(path, {k: v for k, v in content.items() if v is not None})
    return content


def test_svhn_is_read_and_ten_means_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "svhn" / "test_32x32.mat"
    content = mat(path)
    images, labels = svhn.read_mat(path)
    assert images.shape == (11, 3, 32, 32)
    assert images[4, 2, 7, 9] == content["X"][7, 9, 2, 4]
    assert labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    with pytest.raises(DataError, match="eb5a983be6a315427106f1b164d9cef3"):
        load("svhn", "test", root=tmp_path)
    monkeypatch.setitem(svhn._CHECKSUMS, path.name, md5(path))
    dataset = load("svhn", "test", root=tmp_path)
    assert dataset.labels().tolist() == labels.tolist()
    path.rename(tmp_path / path.name)
    assert load("svhn", "test", root=tmp_path).fingerprint() == dataset.fingerprint()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": None}, "no `X` and `y`"),
        ({"X": np.zeros((32, 32, 3, 4), np.float32)}, "must be uint8"),
        ({"X": np.zeros((32, 32, 11), np.uint8)}, "must be uint8"),
        ({"y": np.ones((10, 1), np.uint8)}, "11 integers"),
        ({"y": np.zeros((11, 1), np.uint8)}, r"1\.\.10"),
        ({"y": np.full((11, 1), 11, np.uint8)}, r"1\.\.10"),
    ],
)
def test_other_mat_files_are_refused(tmp_path: Path, changes: Any, message: str) -> None:
    mat(tmp_path / "x.mat", **changes)
    with pytest.raises(DataError, match=message):
        svhn.read_mat(tmp_path / "x.mat")


@pytest.mark.parametrize("keep", [0, 50, 127, 200, 20000])
def test_truncated_mat_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.mat"
    mat(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"\.mat file|no `X` and `y`"):
        svhn.read_mat(path)


# The real files


@needs_data
@pytest.mark.parametrize(
    ("name", "split", "size", "shape", "labels", "mean"),
    [
        ("mnist", "test", 10_000, (1, 28, 28), [7, 2, 1, 0, 4], 0.1325),
        ("mnist", "train", 60_000, (1, 28, 28), [5, 0, 4, 1, 9], 0.1307),
        ("fashion_mnist", "test", 10_000, (1, 28, 28), [9, 2, 1, 1, 6], 0.2868),
        ("cifar10", "test", 10_000, (3, 32, 32), [3, 8, 8, 0, 6], 0.4765),
    ],
)
def test_real_files(
    name: str, split: str, size: int, shape: Any, labels: list[int], mean: float
) -> None:
    folder = data_folder()
    assert folder is not None
    present = {"cifar10": ("cifar-10-batches-bin", "cifar-10-batches-py")}.get(name, (name,))
    if not any((folder / part).is_dir() for part in present):
        pytest.skip(f"PIXELDP_DATA holds no {name}")
    dataset = load(name, split)
    assert (len(dataset), dataset.input_shape) == (size, shape)
    assert dataset.labels(slice(5)).tolist() == labels
    assert dataset.pixels.mean() / 255 == pytest.approx(mean, abs=5e-4)
