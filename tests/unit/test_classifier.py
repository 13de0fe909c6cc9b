"""The smoothed classifier: what it computes, and what it refuses before any work."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules import module as modules

from pixeldp_fast import Gaussian, Laplace, PixelDP, SmoothedClassifier, Uniform
from pixeldp_fast.bounds import tight_radius
from pixeldp_fast.errors import InvalidArgument, PixelDPError, UnsupportedModel
from pixeldp_fast.noise.stream import Purpose
from pixeldp_fast.plan.sensitivity import sensitivity
from pixeldp_fast.stats import clopper_pearson_lower
from pixeldp_fast.types import ABSTAIN, Norm
from tests.helpers.networks import K, conv_behind_prefix, conv_on_image, mlp


def pixeldp(make=conv_behind_prefix, mechanism=None, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        prefix, suffix, _ = make()
    return PixelDP(prefix, mechanism or Gaussian(0.3), suffix).eval()


def smoothed(make=conv_behind_prefix, mechanism=None, **options):
    return SmoothedClassifier(pixeldp(make, mechanism), num_classes=K, seed=7, **options)


def images(count=3, shape=(2, 8, 8)):
    return torch.rand((count, *shape), generator=torch.Generator().manual_seed(3))


class LinearMargin(nn.Module):
    """Class 1 where the coordinates' mean exceeds a threshold: p is known exactly."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold

    def forward(self, x):
        score = x.flatten(1).mean(dim=1) - self.threshold
        return torch.stack([-score, score], dim=1)


@pytest.mark.parametrize("mechanism", [Gaussian(0.3), Laplace(0.2), Uniform(0.6)], ids=repr)
@pytest.mark.parametrize("bound", ["tight", "pixeldp"])
@pytest.mark.parametrize("norm", [None, 1, 2, "Linf"])
def test_a_certificate_is_the_statistics_of_its_counts(mechanism, bound, norm):
    model = smoothed(mechanism=mechanism)
    x = images(8)
    certificates = model.certify(x, norm=norm, n0=50, n=2000, alpha=0.01, bound=bound, index=5)
    selection = model.count(x, 50, index=5, purpose="selection")
    estimation = model.count(x, 2000, index=5, purpose=Purpose.ESTIMATION)
    chosen = selection.counts[:, :K].argmax(axis=1)
    lower = clopper_pearson_lower(estimation.counts[np.arange(8), chosen], 2000, 0.01)
    assert (certificates.counts == estimation.counts).all()
    assert (certificates.p_lower == lower).all()
    claimed = lower > 0.5
    assert (certificates.prediction == np.where(claimed, chosen, ABSTAIN)).all()
    p = mechanism.norm if norm is None else Norm.parse(norm)
    delta = sensitivity(model.model.prefix, (2, 8, 8), p, mechanism.norm)
    if bound == "tight":
        upper = np.nextafter(1 - lower[claimed], 1)
        expected = tight_radius(mechanism, lower[claimed], upper, delta)
        assert (certificates.radius[claimed] == expected).all()
    assert (certificates.radius[~claimed] == 0).all()
    assert certificates.index.tolist() == list(range(5, 13))
    assert certificates.n == 2000


def test_the_exact_probability_of_a_linear_classifier_lies_above_its_bound():
    # Mean of 16 coordinates under Gaussian noise: standard deviation 0.4 / 4.
    model = SmoothedClassifier(LinearMargin(0.4).eval(), Gaussian(0.4), num_classes=2, seed=11)
    x = torch.full((40, 1, 4, 4), 0.5)
    certificates = model.certify(x, n=4000, alpha=0.001)
    exact = 0.8413447460685429  # Phi(1)
    assert (certificates.prediction == 1).all()
    assert (certificates.p_lower < exact).all()
    assert (certificates.p_lower > exact - 0.04).all()
    # The distance to the boundary is 0.1 * 4 = 0.4 in the 2-norm, and no radius may exceed it.
    assert (certificates.radius < 0.4).all()
    assert certificates.radius.min() > 0.3


def test_softmax_scores_certify_and_predict():
    model = smoothed()
    x = images(4)
    certificates = model.certify(x, n=3000, scores="softmax", index=0)
    tally = model.count(x, 3000, index=0, scores="softmax")
    mean = tally.sums / 3000 / 2**20
    top = mean.max(axis=1)
    claimed = certificates.prediction != ABSTAIN
    assert (certificates.p_lower < top).all()
    assert (certificates.p_lower[claimed] > 0.5).all()
    predictions = model.predict(x, 3000, scores="softmax", index=0)
    assert set(predictions.tolist()) <= {ABSTAIN, *range(K)}


