"""Every certificate says for which program it holds, and what that takes off its radius."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pixeldp_fast import (
    Certificates,
    Gaussian,
    Laplace,
    PixelDP,
    SmoothedClassifier,
    SmoothedRegressor,
    Uniform,
    certify_dataset,
)
from pixeldp_fast.bounds import tight_radius
from pixeldp_fast.errors import InvalidArgument, RecordError, RunFolderError, UnsupportedModel
from pixeldp_fast.noise.lattice import from_lattice, tau, to_lattice
from pixeldp_fast.plan.plan import make_plan
from pixeldp_fast.plan.rounding_budget import rounding_budget
from pixeldp_fast.report.words import guarantee
from pixeldp_fast.smooth.judge import Terms
from pixeldp_fast.smooth.regression_terms import RegressionTerms
from pixeldp_fast.smooth.soundness import rounding_slack, soundness

SHAPE = (2, 3, 3)
LAW = Gaussian(0.25, lattice=255)


def network(outputs=3, inputs=18):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs)).eval()


def images(examples=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (examples, *SHAPE), generator=generator).float() / 255


def smoothed(mechanism=LAW, **more):
    return SmoothedClassifier(network(), mechanism, num_classes=3, seed=3, **more)


def certified(**more):
    return smoothed(**more).certify(images(), n=1000, index=0)


def behind_a_prefix(mechanism, **more):
    torch.manual_seed(1)
    prefix = nn.Conv2d(2, 4, 3, padding=1)
    model = PixelDP(prefix, mechanism, network(inputs=36)).eval()
    return SmoothedClassifier(model, num_classes=3, seed=3, **more)


# --- what is stated ----------------------------------------------------------------------------


def test_float_noise_holds_for_real_arithmetic_and_says_so():
    terms = certified(mechanism=Gaussian(0.25)).terms
    assert terms.sound == terms.guarantee == "real arithmetic"
    assert (terms.tau, terms.slack, terms.coordinates, terms.inputs) == (0.0, 0.0, 0, "real")


def test_lattice_noise_holds_for_the_program_and_says_so():
    made = certified()
    terms = made.terms
    assert made.sound == made[0].sound == terms.sound == "lattice"
    assert terms.mechanism.lattice == 255
    assert terms.inputs == "lattice"
    assert terms.coordinates == 18
    assert terms.tau == tau(LAW, 18) > 0
    assert terms.slack == 0.0


@pytest.mark.parametrize("inputs", ["lattice", "real attacks", "real"])
def test_words_name_the_inputs_where_the_claim_is_not_of_all(inputs):
    said = guarantee(certified(inputs=inputs).terms)
    assert "for the program that runs (noise on a lattice)" in said
    assert ("on inputs that are multiples of 1/255" in said) == (inputs == "lattice")
    assert "multiples" not in guarantee(certified(mechanism=Gaussian(0.25)).terms)


@pytest.mark.parametrize(("law", "norm"), [(Gaussian, 2), (Laplace, 1)])
@pytest.mark.parametrize(("inputs", "often"), [("lattice", 0), ("real attacks", 1), ("real", 2)])
def test_slack_is_half_a_step_a_coordinate_once_or_twice(law, norm, inputs, often):
    mechanism = law(0.25, lattice=255)
    size = 18 if norm == 1 else math.sqrt(18)
    exact = often * size / 2 / 255
    slack = smoothed(mechanism=mechanism, inputs=inputs).terms(images()).slack
    assert exact <= slack <= exact * (1 + 1e-10)


@given(
    st.sampled_from([Gaussian, Laplace]),
    st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)), min_size=1),
    st.booleans(),
)
def test_slack_bounds_what_rounding_adds_to_the_shift(law, pairs, snapped):
    """||round(x') - round(x)|| <= ||x' - x|| + slack, in the mechanism's norm."""
    mechanism = law(0.25, lattice=255)
    x, attacked = np.array(pairs, dtype=np.float32).T
    if snapped:
        x = from_lattice(to_lattice(x, 255), 255)
    inputs = "real attacks" if snapped else "real"
    order = int(mechanism.norm.value)
    moved = np.linalg.norm((to_lattice(attacked, 255) - to_lattice(x, 255)) / 255, order)
    asked = np.linalg.norm(attacked.astype(np.float64) - x, order)
    # An example on the lattice is 2^-25 off it in float32.
    assert moved <= asked + rounding_slack(mechanism, len(pairs), inputs) + len(pairs) * 2.0**-25


def test_without_slack_rounding_would_break_the_claim():
    """A planted fault: half a step apart in the worst direction is a whole step when rounded."""
    x, attacked = np.full(18, 0.51 / 255), np.full(18, 0.49 / 255)
    moved = np.linalg.norm((to_lattice(attacked, 255) - to_lattice(x, 255)) / 255)
    assert moved > 49 * np.linalg.norm(attacked - x)
    assert moved <= np.linalg.norm(attacked - x) + rounding_slack(LAW, 18, "real")


def test_tau_and_slack_come_off_the_radius():
    one = certified(inputs="real")
    terms = one.terms
    expected = tight_radius(LAW, one.p_lower, one.p_upper, tau=terms.tau, slack=terms.slack)
    assert np.array_equal(one.radius, expected)
    assert (one.radius < certified(inputs="real attacks").radius).all()
    assert (certified(inputs="real attacks").radius < certified().radius).all()
    assert (certified().radius < tight_radius(LAW, one.p_lower, one.p_upper)).all()


def test_decisions_use_the_same_inequality():
    x, radius = images(1), float(certified().radius[0])
    asked = [0.8 * radius]
    quick = smoothed().decide(x, asked, n_max=4000, index=0)
    slow = smoothed(inputs="real").decide(x, asked, n_max=4000, index=0)
    assert quick.status.tolist() == slow.status.tolist() == [[1]]
    assert slow.draws[0] > quick.draws[0]  # the same draws, a larger target


@pytest.mark.parametrize(("inputs", "often"), [("lattice", 0), ("real attacks", 1), ("real", 2)])
def test_regressors_state_and_pay_the_same(inputs, often):
    net = nn.Sequential(network(outputs=1), nn.Sigmoid()).eval()
    made, plain = (
        SmoothedRegressor(net, law, low=0.0, high=1.0, seed=3, inputs=declared)
        for law, declared in ((LAW, inputs), (Gaussian(0.25), None))
    )
    found = made.certify(images(), [0.0, 0.1], n=500, index=0)
    terms = found.terms
    assert terms.sound == "lattice"
    assert (terms.inputs, terms.coordinates, terms.tau) == (inputs, 18, tau(LAW, 18))
    assert terms.slack == pytest.approx(often * math.sqrt(18) / 2 / 255, rel=1e-9)
    assert RegressionTerms.from_dict(terms.to_dict()) == terms
    for name, value in (("tau", 0.0), ("slack", -1.0), ("guarantee", "real arithmetic")):
        with pytest.raises(RecordError, match="terms"):
            RegressionTerms.from_dict(terms.to_dict() | {name: value})
    assert plain.certify(images(), 0.1, n=500, index=0).terms.sound == "real arithmetic"
    if inputs != "real":
        with pytest.raises(InvalidArgument, match="not on the lattice"):
            made.certify(images() * 0.999, 0.1, n=500)


# --- what is refused ---------------------------------------------------------------------------


def test_examples_off_the_declared_lattice_are_refused_with_a_way_out():
    off = (images() + 0.001).clamp(0, 1)
    with pytest.raises(
        InvalidArgument, match=r"not on the lattice.*float\(\) / 255.*inputs='real'"
    ):
        smoothed().certify(off, n=10)
    with pytest.raises(InvalidArgument, match="not on the lattice"):
        smoothed().predict(off)
    nearly = smoothed(inputs="real attacks")
    with pytest.raises(InvalidArgument, match="not on the lattice"):
        nearly.certify(off, n=10)
    with pytest.raises(InvalidArgument, match="not on the lattice"):
        nearly.count(off, 10)
    assert nearly.predict(off).shape == (2,)  # an attack may be anywhere
    assert smoothed(inputs="real").certify(off, n=1000).terms.sound == "lattice"


def test_a_run_over_a_data_set_refuses_them_before_any_work(tmp_path):
    x = images(3)
    x[2] *= 0.999
    data = torch.utils.data.TensorDataset(x, torch.zeros(3, dtype=torch.int64))
    for more in ({}, {"stop": "loss"}):
        with pytest.raises(InvalidArgument, match="not on the lattice"):
            certify_dataset(smoothed(), data, out=tmp_path / "run", n=100, **more)
        assert not (tmp_path / "run").exists()
    run = certify_dataset(smoothed(inputs="real"), data, out=tmp_path / "run", n=100)
    again = certify_dataset(smoothed(inputs="real"), data, out=tmp_path / "run", n=100)
    assert run.sound == "lattice"
    assert again.terms == run.terms
    with pytest.raises(RunFolderError, match="inputs"):
        certify_dataset(smoothed(), data, out=tmp_path / "run", n=100, indices=[0, 1])


def test_real_inputs_are_served_as_their_nearest_lattice_point():
    rounded = smoothed(inputs="real")
    off = (images() + 0.4 / 255).clamp(0, 1)
    assert rounded.count(off, 200, index=0) == rounded.count(images(), 200, index=0)


def test_what_is_stated_follows_the_models_own_noise():
    """The noise exchanged after the fact: nothing of the lattice is claimed any more."""
    classifier = smoothed()
    assert classifier.terms(images()).sound == "lattice"
    classifier.model.mechanism = Gaussian(0.25)
    terms = classifier.terms(images() * 0.999)
    assert (terms.sound, terms.tau, terms.inputs) == ("real arithmetic", 0.0, "real")


def test_classes_of_inputs_that_cannot_be_declared_are_refused():
    with pytest.raises(InvalidArgument, match=r"floats has no lattice.*lattice=255"):
        smoothed(mechanism=Gaussian(0.25), inputs="lattice")
    with pytest.raises(InvalidArgument, match="one of lattice, real attacks, real"):
        smoothed(inputs="bytes")
    with pytest.raises(InvalidArgument, match="behind a prefix"):
        behind_a_prefix(Gaussian(0.5, lattice=4096), inputs="lattice")
    assert smoothed(mechanism=Uniform(0.5), inputs="real").inputs == "real"


# --- behind a prefix ---------------------------------------------------------------------------


@pytest.mark.parametrize("law", [Gaussian, Laplace])
def test_behind_a_prefix_the_budget_is_the_slack(law):
    classifier = behind_a_prefix(law(0.25, lattice=4096))
    terms = classifier.terms(images())
    off = rounding_budget(classifier.model.prefix, SHAPE, (0.0, 1.0)) + 0.5 / 4096
    size = off.sum() if law is Laplace else np.sqrt((off**2).sum())
    assert terms.sound == "lattice"
    assert terms.inputs == "real"
    assert terms.coordinates == 36
    assert 2 * size <= terms.slack <= 2 * size * (1 + 1e-10)
    assert terms.slack > rounding_slack(terms.mechanism, 36, "real")


@pytest.mark.parametrize("backend", ["reference", "torch", "native"])
def test_computed_centres_are_within_the_budget(backend):
    """Of the real features, by fractions' stand-in: float64, 2^29 times finer than the budget."""
    mechanism = Gaussian(0.25, lattice=4096)
    classifier = behind_a_prefix(mechanism, backend=backend)
    prefix = classifier.model.prefix
    budget = rounding_budget(prefix, SHAPE, (0.0, 1.0))
    terms = classifier.terms(images())
    assert terms.backend == backend
    x = images(3)
    with torch.inference_mode():
        exact = nn.functional.conv2d(
            x.double(), prefix.weight.double(), prefix.bias.double(), padding=1
        )
        computed = prefix(x).double()
    assert ((computed - exact).abs().flatten(1).numpy() <= budget).all()


class Turned(nn.Module):
    """A parametrisation that makes a weight by a product, which an autocast rounds to 16 bits."""

    def forward(self, weight):
        return torch.eye(len(weight)) @ weight


@pytest.mark.parametrize("mechanism", [Gaussian(0.5), Gaussian(0.5, lattice=4096)])
def test_an_autocast_around_it_changes_nothing_of_what_is_stated(mechanism):
    torch.manual_seed(2)
    layer = nn.Linear(18, 36)
    nn.utils.parametrize.register_parametrization(layer, "weight", Turned())
    model = PixelDP(nn.Sequential(nn.Flatten(), layer), mechanism, network(inputs=36)).eval()
    classifier = SmoothedClassifier(model, num_classes=3, seed=3, backend="torch")
    plain = classifier.terms(images())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.weight.dtype is torch.bfloat16  # it would be another sensitivity
        assert classifier.terms(images()) == plain


def test_what_a_prefix_needs_is_said():
    on_lattice = Gaussian(0.5, lattice=4096)
    with pytest.raises(InvalidArgument, match="input_range"):  # to serve from it, too
        behind_a_prefix(on_lattice, input_range=None)
    behind_a_prefix(Gaussian(0.5), input_range=None).predict(images() + 1, n=10)
    with pytest.raises(InvalidArgument, match="outside the input range"):
        behind_a_prefix(on_lattice).predict(images() + 1, n=10)
    for coarse in (255, 2048, 5000):
        with pytest.raises(UnsupportedModel, match="power of two of at least 4096"):
            behind_a_prefix(Gaussian(0.5, lattice=coarse)).certify(images(), n=10)
    with pytest.raises(InvalidArgument, match="outside the input range"):
        behind_a_prefix(on_lattice).certify(images() + 1, n=10)


def test_a_flatten_in_front_leaves_the_noise_on_the_image():
    model = PixelDP(nn.Flatten(), LAW, nn.Linear(18, 3)).eval()
    terms = SmoothedClassifier(model, num_classes=3).terms(images())
    assert (terms.inputs, terms.slack, terms.coordinates) == ("lattice", 0.0, 18)


def test_without_a_lattice_nothing_is_asked_of_the_prefix():
    plan = make_plan(nn.Tanh().eval(), network(), SHAPE, 3)
    assert soundness(plan, Gaussian(0.5), "real", None).guarantee == "real arithmetic"


# --- the record --------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", ["lattice", "real attacks", "real"])
def test_records_come_back(tmp_path, inputs):
    made = certified(inputs=inputs)
    made.to_jsonl(tmp_path / "c.jsonl")
    line = json.loads((tmp_path / "c.jsonl").read_text().splitlines()[0])["terms"]
    assert line["guarantee"] == "lattice"
    assert line["mechanism"] == {"law": "Gaussian", "sigma": 0.25, "lattice": 255}
    assert (line["inputs"], line["coordinates"]) == (inputs, 18)
    assert (line["tau"], line["slack"]) == (made.terms.tau, made.terms.slack)
    back = Certificates.from_jsonl(tmp_path / "c.jsonl")
    assert back.terms == made.terms
    assert np.array_equal(back.radius, made.radius)
    again = (c.recertify(bound="pixeldp").radius for c in (back, made))
    assert np.array_equal(*again)


def test_records_of_float_noise_say_nothing_of_a_lattice():
    plain = certified(mechanism=Gaussian(0.25)).terms.to_dict()
    assert plain["guarantee"] == "real arithmetic"
    assert not {"tau", "slack", "inputs", "coordinates", "input_range"} & plain.keys()
    assert Terms.from_dict(plain).sound == "real arithmetic"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tau", 0.0),
        ("tau", 1e-18),
        ("tau", None),
        ("slack", 0.0),
        ("slack", 1e-3),
        ("slack", math.inf),
        ("slack", "0"),
        ("inputs", "bytes"),
        ("inputs", None),
        ("coordinates", 17),
        ("coordinates", 18.0),
        ("guarantee", "real arithmetic"),
        ("mechanism", {"law": "Gaussian", "sigma": 0.25}),
        ("mechanism", {"law": "Gaussian", "sigma": 0.25, "lattice": 128}),
    ],
)
def test_edited_records_are_refused(name, value):
    record = certified(inputs="real").terms.to_dict()
    with pytest.raises(RecordError, match="terms"):
        Terms.from_dict(record | {name: value})


