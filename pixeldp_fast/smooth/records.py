"""Certificates in the formats the field uses: Cohen's TSV, JSON lines, Parquet."""

from __future__ import annotations

import datetime
import json
import os
from decimal import ROUND_FLOOR, Decimal
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


def write_tsv(certificates: Certificates, path: str | os.PathLike[str]) -> None:
    """Cohen's columns: idx, label, predict, radius, correct, time.

    Guarantee
        Radii are printed rounded down (Cohen's scripts print to nearest, which can overstate).
    """
    if certificates.labels is None:
        raise InvalidArgument("Cohen's TSV has a label column: pass `labels`.")
    lines = ["\t".join(TSV_HEADER)]
    for i, one in enumerate(certificates):
        seconds = 0.0 if certificates.seconds is None else float(certificates.seconds[i])
        lines.append(
            f"{one.index}\t{one.label}\t{one.prediction}\t{_floored(one.radius)}\t"
            f"{int(one.prediction == one.label)}\t{_clock(seconds)}"
        )
    write_whole(path, "\n".join(lines) + "\n")


def _floored(radius: float) -> str:
    if radius == float("inf"):
        return "inf"
    return str(Decimal(radius).quantize(TSV_STEP, rounding=ROUND_FLOOR))


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
            "selection": _tally_record(selection, i),
            "estimation": _tally_record(estimation, i),
            "terms": terms,
        }
        lines.append(json.dumps(record, separators=(",", ":")))
    return "".join(line + "\n" for line in lines)


def _tally_record(tally: Tally, i: int) -> dict[str, list[int]]:
    parts = {"counts": tally.counts, "sums": tally.sums, "squares": tally.squares}
    return {name: array[i].tolist() for name, array in parts.items() if array is not None}


def read_jsonl(path: str | os.PathLike[str]) -> Certificates:
    """Read what `write_jsonl` wrote, and judge it again.

    Raises
    ------
    RecordError
        With the line and field, when a line is truncated or unreadable, the terms differ between
        lines, or a stored number is not what its counts give.
    """
    records = [_parsed(path, number, line) for number, line in _numbered_lines(path)]
    if not records:
        raise RecordError(f"{path} holds no certificates.")
    if any(r["terms"] != records[0]["terms"] for r in records):
        raise RecordError(f"{path} mixes certificates with different terms; split it by terms.")
    try:
        labels = [r["label"] for r in records]
        certificates = Certificates.judged(
            Terms.from_dict(records[0]["terms"]),
            _integers([r["index"] for r in records]),
            _tally([r["selection"] for r in records]),
            _tally([r["estimation"] for r in records]),
            None if any(v is None for v in labels) else _integers(labels),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RecordError(f"{path} is not a file of certificates: {error}") from error
    for name in ("prediction", "radius", "p_lower", "p_upper"):
        stored = np.array([r.get(name) for r in records], dtype=np.float64)
        given = getattr(certificates, name)
        differs = np.flatnonzero(stored != given)
        if differs.size:
            line = differs[0]
            raise RecordError(
                f"{path}, line {line + 1}: `{name}` is {stored[line]}, but the counts give "
                f"{given[line]}: the record was edited, or made by another version."
            )
    return certificates


def _numbered_lines(path: str | os.PathLike[str]) -> list[tuple[int, str]]:
    try:
        text = Path(path).read_text()
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is not text: {error}") from error
    return [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]


def _parsed(path: str | os.PathLike[str], number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise RecordError(f"{path}, line {number}: not JSON (truncated?): {error}") from error
    if not (isinstance(record, dict) and record.get("format") == FORMAT and "terms" in record):
        raise RecordError(f"{path}, line {number}: not a certificate of format {FORMAT}.")
    return record


def _integers(values: list[Any]) -> Any:
    flat = (v for row in values for v in (row if isinstance(row, list) else [row]))
    if not all(isinstance(v, int) for v in flat):
        raise ValueError("an integer field holds something else")
    return np.array(values, dtype=np.int64)


def _tally(records: list[dict[str, Any]]) -> Tally:
    def column(name: str) -> Any:
        return _integers([r[name] for r in records]) if name in records[0] else None

    return Tally(_integers([r["counts"] for r in records]), column("sums"), column("squares"))


def write_parquet(certificates: Certificates, path: str | os.PathLike[str]) -> None:
    """One row per example; the terms as JSON in the schema's metadata.

    Raises
    ------
    MissingExtra
        Without pyarrow.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra("Parquet needs pyarrow: pip install 'pixeldp_fast[parquet]'.") from error
    labels = certificates.labels
    table = pa.table(
        {
            "index": certificates.index,
            "label": pa.nulls(len(certificates), pa.int64()) if labels is None else labels,
            "prediction": certificates.prediction,
            "radius": certificates.radius,
            "p_lower": certificates.p_lower,
            "p_upper": certificates.p_upper,
            "counts": certificates.counts.tolist(),
        },
        metadata={"pixeldp_fast.terms": json.dumps(certificates._terms().to_dict())},
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_whole(path, sink.getvalue().to_pybytes())
