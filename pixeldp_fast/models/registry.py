"""The list of networks, and how one becomes the two sides of a noise point."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import nn

from pixeldp_fast.data.factory import call_factory
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.models.cnn import mlp, pixeldp_cnn
from pixeldp_fast.models.network import Network, check_shape
from pixeldp_fast.models.normalize import Normalize, Statistics
from pixeldp_fast.models.resnet import resnet20, resnet110
from pixeldp_fast.models.wide_resnet import wide_resnet28_10
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.smooth.model import PixelDP

NETWORKS: dict[str, Callable[..., Network]] = {
    "pixeldp_cnn": pixeldp_cnn,
    "mlp": mlp,
    "resnet20": resnet20,
    "resnet110": resnet110,
    "wide_resnet28_10": wide_resnet28_10,
}

Sides = tuple[nn.Module | None, nn.Module]  # prefix, suffix


def build(name: str, *, input_shape: tuple[int, ...], num_classes: int, **options: Any) -> Sides:
    """The two sides of a network's noise point, freshly initialised from torch's generator.

    Parameters
    ----------
    name : str
        One of `NETWORKS`, or "module:factory": a callable that returns an `nn.Module` (noise on
        the input), a `PixelDP` (taken apart) or the pair (prefix, suffix). It receives the
        options, and `input_shape` and `num_classes` where it has parameters of these names.
    input_shape : (C, H, W)
    num_classes : int
        At least 2.
    **options
        Of the networks of this package: `noise_after`, 0 (default; noise on the image) or 1 (after
        the first convolution or dense layer, before its activation), for pixeldp_cnn also 2;
        `normalise`, the pair (mean [C], std [C]) of a first layer behind noise on the image; and
        the keyword arguments of the network's own function.

    Returns
    -------
    prefix : nn.Module or None
        None: noise on the image. A single layer is returned as it is.
    suffix : nn.Module

    Raises
    ------
    InvalidArgument
        For an unknown name or option.

    Guarantee
        For the networks of this package the prefix and the suffix are the two parts of a sequence
        of layers: nothing of the image reaches the suffix around the noise.
    """
    if ":" in name:
        return _sides(name, _from_factory(name, input_shape, num_classes, options))
    shape = check_shape(input_shape, num_classes)
    if name not in NETWORKS:
        raise InvalidArgument(
            f"`name` must be one of {', '.join(NETWORKS)}, or 'module:factory', got {name!r}."
        )
    noise_after = options.pop("noise_after", 0)
    normalise = options.pop("normalise", None)
    _check_options(name, options)
    network = NETWORKS[name](shape, num_classes, **options)
    return _split(name, network, noise_after, normalise, shape[0])


def build_pixeldp(
    name: str,
    mechanism: AbstractMechanism | None,
    *,
    input_shape: tuple[int, ...],
    num_classes: int,
    **options: Any,
) -> PixelDP:
    """`build`, joined to a `PixelDP`.

    Parameters
    ----------
    mechanism : Gaussian, Laplace, Uniform or None
        None only where the factory returns a `PixelDP`, whose own mechanism then stays.
    name, input_shape, num_classes, **options
        As for `build`.
    """
    if mechanism is None:
        made = _from_factory(name, input_shape, num_classes, options) if ":" in name else None
        if isinstance(made, PixelDP):
            return made
        raise InvalidArgument(
            f"`mechanism` is needed, such as Gaussian(0.25): {name!r} brings none of its own."
        )
    prefix, suffix = build(name, input_shape=input_shape, num_classes=num_classes, **options)
    return PixelDP(prefix, mechanism, suffix)


def _from_factory(
    name: str, input_shape: tuple[int, ...], num_classes: int, options: dict[str, Any]
) -> Any:
    shape = check_shape(input_shape, num_classes)
    return call_factory(name, options, {"input_shape": shape, "num_classes": num_classes})


def _check_options(name: str, options: dict[str, Any]) -> None:
    accepted = [p.name for p in inspect.signature(NETWORKS[name]).parameters.values()][2:]
    unknown = [key for key in options if key not in accepted]
    if unknown:
        raise InvalidArgument(
            f"{name} does not take the option {', '.join(map(repr, unknown))}; it takes "
            f"{', '.join(['noise_after', 'normalise', *accepted])}."
        )


def _split(
    name: str, network: Network, noise_after: int, normalise: Statistics | None, channels: int
) -> Sides:
    layers, cuts = network
    if noise_after not in range(len(cuts)):
        raise InvalidArgument(
            f"`noise_after` of {name} must be one of {list(range(len(cuts)))}, got {noise_after!r}."
        )
    if normalise is not None:
        layers = _normalised(layers, noise_after, normalise, channels)
    cut = cuts[noise_after]
    children = list(layers.named_children())
    after = nn.Sequential(OrderedDict(children[cut:]))
    if cut == 0:
        return None, after
    return children[0][1] if cut == 1 else nn.Sequential(OrderedDict(children[:cut])), after


def _normalised(
    layers: nn.Sequential, noise_after: int, normalise: Statistics, channels: int
) -> nn.Sequential:
    if noise_after != 0:
        raise InvalidArgument(
            "`normalise` needs noise_after=0: behind a later noise point there is no image to "
            "standardise, and ahead of it the layer would scale the attack."
        )
    first = Normalize(*normalise)
    if len(first.mean) != channels:
        raise InvalidArgument(
            f"`normalise` has {len(first.mean)} values for {channels} input channels."
        )
    return nn.Sequential(OrderedDict([("normalise", first), *layers.named_children()]))


def _sides(name: str, made: Any) -> Sides:
    if isinstance(made, PixelDP):
        prefix = None if isinstance(made.prefix, nn.Identity) else made.prefix
        return prefix, made.suffix
    if isinstance(made, nn.Module):
        return None, made
    if isinstance(made, tuple) and len(made) == 2:
        prefix, suffix = made
        if isinstance(suffix, nn.Module) and (prefix is None or isinstance(prefix, nn.Module)):
            return prefix, suffix
    raise InvalidArgument(
        f"{name!r} must return an nn.Module, a PixelDP, or the pair (prefix, suffix) of modules, "
        f"got {type(made).__name__}."
    )