def test_predict_abstains_unless_the_test_rejects():
    model = SmoothedClassifier(LinearMargin(0.5).eval(), Gaussian(0.4), num_classes=2, seed=3)
    x = torch.full((3, 1, 4, 4), 0.5)
    x[0], x[2] = 0.1, 0.9
    assert model.predict(x, 200).tolist() == [0, ABSTAIN, 1]
    assert model.predict(x, 5).tolist() == [ABSTAIN] * 3


def test_successive_calls_never_share_noise_and_an_index_repeats():
    model = smoothed()
    x = images(2)
    first, second = (model.certify(x, n=500) for _ in range(2))
    assert first.index.tolist() == [0, 1]
    assert second.index.tolist() == [2, 3]
    assert (first.counts != second.counts).any()
    again = model.certify(x, n=500, index=[0, 1])
    assert (again.counts == first.counts).all()
    assert smoothed().certify(x, n=500).terms == first.terms


def test_seeds_come_from_the_operating_system_unless_given():
    models = [SmoothedClassifier(pixeldp(), num_classes=K) for _ in range(2)]
    assert models[0].seed != models[1].seed
    assert not models[0].seed_given
    copy = models[0].with_seed(12)
    assert (copy.seed, copy.seed_given) == (12, True)


def test_the_terms_hold_what_a_rerun_needs():
    model = smoothed()
    terms = model.certify(images(1), n=100).terms
    assert terms.seed == 7
    assert dict(terms.sensitivities).keys() == {"1", "2", "inf"}
    assert terms.backend == "native"
    assert terms.guarantee == "real arithmetic"
    assert terms.input_shape == (2, 8, 8)
    before = terms.model_fingerprint
    with torch.no_grad():
        model.model.suffix[1].weight[0, 0, 0, 0] += 1e-6
    assert model.certify(images(1), n=100).terms.model_fingerprint != before


def test_a_changed_prefix_changes_the_sensitivity():
    model = smoothed()
    x = images(1)
    before = model.certify(x, n=100, index=0).terms.sensitivity
    with torch.no_grad():
        model.model.prefix.weight.mul_(2)
    assert model.certify(x, n=100, index=0).terms.sensitivity == pytest.approx(2 * before)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (images().double(), "float32"),
        ((images() * 255).to(torch.uint8), "/ 255"),
        (images().numpy(), "torch.from_numpy"),
        (images() * 255, "divide by 255"),
        (images() * 4 - 2, "normalised"),
        (images()[:, :1], "shape"),
        (images()[0, 0, 0], "batch"),
        (torch.full((1, 2, 8, 8), torch.nan), "NaN"),
        (torch.full((1, 2, 8, 8), torch.inf), "NaN"),
        (images().to("meta"), "silently"),
    ],
)
def test_bad_examples(x, message):
    model = smoothed(input_shape=(2, 8, 8))
    for call in (lambda: model.count(x, 10), lambda: model.predict(x), lambda: model.certify(x)):
        with pytest.raises(InvalidArgument, match=message):
            call()
    assert model._next_index == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0}, "alpha"),
        ({"alpha": 1.0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"n": 0}, "`n`"),
        ({"n": 10.5}, "`n`"),
        ({"n0": 0}, "n0"),
        ({"norm": 3}, "norm"),
        ({"bound": "best"}, "tight"),
        ({"scores": "logits"}, "softmax"),
        ({"index": -1}, "index"),
        ({"index": [1, 2]}, "3 examples"),
        ({"index": [0.5, 1, 2]}, "index"),
        ({"alpha": 1e-101}, "alpha"),
        ({"n": 2**32 + 1}, r"2\^32"),
    ],
)
def test_bad_requests(options, message):
    with pytest.raises(InvalidArgument, match=message):
        smoothed().certify(images(), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "num_classes"),
        ({"num_classes": 2.5}, "num_classes"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"backend": "cuda"}, "backend"),
        ({"input_range": (1, 0)}, "input_range"),
        ({"tile": 0}, "tile"),
        ({"mechanism": Gaussian(1)}, "own mechanism"),
    ],
)
def test_bad_construction(options, message):
    with pytest.raises(InvalidArgument, match=message):
        SmoothedClassifier(pixeldp(), **({"num_classes": K} | options))


