"""Attacks: exact on a linear classifier, inside ball and box, believed only by fresh draws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pixeldp_fast.attacks import METHODS, attack
from pixeldp_fast.attacks.expectation import Expectation
from pixeldp_fast.attacks.problem import default_steps
from pixeldp_fast.attacks.threat import Threat, diameter
from pixeldp_fast.errors import InvalidArgument, UnsupportedModel
from pixeldp_fast.noise import Gaussian, Laplace, Purpose, Stream
from pixeldp_fast.noise.sampling import noisy_definition
from pixeldp_fast.smooth.classifier import SmoothedClassifier
from pixeldp_fast.smooth.model import PixelDP
from pixeldp_fast.types import Norm

D = 12
FEW = {"steps": 40, "restarts": 2, "draws": 4, "verify": 200}


def linear(weight, bias=0.0, *, mechanism=None, seed=7, **options):
    """Two classes; class 1 where weight . x + bias > 0."""
    layer = nn.Linear(len(weight), 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros(len(weight)), torch.as_tensor(weight)]))
        layer.bias.copy_(torch.tensor([0.0, bias]))
    model = PixelDP(None, mechanism or Gaussian(0.05), layer).eval()
    return SmoothedClassifier(model, num_classes=2, seed=seed, **options)


def tabled(seed, count=6):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=D).astype(np.float32)
    return weight, torch.from_numpy(rng.random((count, D)).astype(np.float32))


def exact_point(x, weight, norm, size):
    """argmin of weight . z over ball and box, solved without any of the package's code."""
    x, weight = np.asarray(x, dtype=np.float64), np.asarray(weight, dtype=np.float64)
    room = np.where(weight > 0, x, 1 - x)  # how far each coordinate may move downhill
    if norm == math.inf:
        move = np.minimum(room, size)
    elif norm == 1:
        move = np.zeros(len(x))
        for j in np.argsort(-np.abs(weight)):
            move[j] = min(room[j], size - move.sum())
    else:
        low, high = 0.0, 1e6
        for _ in range(200):
            middle = (low + high) / 2
            small = np.linalg.norm(np.minimum(room, middle * np.abs(weight))) <= size
            low, high = (middle, high) if small else (low, middle)
        move = np.minimum(room, low * np.abs(weight))
    return x - np.sign(weight) * move


@pytest.mark.parametrize(
    ("norm", "size"), [(2, 0.6), (2, 1.4), (math.inf, 0.3), (1, 0.7), (1, 2.5)]
)
@pytest.mark.parametrize("score", ["log", "softmax"])
def test_on_a_linear_classifier_the_point_is_the_exact_one(norm, size, score):
    weight, x = tabled(3)
    want = np.stack([exact_point(one, weight, norm, size) for one in x])
    values = x.numpy() @ weight, want @ weight
    for row in range(len(x)):  # a threshold between the two: the exact point is a success
        model = linear(weight, -float(0.1 * values[0][row] + 0.9 * values[1][row]))
        one = attack(
            model, x[row : row + 1], [1], size=size, norm=norm, step=0.05 * size,
            index=row, score=score, **(FEW | {"steps": 80}),
        )  # fmt: skip
        assert one.success.all()
        np.testing.assert_allclose(one.adversarial[0], want[row], atol=2e-5 * max(1, size))
        assert one.norm[0] <= size


def test_an_exact_attack_fails_where_no_point_of_the_ball_succeeds():
    weight, x = tabled(3)
    for norm, size in ((2, 0.6), (math.inf, 0.3), (1, 0.7)):
        end = min(float(exact_point(one, weight, norm, size) @ weight) for one in x)
        model = linear(weight, -end + 0.1)
        for method in METHODS:
            got = attack(model, x, [1] * len(x), size=size, norm=norm, method=method, **FEW)
            assert not got.success.any()
            assert np.isinf(got.norm).all()
            assert torch.equal(got.adversarial, x)


