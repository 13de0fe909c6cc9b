"""`predict`: the smoothed classifier's answer for every example."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixeldp_fast.cli import options
from pixeldp_fast.cli.console import show
from pixeldp_fast.cli.opening import NoiseWords, chosen, open_data, open_model

if TYPE_CHECKING:
    from pixeldp_fast.data.dataset import Dataset

Source = Annotated[
    str,
    typer.Argument(help="As --data of certify, such as an .npz file with images `x`."),
]
_BLOCK = 256  # examples held at a time


def predict(
    checkpoint: Annotated[str, typer.Argument(help="As for certify.")],
    input: Source,
    split: options.Split = "test",
    skip: options.Skip = 1,
    max: options.Max = -1,
    n: Annotated[int, typer.Option("--n", "--N", help="Draws per example.")] = 1000,
    alpha: Annotated[
        float,
        typer.Option(help="Probability, per example, of a class that is not the smoothed one's."),
    ] = 0.001,
    sigma: options.Sigma = None,
    laplace: options.LaplaceScale = None,
    uniform: options.UniformHalfWidth = None,
    lattice: options.Lattice = None,
    scores: options.Scores = "argmax",
    batch: options.Batch = None,
    backend: options.Backend = "auto",
    dtype: options.Dtype = None,
    device: options.Device = "auto",
    seed: options.Seed = None,
    architecture: options.Architecture = None,
    num_classes: options.NumClasses = None,
    data_root: options.DataFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Predict with the smoothed classifier; -1 (abstain) where the draws do not decide.

    Leave the seed out when you serve predictions: a fresh secret one is drawn.
    """
    import json

    dataset = open_data(input, split, data_root)
    positions = chosen(dataset, skip, max)
    noise = NoiseWords(sigma, laplace, uniform, lattice)
    opened = open_model(
        checkpoint,
        noise,
        dataset,
        architecture=architecture,
        num_classes=num_classes,
        device=device,
    )
    smoothed = opened.smoothed(backend=backend, dtype=dtype, seed=seed, tile=batch)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(positions), _BLOCK):
        part = positions[start : start + _BLOCK]
        rows += _predicted(smoothed, dataset, part, n=n, alpha=alpha, scores=scores)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    else:
        show(_table(rows, dataset, n, alpha))


def _predicted(
    smoothed: Any, dataset: Dataset, part: Any, *, n: int, alpha: float, scores: str
) -> list[dict[str, Any]]:
    from pixeldp_fast.noise.stream import Purpose
    from pixeldp_fast.smooth.inputs import checked_alpha, checked_count
    from pixeldp_fast.smooth.judge import class_scores
    from pixeldp_fast.smooth.vote import predicted_classes

    n, alpha = checked_count("n", n, 1), checked_alpha(alpha)
    x = dataset.images(part).to(smoothed.device)
    tally = smoothed.count(x, n, index=part, purpose=Purpose.PREDICTION, scores=scores)
    classes = predicted_classes(tally, scores, alpha)
    top, labels = class_scores(tally, scores).argmax(axis=1), dataset.labels(part)
    return [
        {
            "index": int(part[i]),
            **({} if labels is None else {"label": int(labels[i])}),
            "prediction": int(classes[i]),
            "top": int(top[i]),
            "votes": round(float(tally.counts[i, top[i]] / n), 6),
        }
        for i in range(len(part))
    ]


def _table(rows: list[dict[str, Any]], dataset: Dataset, n: int, alpha: float) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from pixeldp_fast.report.words import confidence, grouped, percent
    from pixeldp_fast.types import ABSTAIN

    has_labels = bool(rows) and "label" in rows[0]
    names = dict(enumerate(dataset.class_names or ()))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for title in ("index", *(["label"] if has_labels else []), "prediction", "votes"):
        table.add_column(title, justify="right" if title in ("index", "votes") else "left")
    for row in rows:
        abstains = row["prediction"] == ABSTAIN
        answer = "abstain" if abstains else str(names.get(row["prediction"], row["prediction"]))
        style = "yellow" if abstains else ""
        if has_labels and not abstains:
            style = "green" if row["prediction"] == row["label"] else "red"
        label = [str(names.get(row["label"], row["label"]))] if has_labels else []
        votes = percent(row["votes"]) + (f" for {row['top']}" if abstains else "")
        table.add_row(str(row["index"]), *label, Text(answer, style=style), votes)
    note = (
        f"{grouped(n)} draws per example: with probability at least {confidence(alpha)} (alpha = "
        f"{alpha:g}), for each apart, no other class than the smoothed classifier's"
    )
    return Group(table, Text(), Text(note, style="dim"))
