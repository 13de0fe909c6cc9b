"""Checkpoints: round trip, damage, edits, other architectures, and the published .pth.tar form."""

from __future__ import annotations

import json
import os
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixeldp_fast._version import __version__
from pixeldp_fast.errors import CheckpointError, InvalidArgument, MissingExtra
from pixeldp_fast.models import (
    CIFAR10_STATISTICS,
    CheckpointConfig,
    build_pixeldp,
    fingerprint,
    load,
    load_cohen,
    save,
)
from pixeldp_fast.models.resnet import resnet20
from pixeldp_fast.noise import Gaussian, Laplace, Uniform
from pixeldp_fast.smooth.model import PixelDP

SHAPE = (1, 8, 8)


def made(
    name: str = "mlp", mechanism: Any = None, **options: Any
) -> tuple[PixelDP, CheckpointConfig]:
    torch.manual_seed(3)
    model = build_pixeldp(
        name, mechanism or Gaussian(0.25), input_shape=SHAPE, num_classes=10, **options
    )
    training = {"epochs": 2, "rate": 0.1}
    return model, CheckpointConfig(name, SHAPE, 10, options=options, training=training)


@pytest.mark.parametrize(
    ("name", "options", "mechanism"),
    [
        ("mlp", {"widths": (16,)}, Laplace(0.5)),
        ("pixeldp_cnn", {"noise_after": 1, "hidden": 32}, Gaussian(0.25)),
        ("resnet20", {"normalise": [[0.5], [0.25]]}, Uniform(0.75)),
        ("resnet20", {"shortcut": "pad", "noise_after": 1}, Gaussian(1.5)),
    ],
)
def test_round_trip(tmp_path: Path, name: str, options: Any, mechanism: Any) -> None:
    model, config = made(name, mechanism, **options)
    model.train()
    model(torch.rand(8, *SHAPE))  # moves the batch statistics where there are any
    written = save(tmp_path / "new" / "run", model, config)
    assert sorted(p.name for p in (tmp_path / "new" / "run").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    state = torch.get_rng_state()
    loaded, read = load(tmp_path / "new" / "run")
    assert torch.equal(torch.get_rng_state(), state)
    assert read == written
    assert read.training == {"epochs": 2, "rate": 0.1}
    assert read.package_version == __version__
    assert read.input_shape == SHAPE
    assert read.fingerprint == fingerprint(model) == fingerprint(loaded)
    assert loaded.mechanism == mechanism
    assert not any(m.training for m in loaded.modules())
    x = torch.rand(3, *SHAPE)
    model.eval()
    torch.manual_seed(0)
    expected = model(x)
    torch.manual_seed(0)
    assert torch.equal(loaded(x), expected)


def test_saving_again_replaces_the_checkpoint(tmp_path: Path) -> None:
    model, config = made()
    save(tmp_path, model, config)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    save(tmp_path, model, config)
    assert fingerprint(load(tmp_path)[0]) == fingerprint(model)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_write_keeps_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, config = made()
    save(tmp_path, model, config)
    before = fingerprint(model)
    with torch.no_grad():
        next(model.parameters()).add_(1)

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, model, config)
    monkeypatch.undo()
    assert fingerprint(load(tmp_path)[0]) == before
    assert len(list(tmp_path.iterdir())) == 2


def test_every_flipped_byte_and_every_truncation_is_refused(tmp_path: Path) -> None:
    model, config = made("mlp", widths=[2])
    save(tmp_path, model, config)
    for name in ("config.json", "model.safetensors"):
        path = tmp_path / name
        whole = path.read_bytes()
        step = max(1, len(whole) // 60)
        for position in range(0, len(whole) - 1, step):
            flipped = whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :]
            for data in (flipped, whole[:position]):
                path.write_bytes(data)
                with pytest.raises(CheckpointError, match=r"config\.json|safetensors"):
                    load(tmp_path)
        path.write_bytes(whole)
    load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"mechanism": {"law": "Gaussian", "sigma": 0.5}},
        {"num_classes": 11},
        {"fingerprint": "0" * 64},
        {"training": {}},
        {"options": {"noise_after": 1}},
        {"weights_sha256": "0" * 64},
        {"extra": 1},
    ],
)
def test_an_edited_config_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    save(tmp_path, *made())
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match="edited"):
        load(tmp_path)


