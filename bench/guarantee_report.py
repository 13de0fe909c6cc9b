"""README tables about what holds: errors summed exactly, draws saved, the price of a lattice."""

from __future__ import annotations

from bench.lattice import PRICE
from bench.markdown import Cells, markdown, spread


def exact_table(rows: list[Cells]) -> str:
    """Of every interval the setting in which it is wrong most often, measured by its alpha."""
    worst: dict[str, tuple[float, Cells]] = {}
    for row in rows:
        name = row["contender"].rpartition(": ")[0]
        share = float(row["value"]) / float(row["contender"].rpartition("alpha = ")[2])
        if name not in worst or share > worst[name][0]:
            worst[name] = share, row
    lines = [
        [name, row["contender"].rpartition(": ")[2], f"{float(row['value']):.3g}", f"{share:.2f}"]
        for name, (share, row) in worst.items()
    ]
    return markdown(
        ["interval or rule", "worst setting", "wrong with probability", "/ alpha"], lines
    )


def loss_table(rows: list[Cells]) -> str:
    """Draws saved, and radius lost, by stopping at a loss."""
    found: dict[str, dict[str, Cells]] = {}
    for row in rows:
        found.setdefault(row["contender"], {})[row["metric"]] = row
    lines = [
        [name, f"{float(by['fewer than the cap']['value']):.2f}", spread(by["radius lost"], 1)]
        for name, by in found.items()
    ]
    return markdown(["rule", "times fewer draws", "radius lost, % (20 to 80 %)"], lines)


def lattice_table(rows: list[Cells]) -> str:
    """What integers cost over floats."""
    lines = [[r["contender"], spread(r, 2), r["note"]] for r in rows if r["metric"] == PRICE]
    return markdown(["", PRICE, "settings"], lines)
