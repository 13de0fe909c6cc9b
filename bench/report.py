"""README tables from the ledger: what stands between the markers is rewritten, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench import (
    chart,
    cohen,
    decide,
    demo,
    engine,
    exact,
    gpu_unit,
    lattice,
    ledger,
    memory,
    mnist,
    noise,
    regression,
    statistics,
    tiles,
)
from bench.engine_report import cohen_table, contenders_table, engine_table
from bench.gpu_report import gpu_table
from bench.guarantee_report import exact_table, lattice_table, loss_table
from bench.markdown import Cells, markdown, spread
from pixeldp_fast.smooth.regression_terms import BOUNDS

README = Path(__file__).parent.parent / "README.md"
PAPER = {  # Lecuyer et al. 2019, Table III and appendix D
    "right by vote": "98.2",
    "certified at 0.19": "91.6",
    "certified at 0.39": "65",
    "certified at 0.6": "0",
}


def render() -> None:
    """Rewrite every `<!-- bench:NAME -->` block of the README, and draw the charts.

    A table without rows needs no block.
    """
    README.write_text(rendered(README.read_text()))
    for machine, rows in _by_hardware(ledger.latest(engine.CASE)).items():
        chart.draw(rows, ledger.RESULTS / f"{machine}-engine.svg", machine)


def rendered(text: str) -> str:
    """`text` with its blocks rewritten.

    Raises
    ------
    SystemExit
        When there are rows for a table and no block to put it into.
    """
    for name, (case, table) in TABLES.items():
        blocks = [
            f"{table(rows)}\n\nMeasured on `{machine}`."
            for machine, rows in _by_hardware(ledger.latest(case)).items()
        ]
        before, _, rest = text.partition(f"<!-- bench:{name} -->")
        _, end, after = rest.partition("<!-- end -->")
        if end:
            shown = "\n\n".join(blocks)
            text = f"{before}<!-- bench:{name} -->\n{shown}\n<!-- end -->{after}"
        elif blocks:
            raise SystemExit(f"{README.name} has no block <!-- bench:{name} --> ... <!-- end -->.")
    return text


def _by_hardware(rows: list[Cells]) -> dict[str, list[Cells]]:
    machines: dict[str, list[Cells]] = {}
    for row in rows:
        machines.setdefault(row["hardware"], []).append(row)
    return machines


def mnist_table(found_rows: list[Cells]) -> str:
    """Ours beside the paper's, with one standard error."""
    rows = []
    found = {row["metric"]: row for row in found_rows}
    for metric, paper in PAPER.items():
        if metric in found:
            row = found[metric]
            error = float(row["value"]) - float(row["low"])
            rows.append([f"{metric}, %", f"{float(row['value']):.1f} ± {error:.1f}", paper])
    for metric, scale, label in (
        ("average certified radius", 1.0, "average certified radius, input units"),
        ("training time", 60.0, "training of this model, minutes"),
        ("training at idle", 60.0, "its epochs on an idle machine, at the pace of two, minutes"),
    ):
        if metric in found:
            rows.append([label, f"{float(found[metric]['value']) / scale:.3g}", ""])
    return markdown(["MNIST, L = 0.3", "pixeldp_fast", "paper"], rows)


def noise_table(rows: list[Cells]) -> str:
    """Rates and ratios per instruction set."""
    ratios = {r["contender"]: spread(r, 2) for r in rows if r["metric"] == "times torch.randn"}
    return markdown(
        ["sampler", "million values/s per core", "times `torch.randn`", "settings"],
        [
            [
                r["contender"],
                f"{float(r['value']):.0f}",
                ratios[r["contender"]],
                r["note"],
            ]
            for r in rows
            if r["metric"] == "values per core" and r["contender"] != "torch.randn"
        ],
    )


def decide_table(rows: list[Cells]) -> str:
    """Draws per example until every asked radius is decided."""
    by_case: dict[str, dict[str, Cells]] = {}
    for row in rows:
        by_case.setdefault(row["contender"], {})[row["metric"]] = row
    lines = [
        [
            case,
            f"{float(found['mean draws']['value']):.0f}",
            spread(found["draws"], 0),
            f"{float(found['fewer than the cap']['value']):.1f}",
            f"{float(found['undecided at most']['value']):.1f} %",
        ]
        for case, found in by_case.items()
    ]
    header = ["radii asked in one run", "mean draws", "median (20 to 80 %)", "times fewer"]
    return markdown([*header, "undecided"], lines)


def regression_table(rows: list[Cells]) -> str:
    """Median widths by task, radius and bound."""
    widths = {(r["contender"], r["metric"]): f"{float(r['value']):.3g}" for r in rows}
    tasks = list(dict.fromkeys(row["contender"] for row in rows))
    lines = [
        [task, f"{share:g} sigma", *(widths[task, f"{b} at {share:g} sigma"] for b in BOUNDS)]
        for task in tasks
        for share in regression.SHARES
    ]
    names = ["Lemma 2" if bound == "lemma2" else bound for bound in BOUNDS]
    return markdown(["task", "radius", *names], lines)


def statistics_table(rows: list[Cells]) -> str:
    """Microseconds per interval."""
    lines = [[r["contender"], spread(r, 2), r["note"]] for r in rows]
    return markdown(["interval", "microseconds each", "settings"], lines)


def tiles_table(rows: list[Cells]) -> str:
    """What batch invariance costs."""
    lines = [[r["contender"], spread(r, 2)] for r in rows]
    return markdown(["network and draws per example", "time, fixed tile / batch cut to fit"], lines)


def memory_table(rows: list[Cells]) -> str:
    """Peak memory."""
    lines = [[r["contender"], f"{float(r['value']):.0f} MiB"] for r in rows]
    return markdown(["draws per example", "peak resident memory of the process"], lines)


def demo_table(rows: list[Cells]) -> str:
    """From the command to the curve."""
    lines = [[r["metric"], f"{float(r['value']):.1f} {r['unit']}"] for r in rows]
    return markdown(["`pixeldp-fast demo`", ""], lines)


TABLES: dict[str, tuple[str, Callable[[list[Cells]], str]]] = {  # block: case of the ledger, table
    "demo": (demo.CASE, demo_table),
    "mnist": (mnist.CASE, mnist_table),
    "engine": (engine.CASE, engine_table),
    "engine-contenders": (engine.CASE, contenders_table),
    "gpu": (gpu_unit.CASE, gpu_table),
    "cohen": (cohen.CASE, cohen_table),
    "decide": (decide.CASE, decide_table),
    "loss": (decide.LOSS_CASE, loss_table),
    "exact": (exact.CASE, exact_table),
    "lattice": (lattice.CASE, lattice_table),
    "noise": (noise.CASE, noise_table),
    "regression": (regression.CASE, regression_table),
    "statistics": (statistics.CASE, statistics_table),
    "tiles": (tiles.CASE, tiles_table),
    "memory": (memory.CASE, memory_table),
}
