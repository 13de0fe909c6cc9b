"""Curves under attack, their folder, and the invariant that certified predictions do not change."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from pixeldp_fast.attacks import store
from pixeldp_fast.attacks.curve import attack_sizes, checked_sizes, curve_of
from pixeldp_fast.attacks.inside import Inside, attack_inside, inside_of
from pixeldp_fast.attacks.store import opened, stored_seed
from pixeldp_fast.errors import InvalidArgument, RunFolderError
from pixeldp_fast.noise import Gaussian, Laplace
from pixeldp_fast.report.attack import attack_plot, attack_table
from pixeldp_fast.report.curve import Curve
from pixeldp_fast.smooth import classifier
from pixeldp_fast.smooth.classifier import SmoothedClassifier
from pixeldp_fast.smooth.model import PixelDP
from pixeldp_fast.types import Norm

D = 10
FEW = {"steps": 15, "restarts": 1, "draws": 6, "verify": 200}


@pytest.fixture
def linear():
    return linear_model(Gaussian(0.3))


def linear_model(mechanism):
    layer = nn.Linear(D, 2)
    with torch.no_grad():
        weight = torch.from_numpy(np.random.default_rng(0).normal(size=D).astype(np.float32))
        layer.weight.copy_(torch.stack([-weight, weight]))
        layer.bias.copy_(torch.stack([0.5 * weight.sum(), -0.5 * weight.sum()]))
    return SmoothedClassifier(PixelDP(None, mechanism, layer).eval(), num_classes=2, seed=11)


def examples(count):
    x = torch.from_numpy(np.random.default_rng(1).random((count, D)).astype(np.float32))
    return (x * 255).round() / 255


def truth(model, x):
    with torch.no_grad():
        return model.model.suffix(x).argmax(1).numpy()


def distance(model, x):
    """From every example to the boundary, in the 2-norm."""
    with torch.no_grad():
        scores, weight = model.model.suffix(x), model.model.suffix.weight
    return ((scores[:, 1] - scores[:, 0]).abs() / (weight[1] - weight[0]).norm()).detach().numpy()


def test_a_curve_falls_where_the_exact_distances_say():
    linear, x = linear_model(Gaussian(0.01)), examples(40)  # little noise: votes say what is true
    y, sizes = truth(linear, x), checked_sizes([0.4, 0.1, 0.2])
    told = []
    arrays = attack_sizes(linear, x, y, sizes, index=np.arange(40), tell=told.append, **FEW)
    assert sizes.tolist() == [0, 0.1, 0.2, 0.4]
    curve = curve_of(sizes, arrays["broken"])
    exact = [(distance(linear, x) > size).sum() for size in sizes]
    assert np.all(curve.right >= exact)  # an attack never finds more than there is
    assert np.all(curve.right - exact <= 1)  # and little less: points at the boundary
    assert np.all(np.diff(curve.right) <= 0)
    assert told == (40 - curve.right).tolist()
    broken = arrays["broken"] < len(sizes)
    assert np.all(arrays["norm"][broken] <= sizes[arrays["broken"][broken]])
    assert np.all(np.isinf(arrays["norm"][~broken]))
    lines = curve.csv().splitlines()
    assert lines[0] == "size,accuracy,standard_error,right,examples"
    assert lines[1].startswith("0.0,1.0,0.0,40,40")
    assert len(lines) == 5


@pytest.mark.parametrize("sizes", [[], [-1.0], [float("inf")], [[0.1]]])
def test_sizes_are_checked(sizes):
    with pytest.raises(InvalidArgument, match="`sizes`"):
        checked_sizes(sizes)


def plain_blocks(count=4):
    made = []

    def make(number):
        made.append(number)
        return {"index": np.arange(3) + 3 * number, "norm": np.full(3, np.inf)}

    return make, made


def test_a_killed_run_goes_on_with_the_blocks_that_are_missing(tmp_path):
    make, made = plain_blocks()

    def dies(number):
        if number == 2:
            raise KeyboardInterrupt
        return make(number)

    assert stored_seed(tmp_path, True) is None
    with opened(tmp_path, {"seed": 5, "norm": "2"}, 4) as run, pytest.raises(KeyboardInterrupt):
        run.all(dies)
    assert stored_seed(tmp_path, True) == 5
    with opened(tmp_path, {"seed": 5, "norm": "2"}, 4) as run:
        assert run.stored() == 2
        arrays = run.all(make)
    assert made == [0, 1, 2, 3]
    assert arrays["index"].tolist() == list(range(12))


def test_foreign_and_damaged_folders_are_refused(tmp_path):
    make, _ = plain_blocks()
    own = tmp_path / "own"
    with opened(own, {"seed": 5}, 2) as run:
        run.all(make)
        with pytest.raises(RunFolderError, match="in use"), opened(own, {"seed": 5}, 2):
            pass
    with pytest.raises(RunFolderError, match="differ: seed"), opened(own, {"seed": 6}, 2):
        pass
    with pytest.raises(RunFolderError, match="holds a run"):
        stored_seed(own, False)
    block = run.path(1)
    block.write_bytes(block.read_bytes()[:50])
    with opened(own, {"seed": 5}, 2) as run, pytest.raises(RunFolderError, match="damaged"):
        run.all(make)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("dear")
    with pytest.raises(RunFolderError, match="no run of attacks"):
        stored_seed(foreign, True)
    (own / store.MANIFEST).write_text('{"kind": "certify", "seed": 1}')
    with pytest.raises(RunFolderError, match="not that of a run of attacks"):
        stored_seed(own, True)


CERTIFYING = {"n": 2000, "alpha": 0.01, "rejudge": 20_000} | FEW


@pytest.mark.parametrize("mechanism", [Gaussian(0.3), Laplace(0.2), Gaussian(0.3, lattice=255)])
def test_nothing_changes_inside_certified_radii(mechanism):
    model, x = linear_model(mechanism), examples(60)
    arrays = attack_inside(model, x, index=np.arange(60), **CERTIFYING)
    found = inside_of(arrays, 0.01)
    assert found.certified > 40
    assert found.sound
    assert len(found.violations) <= 3  # alpha allows 0.6 on average
    assert np.all(arrays["norm"][np.isfinite(arrays["norm"])] < 10)


@pytest.mark.parametrize("mechanism", [Gaussian(0.3), Gaussian(0.3, lattice=255)])
def test_a_certificate_with_half_the_sensitivity_is_caught(monkeypatch, mechanism):
    honest = classifier.sensitivities

    def halved(plan, asked, norm):
        return tuple((name, value / 2) for name, value in honest(plan, asked, norm))

    monkeypatch.setattr(classifier, "sensitivities", halved)
    model, x = linear_model(mechanism), examples(60)
    arrays = attack_inside(model, x, index=np.arange(60), **CERTIFYING)
    found = inside_of(arrays, 0.01)
    assert len(found.violations) > 10
    assert found.p_value < 1e-6
    assert not found.sound
    at = arrays["violated"]
    assert np.all(arrays["norm"][at] < arrays["radius"][at])  # inside what was claimed
    slack = math.sqrt(D) / 510 if mechanism.lattice else 1e-6
    assert np.all(arrays["norm"][at] > distance(model, x)[at] - slack)  # outside what is true


def test_examples_without_a_certificate_are_left_alone(linear):
    x = torch.full((3, D), 0.5)  # at the boundary
    arrays = attack_inside(linear, x, index=np.arange(3), **CERTIFYING)
    assert inside_of(arrays, 0.01).certified == 0
    assert np.all(np.isinf(arrays["norm"]))


@pytest.mark.parametrize(("count", "certified"), [(0, 50), (1, 50), (3, 50), (50, 50)])
def test_the_probability_of_so_many_violations(count, certified):
    found = Inside(certified, count, np.arange(count), 0.01)
    p = 0.01 + 1e-6
    exact = sum(
        math.comb(certified, k) * p**k * (1 - p) ** (certified - k)
        for k in range(count, certified + 1)
    )
    assert found.p_value == pytest.approx(exact, rel=1e-9)
    assert found.sound == (exact >= 0.001)


def test_the_plot_and_the_table():
    pytest.importorskip("matplotlib")
    curve = curve_of(np.array([0.0, 0.5, 1.0]), np.array([0, 1, 2, 3, 3, 3]))
    assert curve.right.tolist() == [5, 4, 3]
    certified = Curve(np.array([0.0, 0.3]), np.array([4, 2]), 6)
    plots = [
        attack_plot(curve, norm, name="net", subtitle="how", certified=beneath)
        for norm, beneath in ((Norm.TWO, certified), (Norm.TWO, certified), (Norm.INF, None))
    ]
    assert plots[0] == plots[1]
    assert plots[0]["png"].startswith(b"\x89PNG")
    assert plots[0]["svg"] != plots[2]["svg"]
    table = attack_table(curve, Norm.INF)
    assert table.row_count == 3
    assert "infinity" in str(table.columns[0].header)
