"""The demo from the command line to the saved curve, in a fresh process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

from bench.ledger import Row

CASE = "demo"


def run() -> list[Row]:
    """Wall-clock seconds, imports included."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "pixeldp_fast.cli", "demo", "--out", f"{folder}/demo"],
            check=True,
            capture_output=True,
        )
        seconds = time.perf_counter() - start
    return [Row(CASE, "pixeldp_fast", "wall clock", seconds, seconds, seconds, "s", "cold process")]