def test_missing_files_and_other_versions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        load(tmp_path)
    save(tmp_path, *made())
    path = tmp_path / "config.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "format_version": 2}))
    with pytest.raises(CheckpointError, match="format version 2"):
        load(tmp_path)
    for text in ("[]", "{}", "null", "{", json.dumps({"format_version": 1})):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            load(tmp_path)
    path.write_text(json.dumps(record))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"safetensors cannot be read"):
        load(tmp_path)


def test_weights_of_another_checkpoint_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a", *made())
    model, config = made()
    nn.init.zeros_(next(model.parameters()))
    save(tmp_path / "b", model, config)
    (tmp_path / "b" / "model.safetensors").replace(tmp_path / "a" / "model.safetensors")
    with pytest.raises(CheckpointError, match="SHA-256"):
        load(tmp_path / "a")


def test_save_refuses_what_load_could_not_rebuild(tmp_path: Path) -> None:
    model, config = made("mlp", widths=[16])
    for other, message in (
        (CheckpointConfig("mlp", SHAPE, 10), r"another shape.*suffix\.fc1\.weight"),
        (CheckpointConfig("pixeldp_cnn", SHAPE, 10), r"missing: suffix\.conv1\.weight"),
        (CheckpointConfig("mlp", SHAPE, 10, {"widths": [16, 8]}), r"missing: suffix\.fc3"),
        (CheckpointConfig("mlp", SHAPE, 10, {"widths": [16], "noise_after": 1}), "unexpected"),
        (CheckpointConfig("vgg", SHAPE, 10), "vgg"),
    ):
        with pytest.raises(CheckpointError, match=message):
            save(tmp_path, model, other)
    with pytest.raises(CheckpointError, match="bfloat16"):
        save(tmp_path, model.bfloat16(), config)
    with pytest.raises(InvalidArgument, match="JSON"):
        save(tmp_path, model.float(), CheckpointConfig(**{**vars(config), "training": {"a": 1j}}))
    with pytest.raises(InvalidArgument, match="PixelDP"):
        save(tmp_path, model.suffix, config)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "own_checkpoint_module.py"
    path.write_text("from torch import nn\ndef f(): return nn.Sequential(nn.Linear(8, 2))\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_checkpoint_module", raising=False)
    return path


def test_code_named_by_a_checkpoint_needs_consent(tmp_path: Path, own_module: Path) -> None:
    spec = "own_checkpoint_module:f"
    model = build_pixeldp(spec, Gaussian(1.0), input_shape=SHAPE, num_classes=2)
    save(tmp_path / "run", model, CheckpointConfig(spec, SHAPE, 2))
    del sys.modules["own_checkpoint_module"]
    with pytest.raises(CheckpointError, match="trust"):
        load(tmp_path / "run")
    with pytest.raises(CheckpointError, match="not of"):
        load(tmp_path / "run", architecture="mlp")
    assert "own_checkpoint_module" not in sys.modules
    loaded, _ = load(tmp_path / "run", architecture=spec)
    assert fingerprint(loaded) == fingerprint(model)
    # The same weights in other layers: caught by the fingerprint.
    sys.modules["own_checkpoint_module"].f = lambda: nn.Sequential(  # type: ignore[attr-defined]
        nn.Linear(8, 2), nn.ReLU()
    )
    with pytest.raises(CheckpointError, match="other layers"):
        load(tmp_path / "run", architecture=spec)


# The published form


@pytest.fixture(scope="module")
def base() -> nn.Sequential:
    torch.manual_seed(5)
    network = resnet20((3, 32, 32), 10).layers
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


def write(path: Path, state: dict[str, Any], **changes: Any) -> Path:
    content = {"epoch": 90, "arch": "cifar_resnet20", "state_dict": OrderedDict(state)}
    content["optimizer"] = {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": []}
    torch.save({**content, **changes}, path)
    return path


@pytest.mark.parametrize(
    "wrapper", ["1.", "1.module.", "module.1.", "module.1.module.", "module.", ""]
)
def test_published_checkpoints_load_under_every_prefix(
    tmp_path: Path, base: nn.Sequential, wrapper: str
) -> None:
    state = {wrapper + k: v for k, v in base.state_dict().items()}
    loaded = load_cohen(write(tmp_path / "checkpoint.pth.tar", state))
    assert not any(m.training for m in loaded.modules())
    x = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in CIFAR10_STATISTICS)
    assert torch.equal(loaded(x), base((x - mean) / std))


