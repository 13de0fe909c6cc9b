"""Decisions in files: JSON lines that are judged again when read, and Parquet."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import numpy as np

from pixeldp_fast.errors import InvalidArgument, RecordError
from pixeldp_fast.files import write_whole
from pixeldp_fast.smooth.decide import as_radii
from pixeldp_fast.smooth.decisions import Decisions
from pixeldp_fast.smooth.judge import Terms
from pixeldp_fast.smooth.records import (
    SAME,
    is_count,
    numbered_lines,
    tally_columns,
    tally_of,
    tally_record,
    write_columns,
)

FORMAT = 1
KIND = "decisions"
_NUMBERS = ("prediction", "radius", "p_lower", "p_upper")


def write_jsonl(decisions: Decisions, path: str | os.PathLike[str]) -> None:
    """One record per line, each complete: terms, radii, counts, and what they decide."""
    write_whole(path, jsonl(decisions))


def jsonl(decisions: Decisions) -> str:
    """The text of `write_jsonl`; equal decisions give equal bytes."""
    terms, radii, labels = decisions.terms.to_dict(), decisions.radii.tolist(), decisions.labels
    lines = []
    for i in range(len(decisions)):
        record = {
            "format": FORMAT,
            "kind": KIND,
            "index": int(decisions.index[i]),
            "label": None if labels is None else int(labels[i]),
            "radii": radii,
            "status": decisions.status[i].tolist(),
            **{name: getattr(decisions, name)[i].item() for name in _NUMBERS},
            "draws": int(decisions.draws[i]),
            "selection": tally_record(decisions.selection, i),
            "estimation": tally_record(decisions.estimation, i),
            "lower_at": decisions.lower_at[i].tolist(),
            "upper_at": decisions.upper_at[i].tolist(),
            "terms": terms,
        }
        lines.append(json.dumps(record, separators=(",", ":")))
    return "".join(line + "\n" for line in lines)


def read_jsonl(path: str | os.PathLike[str]) -> Decisions:
    """Read what `write_jsonl` wrote, and judge it again.

    Guarantee
        What is returned is what the counts decide here and now; the stored statuses must be those,
        and the stored numbers agree to 1e-9 relative.

    Raises
    ------
    RecordError
        With the line and the field, when a line cannot be read or was edited.
    """
    lines = [(f"{path}, line {i}", _parsed(path, i, line)) for i, line in numbered_lines(path)]
    if not lines:
        raise RecordError(f"{path} holds no decisions.")
    where, first = lines[0]
    try:
        terms, radii = Terms.from_dict(first["terms"]), as_radii(first["radii"])
    except (RecordError, InvalidArgument, KeyError) as error:
        raise RecordError(f"{where}: `terms` or `radii` are not valid: {error}") from error
    for place, record in lines:
        _check_fields(place, record, first, terms)
    records = [record for _, record in lines]
    labels = [r["label"] for r in records]
    decisions = Decisions.judged(
        terms,
        radii,
        _integers(records, "index"),
        tally_of([r["selection"] for r in records]),
        tally_of([r["estimation"] for r in records]),
        _integers(records, "lower_at"),
        _integers(records, "upper_at"),
        None if None in labels else np.array(labels, dtype=np.int64),
    )
    for i, (place, record) in enumerate(lines):
        _check_same(place, record, decisions, i)
    return decisions


def _integers(records: list[dict[str, Any]], name: str) -> Any:
    return np.array([r[name] for r in records], dtype=np.int64)


def _check_same(where: str, record: dict[str, Any], decisions: Decisions, i: int) -> None:
    given = {name: getattr(decisions, name)[i].item() for name in _NUMBERS}
    wrong = [n for n, v in given.items() if not math.isclose(record[n], v, rel_tol=SAME)]
    given |= {"status": decisions.status[i].tolist(), "draws": int(decisions.draws[i])}
    wrong += [name for name in ("status", "draws") if record[name] != given[name]]
    if wrong:
        raise RecordError(
            f"{where}: `{wrong[0]}` is {record[wrong[0]]}, but the counts give {given[wrong[0]]}: "
            "the record was edited, or made by another version."
        )


def _parsed(path: str | os.PathLike[str], number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}, line {number}: not JSON (truncated?): {error}") from error
    known = isinstance(record, dict) and record.get("format") == FORMAT
    if not (known and record.get("kind") == KIND):
        raise RecordError(f"{path}, line {number}: not a decision of format {FORMAT}.")
    return record  # type: ignore[no-any-return]


def _check_fields(where: str, record: dict[str, Any], first: dict[str, Any], terms: Terms) -> None:
    """Refuse a record in which a field is missing or cannot be what was written, by name."""
    for name in ("terms", "radii"):
        if record.get(name) != first[name]:
            raise RecordError(f"{where}: other `{name}` than before; split the file by them.")
    k = terms.num_classes
    label = record.get("label", "missing")
    if label is not None and not (is_count(label) and label < k):
        raise RecordError(f"{where}: `label` must be null or a class in [0, {k}), is {label!r}.")
    for name in _NUMBERS:
        if type(record.get(name)) not in (int, float):
            raise RecordError(f"{where}: `{name}` is missing or not a number.")
    for name, row, width in (
        ("index", [record.get("index")], 1),
        ("draws", [record.get("draws")], 1),
        ("lower_at", record.get("lower_at"), 2),
        ("upper_at", record.get("upper_at"), 2),
        *((part, _counts(record.get(part)), k + 1) for part in ("selection", "estimation")),
    ):
        if not (isinstance(row, list) and len(row) == width and all(map(is_count, row))):
            raise RecordError(f"{where}: `{name}` is missing or not made of {width} counts.")
    if not isinstance(record.get("status"), list):
        raise RecordError(f"{where}: `status` is missing.")


def _counts(tally: Any) -> Any:
    return tally["counts"] if isinstance(tally, dict) and tally.keys() == {"counts"} else None


def write_parquet(decisions: Decisions, path: str | os.PathLike[str]) -> None:
    """One row per example; terms and radii as JSON in the schema's metadata.

    Raises
    ------
    MissingExtra
        Without pyarrow.
    """
    columns = {
        "index": decisions.index,
        "label": decisions.labels,
        "status": decisions.status.tolist(),
        **{name: getattr(decisions, name) for name in _NUMBERS},
        "draws": decisions.draws,
        "lower_at": decisions.lower_at.tolist(),
        "upper_at": decisions.upper_at.tolist(),
        **tally_columns(decisions.selection, decisions.estimation),
    }
    metadata = {"terms": decisions.terms.to_dict(), "radii": decisions.radii.tolist()}
    write_columns(path, columns, metadata)
