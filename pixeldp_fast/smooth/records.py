"""Certificates in the formats the field uses: Cohen's TSV, JSON lines, Parquet."""

from __future__ import annotations

import datetime
import json
import math
import os
from collections.abc import Callable
from decimal import ROUND_FLOOR, Context, Decimal
from pathlib import Path
from typing import Any

import numpy as np

from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.errors import InvalidArgument, MissingExtra, RecordError
from pixeldp_fast.files import write_whole
from pixeldp_fast.smooth.certificate import Certificates
from pixeldp_fast.smooth.judge import Terms
from pixeldp_fast.types import ABSTAIN

FORMAT = 1
TSV_HEADER = ("idx", "label", "predict", "radius", "correct", "time")
TSV_STEP = Decimal("0.000001")
SAME = 1e-9  # relative; how far two versions of a special function may move a safe number


def write_tsv(certificates: Certificates, path: str | os.PathLike[str]) -> None:
    """Cohen's columns: idx, label, predict, radius, correct, time.

    Behind them, `competitor` where it is not the complement, and `draws` where some stopped early.

    Guarantee
        Radii are printed rounded down (Cohen's scripts print to nearest, which can overstate).
    """
    if certificates.labels is None:
        raise InvalidArgument("Cohen's TSV has a label column: pass `labels`.")
    more = _more_columns(certificates)
    lines = ["\t".join((*TSV_HEADER, *more))]
    for i, one in enumerate(certificates):
        seconds = 0.0 if certificates.seconds is None else float(certificates.seconds[i])
        lines.append(
            f"{one.index}\t{one.label}\t{one.prediction}\t{_floored(one.radius)}\t"
            f"{int(one.prediction == one.label)}\t"
            + "\t".join((_clock(seconds), *(str(column[i]) for column in more.values())))
        )
    write_whole(path, "\n".join(lines) + "\n")


def _more_columns(certificates: Certificates) -> dict[str, list[Any]]:
    """What a reader of Cohen's columns would not expect, named."""
    terms, found = certificates.terms, dict[str, list[Any]]()
    if terms is not None and terms.competitor != "complement":
        found["competitor"] = [terms.competitor] * len(certificates)
    if terms is not None and terms.stop != "fixed":
        found["draws"] = certificates.draws.tolist()
    return found


def _floored(radius: float) -> str:
    if radius == float("inf"):
        return "inf"
    return str(Decimal(radius).quantize(TSV_STEP, ROUND_FLOOR, Context(prec=400)))


def _clock(seconds: float) -> str:
    text = str(datetime.timedelta(seconds=round(seconds, 6)))
    return text if "." in text else text + ".000000"


def read_tsv(path: str | os.PathLike[str]) -> Certificates:
    """Read Cohen's columns; extra ones are ignored, the time may be missing.

    Guarantee
        Radii are lowered by half a unit of the last printed digit: files of Cohen's own scripts
        are rounded to nearest, and nothing in a file tells which rounding made it.
    Fidelity
        A TSV holds no counts, level or noise: it gives summaries and plots, never a new claim.
    """
    lines = Path(path).read_text().splitlines()
    columns = lines[0].split("\t") if lines else []
    missing = [c for c in TSV_HEADER[:4] if c not in columns]
    if missing:
        raise RecordError(
            f"{path} is not one of Cohen's TSV files: no column {', '.join(missing)}."
        )
    rows = [line.split("\t") for line in lines[1:] if line.strip()]
    try:
        table = [[row[columns.index(c)].strip() for c in TSV_HEADER[:4]] for row in rows]
        index, labels, prediction = (
            np.array([int(row[c]) for row in table], dtype=np.int64) for c in range(3)
        )
        radius = np.array([_lowered(row[3]) for row in table], dtype=np.float64)
    except (IndexError, ValueError, ArithmeticError) as error:
        raise RecordError(f"{path} is not one of Cohen's TSV files: {error}") from error
    if np.any(prediction < ABSTAIN):
        raise RecordError(f"{path} holds predictions below -1.")
    radius = np.where(prediction == ABSTAIN, 0.0, radius)
    unknown = np.full(len(table), np.nan)
    return Certificates(index, prediction, radius, unknown, unknown, None, None, None, labels)


