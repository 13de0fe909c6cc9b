"""`demo`: the whole path in under a minute, on data that is in the package."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from pixeldp_fast.cli import options
from pixeldp_fast.cli.certify import certify_into, show_summary
from pixeldp_fast.cli.console import show_note
from pixeldp_fast.cli.opening import NoiseWords, chosen, default_out, open_data, open_model
from pixeldp_fast.cli.train import train_into

RECIPE = "digits"
SEED = 2019  # the year of the paper; fixed, so that everyone sees the same table
DRAWS = 10_000


def demo(
    out: options.Out = None,
    seed: Annotated[
        int, typer.Option(help="Of weights, training and draws; the default gives the known table.")
    ] = SEED,
) -> None:
    """Train on 8x8 digits behind noise, certify the test digits, print and plot the result.

    Runs on one core of the CPU, in well under a minute. The default seed is fixed: everyone sees
    the same table, up to single examples where another processor or torch rounds differently in
    training.
    """
    with _one_thread():
        _demo(out, seed)


def _demo(out: Path | None, seed: int) -> None:
    from pixeldp_fast.train import RECIPES

    recipe = RECIPES[RECIPE]
    recipe = dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, seed=seed))
    fixed = seed == SEED
    folder = out or default_out("demo", "" if fixed else f"seed{seed}")
    show_note(
        f"demo with the fixed seed {seed}: the same table at every run"
        if fixed
        else f"demo with the seed {seed}"
    )
    train_into(
        folder / "model", recipe, open_data(recipe.dataset, "train", None), None, device="cpu"
    )
    test = open_data(recipe.dataset, "test", None)
    opened = open_model(str(folder / "model"), NoiseWords(), test, device="cpu")
    summary = certify_into(
        folder / "run",
        opened.smoothed(seed=seed),
        test,
        chosen(test, 1, -1),
        name=f"{opened.name} on {test.name} (test)",
        request={"n0": 100, "n": DRAWS, "alpha": 0.001},
    )
    show_summary(summary, folder / "run")


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in training depend on the number of threads, and a network this small gains by none."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
