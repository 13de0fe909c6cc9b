"""The chunk at which each contender is at its best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.baselines.base import AbstractContender, AbstractJob, Problem
from bench.timing import fastest

REPEATS = 2
GUIDED = 2  # chunks that a contender with a guide tries
SHARE = 4  # a trial takes this part of a timed run's draws


@dataclass(frozen=True)
class Entry:
    """A contender that takes part, with the chunk it was fastest at and the job for it."""

    contender: AbstractContender
    chunk: int
    job: AbstractJob
    seconds: dict[int, float]  # per draw, every tried chunk's best


def sweep(
    contenders: Sequence[AbstractContender], problem: Problem
) -> tuple[list[Entry], dict[str, str]]:
    """Every contender at its best chunk, and why the others are missing, by name."""
    entries: dict[str, Entry] = {}
    missing: dict[str, str] = {}
    for contender in contenders:
        reason = contender.missing(problem)
        if reason:
            missing[contender.name] = reason
        else:
            chunks = _chunks(contender, entries.get(contender.guide), problem.case.draws)
            entries[contender.name] = _entry(contender, problem, chunks)
    return list(entries.values()), missing


def _chunks(contender: AbstractContender, guide: Entry | None, draws: int) -> tuple[int, ...]:
    if guide is not None:
        ranked = sorted(guide.seconds, key=lambda chunk: guide.seconds[chunk])
        return tuple(sorted(ranked[:GUIDED]))
    return tuple(chunk for chunk in contender.chunks if chunk <= draws)


def _entry(contender: AbstractContender, problem: Problem, chunks: tuple[int, ...]) -> Entry:
    jobs: dict[int, AbstractJob] = {}

    def draws(chunk: int) -> int:
        return max(problem.case.draws // SHARE, chunk)

    def run(chunk: int) -> None:
        if chunk not in jobs:
            jobs[chunk] = contender.prepare(problem, chunk)
        jobs[chunk].count(draws(chunk))

    best, seconds = fastest(chunks, run, REPEATS, draws)
    return Entry(contender, best, jobs[best], seconds)
