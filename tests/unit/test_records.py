"""Certificates in files: read as written, rounded down, and refused where they were changed."""

import json
import sys
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixeldp_fast import ABSTAIN, Certificates
from pixeldp_fast.errors import InvalidArgument, MissingExtra, RecordError
from pixeldp_fast.smooth import records
from tests.unit.test_certificates import five, same, soft_tally, terms

COHEN = """idx\tlabel\tpredict\tradius\tcorrect\ttime
0\t3\t3\t1.41\t1\t0:00:13.081467
20\t7\t2\t0.135\t0\t0:00:12.9
40\t0\t-1\t0.0\t0\t0:00:12.973520
"""


def soft():
    generator = np.random.default_rng(1)
    selection, estimation = (soft_tally(generator.dirichlet([8, 1, 1], (2, n))) for n in (10, 1000))
    asked = terms(scores="softmax")
    return Certificates.judged(asked, np.array([7, 2]), selection, estimation)


def with_radius(radius):
    """A certificate that says so, whatever its counts."""
    return replace(five()[[0]], radius=np.array([radius]))


def test_a_tsv_has_cohens_columns(tmp_path):
    seconds = np.array([61.5, 2.0, 0.25, 3600.0, 1e-7])
    replace(five(), seconds=seconds).to_tsv(tmp_path / "c.tsv")
    lines = (tmp_path / "c.tsv").read_text().splitlines()
    assert lines[0] == "idx\tlabel\tpredict\tradius\tcorrect\ttime"
    assert len(lines) == 6
    first, third = (line.split("\t") for line in (lines[1], lines[3]))
    assert first[:3] + first[4:] == ["3", "0", "0", "1", "0:01:01.500000"]
    assert third == ["4", "1", "-1", "0.000000", "0", "0:00:00.250000"]


@given(st.floats(0, 1e6))
def test_a_printed_radius_is_rounded_down(radius):
    printed = Decimal(records._floored(radius))
    assert 0 <= Decimal(radius) - printed < Decimal("0.000001")


def test_nearest_rounding_would_overstate(tmp_path):
    with_radius(0.1999999).to_tsv(tmp_path / "c.tsv")
    assert (tmp_path / "c.tsv").read_text().splitlines()[1].split("\t")[3] == "0.199999"


def test_a_tsv_is_read_as_written_but_never_larger(tmp_path):
    found = five()
    found.to_tsv(tmp_path / "c.tsv")
    read = Certificates.from_tsv(tmp_path / "c.tsv")
    assert (read.prediction == found.prediction).all()
    assert (read.index == found.index).all()
    assert (read.labels == found.labels).all()
    assert (read.radius <= found.radius).all()
    assert read.radius == pytest.approx(found.radius, abs=2e-6)
    assert read.accuracy_at([0, 0.3]).tolist() == found.accuracy_at([0, 0.3]).tolist()


def test_a_tsv_takes_labels_by_name(tmp_path):
    with pytest.raises(InvalidArgument, match="label column"):
        soft().to_tsv(tmp_path / "c.tsv")
    soft().to_tsv(tmp_path / "c.tsv", labels=[0, 2])
    assert Certificates.from_tsv(tmp_path / "c.tsv").labels.tolist() == [0, 2]


def test_cohens_own_files_are_read(tmp_path):
    (tmp_path / "c.tsv").write_text(COHEN)
    read = Certificates.from_tsv(tmp_path / "c.tsv")
    assert read.index.tolist() == [0, 20, 40]
    assert read.labels.tolist() == [3, 7, 0]
    assert read.prediction.tolist() == [3, 2, ABSTAIN]
    # He printed to nearest with as many digits as there were: half a unit of the last comes off.
    assert read.radius == pytest.approx([1.405, 0.1345, 0.0], abs=1e-12)
    assert (read.radius <= [1.405, 0.1345, 0.0]).all()
    assert read.accuracy_at([0, 1.4, 1.41]) == pytest.approx([1 / 3, 1 / 3, 0])
    assert read.average_radius() == pytest.approx(1.405 / 3)
    assert len(read) == 3
    assert [one.terms for one in read[1:]] == [None, None]


