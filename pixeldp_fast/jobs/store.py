"""A run's folder: manifest, shards, and certificates only once every draw is there."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pixeldp_fast.backends.tally import Tally, merge
from pixeldp_fast.errors import RecordError, RunFolderError
from pixeldp_fast.files import write_whole
from pixeldp_fast.jobs.examples import labels_fingerprint
from pixeldp_fast.jobs.folder import (
    CERTIFICATES,
    DECISIONS,
    LOCK,
    MANIFEST,
    SHARDS,
    TIMINGS,
    append_line,
    is_temporary,
    writing,
)
from pixeldp_fast.jobs.indices import pack, unpack
from pixeldp_fast.jobs.shards import Shard, ShardPlan, decode, encode
from pixeldp_fast.noise.stream import Purpose
from pixeldp_fast.smooth.certificate import Certificates
from pixeldp_fast.smooth.judge import Terms
from pixeldp_fast.smooth.records import jsonl, read_jsonl
from pixeldp_fast.types import FloatArray, IntArray

FORMAT = 1


@dataclass(frozen=True)
class Run:
    """A run's folder, complete or not; made by `open_run`.

    Parameters
    ----------
    folder : Path
    manifest : dict
        As stored.
    digest : str
        sha256 of the stored manifest, which every shard repeats.
    terms : Terms
        What the certificates will claim.
    index : int64 [M]
        The examples' positions in the data set.
    plan : ShardPlan
    """

    folder: Path
    manifest: dict[str, Any]
    digest: str
    terms: Terms
    index: IntArray
    plan: ShardPlan

    @property
    def total(self) -> int:
        """Draws of the whole run, over all examples."""
        return self.plan.total

    @property
    def done(self) -> int:
        """Draws whose shards are in the folder."""
        return sum(shard.work for shard in self.plan if self.has(shard))

    def examples_done(self) -> int:
        """Examples of which every draw is in the folder."""
        return sum(
            block[1] - block[0]
            for block in self.plan.blocks()
            if all(self.has(shard) for shard in self.plan.shards_of(block))
        )

    @property
    def complete(self) -> bool:
        """Whether the certificates have been written."""
        return self.path(CERTIFICATES).is_file()

    def certificates(self) -> Certificates:
        """The run's certificates, checked against its manifest and every shard.

        Raises
        ------
        RunFolderError
            When the run is not complete, or a shard is missing or damaged.
        RecordError
            When the stored certificates are not what the shards give.
        """
        if self.terms.stop == "decided":
            raise RunFolderError(
                f"{self.folder} holds decisions about radii, not certificates; read them with "
                f"Decisions.from_jsonl of its {DECISIONS}."
            )
        if not self.complete:
            raise RunFolderError(
                f"{self.folder} is not complete: {self.done} of {self.total} draws are there. "
                "Resume it with certify_dataset and the same arguments."
            )
        stored = read_jsonl(self.path(CERTIFICATES))
        if labels_fingerprint(stored.labels) != self.manifest["labels"]:
            raise RecordError(
                f"The labels in {self.path(CERTIFICATES)} are not those of the run; delete it and "
                "resume."
            )
        if jsonl(self.judged(stored.labels)) != jsonl(stored):
            raise RecordError(
                f"{self.path(CERTIFICATES)} is not what the shards of {self.folder} give; delete "
                "it and resume."
            )
        return replace(stored, seconds=self.seconds())

    def judged(self, labels: IntArray | None) -> Certificates:
        """The certificates that the shards give.

        Guarantee
            Every draw of every example enters exactly once; otherwise nothing is certified.
        """
        blocks = [self._tallies(block) for block in self.plan.blocks()]
        selection, estimation = (merge(list(tallies)) for tallies in zip(*blocks, strict=True))
        return Certificates.judged(
            self.terms, self.index, selection, estimation, labels, self.seconds()
        )

    def path(self, *parts: str) -> Path:
        """A path within the folder."""
        return self.folder.joinpath(*parts)

    def has(self, shard: Shard) -> bool:
        """Whether the shard's file is there."""
        return self.path(SHARDS, shard.name).is_file()

    def tally(self, shard: Shard) -> Tally:
        """The shard's tally, checked."""
        path = self.path(SHARDS, shard.name)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RunFolderError(
                f"{path} cannot be read ({error.strerror}): nothing is certified from a part of "
                "the draws. Resume the run to make them."
            ) from error
        return decode(path, data, shard, self.digest, self.terms)

    def check_shards(self) -> int:
        """Check every shard that is there; their draws.

        Raises
        ------
        RunFolderError
            For a damaged, edited or foreign file, by name.
        """
        with os.scandir(self.path(SHARDS)) as entries:
            strays = [entry.path for entry in entries if self.plan.find(entry.name) is None]
        if strays:
            raise RunFolderError(
                f"{strays[0]} is no shard of this run; move it elsewhere and resume."
            )
        done = 0
        for shard in filter(self.has, self.plan):
            self.tally(shard)
            done += shard.work
        return done

    def add(self, shard: Shard, tally: Tally, seconds: float) -> None:
        """Store one shard whole, its time before it."""
        record = {"shard": shard.name, "examples": list(shard.examples), "seconds": seconds}
        with writing(self.path(TIMINGS)):
            append_line(self.path(TIMINGS), json.dumps(record))
        path = self.path(SHARDS, shard.name)
        with writing(path):
            write_whole(path, encode(shard, self.digest, tally))

    def finish(self, labels: IntArray | None) -> Certificates:
        """Judge the complete run and store its certificates."""
        certificates = self.judged(labels)
        path, text = self.path(CERTIFICATES), jsonl(certificates).encode()
        with writing(path):
            if not (path.is_file() and path.read_bytes() == text):
                write_whole(path, text)
        return certificates

    def seconds(self) -> FloatArray | None:
        """Time spent on every example, shared evenly within a shard; None where none is noted."""
        path = self.path(TIMINGS)
        if not path.is_file():
            return None
        seconds = np.zeros(len(self.index))
        with path.open("rb") as lines:
            for line in lines:
                try:  # a kill can tear a line; times are no part of the result
                    record = json.loads(line)
                    first, end = record["examples"]
                    seconds[first:end] += float(record["seconds"]) / max(1, end - first)
                except (ValueError, KeyError, TypeError):
                    continue
        return seconds

    def _tallies(self, block: tuple[int, int]) -> tuple[Tally, Tally]:
        """The block's selection and estimation tallies."""
        sums: dict[Purpose, Tally] = {}
        for shard in self.plan.shards_of(block):
            later = shard.purpose is Purpose.ESTIMATION and shard.draws[0] > 0
            if self.terms.stop != "fixed" and later and not self.has(shard):
                break  # only draws from the first on count; `judged` refuses what goes on there
            part = self.tally(shard)
            sums[shard.purpose] = sums[shard.purpose] + part if shard.purpose in sums else part
        return sums[Purpose.SELECTION], sums[Purpose.ESTIMATION]