@pytest.mark.parametrize("inputs", ["lattice", "real attacks"])
def test_noise_on_the_input_has_as_many_coordinates_as_it(inputs):
    """A record edited to fewer, with all that follows from them: it would cost less."""
    record = certified(inputs=inputs).terms.to_dict()
    fewer = {"coordinates": 17, "tau": tau(LAW, 17), "slack": rounding_slack(LAW, 17, inputs)}
    with pytest.raises(RecordError, match=r"`coordinates` must be 18"):
        Terms.from_dict(record | fewer)
    assert Terms.from_dict(record).coordinates == 18


WITHIN = st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)).filter(lambda box: box[0] < box[1])


def terms_behind_a_prefix(input_range=(0.0, 1.0), **more):
    law = Gaussian(0.25, lattice=4096)
    x = torch.full((1, *SHAPE), (input_range[0] + input_range[1]) / 2)
    return behind_a_prefix(law, input_range=input_range, **more).terms(x)


BEHIND_A_PREFIX = terms_behind_a_prefix()


def test_behind_a_prefix_the_claim_is_about_inputs_within_the_range():
    terms = terms_behind_a_prefix((-0.5, 2.0))
    assert terms.input_range == (-0.5, 2.0)
    assert terms.to_dict()["input_range"] == [-0.5, 2.0]
    assert "lattice), on inputs within [-0.5, 2]: nearer" in guarantee(terms)
    assert BEHIND_A_PREFIX.slack < terms.slack
    assert certified(inputs="real").terms.input_range is None
    assert "within" not in guarantee(certified(inputs="real").terms)


