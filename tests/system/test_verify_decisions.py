"""Verification of draws that stopped by a rule, of noise on a lattice, and of their runs."""

import re

import numpy as np
import pytest

from pixeldp_fast import Gaussian, Laplace, SmoothedClassifier, certify_dataset
from pixeldp_fast.data import load
from pixeldp_fast.errors import RecordError
from pixeldp_fast.jobs.decide import decide_dataset
from pixeldp_fast.noise.lattice import tau
from pixeldp_fast.verify.arithmetic import mp
from pixeldp_fast.verify.lattice import tau_of_one
from pixeldp_fast.verify.laws import law_of
from pixeldp_fast.verify.redraw import check_draws, repeater
from pixeldp_fast.verify.whole import read, verify
from tests.system.test_verify_runs import first_shard, network, rewrite

INDICES = np.arange(0, 120, 20)
RADII = [0.0, 0.1, 0.3, 0.45]


def smoothed(mechanism=None, **options):
    options = {"backend": "torch", "seed": 7, **options}
    law = mechanism or Gaussian(0.2)
    return SmoothedClassifier(network(10), law, num_classes=10, **options)


def decided(folder, **changes):
    asked = {"n0": 20, "n_max": 2000, "indices": INDICES, "shard_draws": 500, **changes}
    decide_dataset(smoothed(), load("digits", "test"), RADII, out=folder, **asked)
    return folder


def certified(folder, model=None, **changes):
    asked = {"n0": 20, "n": 2000, "indices": INDICES, "shard_draws": 700, **changes}
    certify_dataset(model or smoothed(), load("digits", "test"), out=folder, **asked)
    return folder


@pytest.fixture
def folder(tmp_path):
    return decided(tmp_path / "run")


def verified(path):
    return verify(path, *read(path))


def fields(path):
    return {one.field for one in verified(path).disagreements}


def test_decisions_agree(folder, tmp_path):
    found = verified(folder)
    assert found.passed, found.disagreements
    by_name = {check.name: check for check in found.checks}
    assert by_name["status"].examined == len(INDICES) * len(RADII)
    assert by_name["shards"].examined > 2
    assert "refused: another alpha" in by_name["recertify"].against
    records, _ = read(folder)
    statuses = {status for row in records.rows for status in row["status"]}
    assert statuses >= {1, -1}


def test_parquet_decisions_agree(folder, tmp_path):
    pytest.importorskip("pyarrow")
    from pixeldp_fast.smooth.decisions import Decisions

    Decisions.from_jsonl(folder / "decisions.jsonl").to_parquet(tmp_path / "d.parquet")
    assert verified(tmp_path / "d.parquet").passed


def more(name, factor):
    return lambda row: row.update({name: row[name] * factor})


# What is changed in every record of decisions, and the field that is to be named.
EDITS = {
    "radius": more("radius", 1 + 1e-9),
    "p_lower": more("p_lower", 1 + 1e-10),
    "p_upper": more("p_upper", 1 - 1e-10),
    "status": lambda row: row.update(status=[1] * len(RADII)),
    "draws": lambda row: row.update(draws=row["draws"] + 1),
    "lower_at": lambda row: row.update(lower_at=[row["lower_at"][1] + 1] * 2),
    "upper_at": lambda row: row.update(upper_at=[0, 10**6]),
    "prediction": lambda row: row.update(prediction=(row["prediction"] + 1) % 10),
}


@pytest.mark.parametrize("field", EDITS)
def test_an_edited_decision_is_named(folder, field):
    rewrite(folder / "decisions.jsonl", EDITS[field])
    assert field in fields(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "guess"}, "`kind` is 'guess'"),
        ({"kind": "certificates"}, "`kind` is 'certificates', with stop='decided'"),
        ({"status": [2]}, "`status` is missing or not"),
        ({"lower_at": [1]}, "`lower_at` is missing or not"),
        ({"radii": [-1.0]}, "`radii` is missing or not"),
        ({"more": 1}, "`more` is not known"),
    ],
)
def test_decisions_of_another_form_are_refused(folder, change, message):
    rewrite(folder / "decisions.jsonl", lambda row: row.update(change))
    with pytest.raises(RecordError, match=re.escape(message)):
        read(folder)


def test_radii_and_shards_of_decisions_are_compared(folder):
    path = folder / "decisions.jsonl"
    before = path.read_text()
    rewrite(path, lambda row: row.update(radii=[0.0, 0.1, 0.3, 0.46]))
    assert "radii" in fields(folder)
    path.write_text(before)
    first_shard(folder).unlink()
    assert "estimation.draws" in fields(folder)


