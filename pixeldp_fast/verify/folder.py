"""A run's folder: its manifest, every shard, and that the certificates are their sum."""

from __future__ import annotations

import array
import hashlib
import json
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixeldp_fast.errors import RecordError
from pixeldp_fast.verify.claim import Claim
from pixeldp_fast.verify.findings import Check
from pixeldp_fast.verify.reading import FORMAT, TALLIES, Records, Row, parsed

MANIFEST, SHARDS = "manifest.json", "shards"
CERTIFICATES, DECISIONS = "certificates.jsonl", "decisions.jsonl"
_NAME = re.compile(r"(selection|estimation)-e(\d{10})-(\d{10})-d(\d{10})-(\d{10})\.json")
_MANIFEST_KEYS = {"format", "terms", "data", "indices", "labels", "shards"}
_SHARD_KEYS = {"format", "manifest", "purpose", "examples", "draws", "counts", "checksum"}
_SOFT_KEYS = {"sums", "squares"}

Tally = dict[str, list[int]]
Range = tuple[int, int]


@dataclass(frozen=True)
class Manifest:
    """What a run's folder says of itself.

    Parameters
    ----------
    content : dict
    digest : str
        sha256 of its bytes, which every shard repeats.
    index : list of int
        The examples' positions in the data set.
    """

    content: dict[str, Any]
    digest: str
    index: list[int]

    @property
    def result(self) -> str:
        """The name of the file that the run ends with."""
        return DECISIONS if "radii" in self.content else CERTIFICATES

    @property
    def data_fingerprint(self) -> Any:
        """sha256 of the examples, as stored."""
        data = self.content["data"]
        return data.get("fingerprint") if isinstance(data, dict) else None


def is_run(path: Path) -> bool:
    """Whether this is the folder of a run."""
    return (path / MANIFEST).is_file()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a complete run.

    Raises
    ------
    RecordError
        When it is damaged or of another format, or the run is not complete.
    """
    path = folder / MANIFEST
    data = path.read_bytes()
    content = parsed(str(path), data)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RecordError(f"{path}: `format` is not {FORMAT}, the one known here.")
    odd = sorted(content.keys() - {"radii"} ^ _MANIFEST_KEYS)
    if odd:
        raise RecordError(f"{path}: {', '.join(map(repr, odd))} is missing or not known here.")
    index = _indices(path, content["indices"])
    manifest = Manifest(content, hashlib.sha256(data).hexdigest(), index)
    if not (folder / manifest.result).is_file():
        raise RecordError(
            f"{folder} is not complete: it has no {manifest.result}, so nothing is certified yet. "
            "Resume the run first."
        )
    return manifest


def _indices(path: Path, text: Any) -> list[int]:
    """Positions from text like "0:41:20,7": runs of equal steps as first:end:step."""
    found: list[int] = []
    try:
        for part in text.split(","):
            numbers = [int(v) for v in part.split(":")]
            if len(numbers) not in (1, 3):
                raise ValueError(f"{part!r} is neither a position nor a run of them")
            found.extend(range(*numbers) if len(numbers) == 3 else numbers)
    except (AttributeError, ValueError) as error:
        raise RecordError(f"{path}: `indices` cannot be read: {error}.") from error
    return found


def check_folder(folder: Path, manifest: Manifest, records: Records) -> list[Check]:
    """Compare the certificates with the manifest and with the sum of the shards."""
    return [_against_manifest(manifest, records), _against_shards(folder, manifest, records)]


def _against_manifest(manifest: Manifest, records: Records) -> Check:
    check = Check("manifest", "terms, examples and labels are those that the run began with")
    terms, content, result = records.claim.terms, manifest.content, manifest.result
    check.examined = len(terms) + 2
    began = content["terms"] if isinstance(content["terms"], dict) else {}
    for name in {**terms, **began}:
        ours, first = terms.get(name, "absent"), began.get(name, "absent")
        if ours != first:
            check.add(result, f"terms.{name}", f"is {ours!r}, but the run began with {first!r}")
    if [row["index"] for row in records.rows] != manifest.index:
        check.add(result, "index", "is not the list of examples of the manifest, in order")
    if records.decided and any(row["radii"] != content.get("radii") for row in records.rows):
        check.add(result, "radii", "are not those of the manifest")
    if _labels_fingerprint([row["label"] for row in records.rows]) != content["labels"]:
        check.add(result, "label", "the labels' sha256 is not that of the manifest")
    return check


def _labels_fingerprint(labels: list[int | None]) -> str | None:
    """sha256 over the labels as little-endian 64-bit integers; None without labels."""
    if None in labels:
        return None
    values = array.array("q", [label for label in labels if label is not None])
    if sys.byteorder == "big":
        values.byteswap()
    return hashlib.sha256(values.tobytes()).hexdigest()


def _against_shards(folder: Path, manifest: Manifest, records: Records) -> Check:
    check = Check("shards", "checksums, every draw once, and their sum is what was judged")
    held: dict[tuple[str, int], list[tuple[Range, Tally]]] = defaultdict(list)
    for path in sorted((folder / SHARDS).glob("*")):
        check.examined += 1
        try:
            purpose, examples, draws, rows = _shard(path, manifest, records.claim)
        except RecordError as error:
            check.add(f"{SHARDS}/{path.name}", "shard", str(error))
            continue
        for place, tally in zip(range(*examples), rows, strict=True):
            if sum(tally["counts"]):  # none where the example had stopped
                held[purpose, place].append((draws, tally))
    beyond = sorted({place for _, place in held if place >= len(records.rows)})
    if beyond:
        check.add(SHARDS, "examples", f"from {beyond[0]} on are not among those of the run")
    for place, row in enumerate(records.rows):
        for name in TALLIES:
            _check_sum(check, row, name, held[name, place])
    return check


def _check_sum(check: Check, row: Row, name: str, parts: list[tuple[Range, Tally]]) -> None:
    """Whether an example's shards hold each of its draws once, and its counts."""
    if not _tiles(sorted(draws for draws, _ in parts), sum(row[name]["counts"])):
        check.add(row.where, f"{name}.draws", "are not in the shards, every one once")
        return
    for part, numbers in row[name].items():
        columns = zip(*(tally[part] for _, tally in parts), strict=True)
        if [sum(column) for column in columns] != numbers:
            check.add(row.where, f"{name}.{part}", "is not the sum of the shards")