def _lowered(text: str) -> float:
    value = Decimal(text)
    if not (value >= 0):
        raise ValueError(f"radius {text!r} is not a number of at least 0")
    if value.is_infinite() or value == 0:
        return float(value)
    exponent = int(value.as_tuple().exponent)
    lowered = max(value - Decimal(5).scaleb(exponent - 1), Decimal(0))
    return float(np.nextafter(float(lowered), 0.0))


def write_jsonl(certificates: Certificates, path: str | os.PathLike[str]) -> None:
    """One record per line, each complete: terms, both tallies, and the judged numbers."""
    write_whole(path, jsonl(certificates))


def jsonl(certificates: Certificates) -> str:
    """The text of `write_jsonl`; equal certificates give equal bytes."""
    selection, estimation = certificates._tallies()
    terms = certificates._terms().to_dict()
    lines = []
    for i, one in enumerate(certificates):
        record = {
            "format": FORMAT,
            "index": one.index,
            "label": one.label,
            "prediction": one.prediction,
            "radius": one.radius,
            "p_lower": one.p_lower,
            "p_upper": one.p_upper,
            "selection": tally_record(selection, i),
            "estimation": tally_record(estimation, i),
            "terms": terms,
        }
        lines.append(json.dumps(record, separators=(",", ":")))
    return "".join(line + "\n" for line in lines)


def tally_record(tally: Tally, i: int) -> dict[str, list[int]]:
    """One example's row of a tally as plain values."""
    parts = {"counts": tally.counts, "sums": tally.sums, "squares": tally.squares}
    return {name: array[i].tolist() for name, array in parts.items() if array is not None}