def test_the_number_of_classes_must_be_the_networks():
    with pytest.raises(InvalidArgument, match="4 outputs"):
        SmoothedClassifier(pixeldp(), num_classes=3).certify(images())


def test_a_plain_module_needs_a_mechanism():
    with pytest.raises(InvalidArgument, match="needs a mechanism"):
        SmoothedClassifier(pixeldp(mlp).suffix, num_classes=K)
    with pytest.raises(InvalidArgument, match=r"nn\.Module"):
        SmoothedClassifier(lambda x: x, Gaussian(1), num_classes=K)


def test_bad_mechanisms():
    for bad in (0, -1, float("nan"), float("inf"), "wide"):
        for kind in (Gaussian, Laplace, Uniform):
            with pytest.raises(InvalidArgument, match="above 0"):
                kind(bad)
    with pytest.raises(InvalidArgument, match="mechanism"):
        PixelDP(None, 0.5, nn.Identity())
    with pytest.raises(InvalidArgument, match="suffix"):
        PixelDP(None, Gaussian(1), None)


def test_training_mode_is_refused():
    model = pixeldp(conv_on_image)
    model.train()
    with pytest.raises(UnsupportedModel, match="training mode"):
        SmoothedClassifier(model, num_classes=K).certify(images(shape=(1, 7, 7)))
    model.eval()
    model.suffix[1].train()
    with pytest.raises(UnsupportedModel, match=r"suffix\.1 \(BatchNorm2d\)"):
        SmoothedClassifier(model, num_classes=K).certify(images(shape=(1, 7, 7)))


class Skipping(PixelDP):
    def forward(self, x):
        return super().forward(x) + x.flatten(1)[:, :K]


class Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = pixeldp()

    def forward(self, x):
        return self.inner(x) + x.flatten(1)[:, :K]


class Standardise(nn.Module):
    def forward(self, x):
        return (x - x.mean()) / x.std()


def test_whatever_could_carry_the_input_around_the_noise_is_refused():
    prefix, suffix, _ = conv_behind_prefix()
    hooked = PixelDP(nn.Conv2d(2, 6, 3, stride=2, padding=1), Gaussian(1), suffix).eval()
    hooked.prefix.register_forward_hook(lambda *_: None)
    outer = PixelDP(prefix, Gaussian(1), suffix).eval()
    outer.register_forward_pre_hook(lambda *_: None)
    cases = [
        (
            lambda: SmoothedClassifier(Skipping(prefix, Gaussian(1), suffix).eval(), num_classes=K),
            "overrides",
        ),
        (lambda: SmoothedClassifier(Around().eval(), Gaussian(1), num_classes=K), "'inner'"),
        (lambda: SmoothedClassifier(outer, num_classes=K), "hooks"),
        (lambda: SmoothedClassifier(hooked, num_classes=K).certify(images()), "hooks"),
        (
            lambda: SmoothedClassifier(
                PixelDP(nn.Sequential(Standardise(), prefix), Gaussian(1), suffix).eval(),
                num_classes=K,
            ).certify(images()),
            "Standardise",
        ),
    ]
    for call, message in cases:
        with pytest.raises(PixelDPError, match=message):
            call()


def test_a_prefix_that_forgets_the_input_is_refused():
    model = pixeldp()
    with torch.no_grad():
        model.prefix.weight.zero_()
    with pytest.raises(UnsupportedModel, match="sensitivity 0"):
        SmoothedClassifier(model, num_classes=K).certify(images())


def test_reference_and_torch_certify_alike():
    x = images(3)
    quick, exact = (smoothed(backend=b).certify(x, n=1000, index=0) for b in ("torch", "reference"))
    assert (np.abs(quick.counts - exact.counts).sum(axis=1) <= 4).all()
    assert exact.terms.backend == "reference"


def test_a_mechanism_exchanged_after_a_call_is_the_one_that_draws():
    model = PixelDP(None, Gaussian(0.01), LinearMargin(0.5)).eval()
    smoothed = SmoothedClassifier(model, num_classes=2, seed=1)
    x = torch.full((1, 1, 4, 4), 0.55)
    assert smoothed.certify(x, n=1000).prediction.tolist() == [1]
    model.mechanism = Gaussian(10.0)
    again = smoothed.certify(x, n=1000, index=9)
    fresh = SmoothedClassifier(model, num_classes=2, seed=1).certify(x, n=1000, index=9)
    assert (again.counts == fresh.counts).all()
    assert again.prediction.tolist() == [ABSTAIN]


