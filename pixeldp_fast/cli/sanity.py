"""`sanity`: whether attacks on this model tell the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixeldp_fast.cli import options
from pixeldp_fast.cli.console import show, show_note
from pixeldp_fast.cli.opening import NoiseWords, chosen, open_data, open_model
from pixeldp_fast.cli.progress import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixeldp_fast.attacks.checks import Check

FAILED = 3


def sanity(
    model: Annotated[str, typer.Argument(help="As for certify.")],
    data: options.Data,
    split: options.Split = "test",
    norm: options.Norm = None,
    examples: Annotated[
        int, typer.Option(help="About how many examples, evenly spread over the data.")
    ] = 100,
    steps: Annotated[int, typer.Option(help="Steps of the iterated attack.")] = 20,
    draws: Annotated[int, typer.Option(help="Draws per evaluation of the smoothed model.")] = 15,
    verify: Annotated[int, typer.Option(help="Fresh draws that judge a success.")] = 500,
    sigma: options.Sigma = None,
    laplace: options.LaplaceScale = None,
    uniform: options.UniformHalfWidth = None,
    lattice: options.Lattice = None,
    backend: options.Backend = "auto",
    seed: options.Seed = None,
    device: options.Device = "auto",
    architecture: options.Architecture = None,
    num_classes: options.NumClasses = None,
    data_root: options.DataFolder = None,
) -> None:
    """Check that attacks on a model measure its robustness and are not fooled by hidden gradients.

    Only successes that fresh draws confirm count. The exit code is 3 when a check fails.
    """
    from pixeldp_fast.attacks.checks import sanity as run_checks
    from pixeldp_fast.errors import InvalidArgument

    dataset = open_data(data, split, data_root)
    if examples < 1:
        raise InvalidArgument(f"--examples must be at least 1, got {examples}.")
    positions = chosen(dataset, max(1, len(dataset) // examples), -1)[:examples]
    noise = NoiseWords(sigma, laplace, uniform, lattice)
    opened = open_model(
        model, noise, dataset, architecture=architecture, num_classes=num_classes, device=device
    )
    smoothed = opened.smoothed(backend=backend, seed=seed)
    labels = dataset.known_labels(positions)
    show_note(f"{opened.name} on {dataset.name} ({split}): {len(positions)} images")
    with shown("sanity", lambda info: "", "attacks_per_second") as progress:
        found = run_checks(
            smoothed,
            dataset.images(positions).to(smoothed.device),
            labels,
            norm=norm,
            steps=steps,
            draws=draws,
            verify=verify,
            index=positions,
            progress=progress,
        )
    show(_table(found))
    if not all(check.passed for check in found):
        raise typer.Exit(FAILED)


def _table(found: Sequence[Check]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 1, 0))
    for check in found:
        word = Text("pass", style="green") if check.passed else Text("FAIL", style="bold red")
        table.add_row(word, Text(check.name), Text(check.detail, style="dim"))
    failed = sum(not check.passed for check in found)
    verdict = (
        f"{failed} of {len(found)} checks failed: attacks do not measure this model's robustness."
        if failed
        else "All checks passed: no sign of hidden gradients. That is no proof of robustness."
    )
    return Group(Text(), table, Text(verdict, style="bold red" if failed else "green"))