def read_jsonl(path: str | os.PathLike[str]) -> Certificates:
    """Read what `write_jsonl` wrote, and judge it again.

    Guarantee
        The numbers returned are those that the counts give here and now; the stored ones only have
        to agree with them to 1e-9 relative.

    Raises
    ------
    RecordError
        With the line and field, when a line is truncated or unreadable, a field is missing or of
        the wrong kind, a tally is partial, the terms differ between lines, or a stored number is
        not what its counts give.
    """
    lines = [(f"{path}, line {i}", _parsed(path, i, line)) for i, line in numbered_lines(path)]
    if not lines:
        raise RecordError(f"{path} holds no certificates.")
    terms = _shared_terms(lines)
    for where, record in lines:
        _check_fields(where, record, terms)
    records = [record for _, record in lines]
    labels = [r["label"] for r in records]
    try:
        certificates = Certificates.judged(
            terms,
            np.array([r["index"] for r in records], dtype=np.int64),
            tally_of([r["selection"] for r in records]),
            tally_of([r["estimation"] for r in records]),
            None if None in labels else np.array(labels, dtype=np.int64),
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise RecordError(f"{path} is not a file of certificates: {error}") from error
    for name in ("prediction", "radius", "p_lower", "p_upper"):
        given = getattr(certificates, name).tolist()
        for (where, record), value in zip(lines, given, strict=True):
            if not math.isclose(record[name], value, rel_tol=SAME, abs_tol=0.0):
                raise RecordError(
                    f"{where}: `{name}` is {record[name]}, but the counts give {value}: the record "
                    "was edited, or made by another version."
                )
    return certificates


def _shared_terms(lines: list[tuple[str, dict[str, Any]]]) -> Terms:
    first_where, first = lines[0]
    for where, record in lines:
        if "terms" not in record:
            raise RecordError(f"{where}: `terms` is missing.")
        if record["terms"] != first["terms"]:
            raise RecordError(f"{where}: different terms than before; split the file by terms.")
    try:
        return Terms.from_dict(first["terms"])
    except RecordError as error:
        raise RecordError(f"{first_where}: `terms`: {error}") from error


def _check_fields(where: str, record: dict[str, Any], terms: Terms) -> None:
    """Refuse a record in which a field is missing or cannot be what was written, by name."""
    for name, (fits, kind) in _KINDS.items():
        if name not in record or not fits(record[name]):
            raise RecordError(f"{where}: `{name}` is missing or not {kind}.")
    k = terms.num_classes
    if record["label"] is not None and not 0 <= record["label"] < k:
        raise RecordError(f"{where}: `label` is {record['label']}, not a class in [0, {k}).")
    widths = {"counts": k + 1} | ({} if terms.scores == "argmax" else {"sums": k, "squares": k})
    ends = [draws for draws, _ in terms.looks]
    for name, draws in (("selection", [terms.n0]), ("estimation", ends)):
        tally = record.get(name)
        if not (isinstance(tally, dict) and tally.keys() == widths.keys()):
            raise RecordError(f"{where}: `{name}` must hold {', '.join(widths)}.")
        for part, width in widths.items():
            row = tally[part]
            if not (isinstance(row, list) and len(row) == width and all(map(is_count, row))):
                raise RecordError(f"{where}: `{name}` must hold {width} integers as {part}.")
        found = sum(tally["counts"])
        if found not in draws:
            needed = " or ".join(map(str, draws))
            raise RecordError(
                f"{where}: `{name}` holds {found} draws, not {needed}: partial or edited."
            )


def _is_integer(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def is_count(value: Any) -> bool:
    """Whether a JSON value is an integer of at least 0 that int64 holds."""
    return _is_integer(value) and value >= 0


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "index": (is_count, "an integer of at least 0"),
    "label": (lambda v: v is None or _is_integer(v), "an integer or null"),
    "prediction": (_is_integer, "an integer"),
    **dict.fromkeys(
        ("radius", "p_lower", "p_upper"), (lambda v: type(v) in (int, float), "a number")
    ),
}


def numbered_lines(path: str | os.PathLike[str]) -> list[tuple[int, str]]:
    """The lines of a text file that are not empty, numbered from 1."""
    try:
        text = Path(path).read_text()
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is not text: {error}") from error
    return [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]


def _parsed(path: str | os.PathLike[str], number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}, line {number}: not JSON (truncated?): {error}") from error
    if not (isinstance(record, dict) and record.get("format") == FORMAT):
        raise RecordError(f"{path}, line {number}: not a certificate of format {FORMAT}.")
    return record


def tally_of(records: list[dict[str, Any]]) -> Tally:
    """The tally whose rows these are."""

    def column(name: str) -> Any:
        rows = [r[name] for r in records if name in r]
        return np.array(rows, dtype=np.int64) if rows else None

    return Tally(column("counts"), column("sums"), column("squares"))


def write_parquet(certificates: Certificates, path: str | os.PathLike[str]) -> None:
    """One row per example; the terms as JSON in the schema's metadata.

    Raises
    ------
    MissingExtra
        Without pyarrow.
    """
    selection, estimation = certificates._tallies()
    columns = {
        "index": certificates.index,
        "label": certificates.labels,
        "prediction": certificates.prediction,
        "radius": certificates.radius,
        "p_lower": certificates.p_lower,
        "p_upper": certificates.p_upper,
        **tally_columns(selection, estimation),
    }
    write_columns(path, columns, {"terms": certificates._terms().to_dict()})


def write_columns(
    path: str | os.PathLike[str], columns: dict[str, Any], metadata: dict[str, Any]
) -> None:
    """A Parquet file of columns, an absent one (None) as nulls, and JSON values beside them."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra("Parquet needs pyarrow: pip install 'pixeldp_fast[parquet]'.") from error
    rows = len(columns["index"])
    table = pa.table(
        {k: pa.nulls(rows, pa.int64()) if v is None else v for k, v in columns.items()},
        metadata={f"pixeldp_fast.{name}": json.dumps(v) for name, v in metadata.items()},
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_whole(path, sink.getvalue().to_pybytes())


def tally_columns(selection: Tally, estimation: Tally) -> dict[str, list[list[int]]]:
    """Both tallies as columns of lists, named like "estimation_counts"."""
    return {
        f"{name}_{part}": getattr(tally, part).tolist()
        for name, tally in (("selection", selection), ("estimation", estimation))
        for part in ("counts", "sums", "squares")
        if getattr(tally, part) is not None
    }
