"""`certify`: radii for a data set, into a folder that a killed run resumes from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixeldp_fast.cli import options
from pixeldp_fast.cli.console import show, show_note, show_warning
from pixeldp_fast.cli.decide import decide_into, decision_request
from pixeldp_fast.cli.opening import (
    NoiseWords,
    chosen,
    default_out,
    open_data,
    open_model,
    parse_radii,
)
from pixeldp_fast.cli.progress import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixeldp_fast.data.dataset import Dataset
    from pixeldp_fast.report.summary import Summary
    from pixeldp_fast.smooth.classifier import SmoothedClassifier
    from pixeldp_fast.smooth.judge import Terms
    from pixeldp_fast.types import IntArray

Model = Annotated[
    str,
    typer.Argument(
        help="A folder that train wrote, a .pth.tar file of Cohen et al., module:factory."
    ),
]
SHARD_DRAWS = 200_000
_CHECKED_EXAMPLES = 100  # on which the model is tried with and without its noise


def certify(
    model: Model,
    data: options.Data,
    split: options.Split = "test",
    sigma: options.Sigma = None,
    laplace: options.LaplaceScale = None,
    uniform: options.UniformHalfWidth = None,
    lattice: options.Lattice = None,
    n0: Annotated[int, typer.Option("--n0", "--N0", help="Draws that choose the class.")] = 100,
    n: Annotated[
        int, typer.Option("--n", "--N", help="Draws that bound its probability.")
    ] = 100_000,
    alpha: options.Alpha = 0.001,
    norm: options.Norm = None,
    bound: Annotated[str, typer.Option(help="tight, pixeldp or pixeldp-classical.")] = "tight",
    scores: options.Scores = "argmax",
    competitor: options.Competitor = "complement",
    stop: options.Stop = "fixed",
    loss: options.Loss = None,
    mean_bound: options.MeanBound = None,
    skip: options.Skip = 1,
    max: options.Max = -1,
    batch: options.Batch = None,
    shard_draws: Annotated[
        int, typer.Option(help="About how many draws a kill can lose; fewer for slow networks.")
    ] = SHARD_DRAWS,
    backend: options.Backend = "auto",
    dtype: options.Dtype = None,
    seed: options.Seed = None,
    device: options.Device = "auto",
    out: options.Out = None,
    resume: options.Resume = True,
    radii: options.AskedRadii = None,
    table_radii: options.TableRadii = None,
    architecture: options.Architecture = None,
    num_classes: options.NumClasses = None,
    data_root: options.DataFolder = None,
) -> None:
    """Certify the predictions on a data set: the radius within which each cannot change.

    sigma and radii are in input units: pixels are in [0, 1]. sigma has no default; leave it out for
    a checkpoint that train wrote, which brings its noise.
    """
    asked_radii, table = parse_radii(radii), parse_radii(table_radii)
    request = {
        "norm": norm, "n0": n0, "n": n, "alpha": alpha, "scores": scores, "bound": bound,
        "competitor": competitor, "stop": stop, "loss": loss, "mean_bound": mean_bound,
    }  # fmt: skip
    if asked_radii is not None:
        request = decision_request(request, table_radii)
    dataset = open_data(data, split, data_root)
    positions = chosen(dataset, skip, max)
    opened = open_model(
        model,
        NoiseWords(sigma, laplace, uniform, lattice),
        dataset,
        architecture=architecture,
        num_classes=num_classes,
        device=device,
    )
    smoothed = opened.smoothed(backend=backend, dtype=dtype, seed=seed, tile=batch)
    folder = out or default_out("certify" if radii is None else "decide", model, data, split)
    name = f"{opened.name} on {dataset.name} ({split})"
    if asked_radii is not None:
        decide_into(
            folder,
            smoothed,
            dataset,
            positions,
            asked_radii,
            name=name,
            request=request,
            resume=resume,
            shard_draws=shard_draws,
        )
        return
    summary = certify_into(
        folder,
        smoothed,
        dataset,
        positions,
        name=name,
        request=request,
        resume=resume,
        radii=table,
        shard_draws=shard_draws,
    )
    show_summary(summary, folder)


def certify_into(
    folder: Path,
    smoothed: SmoothedClassifier,
    dataset: Dataset,
    positions: IntArray,
    *,
    name: str,
    request: dict[str, Any],
    resume: bool = True,
    radii: Sequence[float] | None = None,
    shard_draws: int = SHARD_DRAWS,
) -> Summary:
    """Certify with a progress display, and write the run's report into its folder.

    Raises
    ------
    InvalidArgument
        Before any draw, when n is too small for any certificate at this alpha.
    """
    from pixeldp_fast.jobs.local import certify_dataset
    from pixeldp_fast.report import write_report

    first = dataset.images(positions[:1]).to(smoothed.device)
    terms = smoothed.terms(first, **request)
    _check_enough_draws(terms)
    for line in _outlook(name, terms, smoothed, len(positions)):
        show_note(line)
    _warn_if_untrained(smoothed, dataset, positions)
    images = len(positions)

    def describe(info: dict[str, Any]) -> str:
        rate = f", {info['draws_per_second']:,.0f} draws/s" if info["draws_per_second"] else ""
        return f"{info['certified']} of {images} images{rate}"

    rate = "draws_per_second" if terms.stop == "fixed" else "done_per_second"
    with shown("certify", describe, rate) as progress:
        certificates = certify_dataset(
            smoothed,
            dataset,
            out=folder,
            resume=resume,
            indices=positions,
            progress=progress,
            shard_draws=shard_draws,
            **request,
        )
    return write_report(folder, certificates, name=name, radii=radii)


def show_summary(summary: Summary, folder: Path) -> None:
    """The table, and where the files are."""
    from pixeldp_fast.report.plot import available
    from pixeldp_fast.report.table import run_table

    show("", run_table(summary), "")
    show_note(f"written to {folder}")
    note_missing_tsv(summary)
    if not available():
        show_note("no plot was drawn: pip install 'pixeldp_fast[plot]'")


def note_missing_tsv(summary: Summary) -> None:
    """Say why a run without labels has no certificates.tsv."""
    if not summary.labelled:
        show_note("no labels: shares are not accuracies, and certificates.tsv needs labels")


def _check_enough_draws(terms: Terms) -> None:
    from pixeldp_fast.errors import InvalidArgument
    from pixeldp_fast.report import largest_radius, smallest_n

    if largest_radius(terms) > 0:
        return
    raise InvalidArgument(
        f"n = {terms.n} draws can certify nothing at alpha = {terms.alpha:g}, even if all of them "
        f"agree: at least {smallest_n(terms)} are needed, and 100 000 are customary."
    )


def _outlook(name: str, terms: Terms, smoothed: SmoothedClassifier, images: int) -> list[str]:
    """What will be done and what it can give at most."""
    from torch import nn

    from pixeldp_fast.report import largest_radius
    from pixeldp_fast.report.words import grouped, norm_name, program, size

    low, high = smoothed.input_range or (float("-inf"), float("inf"))
    behind = not isinstance(smoothed.model.prefix, nn.Identity)
    place = (
        f"on the features behind the first layers (sensitivity {terms.sensitivity:.4g})"
        if behind
        else "on the image"
    )
    return [
        f"{name}: {grouped(images)} images, on {smoothed.device}",
        f"noise: {terms.mechanism} {place}",
        f"claims: {program(terms)}",
        f"draws: n0 = {grouped(terms.n0)} and n = {grouped(terms.n)} per image, alpha = "
        f"{terms.alpha:g}, {norm_name(terms)}, bound {terms.bound}",
        f"units: radii{'' if behind else ' and the noise'} are in input units, pixels in "
        f"[{low:g}, {high:g}]",
        f"largest radius possible at this n and alpha: {size(largest_radius(terms))}",
    ]


def _warn_if_untrained(smoothed: SmoothedClassifier, dataset: Dataset, positions: IntArray) -> None:
    """A model that noise breaks gets small radii however many draws there are.

    Without labels it cannot be told.
    """
    if dataset.targets is None:
        return
    from pixeldp_fast.train.evaluate import check_noise

    check = check_noise(smoothed.model, dataset.subset(positions), examples=_CHECKED_EXAMPLES)
    if check.untrained:
        show_warning(
            f"{check.message()} Most radii will be 0; train it behind this noise first "
            "(pixeldp-fast train)."
        )
    else:
        show_note(
            f"single draws: {check.under_noise:.0%} right under noise, {check.without_noise:.0%} "
            f"without ({check.examples} images)"
        )
