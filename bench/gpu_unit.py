"""One unit of the GPU measurement: a network in one dtype, gate first, contenders in turn.

`python -m bench.gpu_unit CASE DTYPE NOTE SECONDS START` measures in a process of its own and prints
the rows as JSON: a fault on the device, or a compiler that does not end, costs one unit and not the
run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import FrameType

import numpy as np
import torch

from bench import gpu_cases, gpu_gate, gpu_roofline
from bench.gate import Verdict
from bench.gpu_cases import GpuCase
from bench.gpu_contenders import AbstractGpuContender, AbstractGpuJob, GpuProblem, contenders
from bench.gpu_machine import AbstractMachine, Ceilings, ceilings, present
from bench.gpu_plan import GATED, REPEATS, TIMED, Budget
from bench.ledger import Row
from bench.timing import Times, ratio

CASE = "gpu"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
OURS = "pixeldp_fast triton"
COHEN = "Cohen's loop"
UNIT, COMPLETE = "unit", "complete"
RUN = 0.25  # seconds of a timed run, about: slow contenders get fewer examples


class OutOfTime(BaseException):
    """A step took longer than it may; no `Exception`, which compilers catch."""


@dataclass
class Entry:
    """A contender that takes part."""

    contender: AbstractGpuContender
    chunk: int
    job: AbstractGpuJob
    examples: int  # of a timed run
    mebibytes: float
    verdict: Verdict | None = None


@dataclass
class Unit:
    """What is measured, and what was found so far."""

    case: GpuCase
    dtype: str
    machine: AbstractMachine
    entries: list[Entry] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def row(
        self,
        contender: str,
        metric: str,
        value: float | tuple[float, float, float],
        unit: str,
        note: str = "",
    ) -> Row:
        """A line of the ledger."""
        middle, low, high = value if isinstance(value, tuple) else (value, value, value)
        name = label(self.case.name, self.dtype, contender)
        return Row(CASE, name, metric, middle, low, high, unit, note)


def label(case: str, dtype: str, contender: str) -> str:
    """A contender of a unit as the ledger names it."""
    return f"{case}, {dtype}, {contender}"


def measure(
    case: GpuCase,
    dtype: str,
    machine: AbstractMachine,
    taking_part: Sequence[AbstractGpuContender] | None = None,
    repeats: tuple[int, int] = REPEATS,
    note: str = "",
    budget: Budget | None = None,
) -> list[Row]:
    """All rows of a unit; the last says whether it is complete.

    Parameters
    ----------
    taking_part : sequence of contenders, optional
        Default: all of the dtype.
    repeats : (least, most)
    note : str
        What the last row says of the code that was measured.
    budget : Budget, optional
        Of time; default: ten minutes from now.

    Guarantee
        A contender whose outputs or votes are wrong is named and not timed.
    """
    budget = budget or Budget(600)
    unit = Unit(case, dtype, machine)
    tops = ceilings(machine, (DTYPES[dtype],))
    problem = GpuProblem.of(case, machine)
    chosen = contenders(DTYPES[dtype]) if taking_part is None else taking_part
    _prepare(unit, problem, chosen, budget)
    _pass_gate(unit, problem, budget)
    times = _timed(unit, repeats, budget)
    rows = _ceiling_rows(unit, problem, tops)
    for entry in unit.entries:
        rows += _rows_of(unit, problem, entry, times, tops)
    rows += _strongest_rows(unit, times)
    for name, reason in unit.missing.items():
        print(f"{case.name}, {dtype}: without {name}: {reason}", file=sys.stderr)
    absent = "; ".join(f"without {name}: {reason}" for name, reason in unit.missing.items())
    text = "; ".join(part for part in (note, machine.words, absent) if part)
    return [*rows, unit.row(UNIT, COMPLETE, float(not unit.missing), "1", text)]


def _prepare(
    unit: Unit, problem: GpuProblem, chosen: Sequence[AbstractGpuContender], budget: Budget
) -> None:
    """Every contender at its best chunk; those behind a guide take the guide's."""
    for contender in chosen:
        reason = contender.missing(problem)
        left = budget.one
        if not reason and left <= 1:
            reason = "no time was left to prepare it; run the case again"
        if reason:
            unit.missing[contender.name] = reason
            continue
        try:
            with limited(left):
                unit.entries.append(_best(unit, problem, contender))
        except OutOfTime:
            unit.missing[contender.name] = (
                f"preparing took more than {left:.0f} s; what its compiler cached helps next time"
            )
        except Exception as error:  # whatever a compiler or a device raises costs one contender
            unit.missing[contender.name] = _cause(error)
        unit.machine.settle()


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().split("\n")[0][:200]