def test_columns_are_found_by_name(tmp_path):
    (tmp_path / "c.tsv").write_text("extra\tidx\tlabel\tpredict\tradius\nx\t1\t2\t2\t0.5\n\n")
    read = Certificates.from_tsv(tmp_path / "c.tsv")
    assert (read.index[0], read.prediction[0], read.labels[0]) == (1, 2, 2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "idx\tlabel\tpredict\n0\t1\t1\n",
        "idx\tlabel\tpredict\tradius\n0\t1\t1\n",
        "idx\tlabel\tpredict\tradius\n0\t1\t1\tnan\n",
        "idx\tlabel\tpredict\tradius\n0\t1\t1\t-0.5\n",
        "idx\tlabel\tpredict\tradius\n0\t1\t1\tx\n",
        "idx\tlabel\tpredict\tradius\n0\t1\t1.5\t0.5\n",
        "idx\tlabel\tpredict\tradius\n0\t1\t-2\t0.5\n",
    ],
)
def test_what_is_no_tsv_is_refused(tmp_path, text):
    (tmp_path / "c.tsv").write_text(text)
    with pytest.raises(RecordError, match=r"c\.tsv"):
        Certificates.from_tsv(tmp_path / "c.tsv")


def test_a_tsv_gives_no_new_claim(tmp_path):
    (tmp_path / "c.tsv").write_text(COHEN)
    read = Certificates.from_tsv(tmp_path / "c.tsv")
    for use in (
        lambda: read.recertify(alpha=0.01),
        lambda: read.to_jsonl(tmp_path / "c.jsonl"),
        lambda: read.counts,
        lambda: read.n,
    ):
        with pytest.raises(RecordError, match="from a TSV"):
            use()
    assert not (tmp_path / "c.jsonl").exists()


@pytest.mark.parametrize("make", [five, soft], ids=["argmax", "softmax"])
def test_json_lines_are_read_as_written(tmp_path, make):
    make().to_jsonl(tmp_path / "c.jsonl")
    read = Certificates.from_jsonl(tmp_path / "c.jsonl")
    assert same(read, make())
    read.to_jsonl(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "c.jsonl").read_bytes()
    assert same(read.recertify(alpha=0.01), make().recertify(alpha=0.01))


def test_a_record_is_complete_in_itself(tmp_path):
    lines = records.jsonl(five()).splitlines()
    (tmp_path / "one.jsonl").write_text(lines[1] + "\n")
    assert same(Certificates.from_jsonl(tmp_path / "one.jsonl"), five()[[1]])
    assert all(json.loads(line)["terms"] == terms().to_dict() for line in lines)


def edited(change, line=1):
    """The file with one record changed."""
    rows = [json.loads(line) for line in records.jsonl(five()).splitlines()]
    change(rows[line])
    return "".join(json.dumps(row) + "\n" for row in rows)


EDITS = {
    "radius": lambda r: r.update(radius=r["radius"] * 1.01),
    "p_lower": lambda r: r.update(p_lower=r["p_lower"] * (1 + 3e-9)),
    "p_upper": lambda r: r.update(p_upper=0.01),
    "prediction": lambda r: r.update(prediction=2),
}
BROKEN = {
    "radius": ["big", "0.3", None, [1], True, {}],
    "p_lower": ["x", None, False],
    "p_upper": [[0.5]],
    "prediction": [1.5, "1", None, True],
    "index": [1.5, "1", None, True, -1],
    "label": [1.5, "1", True],
    "selection": [None, [], {}, {"counts": [1, 9.0, 0, 0]}, {"counts": [True, 9, 0, 0]}],
    "estimation": [
        {"counts": [80, 900, 20]},
        {"counts": [80, 900, 19, 0]},
        {"counts": [80, 900, 21, 0]},
        {"counts": [-80, 1080, 0, 0]},
        {"counts": [2**70, 900, 20, 0]},
        {"counts": 3},
        {"counts": [[80, 900, 20, 0]]},
        {"counts": [80, 900, 20, 0], "sums": [1, 2, 3]},
    ],
}


