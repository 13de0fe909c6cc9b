"""A report's folder, and the runs that are read back for one."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path

from pixeldp_fast.errors import InvalidArgument, RecordError
from pixeldp_fast.files import write_whole
from pixeldp_fast.report import plot
from pixeldp_fast.report.curve import curves_csv
from pixeldp_fast.report.markdown import summary_markdown
from pixeldp_fast.report.summary import Named, Summary, default_radii, summarise
from pixeldp_fast.report.words import guarantee, share_name
from pixeldp_fast.smooth.certificate import Certificates
from pixeldp_fast.smooth.records import write_parquet, write_tsv
from pixeldp_fast.types import ArrayLike


def write_report(
    folder: str | os.PathLike[str],
    certificates: Certificates,
    *,
    name: str | None = None,
    labels: ArrayLike | None = None,
    radii: Sequence[float] | None = None,
    with_plot: bool | None = None,
) -> Summary:
    """Write summary.json, summary.md, curve.csv, curve.png, curve.svg, certificates.tsv (.parquet).

    Without labels the share certified takes the place of certified accuracy, and certificates.tsv,
    which has a label column, is not written.

    Parameters
    ----------
    folder : path
        Made where it is missing; files of these names are replaced.
    name : str, optional
        What titles call the run, such as "pixeldp_cnn on digits (test)"; default: what is reported.
    labels : int [B], optional
        True classes; default: the ones stored with the certificates.
    radii : float [R], optional
        Of the table, in input units; default: round ones.
    with_plot : bool or None
        None: where matplotlib is installed. The Parquet file is written where pyarrow is.

    Returns
    -------
    summary : Summary

    Raises
    ------
    MissingExtra
        With `with_plot=True` and no matplotlib; nothing has been written then.
    """
    if labels is not None:
        certificates = certificates.with_labels(labels)
    name = name or share_name(certificates.labels is not None)
    summary = summarise(Named(name, certificates), radii)
    path = _common_files(folder, [summary], with_plot)
    if summary.labelled:
        write_tsv(certificates, path / "certificates.tsv")
    if certificates.terms is not None and importlib.util.find_spec("pyarrow") is not None:
        write_parquet(certificates, path / "certificates.parquet")
    return summary


def write_comparison(
    folder: str | os.PathLike[str],
    runs: Sequence[Named],
    *,
    radii: Sequence[float] | None = None,
    with_plot: bool | None = None,
) -> list[Summary]:
    """Write summary.json, summary.md and the curves of several runs, on one plot.

    Parameters are those of `write_report`; all tables use the same radii.
    """
    summaries = compare(runs, radii)
    _common_files(folder, summaries, with_plot)
    return summaries


def compare(runs: Sequence[Named], radii: Sequence[float] | None = None) -> list[Summary]:
    """Summaries of several runs at the same radii; all with labels, or all without."""
    if not runs:
        raise InvalidArgument("At least one run is needed.")
    without = [run.name for run in runs if run.certificates.labels is None]
    if 0 < len(without) < len(runs):
        raise InvalidArgument(
            f"Runs with labels and without cannot be compared: {', '.join(without)} without. "
            "Accuracy counts right predictions only; report them apart."
        )
    if radii is None:
        radii = default_radii([summarise(run).curve for run in runs])
    return [summarise(run, radii) for run in runs]


def _common_files(
    folder: str | os.PathLike[str], summaries: Sequence[Summary], with_plot: bool | None
) -> Path:
    with_plot = plot.available() if with_plot is None else with_plot
    images = plot.plot_files(summaries) if with_plot else {}
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    records = [{**s.to_dict(), "guarantee": guarantee(s.terms)} for s in summaries]
    content = records[0] if len(records) == 1 else {"runs": records}
    write_whole(path / "summary.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
    write_whole(path / "summary.md", summary_markdown(summaries, with_plot))
    write_whole(path / "curve.csv", curves_csv([(s.name, s.curve) for s in summaries]))
    for kind, image in images.items():
        write_whole(path / f"curve.{kind}", image)
    return path


def load_named(path: str | os.PathLike[str], name: str | None = None) -> Named:
    """Certificates from a run folder, a .jsonl file or one of Cohen's TSV files.

    Parameters
    ----------
    path : path
        A file is read as JSON lines where it begins with "{", else as a TSV.
    name : str, optional
        Default: the name that the run folder records, else that of the file or folder.

    Raises
    ------
    RecordError, RunFolderError
        When there is no such file, or it is not what it should be.
    """
    source = Path(path)
    if source.is_dir():
        from pixeldp_fast.jobs.store import open_run

        run = open_run(source)
        return Named(name or run_name(source), run.certificates())
    try:
        with source.open("rb") as file:
            first = file.read(1)
    except OSError as error:
        raise RecordError(f"{source} cannot be read: {error.strerror}.") from error
    read = Certificates.from_jsonl if first == b"{" else Certificates.from_tsv
    return Named(name or source.stem, read(source))


def run_name(folder: Path) -> str:
    """The name in the folder's summary.json, else the folder's own."""
    try:
        return str(json.loads((folder / "summary.json").read_text())["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return folder.resolve().name