@pytest.mark.parametrize("mechanism", [Gaussian(0.3), Laplace(0.2), Gaussian(0.3, lattice=255)])
def test_the_expectation_is_the_mean_over_the_very_draws_and_has_its_gradient(mechanism):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(D, 9), nn.Tanh(), nn.Linear(9, 4))
    smoothed = SmoothedClassifier(PixelDP(None, mechanism, net).eval(), num_classes=4, seed=5)
    x = (torch.rand(3, D) * 255).round() / 255
    index, n = np.array([4, 9, 2], dtype=np.uint32), 17
    noisy = noisy_definition(
        x.numpy().astype(np.float64), mechanism, Stream(5, Purpose.ATTACK), index, 6, n
    )
    shift = torch.zeros(3, D, dtype=torch.float64, requires_grad=True)
    wide = net.double()
    probabilities = wide(torch.from_numpy(noisy) + shift[:, None]).softmax(-1).mean(1)  # [3, 4]
    y = torch.tensor([0, 3, 1])
    for score, values in (("softmax", probabilities), ("log", probabilities.log())):
        own = values.gather(1, y[:, None])[:, 0]
        margin = own - values.scatter(1, y[:, None], -torch.inf).amax(1)
        (gradient,) = torch.autograd.grad(margin.sum(), shift, retain_graph=True)
        net.float()
        expectation = Expectation(smoothed, index, score)
        got, slope = expectation.gradient(x, y, 6, n)
        torch.testing.assert_close(got.double(), margin.detach(), atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(slope.double(), gradient, atol=2e-5, rtol=1e-3)
        torch.testing.assert_close(expectation.margin(x, y, 6, n), got)
        assert expectation.calls == 2 * n
        net.double()


POINTS = st.integers(0, 2**32 - 1)


@given(POINTS, st.sampled_from(list(Norm)), st.floats(0.01, 3.0))
def test_the_projection_is_the_nearest_point_of_ball_and_box(seed, norm, size):
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand((4, D), generator=rng)
    threat = Threat(norm, x, torch.full((4,), size, dtype=torch.float64), 0.0, 1.0)
    points = x + 1.5 * torch.randn((4, D), generator=rng)
    nearest = threat.projected(points)
    assert bool(((nearest >= 0) & (nearest <= 1)).all())
    assert bool((threat.distance(nearest) <= size * (1 + 1e-5)).all())
    torch.testing.assert_close(threat.projected(nearest), nearest, atol=1e-5, rtol=0)
    # No other allowed point makes an acute angle with what was cut off.
    others = threat.projected(torch.rand((4, D), generator=rng))
    cut = ((points - nearest).double() * (others - nearest).double()).sum(1)
    assert float(cut.max()) < 1e-4


@given(POINTS, st.sampled_from(list(Norm)), st.floats(1e-6, 2.0), st.sampled_from([None, 255]))
def test_landed_points_are_allowed_exactly(seed, norm, size, lattice):
    rng = torch.Generator().manual_seed(seed)
    x = (torch.rand((4, D), generator=rng) * 255).round() / 255
    threat = Threat(norm, x, torch.full((4,), size, dtype=torch.float64), 0.0, 1.0, lattice)
    landed = threat.landed(threat.projected(x + torch.randn((4, D), generator=rng)))
    assert bool((threat.distance(landed) <= size).all())
    assert bool(((landed >= 0) & (landed <= 1)).all())
    if lattice:
        steps = (landed.double() * 255).round()
        assert torch.equal((steps.float() / 255), landed)


def test_lattice_attacks_still_use_most_of_the_ball():
    weight, x = tabled(5)
    x = (x * 255).round() / 255
    model = linear(weight, mechanism=Gaussian(0.1, lattice=255))
    got = attack(model, x, (x.numpy() @ weight > 0).astype(int), size=1.5, **FEW)
    assert got.success.any()
    assert (got.norm[got.success] > 1.4).any()


def test_a_coin_toss_is_no_success():
    """At the boundary half of the draws are lucky; a search over them must not be believed."""
    weight, _ = tabled(0)
    x = torch.full((40, D), 0.5)
    model = linear(weight, -float(weight.sum()) / 2, mechanism=Gaussian(0.5))
    got = attack(model, x, [1] * 40, size=1e-4, steps=5, restarts=5, draws=4, verify=200)
    assert not got.success.any()
    assert (got.draws == 6 * 200).all()
    lucky = Expectation(model, np.arange(40, dtype=np.uint32)).margin(
        x, torch.ones(40, dtype=torch.int64), 0, 4
    )
    assert float((lucky < 0).float().mean()) > 0.25  # what claims on the search's own draws are


def test_who_is_broken_rests_and_a_misclassified_example_costs_no_search():
    weight, x = tabled(1)
    right = (x.numpy() @ weight > 0).astype(int)
    model = linear(weight, mechanism=Gaussian(1e-3))
    wrong = attack(model, x, 1 - right, size=0.5, **FEW)
    assert wrong.success.all()
    assert (wrong.norm == 0).all()
    assert (wrong.calls == 0).all()
    assert torch.equal(wrong.adversarial, x)
    broken = attack(model, x, right, size=diameter(Norm.TWO, D, 0, 1), **FEW)
    assert broken.success.all()
    assert (broken.calls == 41 * 4).all()
    assert (broken.draws == 2 * 200).all()
    assert not attack(model, x, right, size=0, **FEW).calls.any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("norm", [1, 2, "inf"])
def test_attacks_repeat_and_do_not_depend_on_the_batch(method, norm):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(2 * 36, 12), nn.ReLU(), nn.Linear(12, 3))
    model = SmoothedClassifier(PixelDP(None, Gaussian(0.1), net).eval(), num_classes=3, seed=2)
    x = torch.rand(6, 2, 6, 6)
    y = model.predict(x, 500, index=0)
    size = {1: 12.0, 2: 2.0, "inf": 0.3}[norm]
    how = {"norm": norm, "method": method, **FEW, "steps": 10}
    whole = attack(model, x, y, size=size, index=0, **how)
    assert np.array_equal(attack(model, x, y, size=size, index=0, **how).norm, whole.norm)
    part = attack(model, x[3:5], y[3:5], size=[size, size], index=[3, 4], **how)
    torch.testing.assert_close(part.adversarial, whole.adversarial[3:5], atol=1e-4, rtol=0)
    assert np.array_equal(part.success, whole.success[3:5])
    fresh = attack(model, x, y, size=size, index=0, fresh=True, attempt=3, **how)
    assert (fresh.draws >= 200).all()
    assert fresh.calls.max() <= 2 * 11 * 4


