"""A noise mechanism: a frozen value that states its law, its map from words and its curves."""

from __future__ import annotations

import abc
import dataclasses
import math
import operator
from decimal import Decimal
from typing import Any, ClassVar

import numpy as np

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.types import ArrayLike, FloatArray, Norm

LARGEST_LATTICE = 2**20  # with inputs below 8 in size every sum is exact in float32
# Steps of the lattice per noise scale: below, no bin but 0 is left; above, the table takes seconds.
LATTICE_SCALES = (0.25, 2.0**14)


class AbstractMechanism(abc.ABC):
    """Independent noise on every coordinate, and the two exact curves that all bounds consume.

    A final subclass is a frozen dataclass with one canonical parameter. It is hashable and prints
    as its own constructor. Everything that certifies depends on the network only through the shift
    of the noise's centre, in the mechanism's norm; the curves are functions of that shift.
    """

    norm: ClassVar[Norm]  # the norm in which a shift of the centre is measured
    native_law: ClassVar[int | None] = None  # the law's number in the compiled module, if it has it
    lattice: int | None = None  # m: noise and sums are whole multiples of 1/m; None: floats

    @property
    @abc.abstractmethod
    def noise_scale(self) -> float:
        """The canonical parameter, in the units of the noise point."""

    @property
    @abc.abstractmethod
    def std(self) -> float:
        """Standard deviation of one coordinate."""

    @abc.abstractmethod
    def privacy_profile(self, epsilon: ArrayLike, shift: ArrayLike) -> FloatArray:
        """The least delta with which the mechanism is (epsilon, delta)-DP at this shift.

        Parameters
        ----------
        epsilon : float [...]
            At least 0.
        shift : float [...]
            Size of the shift in `norm`, in noise units, at least 0; broadcast with `epsilon`.

        Returns
        -------
        delta : float64 [...]
            In [0, 1].

        Guarantee
            Not below the exact value: rounded up.
        """

    @abc.abstractmethod
    def tradeoff(self, alpha: ArrayLike, shift: ArrayLike) -> FloatArray:
        """The least type II error of any test of size `alpha` of one centre against another.

        For every f with values in [0, 1], E f at the shifted centre is at least
        tradeoff(1 - E f) and at most 1 - tradeoff(E f).

        Parameters
        ----------
        alpha : float [...]
            In [0, 1].
        shift : float [...]
            As for `privacy_profile`; broadcast with `alpha`.

        Guarantee
            Not above the exact value: rounded down.
        """

    @abc.abstractmethod
    def unit_noise(self, words: Any, xp: Any) -> Any:
        """Noise of scale 1 from random words, in floats: not for a lattice (`noise.lattice`).

        Parameters
        ----------
        words : unsigned 32-bit values [..., 4 k], as uint32 (NumPy) or int64 (torch)
            Blocks of four words, in the order of `Stream`.
        xp : module
            `numpy`: float64, the definition. `torch`: float32, on the device of `words`.

        Returns
        -------
        noise : float [..., 4 k]
            One coordinate per word.
        """

    def lattice_tails(self, least: Decimal) -> list[Decimal]:
        """Exact tails of the noise rounded to its lattice: P(rounded noise >= k), k = 1, 2, ...

        Parameters
        ----------
        least : Decimal
            Above 0; the list ends with the first tail below it.

        Guarantee
            Each within `exact.ERROR` of the ideal law's.
        """
        raise NotImplementedError(f"{type(self).__name__} has no lattice mode.")

    def to_dict(self) -> dict[str, Any]:
        """The mechanism as plain JSON: its class name and the parameters that are set."""
        return {"law": type(self).__name__, **self._parameters()}

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self._parameters().items())
        return f"{type(self).__name__}({given})"

    def _parameters(self) -> dict[str, Any]:
        values: dict[str, Any] = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {name: value for name, value in values.items() if value is not None}


def positive(name: str, value: Any) -> float:
    """`value` as a float, or an error that names the parameter."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise InvalidArgument(
            f"`{name}` must be a finite number above 0, in the units of the input, got {value!r}."
        )
    return number


def checked_lattice(lattice: Any, scale: float) -> int | None:
    """`lattice` as an int m that spaces the noise usefully, or None.

    Raises
    ------
    InvalidArgument
        For anything but a whole number, or one with which the table of the noise is empty or huge.
    """
    if lattice is None:
        return None
    try:
        levels = operator.index(lattice)
    except TypeError:
        levels = 0
    if isinstance(lattice, bool) or not 1 <= levels <= LARGEST_LATTICE:
        raise InvalidArgument(
            f"`lattice` must be a whole number m from 1 to {LARGEST_LATTICE} (spacing 1/m; 255 for "
            f"8-bit images) or None, got {lattice!r}."
        )
    low, high = LATTICE_SCALES
    if not low <= scale * levels <= high:
        raise InvalidArgument(
            f"`lattice={levels}` makes the noise scale {scale:g} {scale * levels:g} steps, outside "
            f"[{low:g}, {high:g}]: choose a {'finer' if scale * levels < low else 'coarser'} one."
        )
    return levels


def checked_curve_arguments(
    name: str, value: ArrayLike, upper: float, shift: ArrayLike, scale: float
) -> tuple[FloatArray, FloatArray]:
    """`value` in [0, upper] and shift/scale, both float64, broadcast against each other."""
    v, s = np.broadcast_arrays(
        np.asarray(value, dtype=np.float64), np.asarray(shift, dtype=np.float64)
    )
    if not np.all((v >= 0) & (v <= upper)):
        raise InvalidArgument(f"`{name}` must lie in [0, {upper:g}] everywhere.")
    if not np.all(s >= 0):
        raise InvalidArgument("`shift` must be at least 0 everywhere, in noise units.")
    return v, s / scale