def test_published_names_are_the_ones_of_the_field(base: nn.Sequential) -> None:
    names = set(base.state_dict())
    assert {
        "conv1.weight",
        "bn1.running_var",
        "layer1.0.conv1.weight",
        "layer2.0.downsample.0.weight",
        "layer2.0.downsample.1.num_batches_tracked",
        "layer3.2.bn2.bias",
        "fc.weight",
        "fc.bias",
    } <= names
    assert "layer1.0.downsample.0.weight" not in names


def test_the_old_file_format_loads(tmp_path: Path, base: nn.Sequential) -> None:
    path = tmp_path / "old.pth.tar"
    content = {"arch": "cifar_resnet20", "state_dict": nn.Sequential(nn.ReLU(), base).state_dict()}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    assert fingerprint(load_cohen(path, normalise=None)[0]) == fingerprint(base)  # type: ignore[index]
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="old"):
        load_cohen(path)


def test_statistics_may_be_stored_given_or_left_out(tmp_path: Path, base: nn.Sequential) -> None:
    state: dict[str, Tensor] = {"1." + k: v for k, v in base.state_dict().items()}
    plain = write(tmp_path / "plain", state)
    stored = write(
        tmp_path / "stored",
        {"0.means": torch.full((3,), 0.5), "0.sds": torch.full((3,), 0.25), **state},
    )
    x = torch.rand(2, 3, 32, 32)
    halves = ([0.5] * 3, [0.25] * 3)
    assert torch.equal(load_cohen(stored)(x), base((x - 0.5) / 0.25))
    assert torch.equal(load_cohen(plain, normalise=halves)(x), base((x - 0.5) / 0.25))
    assert torch.equal(load_cohen(plain, normalise=None)(x), base(x))
    with pytest.raises(InvalidArgument, match="published"):
        load_cohen(plain, normalise="cifar10")


def test_other_files_are_refused(tmp_path: Path, base: nn.Sequential) -> None:
    state = {"1." + k: v for k, v in base.state_dict().items()}
    path = tmp_path / "checkpoint.pth.tar"
    fewer = {k: v for k, v in state.items() if k != "1.bn1.bias"}
    for content, message in (
        (state, "is not a checkpoint"),
        (torch.zeros(3), "is not a checkpoint"),
        ({"arch": "vgg", "state_dict": state}, "vgg"),
        ({"arch": ["vgg"], "state_dict": state}, "vgg"),
        ({"arch": "cifar_resnet20", "state_dict": [1]}, "map names to tensors"),
        ({"arch": "cifar_resnet20", "state_dict": {"a": 1}}, "map names to tensors"),
        ({"arch": "cifar_resnet20", "state_dict": {}}, r"fc\.weight"),
        ({"arch": "cifar_resnet110", "state_dict": state}, r"missing: layer1\.3\.conv1"),
        ({"arch": "cifar_resnet20", "state_dict": fewer}, r"missing: bn1\.bias"),
        ({"arch": "cifar_resnet20", "state_dict": {**state, "more": torch.ones(1)}}, "unexpected"),
    ):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=message):
            load_cohen(path)
    write(path, state)
    with pytest.raises(CheckpointError, match="10 classes, not 100"):
        load_cohen(path, num_classes=100)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_cohen(tmp_path / "absent")


def test_truncated_files_are_refused(tmp_path: Path, base: nn.Sequential) -> None:
    path = write(tmp_path / "checkpoint.pth.tar", dict(base.state_dict()))
    whole = path.read_bytes()
    for keep in (0, 1, 100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:keep])
        with pytest.raises(CheckpointError, match=r"checkpoint\.pth\.tar"):
            load_cohen(path)
    path.write_bytes(b"no checkpoint at all")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pth\.tar"):
        load_cohen(path)


class Malicious:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_with_code_is_refused_and_not_run(
    tmp_path: Path, base: nn.Sequential, zipped: bool
) -> None:
    path, witness = tmp_path / "checkpoint.pth.tar", tmp_path / "witness"
    content = {
        "arch": "cifar_resnet20",
        "state_dict": base.state_dict(),
        "epoch": Malicious(witness),
    }
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="code"):
        load_cohen(path)
    assert not witness.exists()
    torch.load(path, weights_only=False)  # the planted code works where nothing restricts it
    assert witness.exists()


def test_resnet50_without_torchvision_says_so(
    tmp_path: Path, base: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "c", {"1.module.fc.weight": torch.zeros(1000, 2048)}, arch="resnet50")
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(MissingExtra, match="torchvision"):
        load_cohen(path)
