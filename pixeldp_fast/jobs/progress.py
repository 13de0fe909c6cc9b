"""How a run tells how far it is: a callable, a bar on a terminal, or not at all."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from pixeldp_fast.errors import InvalidArgument

Progress = Callable[[int, int, dict[str, Any]], None]


def check_progress(progress: Any) -> None:
    """Refuse anything but None, a bool or a callable."""
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise InvalidArgument(f"`progress` must be None, True or a callable, got {progress!r}.")


@contextlib.contextmanager
def reporting(progress: Progress | bool | None, title: str) -> Iterator[Progress]:
    """The function to report to; True is a bar on standard error where that is a terminal."""
    if callable(progress):
        yield progress
    elif progress and sys.stderr.isatty():
        with _bar(title) as report:
            yield report
    else:
        yield lambda done, total, info: None


@contextlib.contextmanager
def _bar(title: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]:,.0f} draws/s"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, rate=0.0)

        def report(done: int, total: int, info: dict[str, Any]) -> None:
            bar.update(task, completed=done, total=total, rate=info["draws_per_second"])

        yield report