def test_an_undecided_radius_that_is_decided_is_named(folder):
    rewrite(folder / "decisions.jsonl", lambda row: row.update(status=[0] * len(RADII)))
    assert fields(folder) == {"status"}


def test_decisions_are_drawn_again(folder):
    records, _ = read(folder)
    again = repeater(records.claim, smoothed().model)
    asked = (records.rows, len(records.rows), again, load("digits", "test"))
    assert check_draws(records.claim, *asked, lambda done, total: None).disagreements == []
    records.rows[0].record["lower_at"][0] -= 1
    check = check_draws(records.claim, *asked, lambda done, total: None)
    assert {one.field for one in check.disagreements} == {"lower_at"}


@pytest.mark.parametrize("competitor", ["complement", "all"])
def test_a_run_that_stops_at_a_loss_agrees(tmp_path, competitor):
    certified(tmp_path / "run", stop="loss", loss=0.05, competitor=competitor)
    found = verified(tmp_path / "run")
    assert found.passed, found.disagreements
    assert "refused: another alpha" in found.checks[-1].against
    rewrite(tmp_path / "run" / "certificates.jsonl", more("p_lower", 1 + 1e-10))
    assert fields(tmp_path / "run") & {"p_lower", "estimation.counts"}


def test_what_verification_calls_refused_is_refused(tmp_path):
    from pixeldp_fast.smooth.certificate import Certificates

    certified(tmp_path / "run", stop="loss", loss=0.05)
    read_back = Certificates.from_jsonl(tmp_path / "run" / "certificates.jsonl")
    with pytest.raises(RecordError, match="alpha"):
        read_back.recertify(alpha=0.01)
    assert len(read_back.recertify(bound="pixeldp")) == len(INDICES)


LATTICE = (Gaussian(0.2, lattice=16), Laplace(0.1, lattice=16))


@pytest.mark.parametrize("law", LATTICE, ids=repr)
@pytest.mark.parametrize("inputs", ["lattice", "real"])
def test_lattice_noise_agrees(tmp_path, law, inputs):
    certified(tmp_path / "run", smoothed(law, inputs=inputs))
    found = verified(tmp_path / "run")
    assert found.passed, found.disagreements
    by_name = {check.name: check for check in found.checks}
    assert by_name["program"].against.startswith("lattice")


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("terms.tau", lambda t: t.update(tau=t["tau"] / 2)),
        ("terms.tau", lambda t: t.update(tau=t["tau"] * 1.01)),
        ("terms.slack", lambda t: t.update(slack=t["slack"] * 0.9)),
        ("radius", lambda t: t.update(slack=t["slack"] * 1.1)),
    ],
)
def test_what_a_lattice_costs_is_derived_again(tmp_path, field, change):
    folder = certified(tmp_path / "run", smoothed(Gaussian(0.2, lattice=255), inputs="real"))
    path = folder / "certificates.jsonl"
    rewrite(path, lambda row: change(row["terms"]))
    assert field in fields(path)


def test_fewer_coordinates_than_the_input_has_are_named(tmp_path):
    law = LATTICE[0]
    path = certified(tmp_path / "run", smoothed(law)) / "certificates.jsonl"
    rewrite(path, lambda row: row["terms"].update(coordinates=1, tau=tau(law, 1)))
    assert "terms.coordinates" in fields(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"guarantee": "real arithmetic"}, "`terms.guarantee`"),
        ({"coordinates": 0}, "`terms.coordinates`"),
        ({"inputs": "all"}, "`terms.inputs`"),
        ({"mechanism": {"law": "Gaussian", "sigma": 0.2}}, "`terms.guarantee`"),
        ({"mechanism": {"law": "Uniform", "half_width": 0.2, "lattice": 9}}, "no Uniform has"),
    ],
)
def test_a_guarantee_that_the_noise_cannot_give_is_refused(tmp_path, change, message):
    folder = certified(tmp_path / "run", smoothed(LATTICE[0]), n=200)
    path = folder / "certificates.jsonl"
    rewrite(path, lambda row: row["terms"].update(change))
    with pytest.raises(RecordError, match=message):
        read(path)


@pytest.mark.parametrize(
    "law", [*LATTICE, Gaussian(0.5, lattice=255), Laplace(0.3, lattice=255)], ids=repr
)
def test_tau_is_the_first_implementations(law):
    exact = tau_of_one(law_of(law.to_dict()))
    stored = tau(law, 1)
    assert exact <= stored <= exact * (1 + mp().mpf(10) ** -9)


def test_a_record_says_that_its_rounding_is_not_covered(tmp_path):
    certified(tmp_path / "run", n=200)
    check = next(c for c in verified(tmp_path / "run").checks if c.name == "program")
    assert check.skipped
    assert "not covered" in check.against
