"""Decisions as records: judged again when read, cut to other radii, refused where edited."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from pixeldp_fast import Gaussian, SmoothedClassifier
from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.errors import InvalidArgument, MissingExtra, RecordError
from pixeldp_fast.smooth import decision_records
from pixeldp_fast.smooth.certificate import Certificates
from pixeldp_fast.smooth.decisions import Decisions, concatenate
from pixeldp_fast.stats import confidence_sequence
from tests.unit.test_decide import Halfspace

RADII = [0.0, 0.15, 0.3]


@pytest.fixture(scope="module")
def found():
    model = SmoothedClassifier(Halfspace().eval(), Gaussian(0.5), num_classes=2, seed=5)
    x = torch.tensor([[0.8, 0, 0], [0.1, 0, 0], [0.55, 1, 1], [0.31, 0, 0]])
    return model.decide(x, RADII, n_max=2000, index=3)


def same(a, b):
    return decision_records.jsonl(a) == decision_records.jsonl(b)


def test_they_are_a_function_of_their_record(found):
    again = Decisions.judged(
        found.terms,
        found.radii,
        found.index,
        found.selection,
        found.estimation,
        found.lower_at,
        found.upper_at,
    )
    assert same(again, found)
    assert found.terms.stop == "decided"
    assert found.terms.n == 2000
    lower = confidence_sequence(found.lower_at[:, 0], found.lower_at[:, 1], 0.001)[0]
    assert (found.p_lower == lower).all()
    last = confidence_sequence(found.hits, found.draws, 0.001)
    assert (found.p_lower >= last[0]).all()
    assert (found.p_upper <= last[1]).all()


@pytest.mark.parametrize("labelled", [True, False])
def test_json_lines_are_read_as_written(tmp_path, found, labelled):
    written = found.with_labels([0, 1, 0, 0]) if labelled else found
    written.to_jsonl(tmp_path / "d.jsonl")
    read = Decisions.from_jsonl(tmp_path / "d.jsonl")
    assert same(read, written)
    assert (read.status == found.status).all()
    assert read.terms == found.terms


def edited(found, change, line=1):
    rows = [json.loads(row) for row in decision_records.jsonl(found).splitlines()]
    change(rows[line])
    return "".join(json.dumps(row) + "\n" for row in rows)


EDITS = {
    "status": lambda r: r.update(status=[1, 1, 1]),
    "radius": lambda r: r.update(radius=r["radius"] * 1.01),
    "p_lower": lambda r: r.update(p_lower=r["p_lower"] * (1 + 3e-9)),
    "p_upper": lambda r: r.update(p_upper=0.7),
    "prediction": lambda r: r.update(prediction=0),
    "draws": lambda r: r.update(draws=r["draws"] + 1),
    "index": lambda r: r.update(index=-1),
    "label": lambda r: r.update(label=2),
    "selection": lambda r: r.update(selection={"counts": [1, 2]}),
    "estimation": lambda r: r.pop("estimation"),
    "lower_at": lambda r: r.update(lower_at=[1.5, 2]),
    "upper_at": lambda r: r.pop("upper_at"),
    "terms": lambda r: r["terms"].update(alpha=0.01),
    "radii": lambda r: r.update(radii=[0.1, 0.2, 0.3]),
}


@pytest.mark.parametrize("field", EDITS)
def test_an_edited_field_is_named(tmp_path, found, field):
    (tmp_path / "d.jsonl").write_text(edited(found, EDITS[field]))
    with pytest.raises(RecordError, match=rf"d\.jsonl, line 2: .*`{field}`"):
        Decisions.from_jsonl(tmp_path / "d.jsonl")


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(lower_at=[2000, 2000]),
        lambda r: r.update(upper_at=[0, 1900]),
        lambda r: r.update(lower_at=[0, 0]),
        lambda r: r["estimation"].update(counts=[0, 3000, 0]),
        lambda r: r["selection"].update(counts=[50, 51, 0]),
    ],
)
def test_counts_of_no_run_are_refused(tmp_path, found, change):
    (tmp_path / "d.jsonl").write_text(edited(found, change))
    with pytest.raises(RecordError):
        Decisions.from_jsonl(tmp_path / "d.jsonl")


@pytest.mark.parametrize("content", ["", "[]\n", '{"format":1}\n', '{"format":1,"kind":"deci'])
def test_what_holds_no_decisions_is_refused(tmp_path, content):
    (tmp_path / "d.jsonl").write_text(content)
    with pytest.raises(RecordError, match=r"d\.jsonl"):
        Decisions.from_jsonl(tmp_path / "d.jsonl")


def test_decisions_are_no_certificates_nor_the_other_way_round(tmp_path, found):
    found.to_jsonl(tmp_path / "d.jsonl")
    with pytest.raises(RecordError):
        Certificates.from_jsonl(tmp_path / "d.jsonl")
    with pytest.raises(RecordError, match="anytime interval alone"):
        Certificates.judged(found.terms, found.index, found.selection, found.estimation)


def test_other_radii_and_norms_are_answered_but_no_other_level(found):
    other = found.recertify(radii=[0.05, 0.15])
    assert (other.status[:, 1] == found.status[:, 1]).all()
    assert (found.recertify(norm="inf").radius < found.radius + 1e-12).all()
    assert same(found.recertify(alpha=0.001), found)
    with pytest.raises(RecordError, match="stopped by a rule"):
        found.recertify(alpha=0.01)
    with pytest.raises(InvalidArgument, match="`radii`"):
        found.recertify(radii=[-1])


def test_batches_put_together_are_the_whole(found):
    parts = [
        Decisions.judged(
            found.terms,
            found.radii,
            found.index[at],
            found.selection.take(at),
            found.estimation.take(at),
            found.lower_at[at],
            found.upper_at[at],
        )
        for at in (slice(0, 1), slice(1, 4))
    ]
    assert same(concatenate(parts), found)


def test_only_batches_of_the_same_claim_are_put_together(found):
    stricter = replace(found, terms=replace(found.terms, alpha=found.terms.alpha / 10))
    for parts in ([], [found, stricter], [stricter, found], [found, found.recertify(radii=[0.01])]):
        with pytest.raises(InvalidArgument, match=r"batch|same terms"):
            concatenate(parts)


def test_an_interval_looked_at_in_the_past_is_kept():
    """Hits that come early and stop coming: what was proved then stays proved."""
    from pixeldp_fast.smooth.decide import DecisionRule
    from tests.unit.test_decide import radius_under

    radii = np.array([0.0, 5.0])
    rule = DecisionRule(
        np.zeros(1, dtype=np.int64),
        radii,
        radius_under(Gaussian(0.5)),
        alpha=0.001,
        ends=(100, 125),
    )
    rows = np.zeros(1, dtype=np.int64)
    rule.look(rows, Tally(np.array([[100, 0, 0]])))
    rule.look(rows, Tally(np.array([[100, 25, 0]])))
    assert rule.lower_at.tolist() == [[100, 100]]
    assert rule.upper_at.tolist() == [[100, 125]]


def test_parquet_holds_every_column(tmp_path, found):
    parquet = pytest.importorskip("pyarrow.parquet")
    found.to_parquet(tmp_path / "d.parquet")
    table = parquet.read_table(tmp_path / "d.parquet")
    assert table["status"].to_pylist() == found.status.tolist()
    assert table["draws"].to_pylist() == found.draws.tolist()
    assert json.loads(table.schema.metadata[b"pixeldp_fast.radii"]) == RADII
    assert json.loads(table.schema.metadata[b"pixeldp_fast.terms"]) == found.terms.to_dict()


def test_parquet_without_pyarrow_names_the_extra(tmp_path, found, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match="parquet"):
        found.to_parquet(tmp_path / "d.parquet")


@pytest.mark.parametrize("backend", ["native", "torch", "reference"])
def test_who_shares_a_batch_changes_nothing(backend):
    model = SmoothedClassifier(
        Halfspace().eval(), Gaussian(0.5), num_classes=2, seed=5, backend=backend, tile=64
    )
    x = torch.tensor([[0.8, 0, 0], [0.35, 0, 0], [0.55, 1, 1]])
    together = model.decide(x, RADII, n_max=1000, index=0)
    alone = [model.decide(x[i : i + 1], RADII, n_max=1000, index=i) for i in range(3)]
    assert same(together, concatenate(alone))
    assert len(set(together.draws.tolist())) > 1
