"""`bench`: the measurements of a checkout."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import typer

from pixeldp_fast.cli.console import show_error

USAGE_ERROR = 2


def bench(context: typer.Context) -> None:
    """Measure this machine: cases x contenders, kept in a ledger (needs a checkout).

    The same as `python -m bench`: `pixeldp-fast bench` alone lists the cases, such as engine, cohen
    and noise; `pixeldp-fast bench engine --case resnet20` runs one network; `pixeldp-fast bench
    report` renders the README's tables.
    """
    root = checkout()
    if root is None:
        show_error(
            "bench works in a checkout only: the benchmarks and their ledger are not part of the "
            "installed package. Clone the repository and install it with: pip install -e ."
        )
        raise typer.Exit(USAGE_ERROR)
    sys.path.insert(0, str(root))
    importlib.import_module("bench.__main__").main(context.args, prog="pixeldp-fast bench")


def checkout() -> Path | None:
    """The folder that holds both this package and its benchmarks, or None."""
    root = Path(__file__).parents[2]
    return root if (root / "bench" / "__main__.py").is_file() else None
