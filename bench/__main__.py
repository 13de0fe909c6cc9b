"""`python -m bench CASE ...`: measure and append to the ledger; `report` renders the tables."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import (
    cases,
    cohen,
    decide,
    demo,
    engine,
    exact,
    gpu_cases,
    gpu_machine,
    gpu_profile,
    gpu_run,
    gpu_tune,
    hardware,
    lattice,
    ledger,
    memory,
    mnist,
    noise,
    regression,
    report,
    statistics,
    tiles,
)

REPORT = "report"
ENGINE, GPU, TUNE = "engine", "gpu", "tune"
WIDTH = 120  # columns of the tables where the output is no wider terminal


@dataclass(frozen=True)
class Words:
    """What the command line says beside the cases."""

    model: Path | None
    networks: list[str]


@dataclass(frozen=True)
class Measurement:
    """A case of the command line: what it is, and how it is run."""

    about: str
    run: Callable[[Words], list[ledger.Row]]
    needs_model: bool = False


def _of_model(run: Callable[[Path], list[ledger.Row]]) -> Callable[[Words], list[ledger.Row]]:
    def call(words: Words) -> list[ledger.Row]:
        assert words.model is not None
        return run(words.model)

    return call


MEASUREMENTS = {
    ENGINE: Measurement("networks x contenders", lambda words: engine.run(words.networks)),
    "cohen": Measurement("a certificate against Cohen's loop", lambda _: cohen.run()),
    "demo": Measurement("the demo in a fresh process", lambda _: demo.run()),
    "noise": Measurement("noise per core", lambda _: noise.run()),
    "lattice": Measurement("lattice noise against float noise", lambda _: lattice.run()),
    "statistics": Measurement("confidence intervals", lambda _: statistics.run()),
    "memory": Measurement("peak memory against n", lambda _: memory.run()),
    "tiles": Measurement("the price of one fixed shape", lambda _: tiles.run()),
    "decide": Measurement("draws until published radii are decided", lambda _: decide.published()),
    "loss": Measurement("draws saved by stop='loss' on the same", lambda _: decide.losses()),
    "regression": Measurement("widths of a regressor's intervals", lambda _: regression.run()),
    "exact": Measurement("errors of every interval, summed exactly", lambda _: exact.run()),
    "mnist-training": Measurement("epochs of the recipe, timed", lambda _: mnist.training()),
    "mnist-vote": Measurement("accuracy of the vote", _of_model(mnist.vote), needs_model=True),
    "mnist-certified": Measurement(
        "certified accuracy", _of_model(mnist.certified), needs_model=True
    ),
    "mnist-decide": Measurement("draws until decided", _of_model(decide.mnist), needs_model=True),
}


def main(arguments: Sequence[str] | None = None, prog: str = "python -m bench") -> None:
    """Run the named cases, or render the tables; without a name, say what there is."""
    parser = _parser(prog)
    given = parser.parse_args(arguments)
    if not given.case:
        parser.print_help()
        return
    if given.model is None and any(
        name in MEASUREMENTS and MEASUREMENTS[name].needs_model for name in given.case
    ):
        parser.error("--model FOLDER is needed, made by: pixeldp-fast train mnist --out FOLDER")
    of_gpu = {case.name for case in gpu_cases.CASES}
    known = {ENGINE: {case.name for case in cases.CASES}, GPU: of_gpu, TUNE: {*gpu_tune.NETWORKS}}
    for name in known.keys() & set(given.case):
        strange = set(given.networks) - known[name]
        if strange:
            parser.error(f"{name} has no network {', '.join(sorted(strange))}")
    if GPU not in given.case and (given.profile or given.minutes is not None):
        parser.error(f"--profile and --minutes belong to {GPU}")
    words = Words(given.model, given.networks)
    for name in given.case:
        if name == REPORT:
            report.render()
        elif name == GPU and given.profile:
            gpu_profile.report(given.networks)
        elif name == GPU:
            rows = gpu_run.run(given.networks, given.minutes)
            Console(width=max(WIDTH, Console().width)).print(_table(rows))
        elif name == TUNE:
            slug, stamped = gpu_machine.present().slug, ledger.stamp()
            ledger.append(gpu_tune.run(given.networks), stamped, slug)
        else:
            _measure(name, words, Console(width=max(WIDTH, Console().width)))


def _parser(prog: str) -> argparse.ArgumentParser:
    lines = [f"  {name:17s}{one.about}" for name, one in MEASUREMENTS.items()]
    lines.append(f"  {GPU:17s}networks x contenders on an NVIDIA GPU, what is measured left out")
    lines.append(f"  {TUNE:17s}re-tune the Triton kernels on this GPU, and write their table")
    lines.append(f"  {REPORT:17s}render the README's tables and the charts from the ledger")
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Measure and append to the ledger, bench/results/HARDWARE.csv.",
        epilog="cases:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [*MEASUREMENTS, GPU, TUNE, REPORT]
    parser.add_argument("case", nargs="*", metavar="CASE", help="see below", type=_one_of(names))
    parser.add_argument("--model", type=Path, help="the trained model's folder (mnist-...)")
    parser.add_argument(
        "--case",
        dest="networks",
        action="append",
        default=[],
        choices=sorted({case.name for case in (*cases.CASES, *gpu_cases.CASES)}),
        help="one network of `engine`, `gpu` or `tune`; may be repeated; default: all",
    )
    parser.add_argument(
        "--minutes",
        type=_minutes,
        metavar="M",
        help="with gpu: begin nothing that could end later; the next call goes on (3 calls of 10)",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="with gpu: print where the time goes, kernel by kernel",
    )
    return parser


def _minutes(text: str) -> float:
    """More than a unit can take."""
    value = float(text)
    if not 3.5 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not at least 3.5: the longest unit takes 3")
    return value


def _one_of(names: Sequence[str]) -> Callable[[str], str]:
    """Like `choices`, which argparse refuses to combine with no argument at all."""

    def check(name: str) -> str:
        if name not in names:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(names)}")
        return name

    return check


def _measure(name: str, words: Words, console: Console) -> None:
    stamped = ledger.stamp()
    console.print(f"[bold]{name}[/] {hardware.header(stamped['commit'])}")
    rows = MEASUREMENTS[name].run(words)
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