def _shard(path: Path, manifest: Manifest, claim: Claim) -> tuple[str, Range, Range, list[Tally]]:
    """Purpose, examples, draws and tallies of one shard, every part of it checked.

    Raises
    ------
    RecordError
        Saying what is wrong with it.
    """
    name = _NAME.fullmatch(path.name)
    if name is None:
        raise RecordError("is no shard's name")
    content = parsed("its content", path.read_bytes())
    parts = ["counts", *(sorted(_SOFT_KEYS) if claim["scores"] == "softmax" else [])]
    if not isinstance(content, dict) or content.keys() != _SHARD_KEYS | set(parts[1:]):
        raise RecordError("does not have the fields of a shard of this run")
    body = json.dumps({k: content[k] for k in content if k != "checksum"}, separators=(",", ":"))
    if hashlib.sha256(body.encode()).hexdigest() != content["checksum"]:
        raise RecordError("`checksum` is not that of its content: edited")
    a, b, i, j = (int(v) for v in name.groups()[1:])
    stated = (content["format"], content["purpose"], content["examples"], content["draws"])
    if stated != (FORMAT, name[1], [a, b], [i, j]):
        raise RecordError("says another format, purpose or place than its name")
    if content["manifest"] != manifest.digest:
        raise RecordError("`manifest` is the sha256 of another manifest than the folder's")
    rows = [
        dict(zip(parts, row, strict=True))
        for row in zip(*(content[part] for part in parts), strict=True)
    ]
    stops = claim["stop"] != "fixed" and name[1] == "estimation"
    _check_shape(rows, claim, b - a, {j - i, 0} if stops else {j - i})
    return name[1], (a, b), (i, j), rows


def _check_shape(rows: list[Tally], claim: Claim, examples: int, draws: set[int]) -> None:
    classes = claim["num_classes"]
    widths = {"counts": classes + 1, "sums": classes, "squares": classes}
    if len(rows) != examples or any(
        len(row[part]) != widths[part] or any(type(v) is not int or v < 0 for v in row[part])
        for row in rows
        for part in row
    ):
        raise RecordError("does not hold the run's examples and classes")
    if any(sum(row["counts"]) not in draws for row in rows):
        raise RecordError("`counts` do not add up to its draws")


def _tiles(ranges: list[Range], end: int) -> bool:
    """Whether sorted ranges follow each other from 0 to `end`."""
    firsts = [first for first, _ in ranges] + [end]
    return firsts == [0, *(last for _, last in ranges)]