@pytest.mark.parametrize("field", EDITS)
def test_an_edited_number_is_named(tmp_path, field):
    (tmp_path / "c.jsonl").write_text(edited(EDITS[field]))
    with pytest.raises(RecordError, match=rf"c\.jsonl, line 2: `{field}` is .* the counts give"):
        Certificates.from_jsonl(tmp_path / "c.jsonl")


@pytest.mark.parametrize(
    ("field", "value"), [(f, v) for f, values in BROKEN.items() for v in values]
)
def test_a_field_of_the_wrong_kind_is_named(tmp_path, field, value):
    (tmp_path / "c.jsonl").write_text(edited(lambda r: r.update({field: value})))
    with pytest.raises(RecordError, match=rf"c\.jsonl, line 2: `{field}`"):
        Certificates.from_jsonl(tmp_path / "c.jsonl")


@pytest.mark.parametrize("field", ["index", "label", "radius", "selection", "estimation", "terms"])
def test_a_missing_field_is_named(tmp_path, field):
    (tmp_path / "c.jsonl").write_text(edited(lambda r: r.pop(field), line=4))
    with pytest.raises(RecordError, match=rf"c\.jsonl, line 5: `{field}`"):
        Certificates.from_jsonl(tmp_path / "c.jsonl")


def test_edited_counts_no_longer_give_the_numbers(tmp_path):
    counts = {"counts": [70, 910, 20, 0]}
    (tmp_path / "c.jsonl").write_text(edited(lambda r: r.update(estimation=counts)))
    with pytest.raises(RecordError, match=r"line 2: `radius`"):
        Certificates.from_jsonl(tmp_path / "c.jsonl")


def test_the_line_is_the_files(tmp_path):
    (tmp_path / "c.jsonl").write_text("\n\n" + edited(EDITS["radius"]))
    with pytest.raises(RecordError, match="line 4: `radius`"):
        Certificates.from_jsonl(tmp_path / "c.jsonl")


def test_terms_edited_everywhere_no_longer_give_the_numbers(tmp_path):
    text = records.jsonl(five())
    for old, new in (('"sigma":0.5', '"sigma":0.6'), ('"alpha":0.001', '"alpha":0.01')):
        assert old in text
        (tmp_path / "c.jsonl").write_text(text.replace(old, new))
        with pytest.raises(RecordError, match=r"line 1: `(radius|p_lower)`"):
            Certificates.from_jsonl(tmp_path / "c.jsonl")
    (tmp_path / "c.jsonl").write_text(text.replace('"n":1000', '"n":2000'))
    with pytest.raises(RecordError, match=r"line 1: `estimation`.* 2000"):
        Certificates.from_jsonl(tmp_path / "c.jsonl")


def test_a_truncated_file_is_refused_unless_whole_records_are_left(tmp_path):
    text = records.jsonl(five())
    ends = {i + 1 for i, c in enumerate(text) if c == "\n"} | {
        i for i, c in enumerate(text) if c == "\n"
    }
    for length in range(0, len(text), 7):
        if length in ends:
            continue
        (tmp_path / "c.jsonl").write_text(text[:length])
        line = text[:length].count("\n") + 1
        with pytest.raises(RecordError, match=rf"line {line}: not JSON" if length else "holds no"):
            Certificates.from_jsonl(tmp_path / "c.jsonl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no certificates"),
        (b"\n\n", "holds no certificates"),
        (b"[]\n", "line 1: not a certificate"),
        (b'{"format": 2}\n', "line 1: not a certificate"),
        (b"\xff\xfe\n", "not text"),
        (b"[" * 100_000, "line 1: not JSON"),
    ],
)
def test_what_holds_no_certificates_is_refused(tmp_path, content, message):
    (tmp_path / "c.jsonl").write_bytes(content)
    with pytest.raises(RecordError, match=message):
        Certificates.from_jsonl(tmp_path / "c.jsonl")


