"""Options that several commands share, and their texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    str,
    typer.Option(
        help="Data set: digits, mnist, fashion_mnist, cifar10, svhn, an .npz file (its labels may "
        "be missing), a folder with one folder of images per class, or module:factory."
    ),
]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data-root", help="Folder of the named data sets; default: $PIXELDP_DATA."),
]
Split = Annotated[str, typer.Option(help="train or test.")]
Sigma = Annotated[
    str | None,
    typer.Option(help="Standard deviation of Gaussian noise (2-norm); pixels are in [0, 1]."),
]
LaplaceScale = Annotated[
    str | None, typer.Option("--laplace", help="Scale of Laplace noise (1-norm).")
]
UniformHalfWidth = Annotated[
    str | None, typer.Option("--uniform", help="Half-width of uniform noise (1-norm).")
]
Lattice = Annotated[
    int | None,
    typer.Option(
        help="M: noise on multiples of 1/M, summed in integers, so that certificates hold for the "
        "program that runs. 255 for 8-bit images; behind a prefix a power of two from 4096 on."
    ),
]
Norm = Annotated[
    str | None, typer.Option(help="Norm of the attack: 1, 2 or inf; default: the noise's own.")
]
Skip = Annotated[int, typer.Option(help="Take every SKIP-th example.")]
Max = Annotated[int, typer.Option(help="Stop before the example at this position; -1: the end.")]
Alpha = Annotated[float, typer.Option(help="Probability, per example, of a false claim.")]
Scores = Annotated[str, typer.Option(help="argmax (votes) or softmax.")]
Batch = Annotated[
    int | None,
    typer.Option("--batch", "--tile", help="Draws per evaluation of the network; default: chosen."),
]
Backend = Annotated[str, typer.Option(help="auto, triton, native, torch or reference.")]
Dtype = Annotated[
    str | None, typer.Option(help="Arithmetic: float32 (default), float64, bfloat16 or float16.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto: cuda where there is one.")]
Seed = Annotated[
    int | None,
    typer.Option(help="Of the noise; default: from the operating system, and recorded."),
]
Architecture = Annotated[
    str | None,
    typer.Option(
        help="For a checkpoint of a network of your own: its module:factory, which says that you "
        "trust that code."
    ),
]
NumClasses = Annotated[
    int | None, typer.Option(help="Classes, for a model from module:factory; default: the data's.")
]
Out = Annotated[Path | None, typer.Option(help="Folder for the results; default: under runs/.")]
Resume = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Go on with the run in the folder, or refuse.")
]
Radii = Annotated[
    str | None,
    typer.Option(help="Radii of the table in input units, such as 0.1,8/255; default: round ones."),
]
AskedRadii = Annotated[
    str | None,
    typer.Option(
        "--radii",
        help="Decide these radii in input units, such as 0.1,8/255, with as few draws as it takes, "
        "n at most, instead of certifying one per image with all n.",
    ),
]
TableRadii = Annotated[
    str | None, typer.Option(help="Radii of the table in input units; default: round ones.")
]
Competitor = Annotated[
    str, typer.Option(help="complement, or all: every other class with a bound of its own.")
]
Stop = Annotated[str, typer.Option(help="fixed, or loss: stop at a small loss of radius.")]
Loss = Annotated[
    float | None, typer.Option(help="With --stop loss: relative loss of radius; default: 0.01.")
]
MeanBound = Annotated[
    str | None,
    typer.Option(
        help="With --scores softmax: betting (default), bernstein, hoeffding or "
        "hoeffding+bernstein."
    ),
]
