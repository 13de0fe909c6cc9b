"""`verify`: every number of a record derived again, by a second implementation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixeldp_fast.cli import options
from pixeldp_fast.cli.console import show, show_note
from pixeldp_fast.cli.opening import NoiseWords, open_data, open_model
from pixeldp_fast.cli.progress import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixeldp_fast.data.dataset import Dataset
    from pixeldp_fast.verify.findings import Check, Verification
    from pixeldp_fast.verify.folder import Manifest
    from pixeldp_fast.verify.reading import Records

DISAGREES = 3
_LISTED = 20  # disagreements of one kind; the rest is counted

Record = Annotated[
    Path,
    typer.Argument(
        help="A run's folder, its certificates.jsonl, a .jsonl or .parquet file, or the folder or "
        "intervals.jsonl of regress."
    ),
]
Model = Annotated[
    str | None,
    typer.Option(help="As for certify: draw some examples again with this model; needs --data."),
]
MaybeData = Annotated[
    str | None, typer.Option("--data", help="As for certify: check that these are the examples.")
]
Draws = Annotated[int, typer.Option(help="About how many draws to make again, with --model.")]


def verify(
    file: Record,
    model: Model = None,
    data: MaybeData = None,
    split: options.Split = "test",
    draws: Draws = 200_000,
    device: options.Device = "auto",
    architecture: options.Architecture = None,
    num_classes: options.NumClasses = None,
    data_root: options.DataFolder = None,
) -> None:
    """Derive every bound and radius of a record again from its counts, and name what disagrees.

    A second implementation in 40 digits, which shares no formula with the first: every number must
    be on the safe side of the exact one and within 1e-9 of it. With --model, a random sample of the
    examples is drawn again from the stored seed. Needs the extra `verify`.
    """
    from pixeldp_fast.errors import InvalidArgument
    from pixeldp_fast.verify.regression import intervals_file
    from pixeldp_fast.verify.whole import read
    from pixeldp_fast.verify.whole import verify as verified

    if model is not None and data is None:
        raise InvalidArgument("--model needs --data: the draws are made at the record's examples.")
    if draws < 1:
        raise InvalidArgument(f"--draws must be at least 1, got {draws}.")
    intervals = intervals_file(file)
    if intervals is not None:
        _finish(_of_intervals(intervals, data))
        return
    records, manifest = read(file)
    with shown("verify", lambda info: f"{info['of']} examples", "rate") as progress:
        found = verified(file, records, manifest, _paced(progress))
    if data is not None:
        dataset = open_data(data, split, data_root)
        words = {"architecture": architecture, "num_classes": num_classes, "device": device}
        found.checks.extend(_with_data(records, manifest, dataset, model, draws, words))
    else:
        found.checks.extend(_without_data())
    _finish(found)


def _finish(found: Verification) -> None:
    show("", _table(found), "", *_listing(found), _verdict(found))
    if not found.passed:
        raise typer.Exit(DISAGREES)


def _of_intervals(path: Path, data: str | None) -> Verification:
    """A regressor's intervals; its draws are not made again."""
    from pixeldp_fast.errors import InvalidArgument
    from pixeldp_fast.verify.regression import verify_intervals

    if data is not None:
        raise InvalidArgument(
            "--data and --model are for certificates: of a regressor's intervals the ends are "
            "derived again, but no draws made."
        )
    with shown("verify", lambda info: f"{info['of']} examples", "rate") as progress:
        found = verify_intervals(path, _paced(progress))
    found.checks.extend(_without_draws())
    return found


def _without_draws() -> Iterator[Check]:
    from pixeldp_fast.verify.findings import Check

    for name in ("data", "model", "draws"):
        yield Check(name, "not for intervals", skipped=True)


def _paced(progress: Any) -> Any:
    """The progress of examples, with their rate."""
    import time

    start = time.monotonic()

    def report(done: int, total: int) -> None:
        rate = done / max(time.monotonic() - start, 1e-3)
        progress(done, total, {"of": f"{done} of {total}", "rate": rate})

    return report


def _with_data(
    records: Records,
    manifest: Manifest | None,
    dataset: Dataset,
    source: str | None,
    draws: int,
    words: dict[str, Any],
) -> Iterator[Check]:
    from pixeldp_fast.verify.findings import Check
    from pixeldp_fast.verify.model import check_data, check_model
    from pixeldp_fast.verify.redraw import check_draws, repeater, sample

    at_hand = check_data(records, manifest, dataset)
    yield at_hand
    if source is None:
        yield from _without_model()
        return
    noise = _noise_of(records, own=Path(source).is_dir())
    model = open_model(source, noise, dataset, **words).model
    same = check_model(records.claim, model)
    yield same
    if at_hand.disagreements or same.disagreements:
        yield Check("draws", "not those of this data and model", skipped=True)
        return
    again = repeater(records.claim, model)
    if again.close is not None:
        show_note(f"another arithmetic: {again.why}")
    rows = sample(records, draws)
    first = ", ".join(str(row["index"]) for row in rows[:10])
    show_note(f"drawing again: examples {first}{', ...' if len(rows) > 10 else ''}")
    with shown("draw again", lambda info: f"{info['of']} examples", "rate") as progress:
        yield check_draws(records.claim, rows, len(records.rows), again, dataset, _paced(progress))


def _without_data() -> Iterator[Check]:
    from pixeldp_fast.verify.findings import Check

    yield Check("data", "give --data", skipped=True)
    yield from _without_model()


def _without_model() -> Iterator[Check]:
    from pixeldp_fast.verify.findings import Check

    for name in ("model", "draws"):
        yield Check(name, "give --model and --data", skipped=True)


def _noise_of(records: Records, *, own: bool) -> NoiseWords:
    """The record's noise, or only its lattice for a model that brings its `own`."""
    law = records.claim["mechanism"]
    option = {"Gaussian": "sigma", "Laplace": "laplace", "Uniform": "uniform"}[law["law"]]
    named: dict[str, Any] = {} if own else {option: repr(records.claim.law.scale)}
    return NoiseWords(lattice=law.get("lattice"), **named)


def _table(found: Verification) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for title in ("check", "verdict", "compared", "with"):
        table.add_column(title, justify="right" if title == "compared" else "left")
    for check in found.checks:
        table.add_row(check.name, *_outcome(check), Text(check.against, style="dim"))
    heading = f"{found.source}: {found.examples} example{'s' * (found.examples != 1)}"
    return Group(Text(heading, "bold"), Text(), table)


def _outcome(check: Check) -> tuple[Any, str]:
    from rich.text import Text

    if check.skipped:
        return Text("not checked", style="yellow"), ""
    wrong = len(check.disagreements)
    if wrong:
        return Text(f"{wrong} DISAGREE", style="bold red"), str(check.examined)
    return Text(check.verdict, style="green"), str(check.examined or "")


def _listing(found: Verification) -> list[Any]:
    from rich.text import Text

    lines: list[Any] = []
    for check in found.checks:
        lines += [Text(str(one)) for one in check.disagreements[:_LISTED]]
        more = len(check.disagreements) - _LISTED
        if more > 0:
            lines.append(Text(f"and {more} more of {check.name}", style="dim"))
    return [*lines, ""] if lines else []


def _verdict(found: Verification) -> Any:
    from rich.text import Text

    if found.passed:
        return Text("Nothing that was checked disagrees.", style="green")
    number = len(found.disagreements)
    return Text(
        f"{number} disagreement{'s' * (number != 1)}: the record is not what its counts, model or "
        "run give.",
        style="bold red",
    )
