"""Networks: published sizes, shapes, the structural split, options, factories, fingerprints."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.models import (
    CIFAR10_STATISTICS,
    NETWORKS,
    Normalize,
    build,
    build_pixeldp,
    fingerprint,
)
from pixeldp_fast.models.resnet import cifar_resnet
from pixeldp_fast.models.wide_resnet import wide_resnet
from pixeldp_fast.noise import Gaussian, Laplace
from pixeldp_fast.smooth.model import PixelDP

CIFAR: Any = {"input_shape": (3, 32, 32), "num_classes": 10}
MNIST: Any = {"input_shape": (1, 28, 28), "num_classes": 10}
TINY: Any = {"input_shape": (1, 8, 8), "num_classes": 10}


def parameters(*modules: nn.Module | None) -> int:
    return sum(p.numel() for m in modules if m is not None for p in m.parameters())


def joined(sides: tuple[nn.Module | None, nn.Module]) -> nn.Sequential:
    return nn.Sequential(sides[0] or nn.Identity(), sides[1]).eval()


@pytest.mark.parametrize(
    ("name", "settings", "options", "published"),
    [
        ("pixeldp_cnn", MNIST, {}, 3_274_634),
        ("resnet20", CIFAR, {}, 272_474),
        ("resnet20", CIFAR, {"shortcut": "pad"}, 269_722),
        ("resnet110", CIFAR, {}, 1_730_714),
        ("resnet110", CIFAR, {"shortcut": "pad"}, 1_727_962),
        ("wide_resnet28_10", CIFAR, {}, 36_479_194),
    ],
)
def test_parameter_counts_are_the_published(
    name: str, settings: Any, options: dict[str, Any], published: int
) -> None:
    with torch.device("meta"):
        assert parameters(*build(name, **settings, **options)) == published
        assert parameters(*build(name, **settings, noise_after=1, **options)) == published


@pytest.mark.parametrize(
    "name", [n for n in NETWORKS if n not in ("resnet110", "wide_resnet28_10")]
)
@pytest.mark.parametrize("noise_after", [0, 1])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 9, 13)])
def test_one_row_of_outputs_per_example(name: str, noise_after: int, shape: Any) -> None:
    with torch.device("meta"):
        network = joined(build(name, input_shape=shape, num_classes=7, noise_after=noise_after))
        for batch in (0, 1, 3):
            assert network(torch.zeros(batch, *shape)).shape == (batch, 7)


def test_wide_resnet_runs() -> None:
    network = joined(build("wide_resnet28_10", **TINY))
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert network(torch.rand(2, 1, 8, 8)).isfinite().all()


@pytest.mark.parametrize("name", ["pixeldp_cnn", "mlp", "resnet20"])
def test_evaluation_is_a_function_of_the_example(name: str) -> None:
    torch.manual_seed(0)
    network = joined(build(name, **TINY))
    x = torch.rand(5, 1, 8, 8)
    outputs = network(x)
    assert torch.equal(outputs, network(x))
    alone = torch.cat([network(x[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(outputs, alone)


@pytest.mark.parametrize(
    ("name", "noise_after"),
    [("pixeldp_cnn", 1), ("pixeldp_cnn", 2), ("mlp", 1), ("resnet20", 1)],
)
def test_without_noise_the_split_network_is_the_whole_one(name: str, noise_after: int) -> None:
    networks = []
    for point in (0, noise_after):
        torch.manual_seed(1)
        networks.append(joined(build(name, **TINY, noise_after=point)))
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(networks[0](x), networks[1](x))
    assert networks[0](x).std() > 0


def test_the_cnn_splits_at_its_first_convolution() -> None:
    for bias in (True, False):
        prefix, suffix = build("pixeldp_cnn", **MNIST, noise_after=1, bias=bias)
        assert type(prefix) is nn.Conv2d
        assert (prefix.bias is not None) == bias
        assert (prefix.kernel_size, prefix.stride, prefix.padding) == ((5, 5), (2, 2), (2, 2))
        assert type(next(suffix.children())) is nn.ReLU
        assert suffix.get_submodule("fc1").in_features == 3136
    assert build("pixeldp_cnn", **MNIST)[0] is None
    prefix, _ = build("pixeldp_cnn", **MNIST, noise_after=2)
    assert [type(m) for m in prefix.children()] == [nn.Conv2d, nn.ReLU, nn.Conv2d]


def test_residual_networks_split_ahead_of_every_block() -> None:
    prefix, suffix = build("resnet20", **CIFAR, noise_after=1)
    assert type(prefix) is nn.Conv2d
    assert [n for n, _ in suffix.named_children()][:3] == ["bn1", "relu", "layer1"]
    with torch.device("meta"):
        prefix, suffix = build("wide_resnet28_10", **CIFAR, noise_after=1)
    assert type(prefix) is nn.Conv2d
    assert next(n for n, _ in suffix.named_children()) == "block1"


def test_constant_features_hide_the_image() -> None:
    """With the noise point held constant nothing of the image may reach the outputs."""
    for name in ("pixeldp_cnn", "mlp", "resnet20"):
        prefix, suffix = build(name, **TINY, noise_after=1)
        assert prefix is not None
        model = PixelDP(prefix, Gaussian(1.0), suffix).eval()
        model.noisy = torch.ones_like  # type: ignore[assignment]
        x = torch.rand(2, 1, 8, 8)
        assert torch.equal(model(x)[0], model(x)[1])


def test_normalise_stands_behind_the_noise_and_standardises() -> None:
    prefix, suffix = build("resnet20", **CIFAR, normalise=CIFAR10_STATISTICS)
    assert prefix is None
    first = next(suffix.children())
    assert type(first) is Normalize
    x = torch.rand(2, 3, 4, 4)
    mean, std = CIFAR10_STATISTICS
    expected = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert torch.equal(first(x), expected)
    with pytest.raises(InvalidArgument, match="noise_after=0"):
        build("resnet20", **CIFAR, normalise=CIFAR10_STATISTICS, noise_after=1)
    with pytest.raises(InvalidArgument, match="3 values for 1 input"):
        build("resnet20", **MNIST, normalise=CIFAR10_STATISTICS)
    for bad in (([0.5], [0.0]), ([0.5], [1.0, 1.0]), ([], []), ([float("nan")], [1.0])):
        with pytest.raises(InvalidArgument, match=r"mean|std"):
            Normalize(*bad)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("resnet18", {}, "pixeldp_cnn, mlp"),
        ("resnet20", {"noise_after": 2}, "noise_after"),
        ("resnet20", {"noise_after": -1}, "noise_after"),
        ("resnet20", {"width": 3}, "takes noise_after, normalise, shortcut"),
        ("resnet20", {"shortcut": "max"}, "shortcut"),
        ("mlp", {"widths": []}, "widths"),
        ("pixeldp_cnn", {"channels": (3,)}, "channels"),
        ("mlp", {"input_shape": (28, 28)}, "input_shape"),
        ("mlp", {"input_shape": (1, 0, 28)}, "input_shape"),
        ("mlp", {"num_classes": 1}, "num_classes"),
    ],
)
def test_bad_arguments_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        build(name, **{**MNIST, **changes})


def test_depths_outside_the_family_are_refused() -> None:
    for depth in (2, 18, 21):
        with pytest.raises(InvalidArgument, match=r"6 n \+ 2"):
            cifar_resnet((3, 32, 32), 10, depth=depth)
    for depth in (4, 20, 27):
        with pytest.raises(InvalidArgument, match=r"6 n \+ 4"):
            wide_resnet((3, 32, 32), 10, depth=depth)
    with pytest.raises(InvalidArgument, match="widening"):
        wide_resnet((3, 32, 32), 10, widening=0)


# The user's own networks


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_model_module.py").write_text(
        "from torch import nn\n"
        "from pixeldp_fast.noise import Laplace\n"
        "from pixeldp_fast.smooth.model import PixelDP\n"
        "def module(num_classes, width=4):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, "
        "num_classes))\n"
        "def pair(): return nn.Flatten(), nn.Linear(64, 10)\n"
        "def whole(): return PixelDP(nn.Flatten(), Laplace(2.0), nn.Linear(64, 10))\n"
        "def on_image(): return PixelDP(None, Laplace(2.0), nn.Linear(64, 10))\n"
        "def wrong(): return nn.Flatten(), 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_model_module", raising=False)


@pytest.mark.usefixtures("factories")
def test_factories_may_return_a_module_a_pair_or_a_pixeldp() -> None:
    prefix, suffix = build("own_model_module:module", **TINY, width=5)
    assert prefix is None
    assert parameters(suffix) == 64 * 5 + 5 + 50 + 10
    for name in ("pair", "whole"):
        prefix, suffix = build(f"own_model_module:{name}", **TINY)
        assert type(prefix) is nn.Flatten
        assert type(suffix) is nn.Linear
    assert build("own_model_module:on_image", **TINY)[0] is None
    with pytest.raises(InvalidArgument, match="tuple"):
        build("own_model_module:wrong", **TINY)
    with pytest.raises(InvalidArgument, match="depth"):
        build("own_model_module:module", **TINY, depth=3)


@pytest.mark.usefixtures("factories")
def test_build_pixeldp_joins_the_sides() -> None:
    model = build_pixeldp("pixeldp_cnn", Gaussian(0.5), **TINY, noise_after=1)
    assert model.mechanism == Gaussian(0.5)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert build_pixeldp("own_model_module:whole", None, **TINY).mechanism == Laplace(2.0)
    given = build_pixeldp("own_model_module:whole", Gaussian(1.0), **TINY)
    assert given.mechanism == Gaussian(1.0)
    for name in ("mlp", "own_model_module:pair"):
        with pytest.raises(InvalidArgument, match="mechanism"):
            build_pixeldp(name, None, **TINY)


# Fingerprints


def test_fingerprint_is_repeatable_and_ignores_mode_and_memory_layout() -> None:
    prefix, suffix = build("resnet20", **CIFAR, noise_after=1)
    model = PixelDP(prefix, Gaussian(0.5), suffix)
    reference = fingerprint(model)
    assert reference == fingerprint(model.eval()) == fingerprint(copy.deepcopy(model))
    assert reference == fingerprint(model.to(memory_format=torch.channels_last))
    assert len(reference) == 64


def test_fingerprint_changes_with_any_bit_of_any_tensor() -> None:
    torch.manual_seed(0)
    _, suffix = build("resnet20", **TINY)
    reference = fingerprint(suffix)
    seen = {reference}
    for _, tensor in suffix.state_dict().items():
        flat = tensor.reshape(-1).view(torch.uint8)
        for position in (0, -1):  # the lowest mantissa bit of one value, the sign of another
            flat[position] ^= 1 if position == 0 else 128
            seen.add(fingerprint(suffix))
            flat[position] ^= 1 if position == 0 else 128
    assert len(seen) == 1 + 2 * len(suffix.state_dict())
    assert fingerprint(suffix) == reference


def test_fingerprint_tells_zeros_apart_and_sees_types() -> None:
    layer = nn.Linear(2, 2, bias=False)
    prints = set()
    for value in (0.0, -0.0):
        nn.init.constant_(layer.weight, value)
        prints.add(fingerprint(layer))
    prints.add(fingerprint(layer.bfloat16()))
    prints.add(fingerprint(layer.double()))
    assert len(prints) == 4


def test_fingerprint_sees_structure_settings_names_and_mechanism() -> None:
    def conv(**settings: Any) -> nn.Module:
        torch.manual_seed(0)
        return nn.Conv2d(1, 2, 3, **settings)

    networks = [
        nn.Sequential(conv(), nn.ReLU()),
        nn.Sequential(conv(), nn.Tanh()),
        nn.Sequential(nn.ReLU(), conv()),
        nn.Sequential(conv(stride=2), nn.ReLU()),
        nn.Sequential(conv(padding=1), nn.ReLU()),
        nn.Sequential(nn.Sequential(conv()), nn.ReLU()),
        nn.Sequential(conv(), nn.BatchNorm2d(2)),
        nn.Sequential(conv(), nn.BatchNorm2d(2, eps=1e-3)),
        PixelDP(None, Gaussian(0.5), conv()),
        PixelDP(None, Gaussian(0.25), conv()),
        PixelDP(conv(), Gaussian(0.5), nn.ReLU()),
    ]
    assert len({fingerprint(n) for n in networks}) == len(networks)
