"""Records from JSON lines and Parquet, field by field, without the code that wrote them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixeldp_fast.errors import MissingExtra, RecordError
from pixeldp_fast.verify.claim import Claim, is_number, read_claim

FORMAT = 1
CERTIFICATES, DECISIONS = "certificates", "decisions"
TALLIES = ("selection", "estimation")
_PARQUET_TERMS, _PARQUET_RADII = b"pixeldp_fast.terms", b"pixeldp_fast.radii"
_MAGIC = b"PAR1"


@dataclass(frozen=True)
class Row:
    """One example's record.

    Parameters
    ----------
    where : str
        The example and its place in the file.
    record : dict
        As stored.
    """

    where: str
    record: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.record[name]


@dataclass(frozen=True)
class Records:
    """A file's records, which share one claim."""

    claim: Claim
    rows: list[Row]

    @property
    def decided(self) -> bool:
        """Whether they are decisions about radii, not certificates."""
        return bool(self.claim["stop"] == "decided")


def read_records(path: Path) -> Records:
    """The records of a JSON lines or Parquet file.

    Raises
    ------
    RecordError
        Naming the line and the field, when the file is truncated, holds nothing, or a field is
        missing, unknown or of the wrong kind, or when the terms differ between lines.
    """
    if not path.is_file():
        raise RecordError(f"{path} is no file of certificates and no run's folder.")
    if path.suffix == ".tsv":
        raise RecordError(
            f"{path} holds radii alone: without counts there is nothing to re-derive. Verify the "
            "certificates.jsonl or the folder of its run."
        )
    with path.open("rb") as file:
        parquet = file.read(len(_MAGIC)) == _MAGIC
    records, terms = _parquet(path) if parquet else _json_lines(path)
    if not records:
        raise RecordError(f"{path} holds no certificates.")
    try:
        claim = read_claim(terms)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error
    for place, record in records:
        _check_form(f"{path}, {place}", record, claim)
    rows = [Row(f"example {record['index']} ({place})", record) for place, record in records]
    return Records(claim, rows)


def parsed(where: str, text: bytes | str) -> Any:
    """JSON in which no name is given twice and no number is infinite or NaN.

    Raises
    ------
    RecordError
        For anything else.
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{where}: not JSON (truncated or damaged?): {error}") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise ValueError(f"`{twice}` is given twice")
    return found


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of a record")


def _json_lines(path: Path) -> tuple[list[tuple[str, dict[str, Any]]], Any]:
    records: list[tuple[str, dict[str, Any]]] = []
    terms: Any = None
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        place = f"line {number}"
        record = parsed(f"{path}, {place}", line)
        if not isinstance(record, dict):
            raise RecordError(f"{path}, {place}: not a record.")
        if record.pop("format", None) != FORMAT:
            raise RecordError(f"{path}, {place}: `format` is not {FORMAT}, the one known here.")
        kind = record.pop("kind", CERTIFICATES)
        if kind not in (CERTIFICATES, DECISIONS):
            raise RecordError(f"{path}, {place}: `kind` is {kind!r}, which is not known here.")
        own = record.pop("terms", None)
        if kind != (DECISIONS if _stop(own) == "decided" else CERTIFICATES):
            raise RecordError(f"{path}, {place}: `kind` is {kind!r}, with stop={_stop(own)!r}.")
        if records and own != terms:
            raise RecordError(
                f"{path}, {place}: {differing(terms, own)} unlike the lines before; a file's "
                "records share their terms."
            )
        terms = own
        records.append((place, record))
    return records, terms


def _stop(terms: Any) -> Any:
    return terms.get("stop") if isinstance(terms, dict) else None


def differing(ours: Any, theirs: Any) -> str:
    """The names of the terms in which two records differ, with both values."""
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return "`terms` is missing or"
    names = [k for k in {**ours, **theirs} if ours.get(k) != theirs.get(k)]
    return ", ".join(f"`terms.{k}` is {theirs.get(k)!r}, not {ours.get(k)!r}," for k in names)


def _parquet(path: Path) -> tuple[list[tuple[str, dict[str, Any]]], Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra("Parquet needs pyarrow: pip install 'pixeldp_fast[parquet]'.") from error
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise RecordError(f"{path} is truncated or no Parquet file: {error}") from error
    stored = (table.schema.metadata or {}).get(_PARQUET_TERMS)
    if stored is None:
        raise RecordError(f"{path}: `terms` is missing from the metadata of the table.")
    terms = parsed(f"{path}, terms", stored)
    rows = [_nested(row) for row in table.to_pylist()]
    radii = table.schema.metadata.get(_PARQUET_RADII)
    for row in rows if radii is not None else []:
        row["radii"] = parsed(f"{path}, radii", radii)
    return [(f"row {i}", row) for i, row in enumerate(rows, 1)], terms


def _nested(row: dict[str, Any]) -> dict[str, Any]:
    """A table's row as the record it came from: `estimation_counts` is `counts` of a tally."""
    record: dict[str, Any] = {}
    for name, value in row.items():
        head, _, part = name.partition("_")
        if head in TALLIES:
            record.setdefault(head, {})[part] = value
        else:
            record[name] = value
    return record


def _check_form(where: str, record: dict[str, Any], claim: Claim) -> None:
    """Refuse a record with a field that is missing, unknown, or not of the kind that is written."""
    fields = _FIELDS | (_DECISION_FIELDS if claim["stop"] == "decided" else {})
    unknown = sorted(map(str, record.keys() - fields.keys() - set(TALLIES)))
    if unknown:
        raise RecordError(
            f"{where}: `{'`, `'.join(unknown)}` is not known to this verification, which refuses "
            "the record rather than ignore a part of it."
        )
    for name, (fits, kind) in fields.items():
        if name not in record or not fits(record[name]):
            raise RecordError(f"{where}: `{name}` is missing or not {kind}.")
    classes = claim["num_classes"]
    widths = {"counts": classes + 1}
    if claim["scores"] == "softmax":
        widths |= {"sums": classes, "squares": classes}
    for name in TALLIES:
        tally = record.get(name)
        if not (isinstance(tally, dict) and tally.keys() == widths.keys()):
            raise RecordError(f"{where}: `{name}` must hold {', '.join(widths)} and nothing else.")
        for part, width in widths.items():
            numbers = tally[part]
            if not (
                isinstance(numbers, list) and len(numbers) == width and all(map(_counts, numbers))
            ):
                raise RecordError(f"{where}: `{name}.{part}` must be {width} integers from 0 on.")


def _counts(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "index": (lambda v: _counts(v) and v < 2**32 - 1, "an integer in [0, 2^32 - 2]"),
    "label": (lambda v: v is None or type(v) is int, "an integer or null"),
    "prediction": (lambda v: type(v) is int, "an integer"),
    **dict.fromkeys(("radius", "p_lower", "p_upper"), (is_number, "a finite number")),
}


def _list_of(fits: Callable[[Any], bool], width: int | None = None) -> Callable[[Any], bool]:
    return lambda v: (
        isinstance(v, list) and len(v) == (width or max(1, len(v))) and all(map(fits, v))
    )


_DECISION_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "radii": (_list_of(lambda v: is_number(v) and v >= 0), "a list of finite numbers from 0 on"),
    "status": (_list_of(lambda v: type(v) is int and -1 <= v <= 1), "a list of 1, 0 and -1"),
    "draws": (_counts, "an integer of at least 0"),
    **dict.fromkeys(("lower_at", "upper_at"), (_list_of(_counts, 2), "hits and draws")),
}
