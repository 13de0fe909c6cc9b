"""The pieces of a run: additive tallies, each with its place in the plan and a checksum."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.errors import RunFolderError
from pixeldp_fast.noise.stream import Purpose
from pixeldp_fast.smooth.judge import Terms

FORMAT = 1
BLOCK_EXAMPLES = 256  # with BLOCK_VALUES, what is held of a data set at a time: 16 MiB of float32
BLOCK_VALUES = 2**22
NAME = re.compile(r"(selection|estimation)-e(\d{10})-(\d{10})-d(\d{10})-(\d{10})\.json")


@dataclass(frozen=True)
class Shard:
    """Some draws of some adjoining examples of the run.

    Parameters
    ----------
    purpose : Purpose
        SELECTION or ESTIMATION.
    examples : (first, end)
        Places in the run's list of examples.
    draws : (first, end)
    """

    purpose: Purpose
    examples: tuple[int, int]
    draws: tuple[int, int]

    @property
    def name(self) -> str:
        """The file's name, which says the place."""
        (a, b), (i, j) = self.examples, self.draws
        return f"{self.purpose.name.lower()}-e{a:010d}-{b:010d}-d{i:010d}-{j:010d}.json"

    @property
    def rows(self) -> slice:
        """The places as a slice."""
        return slice(*self.examples)

    @property
    def work(self) -> int:
        """Draws, over all of its examples."""
        return (self.examples[1] - self.examples[0]) * (self.draws[1] - self.draws[0])


@dataclass(frozen=True)
class ShardPlan:
    """How the work of a run is cut: every draw of every example in exactly one shard.

    Parameters
    ----------
    examples : int
        Of the run.
    n0, n : int
        Selection and estimation draws per example.
    block : int
        Examples per shard, at least 1.
    shard_draws : int
        Draws per example and shard, at least 1.
    looks : tuple of int
        Where examples may stop, and estimation shards end too; empty where all have n draws.
    """

    examples: int
    n0: int
    n: int
    block: int
    shard_draws: int
    looks: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, examples: int, terms: Terms, shard_draws: int, looks: tuple[int, ...] = ()
    ) -> ShardPlan:
        """Shards of about `shard_draws` draws: several examples each, or an example in several.

        Draws that stop at decisions are few, and the last of an example's shards the largest: many
        examples then share a block, so that the undecided fill the batches.
        """
        decided = terms.stop == "decided"
        fitting = BLOCK_EXAMPLES if decided else shard_draws // max(terms.n0, terms.n)
        memory = BLOCK_VALUES // max(1, math.prod(terms.input_shape))
        block = max(1, min(fitting, memory, BLOCK_EXAMPLES))
        return cls(examples, terms.n0, terms.n, block, shard_draws, looks)

    @property
    def total(self) -> int:
        """Draws of the whole run."""
        return self.examples * (self.n0 + self.n)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """The ranges of examples, in order."""
        for first in range(0, self.examples, self.block):
            yield first, min(first + self.block, self.examples)

    def shards_of(self, block: tuple[int, int]) -> Iterator[Shard]:
        """The shards of one range of examples: its selection draws, then its estimation draws."""
        for purpose in (Purpose.SELECTION, Purpose.ESTIMATION):
            yield from (Shard(purpose, block, draws) for draws in self.cuts(purpose))

    def cuts(self, purpose: Purpose) -> dict[tuple[int, int], None]:
        """The ranges of draws of a purpose's shards, in order."""
        if purpose is Purpose.SELECTION:
            return _cuts(self.n0, self.shard_draws, ())
        return _cuts(self.n, self.shard_draws, self.looks)

    def __iter__(self) -> Iterator[Shard]:
        return (shard for block in self.blocks() for shard in self.shards_of(block))

    def find(self, name: str) -> Shard | None:
        """The shard that a file of this name holds, or None where the plan has no such place."""
        match = NAME.fullmatch(name)
        if match is None:
            return None
        a, b, i, j = (int(v) for v in match.groups()[1:])
        shard = Shard(Purpose.parse(match[1]), (a, b), (i, j))
        placed = (
            a % self.block == 0
            and a < self.examples
            and b == min(a + self.block, self.examples)
            and (i, j) in self.cuts(shard.purpose)
        )
        return shard if placed else None


@cache
def _cuts(draws: int, shard_draws: int, looks: tuple[int, ...]) -> dict[tuple[int, int], None]:
    ends = {0, *range(shard_draws, draws, shard_draws), *looks, draws}
    return dict.fromkeys(pairwise(sorted(ends)))


def encode(shard: Shard, manifest: str, tally: Tally) -> bytes:
    """The bytes of a shard's file: the same for the same tally and place.

    Parameters
    ----------
    manifest : str
        sha256 of the run's manifest.
    """
    columns = {"counts": tally.counts, "sums": tally.sums, "squares": tally.squares}
    content: dict[str, Any] = {
        "format": FORMAT,
        "manifest": manifest,
        "purpose": shard.purpose.name.lower(),
        "examples": list(shard.examples),
        "draws": list(shard.draws),
        **{name: array.tolist() for name, array in columns.items() if array is not None},
    }
    checksum = hashlib.sha256(_text(content).encode()).hexdigest()
    return (_text({**content, "checksum": checksum}) + "\n").encode()


def decode(path: Path, data: bytes, shard: Shard, manifest: str, terms: Terms) -> Tally:
    """The tally in a shard's file.

    Guarantee
        A tally is returned only where writing it again gives `data` to the byte, it belongs to
        this place of this run, and every example has exactly the shard's number of draws, or none
        where it may have stopped before.

    Raises
    ------
    RunFolderError
        Naming the file, what is wrong with it, and what to do.
    """
    try:
        content = json.loads(data)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise _refused(path, f"it is not a shard of format {FORMAT}")
        if content.get("manifest") != manifest:
            raise _refused(path, "it belongs to a run with another manifest")
        tally = _tally(content)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise _refused(path, f"it is truncated or damaged ({error})") from error
    if encode(shard, manifest, tally) != data:
        raise _refused(path, "its checksum, place or form is not what its content gives: edited")
    _check_tally(path, tally, shard, terms)
    return tally


def _tally(content: dict[str, Any]) -> Tally:
    def column(name: str) -> Any:
        return np.array(content[name], dtype=np.int64) if name in content else None

    return Tally(np.array(content["counts"], dtype=np.int64), column("sums"), column("squares"))


def _check_tally(path: Path, tally: Tally, shard: Shard, terms: Terms) -> None:
    rows, classes = shard.examples[1] - shard.examples[0], terms.num_classes
    soft = (rows, classes) if terms.scores == "softmax" else None
    shapes = tuple(None if a is None else a.shape for a in (tally.sums, tally.squares))
    if tally.counts.shape != (rows, classes + 1) or shapes != (soft, soft):
        raise _refused(path, "its arrays do not have the run's examples, classes and scores")
    stops = terms.stop != "fixed" and shard.purpose is Purpose.ESTIMATION
    allowed = [shard.draws[1] - shard.draws[0], *([0] if stops else [])]
    if not np.isin(tally.draws, allowed).all():
        raise _refused(path, "its counts do not add up to its draws")


def _refused(path: Path, reason: str) -> RunFolderError:
    return RunFolderError(
        f"{path} cannot be used: {reason}. Delete this file and resume: its draws are made again, "
        "the same ones."
    )


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":"))
