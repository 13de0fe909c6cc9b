"""From words of the command line to models, data and settings; heavy imports on use."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixeldp_fast.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    import torch

    from pixeldp_fast.data.dataset import Dataset
    from pixeldp_fast.noise.mechanism import AbstractMechanism
    from pixeldp_fast.smooth.classifier import SmoothedClassifier
    from pixeldp_fast.smooth.model import PixelDP
    from pixeldp_fast.types import IntArray

DTYPES = ("float32", "float64", "bfloat16", "float16")


@dataclass(frozen=True)
class NoiseWords:
    """The options that name a noise law, at most one of them, and its lattice."""

    sigma: str | None = None
    laplace: str | None = None
    uniform: str | None = None
    lattice: int | None = None

    def mechanism(self) -> AbstractMechanism | None:
        """The law, or None where no option is given."""
        from pixeldp_fast.noise import Gaussian, Laplace, Uniform
        from pixeldp_fast.types import parse_size

        laws: dict[str, Callable[..., AbstractMechanism]] = {
            "sigma": Gaussian,
            "laplace": Laplace,
            "uniform": Uniform,
        }
        given = [name for name in laws if getattr(self, name) is not None]
        if not given:
            return None
        if len(given) > 1:
            listed = " and ".join(f"--{name}" for name in given)
            raise InvalidArgument(f"One kind of noise at a time: {listed} are given.")
        return laws[given[0]](parse_size(getattr(self, given[0])), lattice=self.lattice)

    def onto_lattice(self, model: PixelDP) -> PixelDP:
        """The model with its own noise on the lattice that is given; itself without one."""
        from pixeldp_fast.smooth.model import PixelDP

        own = model.mechanism
        if self.lattice in (None, own.lattice):
            return model
        if own.lattice is not None:
            raise InvalidArgument(f"The model brings {own}: leave --lattice out.")
        law: Any = own
        on = replace(law, lattice=self.lattice)
        return PixelDP(model.prefix, on, model.suffix).train(model.training)


@dataclass(frozen=True)
class OpenModel:
    """A model ready for use.

    Parameters
    ----------
    model : PixelDP
        In eval mode, on its device.
    name : str
        What titles call it.
    num_classes : int
    """

    model: PixelDP
    name: str
    num_classes: int

    def smoothed(
        self,
        *,
        backend: str = "auto",
        dtype: str | None = None,
        seed: int | None = None,
        tile: int | None = None,
    ) -> SmoothedClassifier:
        """The model as a smoothed classifier."""
        from pixeldp_fast.smooth.classifier import SmoothedClassifier

        return SmoothedClassifier(
            self.model,
            num_classes=self.num_classes,
            backend=backend,
            dtype=parse_dtype(dtype),
            seed=seed,
            tile=tile,
        )


def open_model(
    source: str,
    noise: NoiseWords,
    dataset: Dataset,
    *,
    architecture: str | None = None,
    num_classes: int | None = None,
    device: str = "auto",
) -> OpenModel:
    """The model that a checkpoint folder, a published checkpoint or module:factory stands for.

    Parameters
    ----------
    source : str
    noise : NoiseWords
        Needed where the model brings none.
    dataset : Dataset
        What it is for.
    architecture : str or None
        See `pixeldp_fast.models.load`.
    num_classes : int or None
        For a factory; None: the data set's, which one without labels may not know.
    device : str
        See `parse_device`.

    Raises
    ------
    InvalidArgument
        When it brings no noise and none is given, or the two differ, or it does not fit the data.
    """
    mechanism = noise.mechanism()
    path = Path(source)
    if path.is_dir():
        opened = _from_folder(path, mechanism, architecture)
    elif path.is_file():
        opened = _from_published(path, mechanism)
    elif ":" in source:
        classes = num_classes or dataset.num_classes
        if classes is None:
            raise InvalidArgument(
                f"{source} must be told how many classes there are, and {dataset.name} has no "
                "labels that say it: give --num-classes."
            )
        opened = _from_factory(source, mechanism, dataset, classes)
    else:
        raise InvalidArgument(
            f"{source!r} is no model: neither a checkpoint's folder, nor a .pth.tar file, nor of "
            "the form module:factory."
        )
    if dataset.num_classes is not None and dataset.num_classes > opened.num_classes:
        raise InvalidArgument(
            f"{dataset.name} has {dataset.num_classes} classes, the model {opened.num_classes}."
        )
    opened = replace(opened, model=noise.onto_lattice(opened.model))
    opened.model.eval().to(parse_device(device))
    return opened


def _from_folder(
    path: Path, mechanism: AbstractMechanism | None, architecture: str | None
) -> OpenModel:
    from pixeldp_fast.models import load

    model, config = load(path, architecture=architecture)
    if mechanism is not None and mechanism != model.mechanism:
        raise InvalidArgument(
            f"{path} brings the noise it was trained with, {model.mechanism}; {mechanism} was "
            "given. Leave --sigma, --laplace and --uniform out."
        )
    return OpenModel(model, config.architecture, config.num_classes)


def _from_published(path: Path, mechanism: AbstractMechanism | None) -> OpenModel:
    from pixeldp_fast.models import load_cohen
    from pixeldp_fast.smooth.model import PixelDP

    if mechanism is None:
        raise InvalidArgument(
            f"{path} does not say with which noise it is to be smoothed: give --sigma. There is no "
            "default: it belongs to the certified model."
        )
    network = load_cohen(path)
    classes = next(m for n, m in network.named_modules() if n.endswith("fc"))
    name = path.parent.name if path.name.startswith("checkpoint.pth") else path.name
    return OpenModel(PixelDP(None, mechanism, network), name, int(classes.out_features))


def _from_factory(
    source: str, mechanism: AbstractMechanism | None, dataset: Dataset, classes: int
) -> OpenModel:
    from pixeldp_fast.models import build_pixeldp

    shape = dataset.input_shape
    try:
        model = build_pixeldp(source, mechanism, input_shape=shape, num_classes=classes)
    except InvalidArgument as error:
        if mechanism is not None or "mechanism" not in str(error):
            raise
        raise InvalidArgument(
            f"{source} brings no noise of its own: give --sigma, --laplace or --uniform. There is "
            "no default: it belongs to the certified model."
        ) from error
    return OpenModel(model, source, classes)


def open_data(spec: str, split: str, root: Path | None) -> Dataset:
    """The data set of a `--data` option."""
    from pixeldp_fast.data import open_dataset

    return open_dataset(spec, split, root)


def chosen(dataset: Sized, skip: int, stop: int) -> IntArray:
    """The positions that --skip and --max leave: every skip-th one, before the position `stop`."""
    import numpy as np

    if skip < 1:
        raise InvalidArgument(f"--skip must be at least 1, got {skip}.")
    if stop == 0 or stop < -1:
        raise InvalidArgument(f"--max must be at least 1, or -1 for the end; got {stop}.")
    return np.arange(0, len(dataset) if stop < 0 else min(stop, len(dataset)), skip)


def parse_dtype(name: str | None) -> torch.dtype | None:
    """The torch dtype of that name."""
    import torch

    if name is None:
        return None
    if name not in DTYPES:
        raise InvalidArgument(f"--dtype must be one of {', '.join(DTYPES)}, got {name!r}.")
    found: torch.dtype = getattr(torch, name)
    return found


def parse_device(name: str) -> torch.device:
    """The device; "auto" is CUDA where there is one."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidArgument(f"--device must be cpu, cuda or cuda:N, got {name!r}.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InvalidArgument(
            f"--device {name} is not there: torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices."
        )
    return device


def parse_radii(text: str | None) -> list[float] | None:
    """Radii separated by commas; None stays None."""
    from pixeldp_fast.types import parse_size

    return None if text is None else [parse_size(part.strip()) for part in text.split(",")]


def default_out(*parts: str) -> Path:
    """runs/ and the parts joined to a name that any file system takes."""
    words = (re.sub(r"[^A-Za-z0-9.]+", "_", Path(part).name).strip("_.") for part in parts)
    return Path("runs") / "-".join(word for word in words if word)


def plain(value: Any) -> Any:
    """A JSON value from a word of the command line: JSON where it is, else text."""
    import json

    try:
        return json.loads(value)
    except ValueError:
        return value
