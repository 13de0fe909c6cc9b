"""README tables from the ledger: what stands between the markers is rewritten, nothing else."""

from __future__ import annotations

from pathlib import Path

from bench import ledger

README = Path(__file__).parent.parent / "README.md"
PAPER = {  # Lecuyer et al. 2019, Table III and appendix D
    "right by vote": "98.2",
    "certified at 0.19": "91.6",
    "certified at 0.39": "65",
    "certified at 0.6": "0",
}


def render() -> None:
    """Rewrite every `<!-- bench:NAME -->` block of the README."""
    text = README.read_text()
    for name, table in {
        "mnist": mnist_table,
        "noise": noise_table,
        "statistics": statistics_table,
        "tiles": tiles_table,
        "memory": memory_table,
    }.items():
        before, _, rest = text.partition(f"<!-- bench:{name} -->")
        _, _, after = rest.partition("<!-- end -->")
        if not after:
            raise SystemExit(f"{README.name} has no block <!-- bench:{name} --> ... <!-- end -->.")
        text = f"{before}<!-- bench:{name} -->\n{table()}\n<!-- end -->{after}"
    README.write_text(text)


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _spread(row: dict[str, str], digits: int) -> str:
    value, low, high = (f"{float(row[k]):.{digits}f}" for k in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def mnist_table() -> str:
    """Ours beside the paper's, with one standard error."""
    rows = []
    found = {row["metric"]: row for row in ledger.latest("mnist")}
    for metric, paper in PAPER.items():
        if metric in found:
            row = found[metric]
            error = float(row["value"]) - float(row["low"])
            rows.append([f"{metric}, %", f"{float(row['value']):.1f} ± {error:.1f}", paper])
    for metric, scale, unit in (
        ("average certified radius", 1.0, "input units"),
        ("training time", 60.0, "minutes"),
        ("vote rate", 1000.0, "thousand draws/s"),
    ):
        if metric in found:
            value = float(found[metric]["value"]) / scale
            rows.append([f"{metric}, {unit}", f"{value:.3g}", ""])
    return _markdown(["MNIST, L = 0.3", "pixeldp_fast", "paper"], rows)


def noise_table() -> str:
    """Rates and ratios per instruction set."""
    rows = ledger.latest("noise")
    ratios = {
        (r["hardware"], r["contender"]): _spread(r, 2)
        for r in rows
        if r["metric"] == "times torch.randn"
    }
    return _markdown(
        ["sampler", "million values/s per core", "times `torch.randn`", "measured on"],
        [
            [
                r["contender"],
                f"{float(r['value']):.0f}",
                ratios.get((r["hardware"], r["contender"]), "1"),
                r["note"],
            ]
            for r in rows
            if r["metric"] == "values per core" and r["contender"] != "torch.randn"
        ],
    )


def statistics_table() -> str:
    """Microseconds per interval."""
    rows = [[r["contender"], _spread(r, 2), r["note"]] for r in ledger.latest("statistics")]
    return _markdown(["interval", "microseconds each", "settings"], rows)


def tiles_table() -> str:
    """What batch invariance costs."""
    rows = [[r["contender"], _spread(r, 2)] for r in ledger.latest("tiles")]
    return _markdown(["network and draws per example", "time, fixed tile / batch cut to fit"], rows)


def memory_table() -> str:
    """Peak memory."""
    rows = [[r["contender"], f"{float(r['value']):.0f} MiB"] for r in ledger.latest("memory")]
    return _markdown(["draws per example", "peak resident memory of the process"], rows)