def _best(unit: Unit, problem: GpuProblem, contender: AbstractGpuContender) -> Entry:
    guides = [e.chunk for e in unit.entries if e.contender.name == contender.chunk_guide]
    found: tuple[float, Entry] | None = None
    for chunk in guides or contender.chunks(problem.case):
        unit.machine.settle()
        before = unit.machine.held()
        try:
            job = contender.prepare(problem, chunk)
            run = partial(job.count, examples_for(job, problem, unit.machine))
            unit.machine.settle()
            mebibytes = unit.machine.peak(run) - before
        except torch.cuda.OutOfMemoryError:
            if found is None:
                raise
            break  # chunks grow
        examples = run.args[0]
        seconds = unit.machine.seconds(run) / examples
        if found is None or seconds < found[0]:
            found = seconds, Entry(contender, chunk, job, examples, mebibytes)
        del job, run
    assert found is not None
    return found[1]


def examples_for(job: AbstractGpuJob, problem: GpuProblem, machine: AbstractMachine) -> int:
    """As many of the case's examples as fit into `RUN` seconds; at least one."""
    job.count(1)
    fitting = RUN / max(machine.seconds(partial(job.count, 1)), 1e-9)
    return int(min(max(fitting, 1), problem.case.examples))


def _pass_gate(unit: Unit, problem: GpuProblem, budget: Budget) -> None:
    truth = gpu_gate.GpuTruth.of(problem)
    for entry in unit.entries:
        try:
            with limited(max(budget.until(GATED), 1.0)):
                entry.verdict = gpu_gate.judge(entry.contender, entry.job, truth)
            fault = entry.verdict.fault
        except OutOfTime:
            fault = "the gate took too long; run the case again"
        except Exception as error:  # as above
            fault = _cause(error)
        if fault:
            entry.verdict = None
            unit.missing[entry.contender.name] = f"not timed, {fault}"
    unit.entries = [e for e in unit.entries if e.verdict is not None]


def _timed(unit: Unit, repeats: tuple[int, int], budget: Budget) -> dict[str, Times]:
    """Contenders in turn, as often as the time allows; seconds are for all of the case's draws."""
    runs = {e.contender.name: partial(e.job.count, e.examples) for e in unit.entries}
    whole = {e.contender.name: unit.case.examples / e.examples for e in unit.entries}
    first = sum(unit.machine.seconds(run) for run in runs.values())
    room = budget.until(TIMED)
    rounds = int(min(max(room / max(first, 1e-9), repeats[0]), repeats[1]))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            seconds[name].append(whole[name] * unit.machine.seconds(run))
    return {name: Times(np.array(values)) for name, values in seconds.items()}


