"""What a row was measured on and with."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy
import scipy
import torch

from pixeldp_fast import __version__


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), flags=re.MULTILINE)
        if found:
            return found.group(1).strip()
    return platform.processor() or platform.machine()


def slug() -> str:
    """The hardware as a file name: processor and number of cores."""
    name = re.sub(r"[^a-z0-9]+", "-", cpu_name().lower()).strip("-")
    capability = torch.backends.cpu.get_cpu_capability().lower()
    return f"{name}-{len(os.sched_getaffinity(0))}-cores-{capability}"


def versions() -> str:
    """The software behind a row."""
    return (
        f"pixeldp_fast {__version__}; python {platform.python_version()}; "
        f"torch {torch.__version__}; numpy {numpy.__version__}; scipy {scipy.__version__}"
    )


def header(commit: str) -> str:
    """What stands above a measurement."""
    return f"on {slug()} ({cpu_name()}); {versions()}; commit {commit}"


def commit() -> str:
    """The checkout's commit, with a mark where files differ from it."""
    root = Path(__file__).parent
    name = _git(root, "rev-parse", "--short=12", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ":!results")
    return (name or "unknown") + ("+changed" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def now() -> str:
    """Coordinated universal time to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
