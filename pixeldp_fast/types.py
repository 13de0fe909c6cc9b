"""The words shared by every layer: norms, the abstain marker, array aliases."""

from __future__ import annotations

import math
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from pixeldp_fast.errors import InvalidArgument

ABSTAIN = -1  # the prediction that makes no claim

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
ArrayLike = npt.ArrayLike


class Norm(float, Enum):
    """The p of a p-norm; compares equal to the number."""

    ONE = 1.0
    TWO = 2.0
    INF = math.inf

    @classmethod
    def parse(cls, value: Any) -> Norm:
        """The norm that 1, 2, inf, "2", "l2", "L2", "Linf" or a `Norm` stands for.

        Raises
        ------
        InvalidArgument
            For anything else.
        """
        text = str(value.value if isinstance(value, Norm) else value).strip().lower()
        found = _SPELLINGS.get(text.removeprefix("l").removeprefix("_"))
        if found is None:
            raise InvalidArgument(
                f"`norm` must be one of 1, 2, inf (or 'l1', 'L2', 'Linf'), got {value!r}."
            )
        return found

    def __str__(self) -> str:
        return "inf" if self is Norm.INF else str(int(self.value))


_SPELLINGS = {
    "1": Norm.ONE,
    "1.0": Norm.ONE,
    "2": Norm.TWO,
    "2.0": Norm.TWO,
    "inf": Norm.INF,
    "infinity": Norm.INF,
}


def parse_size(text: str | float) -> float:
    """A size in input units: a number, or a fraction such as "8/255".

    Raises
    ------
    InvalidArgument
        When the text is not a finite number of at least 0.
    """
    try:
        numerator, _, denominator = str(text).partition("/")
        value = float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise InvalidArgument(
            f"A size must be a finite number of at least 0, or a fraction like 8/255; got {text!r}."
        )
    return value