def test_what_is_verified_holds_under_a_thousand_times_as_many_draws():
    weight, x = tabled(2, 30)
    model = linear(weight, 0.2, mechanism=Gaussian(0.4))
    right = (x.numpy() @ weight + 0.2 > 0).astype(int)
    got = attack(model, x, right, size=0.4, **FEW)
    assert 0 < got.success.sum() < 30
    truth = (got.adversarial.numpy() @ weight + 0.2 > 0).astype(int)
    assert (truth != right)[got.success].all()


def test_a_gradient_that_is_not_a_number_moves_nothing():
    threat = Threat(Norm.TWO, torch.rand(2, D), torch.ones(2, dtype=torch.float64), 0.0, 1.0)
    for norm in Norm:
        step = Threat(norm, threat.x, threat.size, 0.0, 1.0).direction(
            threat.x, torch.stack([torch.full((D,), torch.nan), torch.zeros(D)])
        )
        assert not step.any()
    tiny = threat.direction(threat.x, torch.full((2, D), 1e-38))
    torch.testing.assert_close(torch.linalg.vector_norm(tiny, dim=1), torch.ones(2))


def test_the_recipes_of_steps():
    assert default_steps(Norm.TWO, 1.0, None, None) == (100, None)
    assert default_steps(Norm.INF, 8 / 255, None, None) == (16, 0.003)
    assert default_steps(Norm.INF, 77 / 255, None, None) == (116, 0.003)
    assert default_steps(Norm.INF, 0.1, 20, None) == (20, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": [2] * 6}, "0, 1"),
        ({"y": [1] * 5}, "`y` must hold 6 integers"),
        ({"y": [0.5] * 6}, "integers"),
        ({"size": -1}, "`size`"),
        ({"size": float("nan")}, "`size`"),
        ({"size": [1.0, 2.0]}, "one per example"),
        ({"size": "wide"}, "`size`"),
        ({"size": 8, "norm": "inf"}, "0 to 255"),
        ({"size": 8}, "0 to 255"),
        ({"norm": 3}, "`norm`"),
        ({"method": "cw"}, "`method` must be one of pgd"),
        ({"score": "logit"}, "`score`"),
        ({"steps": 0}, "`steps`"),
        ({"step": 0.0}, "`step`"),
        ({"restarts": 0}, "`restarts`"),
        ({"draws": 0}, "`draws`"),
        ({"verify": 5}, "confirm nothing"),
        ({"alpha": 1.0}, "`alpha`"),
        ({"attempt": -1}, "`attempt`"),
        ({"attempt": 2**30}, "do not fit"),
        ({"x": torch.full((6, D), 200.0)}, "divide by 255"),
    ],
)
def test_bad_input_is_refused_before_any_draw(change, message):
    weight, x = tabled(0)
    given = {"x": x, "y": [1] * 6, "size": 0.1, **FEW} | change
    with pytest.raises(InvalidArgument, match=message):
        attack(linear(weight), given.pop("x"), given.pop("y"), **given)


def test_models_that_cannot_be_attacked_are_refused():
    weight, x = tabled(0)
    model = linear(weight)
    with pytest.raises(InvalidArgument, match="smoothed"):
        attack(model.model, x, [1] * 6, size=0.1)
    ends = nn.Sequential(nn.Linear(D, 2), nn.Softmax(-1))
    probable = SmoothedClassifier(ends.eval(), Gaussian(0.1), num_classes=2)
    with pytest.raises(InvalidArgument, match="probabilities"):
        attack(probable, x, [1] * 6, size=0.1)
    model.model.train()
    with pytest.raises(UnsupportedModel, match="train"):
        attack(model, x, [1] * 6, size=0.1)


def test_without_a_seed_every_attack_draws_anew():
    torch.manual_seed(0)
    model = SmoothedClassifier(nn.Linear(D, 2).eval(), Gaussian(0.5), num_classes=2)
    x = torch.rand(9, D)
    y = model.predict(x)
    x, y = x[y >= 0], y[y >= 0]
    how = {"size": 3.0, "method": "random", "steps": 3, "restarts": 3, "verify": 100}
    points = [attack(model, x, y, **how).adversarial for _ in range(2)]
    assert not torch.equal(*points)
