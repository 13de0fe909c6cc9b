"""Tables of the engine's measurements, from the rows of the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.cases import CASES
from bench.markdown import Cells, markdown, spread

NATIVE = "pixeldp_fast native"
OWN = "pixeldp_fast "  # what the names of this package's contenders begin with
OVER = f"{NATIVE} over it"
WALL = "two threads over one, wall clock"


@dataclass
class Measured:
    """One network on one instruction set: rows by contender and metric, of one run only."""

    network: str
    isa: str
    rows: dict[tuple[str, str], Cells] = field(default_factory=dict)

    def value(self, contender: str, metric: str) -> float | None:
        """A measured value, or None."""
        row = self.rows.get((contender, metric))
        return None if row is None else float(row["value"])

    def contenders(self) -> list[str]:
        """Everything with a rate, fastest first."""
        rates = {c: float(r["value"]) for (c, m), r in self.rows.items() if m == "best rate"}
        return sorted(rates, key=lambda contender: -rates[contender])

    def strongest(self) -> str | None:
        """The fastest contender that is not of this package."""
        return next((c for c in self.contenders() if not c.startswith(OWN)), None)

    @property
    def title(self) -> str:
        """The network in words."""
        return {case.name: case.title for case in CASES}.get(self.network, self.network)


def measured(rows: list[Cells]) -> list[Measured]:
    """The newest run of every network and instruction set, in the order of the cases."""
    newest: dict[tuple[str, str], str] = {}
    for row in rows:
        network, isa, _ = _parts(row)
        newest[network, isa] = max(newest.get((network, isa), ""), row["time"])
    found = {key: Measured(*key) for key in newest}
    for row in rows:
        network, isa, contender = _parts(row)
        if row["time"] == newest[network, isa]:
            found[network, isa].rows[contender, row["metric"]] = row
    order = [case.name for case in CASES]
    return sorted(
        found.values(),
        key=lambda one: (
            order.index(one.network) if one.network in order else len(order),
            one.isa != "avx512",
            one.isa,
        ),
    )


def _parts(row: Cells) -> tuple[str, str, str]:
    network, isa, contender = row["contender"].split(", ", 2)
    return network, isa, contender


def engine_table(rows: list[Cells]) -> str:
    """One line per network and instruction set: native against the strongest of the others."""
    header = [
        "network",
        "instructions",
        "strongest other",
        "its draws/s",
        "native, draws/s",
        "ratio",
        "ratio per round",
        "share of FMA peak",
        "two threads / one",
    ]
    return markdown(header, [_summary(one) for one in measured(rows)])


def _summary(one: Measured) -> list[str]:
    strongest = one.strongest() or ""
    per_round = one.rows.get((strongest, OVER))
    threads = one.rows.get((NATIVE, WALL))
    return [
        one.title,
        one.isa,
        strongest,
        _rate(one.value(strongest, "best rate")),
        _rate(one.value(NATIVE, "best rate")),
        _number(one.value(strongest, f"{OVER}, best")),
        spread(per_round, 2) if per_round else "",
        _number(one.value(NATIVE, "share of the FMA peak")),
        _number(float(threads["value"])) if threads else "",
    ]


def contenders_table(rows: list[Cells]) -> str:
    """Every contender, fastest first, network by network."""
    header = [
        "network, instructions",
        "contender",
        "draws/s, best",
        "draws/s",
        "native is faster",
        "share of FMA peak",
        "largest error",
        "peak memory",
        "settings",
    ]
    lines = []
    for one in measured(rows):
        lines += [_contender(one, contender) for contender in one.contenders()]
    return markdown(header, lines)


def _contender(one: Measured, contender: str) -> list[str]:
    rate = one.rows.get((contender, "rate"))
    error, memory = (one.value(contender, m) for m in ("largest error", "peak resident"))
    return [
        f"{one.network}, {one.isa}",
        contender,
        _rate(one.value(contender, "best rate")),
        spread(rate, 0) if rate else "",
        _number(one.value(contender, f"{OVER}, best")),
        _number(one.value(contender, "share of the FMA peak")),
        "" if error is None else f"{error:.1e}",
        "" if memory is None else f"{memory:.0f} MiB",
        one.rows[contender, "best rate"]["note"],
    ]


def cohen_table(rows: list[Cells]) -> str:
    """Seconds of a certificate, and how many times faster."""
    gain = next((r for r in rows if r["metric"] == "over Cohen's loop"), None)
    lines = [
        [r["contender"], spread(r, 2), r["note"]]
        for r in rows
        if r["metric"] == "time of a certificate"
    ]
    if gain:
        lines.append(["ratio", spread(gain, 2), gain["note"]])
    return markdown(["certificate of one image", "seconds", "settings"], lines)


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}".replace(",", " ")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
