"""The list of mechanisms, and their way back from a stored record."""

from __future__ import annotations

from typing import Any

from pixeldp_fast.errors import RecordError
from pixeldp_fast.noise.gaussian import Gaussian
from pixeldp_fast.noise.laplace import Laplace
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.uniform import Uniform

MECHANISMS: tuple[type[AbstractMechanism], ...] = (Gaussian, Laplace, Uniform)


def mechanism_from_dict(record: dict[str, Any]) -> AbstractMechanism:
    """The inverse of `AbstractMechanism.to_dict`.

    Raises
    ------
    RecordError
        For an unknown law or parameters that the law does not take.
    """
    parameters = dict(record)
    law = parameters.pop("law", None)
    for mechanism in MECHANISMS:
        if mechanism.__name__ == law:
            try:
                return mechanism(**parameters)
            except (TypeError, ValueError) as error:
                raise RecordError(
                    f"The record's mechanism {record!r} is not valid: {error}"
                ) from error
    known = ", ".join(m.__name__ for m in MECHANISMS)
    raise RecordError(f"The record names the unknown noise law {law!r}; known here: {known}.")