class BatchMean(nn.Module):
    def forward(self, x):
        return x.mean(dim=0, keepdim=True).expand_as(x)


def test_a_layer_exchanged_after_a_call_is_checked_again():
    model = smoothed(mlp)
    x = images(1, (5,))
    model.count(x, 10)
    model.model.suffix[1] = BatchMean().eval()
    for call in (lambda: model.count(x, 10), lambda: model.certify(x, n=100)):
        with pytest.raises(UnsupportedModel, match="other rows"):
            call()


def test_a_forward_exchanged_after_a_call_is_checked_again():
    model = smoothed(mlp)
    x = images(1, (5,))
    model.certify(x, n=100)
    model.model.suffix[1].forward = lambda h: h.mean(dim=0, keepdim=True).expand_as(h)
    with pytest.raises(UnsupportedModel, match="other rows"):
        model.certify(x, n=100)


def test_forward_replaced_on_the_object_is_refused():
    model = smoothed(mlp)
    model.model.noisy = lambda features, scale=1.0: features
    with pytest.raises(UnsupportedModel, match="overrides"):
        model.certify(images(1, (5,)), n=100)


@pytest.mark.parametrize(
    "register", [modules.register_module_forward_hook, modules.register_module_forward_pre_hook]
)
def test_hooks_on_all_modules_are_refused_though_the_model_is_known(register):
    model = smoothed()
    model.count(images(1), 10)
    hook = register(lambda *_: None)
    try:
        with pytest.raises(UnsupportedModel, match="hooks on all modules"):
            model.count(images(1), 10)
    finally:
        hook.remove()
    model.count(images(1), 10)


def test_outputs_that_grow_where_nobody_looks_are_refused():
    class Chosen(nn.Module):
        width = K  # of the class, where a comparison of objects does not see it

        def forward(self, x):
            return x.flatten(1)[:, : type(self).width]

    model = SmoothedClassifier(Chosen().eval(), Gaussian(0.3), num_classes=K, backend="torch")
    model.count(images(1), 10)
    Chosen.width = K + 1
    with pytest.raises(UnsupportedModel, match="it has changed since"):
        model.count(images(1), 10)


def test_a_model_that_changes_between_the_draws_gives_no_certificate(monkeypatch):
    model = smoothed(mlp)
    count = model.count

    def meddling(*arguments, **options):
        tally = count(*arguments, **options)
        with torch.no_grad():
            model.model.suffix[0].weight += 1.0
        return tally

    monkeypatch.setattr(model, "count", meddling)
    with pytest.raises(UnsupportedModel, match="model_fingerprint changed"):
        model.certify(images(1, (5,)), n=100)


def test_served_predictions_draw_from_a_secret():
    x = torch.full((1, 1, 4, 4), 0.5)
    given = SmoothedClassifier(LinearMargin(0.49).eval(), Gaussian(0.4), num_classes=2, seed=3)
    drawn = SmoothedClassifier(LinearMargin(0.49).eval(), Gaussian(0.4), num_classes=2)
    seen = []

    def seeds(self, *arguments, **options):
        seen.append(self.seed)
        return original(self, *arguments, **options)

    original = SmoothedClassifier.count
    SmoothedClassifier.count = seeds
    try:
        for model in (given, drawn, drawn):
            model.predict(x, 50)
        drawn.predict(x, 50, index=4)
    finally:
        SmoothedClassifier.count = original
    assert seen[0] == 3
    assert len({*seen[1:3], drawn.seed}) == 3
    assert seen[3] == drawn.seed


def test_a_shape_that_the_network_refuses_is_not_kept():
    model = smoothed()
    with pytest.raises(UnsupportedModel, match="rejects"):
        model.certify(images(1, (3, 8, 8)), n=100)
    assert model.certify(images(1), n=100).terms.input_shape == (2, 8, 8)


def test_unseeded_predictions_prepare_the_model_once(monkeypatch):
    from pixeldp_fast.backends.native import NativeBackend

    prepared, prepare = [], NativeBackend.prepare

    def counting(self, *arguments, **options):
        prepared.append(arguments)
        return prepare(self, *arguments, **options)

    monkeypatch.setattr(NativeBackend, "prepare", counting)
    model = SmoothedClassifier(pixeldp(), num_classes=K)
    for _ in range(3):
        model.predict(images(1), 10)
    assert len(prepared) == 1
    assert model.input_shape == (2, 8, 8)


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(InvalidArgument, match="cuda"):
        SmoothedClassifier(pixeldp(), num_classes=K, device="cuda:99")
