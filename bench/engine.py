"""The engine against the others: networks x contenders, gate first, one thread, CPU time.

Every contender does the whole job: its own noise, the network behind the noise point, argmax and
count, at the chunk that suits it best. Where the machine has AVX-512, everything is measured once
more in a process in which torch, oneDNN, MKL and this package are limited to AVX2.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from bench import cases, gate
from bench.baselines import CONTENDERS, OURS
from bench.baselines.base import AbstractContender, Problem
from bench.ceiling import fma_peak
from bench.isa import AVX2_ONLY, native_isa
from bench.ledger import Row
from bench.peak import peak_memory
from bench.sweep import Entry, sweep
from bench.threads import scaling, torch_threads
from bench.timing import Times, interleaved, ratio

CASE = "engine"
ROOT = Path(__file__).parent.parent
REPEATS, THREAD_REPEATS = 10, 5
CLOCK = "one thread, CPU time of the process"


def run(names: Sequence[str] = ()) -> list[Row]:
    """The named cases, or all, for the machine's own instruction set and for AVX2 alone."""
    names = list(names) or [case.name for case in cases.CASES]
    rows = [row for name in names for row in measure(name)]
    if native_isa() == "avx512":
        rows += [row for name in names for row in _with_avx2(name)]
    return rows


def measure(
    name: str,
    contenders: Sequence[AbstractContender] = CONTENDERS,
    repeats: int = REPEATS,
    extras: bool = True,
) -> list[Row]:
    """One case in this process; `extras` are peak memory and the second thread.

    The clock is the CPU time of the process, not of the thread: a thread that a contender should
    not have would count.

    Raises
    ------
    SystemExit
        When a contender's outputs or votes are wrong: nothing is timed then.
    """
    with torch_threads(1):
        problem = Problem.of(cases.by_name(name))
        truth = gate.Truth.of(problem)
        entries, missing = sweep(contenders, problem)
        for absent, reason in missing.items():
            print(f"{name}: without {absent}: {reason}", file=sys.stderr)
        peak = fma_peak(native_isa())
        # A recompile would spoil the times, and come without freezing.
        with torch.compiler.set_stance("fail_on_recompile"):
            verdicts = {e.contender.name: _passed(problem, e, truth) for e in entries}
            times = interleaved(
                {e.contender.name: partial(e.job.count, problem.case.draws) for e in entries},
                repeats,
                time.process_time,
            )
        again = fma_peak(native_isa())
        if peak is not None and again is not None:
            peak = max(peak, again)
    table = _Table(problem, times, peak)
    rows = table.ceiling()
    for entry in entries:
        rows += table.rows(entry, verdicts[entry.contender.name])
    if extras:
        rows += table.memory(entries) + table.threads(entries)
    return rows


def _passed(problem: Problem, entry: Entry, truth: gate.Truth) -> gate.Verdict:
    verdict = gate.judge(entry.job, truth)
    if verdict.fault:
        raise SystemExit(
            f"{problem.case.name}, {entry.contender.name}: {verdict.fault}. Nothing is timed."
        )
    if verdict.flips:
        print(
            f"{problem.case.name}, {entry.contender.name}: votes of draws "
            f"{list(verdict.flips)} differ within rounding",
            file=sys.stderr,
        )
    return verdict


@dataclasses.dataclass(frozen=True)
class _Table:
    """Times of one case, made into rows."""

    problem: Problem
    times: dict[str, Times]
    peak: float | None

    def ceiling(self) -> list[Row]:
        """The peak itself."""
        if self.peak is None:
            return []
        note = f"{native_isa()}, one thread, registers only, before and after the timing"
        return [self._row("ceiling", "float32 FMA peak", self.peak, "GFLOP/s", note)]

    def rows(self, entry: Entry, verdict: gate.Verdict) -> list[Row]:
        """Rates, share of the ceiling, ratio and the gate's findings of one contender."""
        name, draws = entry.contender.name, self.problem.case.draws
        times = self.times[name]
        best = draws / times.best
        note = f"{self._chunk(entry)}{draws} draws; {CLOCK}; {entry.contender.version}"
        out = [
            self._row(name, "rate", times.rate(draws), "draws/s", note),
            self._row(name, "best rate", best, "draws/s", note),
        ]
        if self.peak is not None:
            share = best * self._flop() / (self.peak * 1e9)
            text = f"nominal, {self._flop()} FLOP per draw, best repeat"
            out.append(self._row(name, "share of the FMA peak", share, "1", text))
        ours = self.times.get(OURS.name)
        if ours is not None and name != OURS.name:
            metric = f"{OURS.name} over it"
            out.append(self._row(name, metric, ratio(ours, times), "1", "per round"))
            gain = times.best / ours.best
            out.append(self._row(name, f"{metric}, best", gain, "1", "best repeat of each"))
        text = f"over the largest output, {gate.DRAWS} draws against float64"
        out.append(self._row(name, "largest error", verdict.error, "1", text))
        flips = 100 * len(verdict.flips) / gate.DRAWS
        text = f"within rounding, draws {list(verdict.flips)}"
        out.append(self._row(name, "votes that differ", flips, "%", text))
        return out

    def memory(self, entries: list[Entry]) -> list[Row]:
        """Peak memory of ours and of the fastest other, each in a process of its own."""
        others = [e for e in entries if e.contender.name != OURS.name]
        fastest = min(others, key=lambda e: self.times[e.contender.name].best, default=None)
        out = []
        for entry in [e for e in entries if e.contender.name == OURS.name or e is fastest]:
            name = entry.contender.name
            mib = peak_memory(self.problem.case.name, name, entry.chunk)
            note = f"{self._chunk(entry)}fresh process, imports included"
            out.append(self._row(name, "peak resident", mib, "MiB", note))
        return out

    def threads(self, entries: list[Entry]) -> list[Row]:
        """What a second thread brings ours."""
        cores = len(os.sched_getaffinity(0))
        ours = next((e for e in entries if e.contender.name == OURS.name), None)
        if ours is None or cores < 2:
            return []
        draws = 4 * self.problem.case.draws
        wall, cpu = scaling(lambda: ours.job.count(draws), THREAD_REPEATS)
        note = f"{draws} draws, {cores} cores"
        metric = "two threads over one"
        return [
            self._row(OURS.name, f"{metric}, wall clock", wall, "1", note),
            self._row(OURS.name, f"{metric}, CPU time", cpu, "1", f"{note}; busier thread"),
        ]

    def _flop(self) -> int:
        return cases.flop_per_draw(self.problem.model.suffix, self.problem.noise_shape)

    @staticmethod
    def _chunk(entry: Entry) -> str:
        return f"chunk {entry.chunk}; " if len(entry.contender.chunks) > 1 else ""

    def _row(
        self,
        contender: str,
        metric: str,
        value: float | tuple[float, float, float],
        unit: str,
        note: str,
    ) -> Row:
        label = f"{self.problem.case.name}, {native_isa()}, {contender}"
        middle, low, high = value if isinstance(value, tuple) else (value, value, value)
        return Row(CASE, label, metric, middle, low, high, unit, note)


def _with_avx2(name: str) -> list[Row]:
    """The same in a process in which nothing uses more than AVX2."""
    code = (
        "import dataclasses, json, sys; from bench.engine import measure; "
        "print(json.dumps([dataclasses.astuple(row) for row in measure(sys.argv[1])]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name],
        cwd=ROOT,
        env=os.environ | AVX2_ONLY,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [Row(*values) for values in json.loads(done.stdout.splitlines()[-1])]
