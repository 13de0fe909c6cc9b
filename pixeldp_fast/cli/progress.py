"""How far a command is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from pixeldp_fast.cli.console import err, show_note

Report = Callable[[int, int, dict[str, Any]], None]
Describe = Callable[[dict[str, Any]], str]

LINE_SECONDS = 10.0  # between lines where there is no terminal
FIRST_SECONDS = 2.0  # before the first one: a speed measured sooner is that of a cold start


@contextlib.contextmanager
def shown(title: str, describe: Describe, rate: str) -> Iterator[Report]:
    """The function that a long piece of work reports to.

    Parameters
    ----------
    title : str
    describe : function
        From a report's `info` to words.
    rate : str
        The entry of `info` that holds units of work per second.
    """
    show = _bar if err().is_terminal else _lines
    with show(title, describe, rate) as report:
        yield _settled(report, rate)


def _settled(report: Report, rate: str) -> Report:
    """Without a speed at its first measurement, which a cold start and small batches distort.

    In a certification it is that of the few draws that select a class.
    """
    measured = 0

    def settled(done: int, total: int, info: dict[str, Any]) -> None:
        nonlocal measured
        measured += info[rate] > 0
        known = measured > 1 or done >= total
        report(done, total, info if known else {**info, rate: 0.0})

    return settled


def time_left(done: int, total: int, per_second: float) -> str:
    """The rest of the work as a time, or nothing where that is not known yet."""
    if done >= total or not per_second > 0:
        return ""
    return f"about {duration((total - done) / per_second)} left"


def duration(seconds: float) -> str:
    """A time as people say it."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


@contextlib.contextmanager
def _bar(title: str, describe: Describe, rate: str) -> Iterator[Report]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[words]}", markup=False),
    )
    with Progress(*columns, console=err()) as bar:
        task = bar.add_task(title, words="")

        def report(done: int, total: int, info: dict[str, Any]) -> None:
            bar.update(task, completed=done, total=total, words=_words(done, total, info))

        def _words(done: int, total: int, info: dict[str, Any]) -> str:
            return ", ".join(filter(None, (describe(info), time_left(done, total, info[rate]))))

        yield report


@contextlib.contextmanager
def _lines(title: str, describe: Describe, rate: str) -> Iterator[Report]:
    due = time.monotonic() + FIRST_SECONDS

    def report(done: int, total: int, info: dict[str, Any]) -> None:
        nonlocal due
        now = time.monotonic()
        if done < total and (now < due or not info[rate] > 0):
            return
        due = now + LINE_SECONDS
        parts = (f"{100 * done // total} %", describe(info), time_left(done, total, info[rate]))
        show_note(f"{title}: " + ", ".join(filter(None, parts)))

    yield report
