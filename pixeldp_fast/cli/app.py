"""The commands together, and what their endings mean.

Exit codes: 0 done; 1 an error of input, with one message and no traceback; 2 usage; 3 a self-test
or check failed, a record disagrees, or an attack refutes certificates; 130 interrupted.
"""

from __future__ import annotations

import errno
import inspect
import re
import shlex
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pixeldp_fast._version import __version__
from pixeldp_fast.cli.attack import attack
from pixeldp_fast.cli.bench import bench
from pixeldp_fast.cli.certify import certify
from pixeldp_fast.cli.console import show_error, show_note
from pixeldp_fast.cli.demo import demo
from pixeldp_fast.cli.doctor import doctor
from pixeldp_fast.cli.predict import predict
from pixeldp_fast.cli.regress import regress
from pixeldp_fast.cli.report import report
from pixeldp_fast.cli.sanity import sanity
from pixeldp_fast.cli.train import train
from pixeldp_fast.cli.verify import verify
from pixeldp_fast.errors import PixelDPError

PROGRAM = "pixeldp-fast"
USER_ERROR, INTERRUPTED = 1, 130
RESUMABLE = ("attack", "certify", "demo", "train")
_GIVEN = "pixeldp_fast.given"  # where the context keeps the words of the command line


class Commands(TyperGroup):
    """All commands, with errors turned into messages and exit codes."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        given = list(args)
        context = super().make_context(info_name, args, parent, **extra)
        context.meta[_GIVEN] = given
        return context

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PixelDPError as error:
            show_error(str(error))
            raise typer.Exit(USER_ERROR) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            show_error(str(error))
            raise typer.Exit(USER_ERROR) from error
        except KeyboardInterrupt as error:
            show_note(_how_to_resume(ctx.meta.get(_GIVEN, [])))
            raise typer.Exit(INTERRUPTED) from error


def _how_to_resume(given: list[str]) -> str:
    """What to say to someone who interrupted a command."""
    if not given or given[0] not in RESUMABLE:
        return "interrupted"
    again = [word for word in given if word != "--no-resume"]
    return (
        "interrupted; finished work is kept. The same command goes on from there:\n  "
        + shlex.join([PROGRAM, *again])
    )


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"pixeldp_fast {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=Commands,
    name=PROGRAM,
    help="Certified robustness by noise: train behind noise, certify, report.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Certified robustness by noise: train behind noise, certify, report."""


def _help(command: Callable[..., None]) -> str:
    """A command's docstring with every paragraph on one line: the terminal breaks the lines."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(command.__doc__ or ""))


for _command in (demo, train, certify, predict, regress, verify, attack, sanity, report, doctor):
    app.command(help=_help(_command))(_command)
app.command(
    help=_help(bench),
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(bench)


def main() -> None:
    """Run the command line; the entry point `pixeldp-fast`."""
    app(prog_name=PROGRAM)
