"""The command line: one file per command, each a thin layer over the package."""

from pixeldp_fast.cli.app import main

__all__ = ["main"]