@given(WITHIN)
@settings(max_examples=20, deadline=None)
def test_the_range_comes_back_from_a_record(box):
    law = Gaussian(0.25, lattice=4096)
    plan = make_plan(nn.Linear(3, 4).eval(), network(inputs=24), SHAPE, 3)
    terms = replace(BEHIND_A_PREFIX, **vars(soundness(plan, law, "real", box)))
    assert terms.input_range == box
    assert Terms.from_dict(json.loads(json.dumps(terms.to_dict()))) == terms


def test_the_range_comes_back_from_files(tmp_path):
    made = behind_a_prefix(Gaussian(0.25, lattice=4096)).certify(images(), n=200, index=0)
    made.to_jsonl(tmp_path / "c.jsonl")
    assert Certificates.from_jsonl(tmp_path / "c.jsonl").terms == made.terms
    assert made.recertify(bound="pixeldp").terms.input_range == (0.0, 1.0)
    parquet = pytest.importorskip("pyarrow.parquet")
    made.to_parquet(tmp_path / "c.parquet")
    stored = parquet.read_schema(tmp_path / "c.parquet").metadata[b"pixeldp_fast.terms"]
    assert json.loads(stored)["input_range"] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_range": None}, "must be a list"),
        ({"input_range": "01"}, "must be a list"),
        ({"input_range": [0.0]}, "`input_range` must be finite"),
        ({"input_range": [0, 1]}, "`input_range` must be finite"),
        ({"input_range": [1.0, 0.0]}, "`input_range` must be finite"),
        ({"input_range": [0.0, math.inf]}, "`input_range` must be finite"),
        ({"slack": 1e-9}, "`slack`"),
    ],
)
def test_an_edited_range_is_refused(change, message):
    record = BEHIND_A_PREFIX.to_dict()
    with pytest.raises(RecordError, match=message):
        Terms.from_dict(record | change)