def open_run(folder: str | os.PathLike[str]) -> Run:
    """Read a run's folder, complete or not; another process may be working in it.

    Raises
    ------
    RunFolderError
        When the folder holds no run, or its manifest is damaged.
    """
    path = Path(folder) / MANIFEST
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunFolderError(
            f"{folder} is not the folder of a run: {MANIFEST} cannot be read ({error.strerror})."
        ) from error
    try:
        manifest = json.loads(data)
        if manifest["format"] != FORMAT:
            raise RecordError(f"its format is {manifest['format']!r}, not {FORMAT}")
        terms = Terms.from_dict(manifest["terms"])
        index = unpack(manifest["indices"])
        shards = manifest["shards"]
        looks = tuple(shards.get("looks", ()))
        plan = ShardPlan(len(index), terms.n0, terms.n, shards["examples"], shards["draws"], looks)
        if not (type(plan.block) is type(plan.shard_draws) is int):
            raise RecordError("the sizes of its shards are no integers")
        if min(plan.examples, plan.block, plan.shard_draws) < 1:
            raise RecordError("a size is below 1")
        if looks and not (all(type(t) is int for t in looks) and looks == _rising(looks, terms.n)):
            raise RecordError("its looks do not rise to the cap")
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise RunFolderError(
            f"{path} is damaged or not a run's manifest ({error}); choose another folder."
        ) from error
    return Run(Path(folder), manifest, hashlib.sha256(data).hexdigest(), terms, index, plan)


