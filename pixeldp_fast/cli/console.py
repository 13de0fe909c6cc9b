"""Where text goes: results to standard output, everything about the work to standard error."""

from __future__ import annotations

from typing import Any

_NARROWEST = 100  # columns of text that is not for a terminal, so that tables are not folded


def out() -> Any:
    """The console of results."""
    return _console(stderr=False)


def err() -> Any:
    """The console of progress, notes, warnings and errors."""
    return _console(stderr=True)


def show(*renderables: Any) -> None:
    """Print results."""
    console = out()
    for one in renderables:
        console.print(one)


def show_note(text: str) -> None:
    """Print a line about the work."""
    err().print(_text(text), soft_wrap=True)


def show_warning(text: str) -> None:
    """Print what the user should look at, though it is no error."""
    err().print(_text("warning: ", "bold yellow").append(text, "default"), soft_wrap=True)


def show_error(text: str) -> None:
    """Print one error."""
    err().print(_text("error: ", "bold red").append(text, "default"), soft_wrap=True)


def _console(*, stderr: bool) -> Any:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        return Console(stderr=stderr, highlight=False, width=max(console.width, _NARROWEST))
    return console


def _text(text: str, style: str = "") -> Any:
    from rich.text import Text

    return Text(text, style=style)