def test_mixed_terms_are_refused(tmp_path):
    text = records.jsonl(five()) + records.jsonl(five(alpha=0.01))
    (tmp_path / "c.jsonl").write_text(text)
    with pytest.raises(RecordError, match="different terms"):
        Certificates.from_jsonl(tmp_path / "c.jsonl")


@pytest.mark.parametrize("make", [five, soft], ids=["argmax", "softmax"])
def test_parquet_has_a_row_per_example(tmp_path, make):
    pq = pytest.importorskip("pyarrow.parquet")
    made = make()
    made.to_parquet(tmp_path / "c.parquet")
    table = pq.read_table(tmp_path / "c.parquet")
    for name in ("index", "prediction", "radius", "p_lower", "p_upper"):
        assert table[name].to_pylist() == getattr(made, name).tolist()
    assert table["estimation_counts"].to_pylist() == made.counts.tolist()
    assert table["selection_counts"].to_pylist() == made.selection.counts.tolist()
    assert ("estimation_squares" in table.column_names) == (made.estimation.squares is not None)
    labels = [None] * len(made) if made.labels is None else made.labels.tolist()
    assert table["label"].to_pylist() == labels
    stored = json.loads(table.schema.metadata[b"pixeldp_fast.terms"])
    assert stored == made.terms.to_dict()


def test_parquet_names_the_extra_it_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pixeldp_fast\[parquet\]"):
        five().to_parquet(tmp_path / "c.parquet")


def test_files_are_written_whole(tmp_path, monkeypatch):
    five().to_jsonl(tmp_path / "c.jsonl")
    before = (tmp_path / "c.jsonl").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        soft().to_jsonl(tmp_path / "c.jsonl")
    assert [p.name for p in tmp_path.iterdir()] == ["c.jsonl"]
    assert (tmp_path / "c.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("guarantee", "exact for every float"),
        ("guarantee", None),
        ("scores", "median"),
        ("bound", "best"),
        ("seed", 2**70),
        ("alpha", 1.5),
        ("sensitivities", {"2": True}),
        ("sensitivities", {"2": 0.0}),
        ("model_fingerprint", None),
        ("n", 0),
        ("split", "all of alpha, twice"),
        ("competitor", "runner-up"),
        ("stop", "when it looked good"),
    ],
)
def test_terms_that_no_certificate_has_are_refused(tmp_path, field, value):
    def edit(record):
        record["terms"] = record["terms"] | {field: value}

    lines = [json.loads(line) for line in records.jsonl(five()).splitlines()]
    for record in lines:
        edit(record)
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines))
    with pytest.raises(RecordError, match=f"terms.*{field}"):
        Certificates.from_jsonl(tmp_path / "c.jsonl")


def test_a_label_outside_the_classes_is_refused(tmp_path):
    (tmp_path / "c.jsonl").write_text(edited(lambda r: r.update(label=7)))
    with pytest.raises(RecordError, match="`label` is 7"):
        Certificates.from_jsonl(tmp_path / "c.jsonl")


def test_recertify_checks_what_it_is_asked():
    for options, message in (
        ({"alpha": 1.5}, "alpha"),
        ({"alpha": [0.1, 0.2]}, "alpha"),
        ({"bound": "proof"}, "tight"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            five().recertify(**options)


def test_a_missing_folder_is_named(tmp_path):
    for write in ("to_jsonl", "to_tsv"):
        with pytest.raises(FileNotFoundError, match="nowhere for c does not exist"):
            getattr(five(), write)(tmp_path / "nowhere" / "c")
