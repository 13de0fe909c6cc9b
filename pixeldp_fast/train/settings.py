"""Everything that decides the weights, apart from the network and the data."""

from __future__ import annotations

import dataclasses
import math
import operator
from dataclasses import dataclass
from typing import Any

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.stream import checked_seed
from pixeldp_fast.types import Norm

SCHEDULES = ("cosine", "step", "constant")
NOISE_RAMPS = ("none", "original")


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained behind its noise.

    Parameters
    ----------
    epochs : int
        At least 1.
    batch_size : int
        At least 1; the batches of an epoch differ in size by at most one.
    learning_rate : float
        Above 0: the first and largest value.
    momentum : float
        In [0, 1), of stochastic gradient descent.
    weight_decay : float
        At least 0; on weights of dense layers and convolutions, not on biases and batch norms.
    schedule : {"cosine", "step", "constant"}
        "cosine" falls from `learning_rate` to 0 in half a period; "step" multiplies by `decay` at
        every milestone.
    milestones : tuple of float
        Shares of the run, rising, in (0, 1); read by "step" alone.
    decay : float
        In (0, 1]; read by "step" alone.
    centred : bool
        Whether the first layer with weights behind the noise is trained by
        `pixeldp_fast.train.centring.Centring`.
    noise_ramp : {"none", "original"}
        See `pixeldp_fast.train.schedule.noise_factor`.
    crop_padding : int
        Pixels of zeros on every side, of which a random crop of the old size is taken; 0: none.
    flip : bool
        Whether every image is mirrored left to right with probability 1/2.
    norm : {1, 2, inf} or None
        The norm of the attack for which the prefix is held at sensitivity 1; None: the norm of the
        mechanism.
    seed : int
        In [0, 2^63): initial weights, order of the examples, augmentation and noise.

    Source
        Batch, momentum, weight decay and noise ramp after Lecuyer et al., IEEE S&P 2019, section
        III-C, and the code of its authors; the cosine schedule is the default of today.
    """

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 2e-4
    schedule: str = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    decay: float = 0.1
    centred: bool = False
    noise_ramp: str = "none"
    crop_padding: int = 0
    flip: bool = False
    norm: Norm | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        put = {
            "epochs": _count("epochs", self.epochs, 1),
            "batch_size": _count("batch_size", self.batch_size, 1),
            "crop_padding": _count("crop_padding", self.crop_padding, 0),
            "learning_rate": _number("learning_rate", self.learning_rate, "(0, inf)"),
            "momentum": _number("momentum", self.momentum, "[0, 1)"),
            "weight_decay": _number("weight_decay", self.weight_decay, "[0, inf)"),
            "decay": _number("decay", self.decay, "(0, 1]"),
            "milestones": _checked_milestones(self.milestones),
            "norm": None if self.norm is None else Norm.parse(self.norm),
            "seed": _checked_seed(self.seed),
            "flip": bool(self.flip),
            "centred": bool(self.centred),
        }
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("noise_ramp", self.noise_ramp, NOISE_RAMPS)
        for name, value in put.items():
            object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON."""
        norm = None if self.norm is None else str(self.norm)
        return {
            **dataclasses.asdict(self),
            "milestones": list(self.milestones),
            "norm": norm,
        }


def _count(name: str, value: Any, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise InvalidArgument(f"`{name}` must be an integer of at least {least}, got {value!r}.")
    return number


def _number(name: str, value: Any, interval: str) -> float:
    """`value` as a float inside `interval`, written as in mathematics."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = number >= low if interval[0] == "[" else number > low
    below = number <= high if interval[-1] == "]" else number < high
    if not (above and below):
        raise InvalidArgument(f"`{name}` must be a number in {interval}, got {value!r}.")
    return number


def _one_of(name: str, value: Any, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        names = ", ".join(map(repr, accepted))
        raise InvalidArgument(f"`{name}` must be one of {names}, got {value!r}.")


def _checked_milestones(values: Any) -> tuple[float, ...]:
    try:
        shares = tuple(float(v) for v in values)
    except (TypeError, ValueError):
        shares = (math.nan,)
    inside = all(0 < share < 1 for share in shares)
    if not inside or list(shares) != sorted(set(shares)):
        raise InvalidArgument(
            "`milestones` must be rising shares of the run, each between 0 and 1, such as "
            f"(0.5, 0.75), got {values!r}."
        )
    return shares


def _checked_seed(seed: Any) -> int:
    value = checked_seed(seed)
    if value >= 2**63:
        raise InvalidArgument(f"`seed` must be an integer in [0, 2^63), got {seed!r}.")
    return value