def test_a_record_behind_a_prefix_without_its_range_is_refused():
    record = BEHIND_A_PREFIX.to_dict()
    del record["input_range"]
    with pytest.raises(RecordError, match=r"`input_range` must be stated behind a prefix"):
        Terms.from_dict(record)
    bare = rounding_slack(Gaussian(0.25, lattice=4096), 36, "real")
    with pytest.raises(RecordError, match="`coordinates` are 18"):
        Terms.from_dict(record | {"slack": bare})


@pytest.mark.parametrize("inputs", ["lattice", "real attacks", "real"])
def test_without_a_prefix_or_a_lattice_no_range_is_recorded(inputs):
    record = certified(inputs=inputs).terms.to_dict()
    assert "input_range" not in record
    with pytest.raises(RecordError, match="is of a prefix"):
        Terms.from_dict(record | {"input_range": [0.0, 1.0]})
    record = behind_a_prefix(Gaussian(0.25)).terms(images()).to_dict()
    assert "input_range" not in record
    with pytest.raises(RecordError, match="of a lattice"):
        Terms.from_dict(record | {"input_range": [0.0, 1.0]})


def test_float_noise_cannot_be_recorded_as_lattice():
    record = certified(mechanism=Gaussian(0.25)).terms.to_dict()
    with pytest.raises(RecordError, match="guarantee"):
        Terms.from_dict(record | {"guarantee": "lattice"})
    with pytest.raises(RecordError, match="of a lattice"):
        Terms.from_dict(record | {"tau": 1e-9})


def test_terms_of_other_classes_of_inputs_do_not_mix():
    terms = certified().terms
    assert replace(terms, inputs="real attacks") != terms
