"""`attack`: accuracy under attack, and certificates attacked inside their radii."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixeldp_fast.cli import options
from pixeldp_fast.cli.console import show, show_note
from pixeldp_fast.cli.opening import (
    NoiseWords,
    chosen,
    default_out,
    open_data,
    open_model,
    parse_radii,
)
from pixeldp_fast.cli.progress import shown
from pixeldp_fast.errors import InvalidArgument

if TYPE_CHECKING:
    from pixeldp_fast.attacks.store import Arrays
    from pixeldp_fast.data.dataset import Dataset
    from pixeldp_fast.report.curve import Curve
    from pixeldp_fast.smooth.classifier import SmoothedClassifier
    from pixeldp_fast.types import IntArray, Norm

VIOLATED = 3
BLOCK = 20  # examples that a kill can lose
_CERTIFYING = {"n0": 100, "n": 10_000, "bound": "tight", "rejudge": 1_000_000}


def attack(
    model: Annotated[str, typer.Argument(help="As for certify.")],
    data: options.Data,
    split: options.Split = "test",
    sizes: Annotated[
        str | None,
        typer.Option(help="Sizes of the attack in input units, such as 0.5,1,1.5 or 8/255."),
    ] = None,
    inside: Annotated[
        bool,
        typer.Option("--inside", help="Instead: certify, and attack just inside every radius."),
    ] = False,
    norm: options.Norm = None,
    method: Annotated[str, typer.Option(help="pgd, single-step, random or search.")] = "pgd",
    steps: Annotated[
        int | None, typer.Option(help="Steps; default: 100, in the infinity-norm by the size.")
    ] = None,
    restarts: Annotated[int, typer.Option(help="Tries per image and size.")] = 15,
    draws: Annotated[int, typer.Option(help="Draws per evaluation of the smoothed model.")] = 15,
    verify: Annotated[int, typer.Option(help="Fresh draws that judge a success.")] = 1000,
    alpha: Annotated[
        float,
        typer.Option(help="Probability, per image, of a false success; of a false certificate."),
    ] = 0.001,
    n0: Annotated[int | None, typer.Option(help="With --inside: as for certify.")] = None,
    n: Annotated[
        int | None, typer.Option(help="With --inside: as for certify; default: 10 000.")
    ] = None,
    bound: Annotated[str | None, typer.Option(help="With --inside: as for certify.")] = None,
    rejudge: Annotated[
        int | None,
        typer.Option(help="With --inside: draws that judge a violation; default: a million."),
    ] = None,
    certified: Annotated[
        Path | None,
        typer.Option(help="Folder of a run of certify, whose curve is drawn beneath."),
    ] = None,
    sigma: options.Sigma = None,
    laplace: options.LaplaceScale = None,
    uniform: options.UniformHalfWidth = None,
    lattice: options.Lattice = None,
    skip: options.Skip = 1,
    max: options.Max = -1,
    backend: options.Backend = "auto",
    seed: options.Seed = None,
    device: options.Device = "auto",
    out: options.Out = None,
    resume: options.Resume = True,
    architecture: options.Architecture = None,
    num_classes: options.NumClasses = None,
    data_root: options.DataFolder = None,
) -> None:
    """Attack the smoothed model; only what fresh draws confirm counts.

    With --sizes: accuracy under attack at each of them. With --inside: nothing may change inside a
    certified radius, up to the alphas claimed; the exit code is 3 when more does.
    """
    from pixeldp_fast.attacks.store import stored_seed
    from pixeldp_fast.types import Norm as Norms

    asked = parse_radii(sizes)
    own = {"n0": n0, "n": n, "bound": bound, "rejudge": rejudge}
    _check_mode(asked, inside, own, certified)
    dataset = open_data(data, split, data_root)
    positions = chosen(dataset, skip, max)
    folder = out or default_out("inside" if inside else "attack", model, data, split)
    kept = stored_seed(folder, resume)
    opened = open_model(
        model,
        NoiseWords(sigma, laplace, uniform, lattice),
        dataset,
        architecture=architecture,
        num_classes=num_classes,
        device=device,
    )
    smoothed = opened.smoothed(backend=backend, seed=kept if seed is None else seed)
    run = _Run(
        folder,
        smoothed,
        dataset,
        positions,
        smoothed.mechanism.norm if norm is None else Norms.parse(norm),
        f"{opened.name} on {dataset.name} ({split})",
        {
            "method": method, "steps": steps, "restarts": restarts, "draws": draws,
            "verify": verify, "alpha": alpha,
        },
    )  # fmt: skip
    show_note(f"{run.name}: {len(positions)} images, {run.norm}-norm, on {smoothed.device}")
    if inside:
        _inside(run, {k: _CERTIFYING[k] if v is None else v for k, v in own.items()})
    else:
        assert asked is not None
        _curve(run, asked, _certified_curve(certified, run))


def _check_mode(
    sizes: list[float] | None, inside: bool, own: dict[str, Any], certified: Path | None
) -> None:
    if (sizes is None) != inside:
        raise InvalidArgument(
            "Give either --sizes, such as --sizes 0.5,1,1.5, or --inside, which takes the sizes "
            "from the certificates."
        )
    strange = [f"--{name}" for name, value in own.items() if value is not None and not inside]
    strange += ["--certified"] if certified is not None and inside else []
    if strange:
        with_ = "--inside" if inside else "--sizes"
        raise InvalidArgument(f"{', '.join(strange)} and {with_} do not go together.")


class _Run:
    """What both kinds of run share: the data in blocks, the folder, the progress."""

    def __init__(
        self,
        folder: Path,
        smoothed: SmoothedClassifier,
        dataset: Dataset,
        positions: IntArray,
        norm: Norm,
        name: str,
        settings: dict[str, Any],
    ) -> None:
        self.folder, self.smoothed, self.dataset = folder, smoothed, dataset
        self.positions, self.norm, self.name, self.settings = positions, norm, name, settings

    def block(self, number: int) -> tuple[Any, IntArray]:
        """The images of a block, and their positions."""
        at = self.positions[number * BLOCK : (number + 1) * BLOCK]
        return self.dataset.images(at).to(self.smoothed.device), at

    def all(
        self, more: dict[str, Any], units: int, make: Callable[[int, Callable[[int], None]], Arrays]
    ) -> Arrays:
        """Every block's arrays. `make` tells after each of `units` how many of it are found."""
        from pixeldp_fast.attacks.store import opened

        blocks = -(-len(self.positions) // BLOCK)
        with (
            opened(self.folder, self._manifest(more), blocks) as run,
            shown("attack", lambda info: f"{info['found']} found", "per_second") as progress,
        ):
            before = done = run.stored() * units
            found, began = 0, time.perf_counter()

            def one(number: int) -> Arrays:
                nonlocal found
                earlier = found

                def tell(now: int) -> None:
                    nonlocal done, found
                    done, found = done + 1, earlier + now
                    rate = (done - before) / (time.perf_counter() - began)
                    progress(done, blocks * units, {"found": found, "per_second": rate})

                return make(number, tell)

            return run.all(one)

    def _manifest(self, more: dict[str, Any]) -> dict[str, Any]:
        from pixeldp_fast._version import __version__
        from pixeldp_fast.models.fingerprint import fingerprint

        return {
            "seed": self.smoothed.seed,
            "model": fingerprint(self.smoothed.model),
            "mechanism": self.smoothed.mechanism.to_dict(),
            "data": self.dataset.fingerprint(),
            "positions": self.positions.tolist(),
            "norm": str(self.norm),
            "version": __version__,
            **self.settings,
            **more,
        }


def _curve(run: _Run, asked: list[float], certified: Curve | None) -> None:
    from pixeldp_fast.attacks.attack import attack as attack_once
    from pixeldp_fast.attacks.curve import attack_sizes, checked_sizes, curve_of
    from pixeldp_fast.attacks.store import packed
    from pixeldp_fast.files import write_whole
    from pixeldp_fast.report.attack import attack_plot, attack_table
    from pixeldp_fast.report.plot import available

    sizes, labels = checked_sizes(asked), run.dataset.known_labels(run.positions)
    x, at = run.block(0)
    how = {**run.settings, "norm": run.norm}
    # The largest size and every setting are tried on no examples, before any work.
    attack_once(run.smoothed, x[:0], labels[:0], size=float(sizes[-1]), index=at[:0], **how)

    def make(number: int, tell: Callable[[int], None]) -> Arrays:
        x, at = run.block(number)
        y = labels[number * BLOCK : (number + 1) * BLOCK]
        return attack_sizes(run.smoothed, x, y, sizes, index=at, tell=tell, **how)

    arrays = run.all({"sizes": sizes.tolist()}, len(sizes), make)
    curve = curve_of(sizes, arrays["broken"])
    write_whole(run.folder / "attack.csv", curve.csv())
    points = {"x": arrays["adversarial"], "y": arrays["label"]}
    write_whole(run.folder / "adversarial.npz", packed(points | _facts(arrays)))
    show("", attack_table(curve, run.norm), "")
    if available():
        about = "{method}, {restarts} restarts, {draws} draws, judged by {verify} fresh ones"
        subtitle = f"{run.smoothed.mechanism}, {about.format(**run.settings)}"
        plot = attack_plot(curve, run.norm, name=run.name, subtitle=subtitle, certified=certified)
        for kind, content in plot.items():
            write_whole(run.folder / f"attack.{kind}", content)
    else:
        show_note("no plot was drawn: pip install 'pixeldp_fast[plot]'")
    show_note(f"written to {run.folder}")


def _facts(arrays: Arrays) -> Arrays:
    return {name: arrays[name] for name in ("index", "broken", "norm", "draws", "calls")}


def _certified_curve(folder: Path | None, run: _Run) -> Curve | None:
    """The curve of certificates that a run of certify wrote about the same model and norm."""
    if folder is None:
        return None
    from pixeldp_fast.models.fingerprint import fingerprint
    from pixeldp_fast.report.curve import certified_curve
    from pixeldp_fast.smooth.certificate import Certificates

    path = folder / "certificates.jsonl"
    if not path.is_file():
        raise InvalidArgument(f"{folder} holds no finished run of certify.")
    found = Certificates.from_jsonl(path)
    terms = found.terms
    if terms is None or terms.model_fingerprint != fingerprint(run.smoothed.model):
        raise InvalidArgument(f"{folder} certifies another model than the one attacked.")
    return certified_curve(found if terms.norm is run.norm else found.recertify(norm=run.norm))


def _inside(run: _Run, own: dict[str, Any]) -> None:
    from pixeldp_fast.attacks.inside import attack_inside, inside_of
    from pixeldp_fast.report.words import grouped

    how = {**run.settings, **own, "norm": run.norm}

    def make(number: int, tell: Callable[[int], None]) -> Arrays:
        x, at = run.block(number)
        arrays = attack_inside(run.smoothed, x, index=at, **how)
        tell(int(arrays["violated"].sum()))
        return arrays

    arrays = run.all(own, 1, make)
    found = inside_of(arrays, run.settings["alpha"])
    listed = ", ".join(map(str, found.violations[:20].tolist()))
    show(
        "",
        f"{grouped(found.certified)} of {grouped(len(run.positions))} images certified and "
        f"attacked just inside their radii; {grouped(found.suspected)} suspected, "
        f"{len(found.violations)} confirmed by {grouped(own['rejudge'])} fresh draws"
        + (f": {listed}" if listed else ""),
        f"alpha = {found.alpha:g} allows for {found.expected:.3g} on average; so many or more have "
        f"probability {found.p_value:.3g}",
        "no violation that alpha does not allow" if found.sound else "UNSOUND: report this",
    )
    show_note(f"written to {run.folder}")
    if not found.sound:
        raise typer.Exit(VIOLATED)