def _rising(looks: tuple[int, ...], cap: int) -> tuple[int, ...]:
    return (*sorted({t for t in looks if 0 < t < cap}), cap)


def manifest_of(
    terms: Terms,
    plan: ShardPlan,
    index: IntArray,
    data: dict[str, Any],
    labels: str | None,
    radii: FloatArray | None = None,
) -> dict[str, Any]:
    """The manifest of a run.

    Parameters
    ----------
    data : dict
        Name, number of examples and fingerprint of the data set.
    labels : str or None
        The labels' fingerprint.
    radii : float64 [R] or None
        Of a run that decides.
    """
    looks = {"looks": list(plan.looks)} if plan.looks else {}
    asked = {} if radii is None else {"radii": radii.tolist()}
    return {
        "format": FORMAT,
        "terms": terms.to_dict(),
        "data": data,
        "indices": pack(index),
        "labels": labels,
        "shards": {"examples": plan.block, "draws": plan.shard_draws, **looks},
        **asked,
    }


def existing_run(folder: Path, resume: bool) -> Run | None:
    """The run in the folder, or None where one can begin; nothing is written.

    Raises
    ------
    RunFolderError
        For a file, a folder with other things in it, or a run that is not to be resumed.
    """
    try:
        names = sorted(os.listdir(folder)) if folder.exists() else []
    except OSError as error:
        raise RunFolderError(f"{folder} is not a folder to read: {error.strerror}.") from error
    if MANIFEST in names:
        if not resume:
            raise RunFolderError(
                f"{folder} already holds a run and `resume` is False; choose another folder, or "
                "pass resume=True to go on with it."
            )
        return open_run(folder)
    foreign = [name for name in names if name != LOCK and not is_temporary(name)]
    if foreign:
        raise RunFolderError(
            f"{folder} holds {', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''} but no "
            f"{MANIFEST}: it is not the folder of a run. Choose a new or empty one."
        )
    return None


def begin(folder: Path, manifest: dict[str, Any], resume: bool) -> Run:
    """Start the run of this manifest, or go on with it; the caller holds the lock.

    Raises
    ------
    RunFolderError
        With every differing setting, when the folder's run has another manifest.
    """
    earlier = existing_run(folder, resume)
    text = json.dumps(manifest, indent=2) + "\n"
    if earlier is not None:
        _check_same(folder, earlier.manifest, json.loads(text))
    with writing(folder):
        if earlier is None:
            write_whole(folder / MANIFEST, text)
        (folder / SHARDS).mkdir(exist_ok=True)
        for place in (folder, folder / SHARDS):
            for name in filter(is_temporary, os.listdir(place)):
                (place / name).unlink()
    return earlier or open_run(folder)


def _check_same(folder: Path, stored: dict[str, Any], asked: dict[str, Any]) -> None:
    old, new = _flat(stored), _flat(asked)
    nothing = "absent"
    differing = [
        f"{key}: {old.get(key, nothing)} in the folder, {new.get(key, nothing)} asked"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, nothing) != new.get(key, nothing)
    ]
    if differing:
        raise RunFolderError(
            f"{folder} holds a run with other settings:\n  " + "\n  ".join(differing) + "\nResume "
            "it with its own settings, or choose another folder. The same draws can be judged at "
            "another alpha, bound or norm with Certificates.recertify."
        )


def _flat(record: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = json.dumps(value)
    return flat
