"""`python -m bench gpu`: every unit in a process of its own, what is in the ledger left out.

A unit is a network in one dtype. It ends within three minutes, and its rows are written when it
does, so that the run can be cut off anywhere and started again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import gpu_cases, ledger
from bench.gpu_machine import AbstractMachine, present
from bench.gpu_unit import CASE, COMPLETE, DTYPES
from bench.ledger import Row

ROOT = Path(__file__).parent.parent
LIMIT = 175.0  # seconds of a unit
SOURCES = {".py", ".json", ".cu", ".cuh", ".h", ".cpp"}

Measure = Callable[[str, str, str], list[Row] | None]


def run(
    names: Sequence[str] = (),
    machine: AbstractMachine | None = None,
    measure: Measure | None = None,
) -> list[Row]:
    """Measure the named cases, or all; append each unit to the ledger as it ends.

    Parameters
    ----------
    machine : AbstractMachine, optional
        Default: this machine's GPU.
    measure : callable, optional
        (case, dtype, note) -> rows, or None where the unit failed.

    Raises
    ------
    SystemExit
        Without a GPU.
    """
    machine = present() if machine is None else machine
    measure = in_a_process if measure is None else measure
    note, slug = f"code {fingerprint()}", machine.slug
    done, unfinished, found = finished(note, slug), [], []
    for name in list(names) or [case.name for case in gpu_cases.CASES]:
        for dtype in DTYPES:
            if (name, dtype) in done:
                print(f"{name}, {dtype}: in the ledger already", file=sys.stderr)
                continue
            stamped = ledger.stamp()
            rows = measure(name, dtype, note)
            if rows:
                ledger.append(rows, stamped, slug)
                found += rows
            if not rows or not rows[-1].value:
                unfinished.append(f"{name}, {dtype}")
    if unfinished:
        print(f"to run again: {'; '.join(unfinished)}", file=sys.stderr)
    return found


def finished(note: str, slug: str) -> set[tuple[str, str]]:
    """The units that the ledger has complete, of this very code and hardware."""
    done = set()
    for row in ledger.read():
        if (row["case"], row["metric"], row["hardware"]) == (CASE, COMPLETE, slug):
            name, dtype, _ = row["contender"].split(", ")
            if float(row["value"]) and note in row["note"].split("; "):
                done.add((name, dtype))
    return done


def fingerprint() -> str:
    """A name for the code that is measured: the package, its sources in C++ and this bench.

    A commit would not do: checkouts have changes, and copies of them have no history.
    """
    digest = hashlib.sha256()
    for folder in ("pixeldp_fast", "csrc", "bench"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SOURCES:
                digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0")
                digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def in_a_process(name: str, dtype: str, note: str) -> list[Row] | None:
    """The rows of a unit, measured by a fresh process and its children, or None."""
    command = [sys.executable, "-m", "bench.gpu_unit", name, dtype, note]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            out, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            print(f"{name}, {dtype}: stopped after {LIMIT:.0f} s", file=sys.stderr)
            return None
        finally:
            _end(process)
    if process.returncode:
        print(f"{name}, {dtype}: failed with status {process.returncode}", file=sys.stderr)
        return None
    return [Row(*values) for values in json.loads(out.splitlines()[-1])]


def _end(process: subprocess.Popen[str]) -> None:
    """End the process and the compilers that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
