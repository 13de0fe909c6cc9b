"""Reports of intervals: tables, files and plots of a run whose numbers are known."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from pixeldp_fast import Gaussian, SmoothedRegressor
from pixeldp_fast.report import regression_plot
from pixeldp_fast.report.regression import compared, regression_table, write_regression
from pixeldp_fast.smooth.regression_record import Intervals
from pixeldp_fast.smooth.regression_terms import BOUNDS


class FirstPixel(nn.Module):
    def forward(self, x):
        return x[:, :1] - 0.5


@pytest.fixture(scope="module")
def run():
    regressor = SmoothedRegressor(
        FirstPixel().eval(), Gaussian(0.2), low=-1, high=1, clip=True, seed=1, backend="torch"
    )
    x = torch.linspace(0, 1, 7)[:, None].repeat(1, 2)
    found = regressor.certify(x, [0.0, 0.1, 0.2], n=500, index=0)
    named = {"name": "first pixel (test)", "quantity": "grey", "unit": "input units"}
    return compared(found.with_targets(x[:, 0].numpy() - 0.5), origin=0.5, **named)


def text_of(renderable):
    console = Console(width=100, no_color=True)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get().replace("\N{NO-BREAK SPACE}", " ")


def test_every_bound_is_judged_from_the_same_draws(run):
    assert tuple(run.by_bound) == BOUNDS
    for bound, intervals in run.by_bound.items():
        assert intervals.terms.bound == bound
        assert intervals.tally is run.intervals.tally
        assert intervals.terms.alpha == run.terms.alpha
    assert run.chosen == "parts"


def test_the_table_has_the_widths_the_error_and_the_guarantee(run):
    text = text_of(regression_table(run))
    for words in (
        "first pixel (test)",
        "output in [-0.5, 1.5] (clipped), 7 examples",
        "Lemma 2",
        "distribution",
        "radius (2-norm, input units)",
        "at least 99.9 %",
        "in real arithmetic",
        "for comparison",
        "median instead of the mean",
        f"{run.error:.4g}",
    ):
        assert words in text, words
    row = next(line for line in text.splitlines() if line.strip().startswith("0.2"))
    numbers = [float(word) for word in row.split()]
    assert numbers[1:] == [float(f"{w[2]:.4g}") for w in run.widths().values()]


def test_the_files(run, tmp_path):
    write_regression(tmp_path / "out", run)
    folder = tmp_path / "out"
    names = sorted(p.name for p in folder.iterdir())
    plots = ["intervals.png", "intervals.svg", "widths.png", "widths.svg"]
    assert names == sorted(["intervals.jsonl", "summary.json", "widths.csv", *plots])
    again = Intervals.from_jsonl(folder / "intervals.jsonl")
    np.testing.assert_array_equal(again.lower, run.intervals.lower)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["median_widths"]["parts"] == run.widths()["parts"].tolist()
    assert summary["mean_absolute_error"] == run.error
    with (folder / "widths.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 3
    for row in rows:
        assert float(row["width_20"]) <= float(row["width_50"]) <= float(row["width_80"])
    write_regression(folder, run, with_plot=False)


def test_plots_are_the_same_bytes_and_leave_no_trace(run):
    import matplotlib

    before = dict(matplotlib.rcParams)
    first, second = regression_plot.plot_files(run), regression_plot.plot_files(run)
    assert first == second
    assert first["intervals.png"].startswith(b"\x89PNG")
    assert first["widths.svg"].startswith(b"<?xml")
    assert dict(matplotlib.rcParams) == before


def test_between_two_radii_the_wider_interval_is_drawn(run):
    figure = regression_plot._widths(run)
    (axes,) = figure.axes
    lines = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert len(lines) == 5
    assert all(line.get_drawstyle() == "steps-pre" for line in lines)
    names = {text.get_text() for text in axes.texts}
    assert {"Lemma 2 (paper)", "parts", "distribution", "mean", "median smoothing"} <= names


def test_names_at_the_ends_do_not_meet(run):
    (axes,) = regression_plot._widths(run).axes
    places = sorted(t.get_position()[1] for t in axes.texts if t.get_position()[0] > 1)
    assert len(places) == 5
    assert (np.diff(places) >= regression_plot._LEAST_GAP - 1e-9).all()


def test_three_examples_are_drawn_with_prediction_band_and_truth(run):
    panels = regression_plot._intervals(run).axes
    assert len(panels) == 3
    rows = regression_plot._examples(run.intervals.mean)
    assert (np.diff(run.intervals.mean[rows]) > 0).all()
    for axes, row in zip(panels, rows, strict=True):
        assert f"example {row}" in axes.get_title(loc="left")
        heights = [set(np.round(line.get_ydata(), 9)) for line in axes.lines]
        assert {round(float(run.intervals.mean[row]) + 0.5, 9)} in heights
        assert {round(float(run.intervals.targets[row]) + 0.5, 9)} in heights


def test_one_example_one_radius_and_no_targets(run):
    regressor = SmoothedRegressor(
        FirstPixel().eval(), Gaussian(0.2), low=-1, high=1, clip=True, seed=1, backend="torch"
    )
    found = regressor.certify(torch.ones(1, 2), [0.0], n=50, bound="lemma2", norm="inf")
    single = compared(found, name="one", quantity="grey", unit="input units")
    assert single.error is None
    assert "infinity-norm" in single.axis
    assert "error" not in text_of(regression_table(single))
    assert len(regression_plot.plot_files(single)) == 4


def test_the_guarantee_names_what_the_bound_is_about(run):
    assert "the mean of the output" in run.guarantee
    assert "the median of the output" in replace(run, chosen="quantile").guarantee
