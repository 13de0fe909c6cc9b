"""Verification of files: what is right passes, and every edit is named."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixeldp_fast import Certificates, Gaussian, Laplace, Uniform, __version__
from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.errors import MissingExtra, RecordError
from pixeldp_fast.noise.lattice import tau
from pixeldp_fast.smooth import judge, probability, records
from pixeldp_fast.smooth.soundness import rounding_slack
from pixeldp_fast.verify.whole import read, verify
from tests.unit.test_certificates import five, soft_tally, terms


def hard(**changes):
    """Five examples: sure, likely, undecided, wrongly selected, mostly non-finite."""
    return five(version=__version__, **changes)


def soft(**changes):
    """Two examples with softmax scores."""
    generator = np.random.default_rng(1)
    selection, estimation = (soft_tally(generator.dirichlet([8, 1, 1], (2, n))) for n in (10, 1000))
    asked = terms(scores="softmax", version=__version__, **changes)
    return Certificates.judged(asked, np.array([7, 2]), selection, estimation)


def lines_of(certificates):
    return [json.loads(line) for line in records.jsonl(certificates).splitlines()]


def verified(path):
    return verify(path, *read(path))


def named(tmp_path, rows):
    """The fields that verification names for these records, or the message that refuses them."""
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        return {one.field for one in verified(path).disagreements}
    except RecordError as error:
        return {str(error)}


LATTICE = Gaussian(0.5, lattice=255)


def on_lattice():
    """Votes under lattice noise, attacked inputs being anywhere."""
    return hard(
        mechanism=LATTICE,
        guarantee="lattice",
        inputs="real",
        coordinates=4,
        tau=tau(LATTICE, 4),
        slack=rounding_slack(LATTICE, 4, "real"),
    )


KINDS = {
    "votes": hard,
    "votes, all competitors": lambda: hard(competitor="all"),
    "softmax": soft,
    "softmax, betting, all competitors": lambda: soft(mean_bound="betting", competitor="all"),
    "pixeldp": lambda: hard(bound="pixeldp"),
    "pixeldp-classical": lambda: hard(bound="pixeldp-classical"),
    "Laplace": lambda: hard(mechanism=Laplace(0.3), bound="pixeldp"),
    "lattice": on_lattice,
    "Uniform": lambda: hard(mechanism=Uniform(0.8), sensitivities=(("2", 1.7),)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_certified_agrees(tmp_path, kind):
    KINDS[kind]().to_jsonl(tmp_path / "c.jsonl")
    found = verified(tmp_path / "c.jsonl")
    assert found.passed, found.disagreements
    assert [c.name for c in found.checks if not (c.examined or c.skipped)] == ["recertify"]


@pytest.mark.parametrize("make", [hard, soft])
def test_parquet_agrees(tmp_path, make):
    pytest.importorskip("pyarrow")
    made = make()
    made.to_parquet(tmp_path / "c.parquet")
    found = verified(tmp_path / "c.parquet")
    assert found.passed
    assert found.examples == len(made)


def move_a_vote(row, name="estimation"):
    row[name]["counts"][0] += 1
    row[name]["counts"][1] -= 1


# What is changed in one example's record, and the field that is to be named.
EDITS = {
    "a vote more": ("estimation.counts", lambda r: r["estimation"]["counts"].__setitem__(0, 81)),
    "a vote moved": ("estimation.counts", move_a_vote),
    "selection": ("selection.counts", lambda r: r["selection"].update(counts=[9, 1, 0, 0])),
    "selection, one more": ("selection.counts", lambda r: r["selection"]["counts"].append(1)),
    "radius up": ("radius", lambda r: r.update(radius=r["radius"] * (1 + 1e-10))),
    "radius down": ("radius", lambda r: r.update(radius=r["radius"] * (1 - 3e-9))),
    "radius negative": ("radius", lambda r: r.update(radius=-r["radius"])),
    "p_lower up": ("p_lower", lambda r: r.update(p_lower=r["p_lower"] * (1 + 1e-10))),
    "p_lower down": ("p_lower", lambda r: r.update(p_lower=r["p_lower"] * (1 - 3e-9))),
    "p_lower, no probability": ("p_lower", lambda r: r.update(p_lower=1.5)),
    "p_upper up": ("p_upper", lambda r: r.update(p_upper=r["p_upper"] * (1 + 3e-9))),
    "p_upper down": ("p_upper", lambda r: r.update(p_upper=r["p_upper"] * (1 - 1e-10))),
    "prediction": ("prediction", lambda r: r.update(prediction=2)),
    "no prediction": ("prediction", lambda r: r.update(prediction=-1)),
    "label": ("label", lambda r: r.update(label=3)),
    "index": ("index", lambda r: r.update(index=3)),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_one_example_is_named(tmp_path, edit):
    rows = lines_of(hard())
    field, change = EDITS[edit]
    change(rows[1])
    found = named(tmp_path, rows)
    assert found == {field} or (len(found) == 1 and f"`{field}`" in found.pop())


# What is changed in the terms, and the field that is to be named.
TERMS = {
    "alpha": ("terms.alpha", {"alpha": 0.01}),
    "alpha, as it was not": ("terms.alpha", {"alpha": 0.0001}),
    "n": ("terms.n", {"n": 2000}),
    "n0": ("terms.n0", {"n0": 11}),
    "sigma": ("radius", {"mechanism": {"law": "Gaussian", "sigma": 0.51}}),
    "law": ("radius", {"mechanism": {"law": "Laplace", "scale": 0.5}}),
    "sensitivity": ("radius", {"sensitivities": {"2": 0.9}}),
    "bound": ("radius", {"bound": "pixeldp"}),
    "norm": ("radius", {"norm": "inf"}),
    "competitor": ("terms.split", {"competitor": "all"}),
    "version": ("terms.version", {"version": "0.0.9"}),
    "no version": ("terms.version", {"version": None}),
    "fingerprint": ("terms.model_fingerprint", {"model_fingerprint": "f" * 63}),
    "fingerprint, upper case": ("terms.model_fingerprint", {"model_fingerprint": "F" * 64}),
    "seed": ("terms.seed", {"seed": 2**64}),
    "unknown term": ("temperature", {"temperature": 2.0}),
    "unknown guarantee": ("terms.guarantee", {"guarantee": "for every program"}),
    "unknown stop": ("terms.stop", {"stop": "when it looked good"}),
    "unknown competitor": ("terms.competitor", {"competitor": "runner-up"}),
    "unknown scores": ("terms.scores", {"scores": "median"}),
    "unknown bound": ("terms.bound", {"bound": "best"}),
    "unknown backend": ("terms.backend", {"backend": "abacus"}),
    "unknown law": ("mechanism", {"mechanism": {"law": "Cauchy", "scale": 1.0}}),
    "unknown parameter": ("mechanism", {"mechanism": {"law": "Gaussian", "sigma": 0.5, "df": 3}}),
    "no sensitivity": ("terms.sensitivities", {"sensitivities": {"1": 1.0}}),
    "sensitivity of 0": ("terms.sensitivities", {"sensitivities": {"2": 0.0}}),
    "alpha of 1": ("terms.alpha", {"alpha": 1.0}),
    "loss": ("terms.loss", {"loss": 0.01}),
    "mean bound": ("terms.mean_bound", {"mean_bound": "betting"}),
    "split": ("terms.split", {"split": "all of alpha, twice"}),
}


@pytest.mark.parametrize("edit", TERMS)
def test_an_edit_of_the_terms_is_named(tmp_path, edit):
    rows = lines_of(hard())
    field, change = TERMS[edit]
    for row in rows:
        row["terms"] |= change
    found = named(tmp_path, rows)
    assert found == {field} or (len(found) == 1 and f"`{field}`" in found.pop())


@pytest.mark.parametrize(
    ("term", "value"), [("model_fingerprint", "e" * 64), ("alpha", 0.01), ("seed", 4)]
)
def test_terms_of_one_line_are_those_of_all(tmp_path, term, value):
    rows = lines_of(hard())
    rows[3]["terms"] = rows[3]["terms"] | {term: value}
    message = named(tmp_path, rows).pop()
    assert f"line 4: `terms.{term}` is {value!r}, not" in message


def test_another_version_is_refused_with_its_name(tmp_path):
    five(version="0.1.7").to_jsonl(tmp_path / "c.jsonl")
    with pytest.raises(
        RecordError, match=rf"made by pixeldp_fast 0\.1\.7, and this is {__version__}"
    ):
        read(tmp_path / "c.jsonl")


def test_alpha_is_blamed_only_where_the_level_is_one_that_people_choose(tmp_path):
    rows = lines_of(hard())
    for row in rows:
        row["terms"]["alpha"] = 0.01
    assert named(tmp_path, rows) == {"terms.alpha"}
    rows = lines_of(hard(alpha=0.001 / 7))
    for row in rows:
        row["terms"]["alpha"] = 0.001
    assert named(tmp_path, rows) == {"estimation.counts"}


def test_a_disagreement_says_what_it_should_be(tmp_path):
    rows = lines_of(hard())
    right = rows[1]["radius"]
    rows[1]["radius"] = 0.75
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = str(verified(tmp_path / "c.jsonl").disagreements[0])
    assert words.startswith("example 1 (line 2): `radius` is 0.75, above ")
    assert float(words.split("above ")[1].split(",")[0]) == pytest.approx(right, rel=1e-9)


def test_sums_that_no_scores_have_are_named(tmp_path):
    for part, value in (("sums", 2**40), ("squares", 2**60), ("squares", 0)):
        rows = lines_of(soft())
        rows[0]["estimation"][part][1] = value
        assert f"estimation.{part}" in named(tmp_path, rows)
    rows = lines_of(soft())
    rows[0]["estimation"]["sums"][0] -= 2**24
    rows[0]["estimation"]["squares"][0] -= 2**43
    assert named(tmp_path, rows) == {"estimation.sums"}


@pytest.mark.parametrize("line", ['"radius":0.9,', '"kept":1,', '"prediction":NaN,'])
def test_what_a_reader_could_overlook_is_refused(tmp_path, line):
    text = records.jsonl(hard()).replace('"radius"', line + '"radius"', 1)
    (tmp_path / "c.jsonl").write_text(text)
    with pytest.raises(RecordError, match="line 1"):
        read(tmp_path / "c.jsonl")


@pytest.mark.parametrize("make", [hard, soft])
def test_a_truncated_file_is_refused(tmp_path, make):
    text = records.jsonl(make())
    first = text.index("\n")
    for length in [*range(0, first, 37), *range(first + 2, 2 * first, 41)]:
        (tmp_path / "c.jsonl").write_text(text[:length])
        with pytest.raises(RecordError, match="truncated" if length else "holds no"):
            read(tmp_path / "c.jsonl")


def test_a_truncated_table_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    hard().to_parquet(tmp_path / "c.parquet")
    whole = (tmp_path / "c.parquet").read_bytes()
    for length in (4, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "c.parquet").write_bytes(whole[:length])
        with pytest.raises(RecordError, match="truncated"):
            read(tmp_path / "c.parquet")


def test_an_edited_table_is_named(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    hard().to_parquet(tmp_path / "c.parquet")
    table = pq.read_table(tmp_path / "c.parquet")
    place = table.column_names.index("radius")
    radii = table["radius"].to_pylist()
    edited = table.set_column(place, "radius", pa.array([radii[0] * 1.01, *radii[1:]]))
    pq.write_table(edited, tmp_path / "c.parquet")
    found = verified(tmp_path / "c.parquet").disagreements
    assert [(one.where, one.field) for one in found] == [("example 3 (row 1)", "radius")]
    pq.write_table(table.replace_schema_metadata({}), tmp_path / "c.parquet")
    with pytest.raises(RecordError, match="`terms` is missing"):
        read(tmp_path / "c.parquet")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no certificates"),
        (b"\n\n", "holds no certificates"),
        (b"[]\n", "not a record"),
        (b'{"format": 2}\n', "`format` is not 1"),
        (b'{"format": 1}\n', "`terms` is missing"),
        (b"\xff\xfe\n", "line 1: not JSON"),
        (b"[" * 100_000, "line 1: not JSON"),
    ],
)
def test_what_holds_no_certificates_is_refused(tmp_path, content, message):
    (tmp_path / "c.jsonl").write_bytes(content)
    with pytest.raises(RecordError, match=message):
        read(tmp_path / "c.jsonl")


def test_what_cannot_be_verified_is_refused(tmp_path):
    hard().to_tsv(tmp_path / "c.tsv")
    for path, message in (
        (tmp_path / "c.tsv", "without counts"),
        (tmp_path / "none.jsonl", "no file of certificates"),
        (tmp_path, "not the folder of a run"),
    ):
        with pytest.raises(RecordError, match=message):
            read(path)


def test_parquet_names_the_extra_it_needs(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    hard().to_parquet(tmp_path / "c.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pixeldp_fast\[parquet\]"):
        read(tmp_path / "c.parquet")


LAWS = st.sampled_from([Gaussian(0.25), Gaussian(1.7), Laplace(0.3), Uniform(0.8)])


@st.composite
def certificates(draw):
    """Certificates of random votes."""
    n0, n = draw(st.integers(1, 50)), draw(st.integers(1, 3000))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    shares = generator.dirichlet([draw(st.floats(0.3, 30)), 0.3, 0.3, 0.05], 3)
    law = draw(LAWS)
    asked = terms(
        mechanism=law,
        norm=law.norm,
        n0=n0,
        n=n,
        alpha=draw(st.floats(1e-6, 0.2)),
        bound=draw(st.sampled_from(["tight", "pixeldp"])),
        competitor=draw(st.sampled_from(["complement", "all"])),
        sensitivities=((str(law.norm), draw(st.floats(0.1, 10))),),
        version=__version__,
    )
    tallies = (Tally(np.array([generator.multinomial(m, p) for p in shares])) for m in (n0, n))
    return Certificates.judged(asked, np.arange(3), *tallies)


@given(certificates())
@settings(max_examples=40)
def test_whatever_is_certified_is_verified(tmp_path_factory, made):
    path = tmp_path_factory.mktemp("round") / "c.jsonl"
    made.to_jsonl(path)
    found = verified(path)
    assert found.passed, found.disagreements


@given(certificates(), st.data())
@settings(max_examples=40)
def test_no_larger_claim_is_verified(tmp_path_factory, made, data):
    rows = lines_of(made)
    row = data.draw(st.sampled_from(rows))
    name = data.draw(st.sampled_from(["radius", "p_lower", "p_upper"]))
    factor = 1 + data.draw(st.floats(1e-10, 0.5))
    before = row[name]
    row[name] = before / factor if name == "p_upper" else before * factor
    assert named(tmp_path_factory.mktemp("edit"), rows) or row[name] == before


def scaled(module, name, factor):
    """A fault in the first implementation: a result that is too large."""
    honest = getattr(module, name)
    return lambda *asked, **options: honest(*asked, **options) * factor


def at_twice_the_level(module, name):
    honest = getattr(module, name)
    return lambda k, n, alpha: honest(k, n, 2 * alpha)


def without_slack(module, name):
    honest = getattr(module, name)
    return lambda terms, *asked: honest(dataclasses.replace(terms, slack=0.0), *asked)


FAULTS = {
    "all of alpha twice": (probability, "clopper_pearson_lower", at_twice_the_level, hard),
    "a bound rounded up": (
        probability, "clopper_pearson_lower", lambda m, n: scaled(m, n, 1 + 1e-10), hard
    ),
    "a radius rounded up": (judge, "radius_of", lambda m, n: scaled(m, n, 1 + 1e-10), hard),
    "no rounding of inputs": (judge, "radius_of", without_slack, on_lattice),
    "a mean rounded up": (
        probability, "hoeffding_lower", lambda m, n: scaled(m, n, 1 + 1e-10),
        lambda: soft(mean_bound="hoeffding"),
    ),
    "bets that win too much": (
        probability, "betting_lower", lambda m, n: scaled(m, n, 1 + 1e-10),
        lambda: soft(mean_bound="betting"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_planted_in_the_first_implementation_is_caught(tmp_path, monkeypatch, fault):
    module, name, plant, make = FAULTS[fault]
    monkeypatch.setattr(module, name, plant(module, name))
    path = tmp_path / "c.jsonl"
    path.write_text(records.jsonl(make()))
    monkeypatch.undo()
    assert not verified(path).passed
