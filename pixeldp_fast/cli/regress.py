"""`regress`: a regressor behind noise, and how far attacks can move its output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixeldp_fast.cli import options
from pixeldp_fast.cli.console import show, show_note
from pixeldp_fast.cli.opening import (
    NoiseWords,
    chosen,
    default_out,
    parse_device,
    parse_dtype,
    parse_radii,
)
from pixeldp_fast.errors import InvalidArgument

if TYPE_CHECKING:
    from pixeldp_fast.data.real import RealDataset
    from pixeldp_fast.noise.mechanism import AbstractMechanism
    from pixeldp_fast.smooth.model import PixelDP

MODEL = "regressor.safetensors"
SIGMA = {"ink": 0.25, "wine": 0.5}  # where no noise is named
_RADII = 21  # from 0 to the noise's scale

Task = Annotated[
    str,
    typer.Argument(
        help="ink (the share of a digit's image that is inked) or wine (quality from 0 to 10)."
    ),
]


def regress(
    task: Task = "ink",
    data: Annotated[
        str | None,
        typer.Option(help="Images for ink; default: mnist, or digits without $PIXELDP_DATA."),
    ] = None,
    split: options.Split = "test",
    model: Annotated[
        Path | None,
        typer.Option(help="A regressor's file that an earlier run wrote; default: train one."),
    ] = None,
    sigma: options.Sigma = None,
    laplace: options.LaplaceScale = None,
    uniform: options.UniformHalfWidth = None,
    lattice: options.Lattice = None,
    inputs: Annotated[
        str | None,
        typer.Option(help="With --lattice, what is claimed about: lattice, real attacks or real."),
    ] = None,
    n: Annotated[int, typer.Option("--n", "--N", help="Draws per example.")] = 10_000,
    alpha: options.Alpha = 0.001,
    norm: options.Norm = None,
    bound: Annotated[
        str, typer.Option(help="lemma2, mean, parts, distribution or quantile.")
    ] = "parts",
    mean_bound: Annotated[
        str, typer.Option(help="Confidence bound of means: betting, bernstein or hoeffding.")
    ] = "betting",
    radii: options.Radii = None,
    skip: options.Skip = 1,
    max: options.Max = 300,
    batch: options.Batch = None,
    epochs: Annotated[int | None, typer.Option(help="Of the training.")] = None,
    backend: options.Backend = "auto",
    dtype: options.Dtype = None,
    seed: options.Seed = None,
    device: options.Device = "cpu",
    out: options.Out = None,
    data_root: options.DataFolder = None,
) -> None:
    """Certify a regressor: where its smoothed output stays under every attack of a size.

    Trains a small network behind noise, or takes one from --model; prints the widths of the
    paper's Lemma 2 and of the bounds that beat it, and plots both against the radius.
    """
    from pixeldp_fast.data.tasks import open_task
    from pixeldp_fast.models.regressor import build_regressor
    from pixeldp_fast.noise import Gaussian
    from pixeldp_fast.report.plot import available
    from pixeldp_fast.report.regression import compared, regression_table, write_regression
    from pixeldp_fast.smooth.regressor import SmoothedRegressor
    from pixeldp_fast.train.regression import WIDTHS

    test = open_task(task, split, images=data, root=data_root)
    positions = chosen(test, skip, max)
    words = NoiseWords(sigma, laplace, uniform, lattice)
    noise = NoiseWords(sigma, laplace, uniform).mechanism()
    train = None if model else open_task(task, "train", images=data, root=data_root)
    how: dict[str, Any] = {"backend": backend, "dtype": parse_dtype(dtype), "tile": batch}

    def smooth(network: PixelDP) -> SmoothedRegressor:
        return SmoothedRegressor(
            words.onto_lattice(network).to(parse_device(device)),
            low=test.low,
            high=test.high,
            clip=True,
            seed=seed,
            input_range=test.input_range,
            inputs=inputs,
            **how,
        )

    law = noise or Gaussian(SIGMA[task])
    if model is None:
        smoothed = smooth(build_regressor(test.input_shape, WIDTHS, law).eval())
    else:
        smoothed = smooth(_loaded(model, test, noise))
    x = test.batch(positions).to(smoothed.device)
    asked = parse_radii(radii) or _default_radii(smoothed.mechanism)
    request: dict[str, Any] = {
        "norm": norm, "n": n, "alpha": alpha, "bound": bound, "mean_bound": mean_bound
    }  # fmt: skip
    smoothed.terms(x, asked, **request)  # refuses before any training or draw
    folder = out or default_out("regress", test.name)
    if train is not None:
        smoothed = smooth(_trained(train, law, epochs, folder))
    show_note(
        f"{test.name}: {len(positions)} examples, {n} draws each behind {smoothed.mechanism}; "
        f"outputs clipped to [{test.low + test.origin:g}, {test.high + test.origin:g}] as part of "
        "the certified model"
    )
    intervals = smoothed.certify(x, asked, index=positions, **request)
    run = compared(
        intervals.with_targets(test.values(positions)),
        name=f"{test.name} ({split})",
        origin=test.origin,
        quantity=test.quantity,
        unit=test.unit,
    )
    write_regression(folder, run)
    show("", regression_table(run), "")
    show_note(f"written to {folder}")
    if not available():
        show_note("no plot was drawn: pip install 'pixeldp_fast[plot]'")


def _default_radii(mechanism: AbstractMechanism) -> list[float]:
    """Evenly from 0 to the noise's scale."""
    return [mechanism.noise_scale * i / (_RADII - 1) for i in range(_RADII)]


def _trained(
    train: RealDataset, mechanism: AbstractMechanism, epochs: int | None, folder: Path
) -> PixelDP:
    """A regressor for the task, saved to the folder."""
    import dataclasses

    from pixeldp_fast.models.regressor import RegressorConfig, save_regressor
    from pixeldp_fast.train.regression import WIDTHS, settings_for, train_regressor

    settings = settings_for(train)
    if epochs is not None:
        settings = dataclasses.replace(settings, epochs=epochs)
    show_note(
        f"train on {train.name} ({len(train)} examples) behind {mechanism}, {settings.epochs} "
        "epochs"
    )
    network = train_regressor(train, mechanism, settings)
    folder.mkdir(parents=True, exist_ok=True)
    config = RegressorConfig(
        train.name, train.input_shape, WIDTHS, train.low, train.high, train.origin
    )
    save_regressor(folder / MODEL, network, config)
    return network


def _loaded(path: Path, test: RealDataset, mechanism: AbstractMechanism | None) -> PixelDP:
    """The regressor in a file, if it is one of this task and noise."""
    from pixeldp_fast.models.regressor import load_regressor

    network, config = load_regressor(path)
    own = (config.task, config.low, config.high, config.origin)
    if own != (test.name, test.low, test.high, test.origin):
        raise InvalidArgument(f"{path} was trained for {config.task!r}, not for {test.name!r}.")
    if mechanism is not None and mechanism != network.mechanism:
        raise InvalidArgument(
            f"{path} brings the noise it was trained with, {network.mechanism}; {mechanism} was "
            "given. Leave --sigma, --laplace and --uniform out."
        )
    return network
