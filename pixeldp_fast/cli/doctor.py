"""`doctor`: what is installed, what it would use, and whether its random words are right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixeldp_fast.cli.console import show, show_error
from pixeldp_fast.cli.progress import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixeldp_fast.selftest.outcome import Outcome, Source

FAILED = 3

Noise = Annotated[
    bool, typer.Option("--noise", help="Test the noise at length instead: about a minute.")
]
Engine = Annotated[
    str, typer.Option("--backend", help="With --noise: all, or the one engine to test.")
]
NoiseSeed = Annotated[
    int | None, typer.Option("--seed", help="With --noise: another sample; default: a fixed one.")
]


def doctor(noise: Noise = False, backend: Engine = "all", seed: NoiseSeed = None) -> None:
    """Show versions, processor, noise source, devices and data sets, and run the self-tests.

    With --noise: whether the noise of every law, from every source and through every engine here,
    follows its law, to 1 % of its scale and better, belongs to its address, and is nowhere twice.
    """
    from pixeldp_fast.errors import InvalidArgument

    if noise:
        _test_noise(backend, seed)
        return
    if backend != "all" or seed is not None:
        raise InvalidArgument("--backend and --seed belong to --noise.")
    from pixeldp_fast.cli.checkup import environment, self_tests, tables

    results = self_tests()
    show(tables(environment(), results))
    if not all(result.passed for result in results):
        raise typer.Exit(FAILED)


def _test_noise(backend: str, seed: int | None) -> None:
    from pixeldp_fast.cli.checkup import self_tests
    from pixeldp_fast.selftest.suite import SEED, run

    words = self_tests()
    for result in words:
        if not result.passed:
            show_error(f"{result.name}: {result.detail}")
    with shown("noise", lambda info: str(info["part"]), "rate") as progress:
        outcomes = run(backend, SEED if seed is None else seed, _paced(progress))
    show("", *_tables(outcomes), *_failures(outcomes), _verdict(outcomes, len(words)))
    if not (all(one.passed for one in words) and all(one.passed for one in outcomes)):
        raise typer.Exit(FAILED)


def _paced(progress: Any) -> Any:
    import time

    start = time.monotonic()

    def report(done: int, total: int, part: str) -> None:
        rate = done / max(time.monotonic() - start, 1e-3)
        progress(done, total, {"part": part, "rate": rate})

    return report


def _tables(outcomes: list[Outcome]) -> Iterator[Any]:
    """Of what was tested in the same ways: one line per source, one column per test."""
    tested: dict[Source, dict[str, Outcome]] = {}
    for one in outcomes:
        tested.setdefault(one.source, {})[one.test] = one
    for engines, kind in ((False, "noise"), (True, "engine")):
        rows = {s: found for s, found in tested.items() if ("engine" in s.name) == engines}
        if rows:
            yield _table(kind, rows)
            yield ""


def _table(kind: str, rows: dict[Source, dict[str, Outcome]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    tests = list(dict.fromkeys(test for found in rows.values() for test in found))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(kind, min_width=24)
    for test in tests:
        table.add_column(test)
    law = ""
    for source, found in rows.items():
        if source.law != law:
            law = source.law
            table.add_row(Text(law, "dim"))
        marks = (found.get(test) for test in tests)
        table.add_row(f"  {source.name}", *(Text(_word(one), _style(one)) for one in marks))
    return table


def _word(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    return "pass" if outcome.passed else "FAIL"


def _style(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    return "green" if outcome.passed else "bold red"


def _failures(outcomes: list[Outcome]) -> list[Any]:
    from rich.text import Text

    lines: list[Any] = [
        Text(
            f"{one.source}: {one.test}: {one.detail} (a perfect source: p <= {one.false_failure:g})"
        )
        for one in outcomes
        if not one.passed
    ]
    return [*lines, ""] if lines else []


def _verdict(outcomes: list[Outcome], known_answers: int) -> Any:
    from rich.text import Text

    failed = sum(not one.passed for one in outcomes)
    chance = sum(one.false_failure for one in outcomes)
    counted = f"{len(outcomes)} tests, {known_answers} of words and single values"
    if failed:
        return Text(
            f"{failed} of {counted} failed: certificates made here are not to be trusted.",
            "bold red",
        )
    return Text(
        f"All passed: {counted}. A perfect source fails one of them with probability {chance:.0e}.",
        "green",
    )
