"""Whether a network is still what an engine copied: every change is seen, no other is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from pixeldp_fast.plan import snapshot
from pixeldp_fast.plan.snapshot import Snapshot, Structure


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.LeakyReLU(0.1)).eval()


def set_stride(net: nn.Sequential) -> None:
    net[0].stride = (2, 2)


def exchange(net: nn.Sequential) -> None:
    net[2] = nn.LeakyReLU(0.1)


BUILT_OTHERWISE: dict[str, Callable[[nn.Sequential], object]] = {
    "stride": set_stride,
    "module": exchange,
    "slope": lambda net: setattr(net[2], "negative_slope", 0.2),
    "mode": lambda net: net.train(),
    "hook": lambda net: net[0].register_forward_hook(lambda *_: None),
    "forward": lambda net: setattr(net[2], "forward", torch.relu),
    "shape": lambda net: setattr(net[0], "weight", nn.Parameter(torch.zeros(2, 1, 1, 1))),
    "type": lambda net: net.double(),
}
NUMBERS: dict[str, Callable[[nn.Sequential], object]] = {
    "weight": lambda net: net[0].weight.data.view(-1)[-1:].mul_(1.0 + 2.0**-23),
    "buffer": lambda net: net[1].running_var.add_(1e-3),
    "behind torch's back": lambda net: net[0].bias.detach().numpy().__setitem__(1, 0.5),
    "sign of zero": lambda net: net[1].running_mean.neg_(),
}


@pytest.mark.parametrize("change", BUILT_OTHERWISE.values(), ids=BUILT_OTHERWISE)
def test_a_structure_sees_what_decides_shapes(change: Callable[[nn.Sequential], object]) -> None:
    net = network()
    structure, whole = Structure(net), Snapshot(net)
    assert structure.matches()
    assert whole.matches()
    change(net)
    assert not structure.matches()
    assert not whole.matches()


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("change", NUMBERS.values(), ids=NUMBERS)
def test_only_a_snapshot_sees_numbers(
    change: Callable[[nn.Sequential], object], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native:
        monkeypatch.setattr(snapshot, "native_module", lambda: None)
    net = network()
    structure, whole = Structure(net), Snapshot(net)
    change(net)
    assert structure.matches()
    # By value, which is what torch compares, the zeros are equal; so is what they give.
    assert whole.matches() == (not native and change is NUMBERS["sign of zero"])


def test_nan_is_no_change() -> None:
    net = network()
    with torch.no_grad():
        net[0].weight[0, 0, 0, 0] = torch.nan
    assert Snapshot(net).matches() == (snapshot.native_module() is not None)


def test_weights_in_another_order_in_memory_are_compared_by_value() -> None:
    net = network()
    with torch.no_grad():
        net[0].weight = nn.Parameter(torch.randn(2, 3, 3, 3).to(memory_format=torch.channels_last))
    whole = Snapshot(net)
    assert whole.matches()
    with torch.no_grad():
        net[0].weight[1, 2, 0, 1] += 1.0
    assert not whole.matches()
