"""`python -m bench CASE ...`: measure and append to the ledger; `report` renders the tables."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import demo, hardware, ledger, memory, mnist, noise, report, statistics, tiles

CASES: dict[str, Callable[[], list[ledger.Row]]] = {
    "demo": demo.run,
    "noise": noise.run,
    "statistics": statistics.run,
    "memory": memory.run,
    "tiles": tiles.run,
}
OF_A_MODEL: dict[str, Callable[[Path], list[ledger.Row]]] = {
    "mnist-vote": mnist.vote,
    "mnist-certified": mnist.certified,
}


def main() -> None:
    """Run the named cases, or render the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("case", nargs="+", choices=[*CASES, *OF_A_MODEL, "report"])
    parser.add_argument("--model", type=Path, help="the trained model's folder (mnist-...)")
    arguments = parser.parse_args()
    if arguments.model is None and OF_A_MODEL.keys() & set(arguments.case):
        parser.error("--model FOLDER is needed, made by: pixeldp-fast train mnist --out FOLDER")
    console = Console()
    for case in arguments.case:
        if case == "report":
            report.render()
            continue
        console.print(f"[bold]{case}[/] on {hardware.cpu_name()}; {hardware.versions()}")
        stamped = ledger.stamp()
        rows = CASES[case]() if case in CASES else OF_A_MODEL[case](arguments.model)
        path = ledger.append(rows, stamped)
        console.print(_table(rows))
        console.print(f"appended to {path.name}")


def _table(rows: list[ledger.Row]) -> Table:
    table = Table("contender", "metric", "value", "low", "high", "unit")
    for row in rows:
        numbers = (f"{v:.4g}" for v in (row.value, row.low, row.high))
        table.add_row(row.contender, row.metric, *numbers, row.unit)
    return table


if __name__ == "__main__":
    main()