def _ceiling_rows(unit: Unit, problem: GpuProblem, tops: Ceilings) -> list[Row]:
    rate = tops.rates[DTYPES[unit.dtype]]
    graph, itemsize = problem.graph, DTYPES[unit.dtype].itemsize
    limit = gpu_roofline.serial(graph, itemsize, rate, tops.bandwidth)
    moved = gpu_roofline.megabytes(graph, itemsize)
    side = unit.machine.matrix
    return [
        unit.row("ceiling", "copy bandwidth", tops.bandwidth / 1e9, "GB/s", "read and written"),
        unit.row("ceiling", "product rate", rate / 1e12, "TFLOP/s", f"square, side {side}"),
        unit.row(
            "ceiling",
            "serial roofline",
            limit,
            "draws/s",
            f"{gpu_roofline.flop(graph)} FLOP and {moved:.4g} MB per draw, layer by layer",
        ),
    ]


def _rows_of(
    unit: Unit, problem: GpuProblem, entry: Entry, times: dict[str, Times], tops: Ceilings
) -> list[Row]:
    name, draws, graph = entry.contender.name, problem.case.total, problem.graph
    own, rate = times[name], tops.rates[DTYPES[unit.dtype]]
    speed = own.rate(draws)
    limit = gpu_roofline.serial(graph, DTYPES[unit.dtype].itemsize, rate, tops.bandwidth)
    chunk = f"chunk {entry.chunk}; " if len(entry.contender.chunks(unit.case)) > 1 else ""
    arithmetic = str(entry.contender.dtype).removeprefix("torch.")
    note = (
        f"{arithmetic}; {chunk}{entry.examples} examples of {unit.case.draws} draws; "
        f"{len(own.seconds)} rounds; {unit.machine.words}"
    )
    assert entry.verdict is not None
    flips = entry.verdict.flips
    compared = min(unit.case.gate, entry.job.gated)
    rows = [
        unit.row(name, "rate", speed, "draws/s", note),
        unit.row(
            name, "share of the product rate", speed[0] * gpu_roofline.flop(graph) / rate, "1"
        ),
        unit.row(name, "share of the serial roofline", speed[0] / limit, "1"),
        unit.row(name, "device memory", entry.mebibytes, "MiB", "held by torch at work"),
        unit.row(
            name,
            "largest error",
            entry.verdict.error,
            "1",
            f"over the largest output, {compared} draws against float64",
        ),
        unit.row(
            name,
            "votes that differ",
            100 * len(flips) / compared,
            "%",
            f"within rounding, draws {list(flips[:20])}",
        ),
    ]
    if OURS in times and name != OURS:
        rows.append(unit.row(name, f"{OURS} over it", ratio(times[OURS], own), "1", "per round"))
    return rows


def _strongest_rows(unit: Unit, times: dict[str, Times]) -> list[Row]:
    """Ours over the fastest PyTorch of the same dtype, and whether that is as fast as expected."""
    dtype = DTYPES[unit.dtype]
    baselines = [
        e.contender.name
        for e in unit.entries
        if e.contender.is_torch and e.contender.dtype == dtype
    ]
    if not baselines:
        return []
    best = min(baselines, key=lambda name: float(np.median(times[name].seconds)))
    rows = []
    if OURS in times:
        pair = ratio(times[OURS], times[best])
        rows.append(unit.row(OURS, "over the strongest PyTorch", pair, "1", f"{best}; per round"))
    if unit.case.expected and dtype == torch.bfloat16:
        share = times[best].rate(unit.case.total)[0] / unit.case.expected
        note = f"{best}; of {unit.case.expected:.3g} draws/s, estimated for an H200 beforehand"
        rows.append(unit.row(best, "over its estimate", share, "1", note))
        if share < 1:
            name = f"{unit.case.name}, {unit.dtype}"
            print(f"{name}: PyTorch reaches {share:.0%} of its estimate", file=sys.stderr)
    return rows


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in the main thread when the block has taken so long."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    """Measure the unit named on the command line."""
    name, dtype, note, seconds, start = sys.argv[1:]
    budget = Budget(float(seconds), float(start))
    rows = measure(gpu_cases.by_name(name), dtype, present(), note=note, budget=budget)
    print(json.dumps([dataclasses.astuple(row) for row in rows]))


if __name__ == "__main__":
    main()
