"""`python -m bench gpu`: every unit in a process of its own, what is in the ledger left out.

A unit is a network in one dtype. It ends within its share of the time (`gpu_plan`), and its rows
are written when it does, so that the run can be cut off anywhere and started again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import gpu_plan, ledger
from bench.gpu_machine import AbstractMachine, present
from bench.gpu_plan import Share
from bench.gpu_unit import CASE, COMPLETE, UNIT, label
from bench.ledger import Row

ROOT = Path(__file__).parent.parent
# Where compilers keep what they made, so that a unit that ran out of time gets further next time.
CACHES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
CACHE = ROOT / "build" / "gpu-cache"
SOURCES = {".py", ".json", ".cu", ".cuh", ".h", ".cpp"}

Measure = Callable[[Share, str], list[Row] | None]


def run(
    names: Sequence[str] = (),
    minutes: float | None = None,
    machine: AbstractMachine | None = None,
    measure: Measure | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Row]:
    """Measure the named cases, or all; append each unit to the ledger as it ends.

    Parameters
    ----------
    minutes : float, optional
        Of this call; default: as long as it takes.
    machine : AbstractMachine, optional
        Default: this machine's GPU.
    measure : callable, optional
        (share, note) -> rows, or None where the unit failed.

    Raises
    ------
    SystemExit
        Without a GPU.
    """
    machine = present() if machine is None else machine
    measure = in_a_process if measure is None else measure
    note, slug = f"code {fingerprint()}", machine.slug
    asked = [share for share in gpu_plan.PLAN if share.case in names or not names]
    complete, tried = known(note, slug)
    waiting, found = gpu_plan.order(asked, complete, tried), []
    for share in asked:
        if share.key in complete:
            print(f"{share.case}, {share.dtype}: in the ledger already", file=sys.stderr)
    for share in gpu_plan.units(waiting, minutes, clock):
        stamped = ledger.stamp()
        rows = measure(share, note) or [_failed(share, note)]
        ledger.append(rows, stamped, slug)
        found += rows
    complete, tried = known(note, slug)
    if left := gpu_plan.order(asked, complete, tried):
        words = "; ".join(f"{share.case}, {share.dtype}" for share in left)
        print(f"to run again: {words}", file=sys.stderr)
    return found


def _failed(share: Share, note: str) -> Row:
    """What the ledger remembers of a unit without rows: that it was tried."""
    name = label(share.case, share.dtype, UNIT)
    return Row(CASE, name, COMPLETE, 0.0, 0.0, 0.0, "1", f"{note}; it failed or was ended")


def known(note: str, slug: str) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """The units that the ledger has complete, and all it has, of this very code and hardware."""
    complete, tried = set(), set()
    for row in ledger.read():
        ours = (row["case"], row["metric"], row["hardware"]) == (CASE, COMPLETE, slug)
        if ours and note in row["note"].split("; "):
            name, dtype, _ = row["contender"].split(", ")
            tried.add((name, dtype))
            if float(row["value"]):
                complete.add((name, dtype))
    return complete, tried


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


def in_a_process(share: Share, note: str) -> list[Row] | None:
    """The rows of a unit, measured by a fresh process and its children, or None."""
    name, dtype = share.key
    command = [sys.executable, "-m", "bench.gpu_unit", name, dtype, note]
    command += [str(share.seconds), str(time.time())]
    caches = {key: str(CACHE / folder) for key, folder in CACHES.items()}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=caches | dict(os.environ),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, _ = process.communicate(timeout=share.seconds)
        except subprocess.TimeoutExpired:
            print(f"{name}, {dtype}: stopped after {share.seconds:.0f} s", file=sys.stderr)
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
