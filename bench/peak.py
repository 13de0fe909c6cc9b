"""Peak memory of one contender at work: `python -m bench.peak CASE CONTENDER CHUNK` prints MiB."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent


def peak_memory(case: str, contender: str, chunk: int) -> float:
    """Peak resident memory of a fresh process that prepares and runs the job, in MiB."""
    command = [sys.executable, "-m", "bench.peak", case, contender, str(chunk)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def resident_peak() -> float:
    """The most memory that this process has had, in MiB.

    From `/proc` where it exists: `ru_maxrss` of a fresh process begins with its parent's size.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(), flags=re.MULTILINE)
        if found:
            return int(found.group(1)) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Do the job once and print the peak."""
    from bench import baselines, cases
    from bench.baselines.base import Problem

    torch.set_num_threads(1)
    case, contender, chunk = sys.argv[1:]
    problem = Problem.of(cases.by_name(case))
    baselines.by_name(contender).prepare(problem, int(chunk)).count(problem.case.draws)
    print(resident_peak())


if __name__ == "__main__":
    main()
