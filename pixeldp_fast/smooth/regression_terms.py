"""What an interval of a smoothed regressor claims, and everything needed to judge it again."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from pixeldp_fast.backends.histogram import LARGEST_BINS, RealHistogram
from pixeldp_fast.errors import InvalidArgument, RecordError
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.registry import mechanism_from_dict
from pixeldp_fast.noise.stream import checked_seed
from pixeldp_fast.smooth.inputs import InputRange, checked_alpha, checked_count
from pixeldp_fast.smooth.soundness import REAL_ARITHMETIC, check_recorded, plain_range, stored_range
from pixeldp_fast.types import ArrayLike, FloatArray, Norm

BOUNDS = ("lemma2", "mean", "parts", "distribution", "quantile")
MEAN_BOUNDS = {"betting": "betting", "bernstein": "empirical Bernstein", "hoeffding": "Hoeffding"}


@dataclass(frozen=True)
class RegressionTerms:
    """The terms of `Intervals`.

    Parameters
    ----------
    radii : tuple of float
        Sizes of the attack, in input units and `norm`, at least 0.
    bound : {"lemma2", "mean", "parts", "distribution", "quantile"}
    mean_bound : {"betting", "bernstein", "hoeffding"}
        The confidence bound of means, declared before the draws; unused by the last two bounds.
    low, high : float
        The declared range of the output, low <= 0 <= high.
    clip : bool
        Whether outputs are clipped to the range as part of the certified model. False: they lay
        within it by themselves, and one that would not counts as the end it is beyond.
    non_finite : float
        What an output that is not finite counts as.
    bins : int
        Cells of the histogram between `low` and `high`.
    quantile : float
        Of the bound "quantile"; 0.5 is the median. Unused by the others, which are about the mean.
    sensitivities : tuple of (norm, value)
        Proved upper bounds of the prefix's sensitivity from each p-norm to the mechanism's norm.
    stop : str
        "fixed": the number of draws was chosen before the first one.
    guarantee, inputs, coordinates, tau, slack, input_range
        For which program the claim holds, and what that costs: see `Soundness`.
    """

    mechanism: AbstractMechanism
    norm: Norm
    radii: tuple[float, ...]
    bound: str
    mean_bound: str
    alpha: float
    n: int
    low: float
    high: float
    clip: bool
    non_finite: float
    bins: int
    quantile: float
    sensitivities: tuple[tuple[str, float], ...]
    seed: int
    input_shape: tuple[int, ...]
    backend: str
    arithmetic: str
    model_fingerprint: str
    version: str
    tau: float = 0.0
    slack: float = 0.0
    stop: str = "fixed"
    guarantee: str = REAL_ARITHMETIC
    inputs: str = "real"
    coordinates: int = 0
    input_range: InputRange | None = None

    @property
    def sound(self) -> str:
        """Which guarantee holds: of the program that runs ("lattice"), or of "real arithmetic"."""
        return self.guarantee

    @property
    def sensitivity(self) -> float:
        """The sensitivity for `norm`."""
        found = dict(self.sensitivities).get(str(self.norm))
        if found is None:
            raise RecordError(
                f"The record holds no sensitivity for norm {self.norm}; it has "
                f"{', '.join(name for name, _ in self.sensitivities)}."
            )
        return found

    @property
    def shifts(self) -> FloatArray:
        """How far the noise's centre may move at each radius, rounded up: float64 [R]."""
        product = np.asarray(self.radii, dtype=np.float64) * self.sensitivity
        return np.where(product > 0, np.nextafter(product, np.inf), 0.0)

    @property
    def reduction(self) -> RealHistogram:
        """What is kept of the draws."""
        return RealHistogram(self.low, self.high, self.bins, self.non_finite)

    @property
    def shares(self) -> int:
        """Into how many equal levels alpha is split."""
        if self.bound == "distribution":
            return 1
        if self.bound == "quantile":
            return 2 * len(self.radii)
        two_parts = self.bound != "mean" and self.low < 0 < self.high
        return 4 if two_parts else 2

    @property
    def split(self) -> str:
        """How alpha is spent, in words."""
        if self.bound == "distribution":
            return "alpha on both sides of the band (Dvoretzky-Kiefer-Wolfowitz)"
        if self.bound == "quantile":
            return f"alpha/{self.shares} on each rank (binomial tails), two for every radius"
        of = "mean" if self.bound == "mean" else "part's mean"
        return f"alpha/{self.shares} on each end of the {of} ({MEAN_BOUNDS[self.mean_bound]})"

    def check(self) -> None:
        """Raise a `ValueError` that names the first field that no result could have."""
        for name, kind in _TYPES.items():
            if type(getattr(self, name)) is not kind:
                raise ValueError(f"`{name}` must be of type {kind.__name__}")
        checked_seed(self.seed)
        checked_alpha(self.alpha)
        checked_count("n", self.n, 1)
        checked_radii(self.radii)
        check_choices(self.bound, self.mean_bound, self.quantile, self.n)
        self.reduction.check_draws(self.n)
        if not all(type(v) is float and 0 < v < math.inf for _, v in self.sensitivities):
            raise ValueError("`sensitivities` must be finite and above 0")
        check_recorded(
            self.mechanism,
            self.guarantee,
            self.inputs,
            self.coordinates,
            self.tau,
            self.slack,
            self.input_shape,
            self.input_range,
        )
        if self.stop != "fixed":
            raise ValueError("`stop` must be 'fixed', the only one of this version")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the inverse of `from_dict`."""
        plain = plain_range({f.name: getattr(self, f.name) for f in fields(self)})
        return {
            **plain,
            "mechanism": self.mechanism.to_dict(),
            "norm": str(self.norm),
            "radii": list(self.radii),
            "sensitivities": dict(self.sensitivities),
            "input_shape": list(self.input_shape),
            "split": self.split,
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> RegressionTerms:
        """Raises `RecordError` when a field is missing, unknown or of the wrong kind."""
        try:
            values = dict(record)
            values["mechanism"] = mechanism_from_dict(values["mechanism"])
            values["norm"] = Norm.parse(values["norm"])
            values["radii"] = tuple(float(r) for r in values["radii"])
            values["sensitivities"] = tuple(values["sensitivities"].items())
            values["input_shape"] = tuple(int(v) for v in values["input_shape"])
            values |= stored_range(values)
            split = values.pop("split")
            terms = cls(**values)
            terms.check()
            if split != terms.split:
                raise ValueError(f"`split` must be {terms.split!r} for this bound")
            return terms
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RecordError(f"The record's terms are not valid: {error}") from error


_TYPES: dict[str, type] = {
    **dict.fromkeys(("n", "bins", "seed"), int),
    **dict.fromkeys(("alpha", "low", "high", "non_finite", "quantile", "tau", "slack"), float),
    **dict.fromkeys(("backend", "arithmetic", "model_fingerprint", "version"), str),
    "clip": bool,
}


def checked_radii(radii: ArrayLike) -> tuple[float, ...]:
    """Radii as a tuple of at least one, finite and at least 0; one number stands for itself."""
    try:
        asked = np.atleast_1d(np.asarray(radii, dtype=np.float64))
    except (TypeError, ValueError):
        asked = np.array([np.nan])
    if asked.ndim != 1 or not asked.size or not np.all(np.isfinite(asked) & (asked >= 0)):
        raise InvalidArgument(
            f"`radius` must be a finite number of at least 0, or a list of such, in input units; "
            f"got {radii!r}."
        )
    return tuple(asked.tolist())


def check_choices(bound: str, mean_bound: str, quantile: float, n: int) -> None:
    """Refuse an unknown bound, an unknown confidence bound of means, or too few draws for it."""
    _check_name("bound", bound, BOUNDS)
    _check_name("mean_bound", mean_bound, tuple(MEAN_BOUNDS))
    if mean_bound != "hoeffding" and n < 2 and bound not in ("distribution", "quantile"):
        raise InvalidArgument(
            f"`n` must be at least 2 for mean_bound={mean_bound!r}, which needs a sample variance; "
            "use 'hoeffding'."
        )
    if not (isinstance(quantile, float) and 0 < quantile < 1):
        raise InvalidArgument(
            f"`quantile` must lie in (0, 1), got {quantile!r}; 0.5 is the median."
        )


def _check_name(name: str, value: Any, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise InvalidArgument(f"`{name}` must be one of {', '.join(accepted)}; got {value!r}.")


def checked_output(low: Any, high: Any, non_finite: Any, bins: Any) -> RealHistogram:
    """What is kept of an output in this declared range.

    Raises
    ------
    InvalidArgument
        For a range that is not finite or does not hold 0, a value outside it, or impossible bins.
    """
    try:
        ends = float(low), float(high), float(non_finite)
    except (TypeError, ValueError):
        raise InvalidArgument(
            f"`low`, `high` and `non_finite` must be numbers, got {low!r}, {high!r} and "
            f"{non_finite!r}."
        ) from None
    a, b, value = ends
    if math.isinf(a) or math.isinf(b):
        raise InvalidArgument(
            f"The range [{a}, {b}] is unbounded. That needs delta = 0, which only the ideal "
            "Laplace law has, and an exact mean: without a range no confidence interval exists. "
            "Declare a finite range and clip=True, which makes the clipping part of the model."
        )
    if not (a <= 0 <= b and a < b):
        raise InvalidArgument(
            f"`low` <= 0 <= `high` must hold, with low < high; got {low!r} and {high!r}. Subtract "
            "a constant from the output if its range does not hold 0."
        )
    if not a <= value <= b:
        raise InvalidArgument(f"`non_finite` must lie in [{a}, {b}], got {non_finite!r}.")
    cells = checked_count("bins", bins, 1)
    if cells > LARGEST_BINS:
        raise InvalidArgument(f"`bins` must be at most {LARGEST_BINS}, got {bins!r}.")
    return RealHistogram(a, b, cells, value)
