"""The list of radius bounds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pixeldp_fast.bounds.pixeldp import pixeldp_radius
from pixeldp_fast.bounds.tight import tight_radius
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.types import FloatArray

RadiusFunction = Callable[..., FloatArray]

BOUNDS: dict[str, RadiusFunction] = {
    "tight": tight_radius,
    "pixeldp": partial(pixeldp_radius, profile="exact"),
    "pixeldp-classical": partial(pixeldp_radius, profile="classical"),
}


def radius_function(name: str) -> RadiusFunction:
    """The function (mechanism, p_lower, p_upper, sensitivity) -> radius of a bound.

    Parameters
    ----------
    name : str
        A key of `BOUNDS`.

    Raises
    ------
    InvalidArgument
        For any other name; the message lists the names.
    """
    found = BOUNDS.get(name) if isinstance(name, str) else None
    if found is None:
        raise InvalidArgument(f"`bound` must be one of {', '.join(BOUNDS)}; got {name!r}.")
    return found
