"""`train`: a network behind noise, from a recipe or from options."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixeldp_fast.cli import options
from pixeldp_fast.cli.console import show_note
from pixeldp_fast.cli.opening import (
    NoiseWords,
    default_out,
    open_data,
    parse_device,
    plain,
)
from pixeldp_fast.cli.progress import shown
from pixeldp_fast.errors import InvalidArgument

if TYPE_CHECKING:
    from pixeldp_fast.data.dataset import Dataset
    from pixeldp_fast.noise.mechanism import AbstractMechanism
    from pixeldp_fast.train.recipes import Recipe

# The (epsilon, delta) for which the paper scales its noise to the construction bound L.
PAPER_EPSILON, PAPER_DELTA = 1.0, 0.05

RecipeName = Annotated[
    str | None, typer.Argument(help="A recipe, such as digits or mnist; options override it.")
]
Construction = Annotated[
    str | None,
    typer.Option(
        "--L",
        help="The paper's construction bound: sigma = L sqrt(2 ln(1.25/0.05)), Gaussian noise.",
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", help="Of the architecture, as name=value; may be repeated."),
]


def train(
    recipe: RecipeName = None,
    arch: Annotated[
        str | None,
        typer.Option(
            help="pixeldp_cnn, mlp, resnet20, resnet110, wide_resnet28_10, module:factory."
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Data set, as for certify.")] = None,
    sigma: options.Sigma = None,
    laplace: options.LaplaceScale = None,
    uniform: options.UniformHalfWidth = None,
    construction: Construction = None,
    noise_after: Annotated[
        int | None, typer.Option(help="0: noise on the image; 1: behind the first layer.")
    ] = None,
    option: Options = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch", help="Examples per step.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--lr", help="The first one.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="On weights, not on biases.")] = None,
    schedule: Annotated[str | None, typer.Option(help="cosine, step or constant.")] = None,
    noise_ramp: Annotated[str | None, typer.Option(help="none or original.")] = None,
    crop_padding: Annotated[int | None, typer.Option(help="Zeros around random crops.")] = None,
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Mirror half of the images.")
    ] = None,
    norm: Annotated[
        str | None, typer.Option(help="Norm for which the prefix has sensitivity 1: 1, 2 or inf.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of weights, order and noise; default: 0.")
    ] = None,
    device: options.Device = "auto",
    out: options.Out = None,
    resume: options.Resume = True,
    validate: Annotated[
        bool, typer.Option(help="Measure the accuracy on the test split after every epoch.")
    ] = True,
    data_root: options.DataFolder = None,
) -> None:
    """Train a network behind noise, resumable, into a folder that certify takes.

    Either name a recipe, or give --arch, --data and the noise (--sigma, --laplace, --uniform, --L).
    """
    settings = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "noise_ramp": noise_ramp,
        "crop_padding": crop_padding,
        "flip": flip,
        "norm": norm,
        "seed": seed,
    }
    noise = NoiseWords(sigma, laplace, uniform)
    wanted = {
        **parse_options(option),
        **({} if noise_after is None else {"noise_after": noise_after}),
    }
    plan = assemble(recipe, arch, data, mechanism_of(noise, construction), wanted, settings)
    folder = out or default_out("train", recipe or plan.architecture, plan.dataset)
    dataset = open_data(plan.dataset, "train", data_root)
    validation = open_data(plan.dataset, "test", data_root) if validate else None
    train_into(folder, plan, dataset, validation, resume=resume, device=device)
    show_note(f"written to {folder}; next:\n  pixeldp-fast certify {folder} --data {plan.dataset}")


def mechanism_of(noise: NoiseWords, construction: str | None) -> AbstractMechanism | None:
    """The noise of the options; --L stands for the paper's Gaussian noise.

    Source
        Lecuyer et al., IEEE S&P 2019, section III-B: the classical Gaussian mechanism at
        (epsilon, delta) = (1, 0.05).
    """
    from pixeldp_fast.noise import Gaussian
    from pixeldp_fast.types import parse_size

    named = noise.mechanism()
    if construction is None:
        return named
    if named is not None:
        raise InvalidArgument(f"One kind of noise at a time: --L and {named} are given.")
    factor = math.sqrt(2 * math.log(1.25 / PAPER_DELTA)) / PAPER_EPSILON
    return Gaussian(parse_size(construction) * factor)


def parse_options(words: list[str] | None) -> dict[str, Any]:
    """Keyword arguments from words such as hidden=256; values are JSON where they can be."""
    found = {}
    for word in words or []:
        name, separator, value = word.partition("=")
        if not (separator and name.isidentifier()):
            raise InvalidArgument(f"--option must be name=value, got {word!r}.")
        found[name] = plain(value)
    return found


def assemble(
    recipe: str | None,
    architecture: str | None,
    data: str | None,
    mechanism: AbstractMechanism | None,
    wanted: dict[str, Any],
    settings: dict[str, Any],
) -> Recipe:
    """The recipe with everything that was given in its place, or one of the given parts alone."""
    from pixeldp_fast.train import RECIPES, Recipe, TrainingSettings

    given = {name: value for name, value in settings.items() if value is not None}
    if recipe is not None:
        if recipe not in RECIPES:
            raise InvalidArgument(
                f"The recipe must be one of {', '.join(RECIPES)}, got {recipe!r}."
            )
        base = RECIPES[recipe]
        kept = base.options if architecture in (None, base.architecture) else {}
        return Recipe(
            dataset=data or base.dataset,
            architecture=architecture or base.architecture,
            mechanism=mechanism or base.mechanism,
            options={**kept, **wanted},
            settings=dataclasses.replace(base.settings, **given),
        )
    parts = {"--arch": architecture, "--data": data, "--sigma (or another noise)": mechanism}
    missing = [name for name, part in parts.items() if part is None]
    if architecture is None or data is None or mechanism is None:
        raise InvalidArgument(
            f"Without a recipe ({', '.join(RECIPES)}), {', '.join(missing)} must be given."
        )
    return Recipe(data, architecture, mechanism, wanted, TrainingSettings(**given))


def train_into(
    folder: Path,
    plan: Recipe,
    dataset: Dataset,
    validation: Dataset | None,
    *,
    resume: bool = True,
    device: str = "auto",
) -> dict[str, Any]:
    """Train with a progress display; the summary of `pixeldp_fast.train.loop.train`."""
    from pixeldp_fast.train.initial import initial_model
    from pixeldp_fast.train.loop import train as run

    model = initial_model(
        plan.architecture,
        plan.mechanism,
        plan.settings,
        input_shape=dataset.input_shape,
        num_classes=dataset.known_classes(),
        options=plan.options,
    ).to(parse_device(device))
    show_note(
        f"train {plan.architecture} on {dataset.name} ({len(dataset)} images) behind "
        f"{plan.mechanism}, {plan.settings.epochs} epochs"
    )
    config = {"architecture": plan.architecture, "options": dict(plan.options)}
    with shown("train", _describe, "steps_per_second") as progress:
        summary = run(
            model,
            dataset,
            plan.settings,
            out=folder,
            config=config,
            resume=resume,
            progress=progress,
            validation=validation,
        )
    show_note(_result(summary))
    return summary


def _describe(info: dict[str, Any]) -> str:
    return (
        f"epoch {info['epoch']} of {info['epochs']}, loss {info['loss']:.3f}, "
        f"{info['accuracy']:.1%} right"
    )


def _result(summary: dict[str, Any]) -> str:
    validation = summary["validation_accuracy"]
    parts = [
        f"single draws are right on {summary['accuracy']:.1%} of the training images",
        None if validation is None else f"on {validation:.1%} of the test images",
        f"sensitivity of the prefix {summary['sensitivity']:.6g}",
    ]
    return ", ".join(part for part in parts if part is not None)
