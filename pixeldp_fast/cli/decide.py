"""`certify --radii`: decide asked radii for a data set with as few draws as it takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixeldp_fast.cli.console import show, show_note
from pixeldp_fast.cli.progress import shown
from pixeldp_fast.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixeldp_fast.data.dataset import Dataset
    from pixeldp_fast.smooth.classifier import SmoothedClassifier
    from pixeldp_fast.smooth.judge import Terms
    from pixeldp_fast.types import IntArray

# What decisions are about; anything else of these options is refused.
_FIXED = {
    "bound": "tight",
    "scores": "argmax",
    "competitor": "complement",
    "stop": "fixed",
    "loss": None,
    "mean_bound": None,
}


def decision_request(request: dict[str, Any], table_radii: str | None) -> dict[str, Any]:
    """The request to decide that the options of certify make.

    Raises
    ------
    InvalidArgument
        Naming the options that do not go with --radii.
    """
    strange = [name for name, only in _FIXED.items() if request[name] != only]
    strange += ["table_radii"] if table_radii is not None else []
    if strange:
        named = ", ".join("--" + name.replace("_", "-") for name in strange)
        raise InvalidArgument(
            f"{named} and --radii do not go together: decisions are about votes against the "
            "complement, judged by the tight bound and the anytime interval."
        )
    kept = {name: value for name, value in request.items() if name not in _FIXED}
    return {"n_max" if name == "n" else name: value for name, value in kept.items()}


def decide_into(
    folder: Path,
    smoothed: SmoothedClassifier,
    dataset: Dataset,
    positions: IntArray,
    radii: Sequence[float],
    *,
    name: str,
    request: dict[str, Any],
    resume: bool,
    shard_draws: int,
) -> None:
    """Decide with a progress display, write the run's report into its folder, and show it.

    Raises
    ------
    InvalidArgument
        Before any draw, for a radius that no n up to the cap can prove.
    """
    from pixeldp_fast.jobs.decide import decide_dataset
    from pixeldp_fast.report.decisions import decision_table, write_decisions
    from pixeldp_fast.report.words import grouped

    first = dataset.images(positions[:1]).to(smoothed.device)
    terms, _ = smoothed.decision_terms(first, radii, **request)
    for line in _outlook(name, terms, smoothed, len(positions), radii):
        show_note(line)

    def describe(info: dict[str, Any]) -> str:
        rate = f", {info['draws_per_second']:,.0f} draws/s" if info["draws_per_second"] else ""
        return (
            f"{info['certified']} of {len(positions)} images, {grouped(info['draws'])} draws{rate}"
        )

    with shown("decide", describe, "done_per_second") as progress:
        decisions = decide_dataset(
            smoothed,
            dataset,
            radii,
            out=folder,
            resume=resume,
            indices=positions,
            progress=progress,
            shard_draws=shard_draws,
            **request,
        )
    show("", decision_table(write_decisions(folder, decisions, name)), "")
    show_note(f"written to {folder}")


def _outlook(
    name: str, terms: Terms, smoothed: SmoothedClassifier, images: int, radii: Sequence[float]
) -> list[str]:
    """What will be done and what it can decide at most."""
    import numpy as np

    from pixeldp_fast.report.words import grouped, norm_name, size
    from pixeldp_fast.smooth.decide import radius_at
    from pixeldp_fast.stats import confidence_sequence

    best = np.asarray(confidence_sequence(terms.n, terms.n, terms.alpha)[0])
    asked = ", ".join(f"{r:g}" for r in radii)
    return [
        f"{name}: {grouped(images)} images, on {smoothed.device}",
        f"noise: {terms.mechanism}, sensitivity {terms.sensitivity:.4g}",
        f"asked: {asked} in the {norm_name(terms)}, n0 = {grouped(terms.n0)} and at most "
        f"{grouped(terms.n)} draws per image, alpha = {terms.alpha:g}",
        f"largest radius that so many draws can prove: {size(float(radius_at(terms)(best)))}",
    ]
