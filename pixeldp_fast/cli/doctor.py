"""`doctor`: what is installed, what it would use, and whether its random words are right."""

from __future__ import annotations

import typer

from pixeldp_fast.cli.console import show


def doctor() -> None:
    """Show versions, processor, noise source, devices and data sets, and run the self-tests."""
    from pixeldp_fast.cli.checkup import environment, self_tests, tables

    results = self_tests()
    show(tables(environment(), results))
    if not all(result.passed for result in results):
        raise typer.Exit(3)
