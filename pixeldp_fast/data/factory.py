"""`module:factory` - how the user's own code names a data set or a network."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from pixeldp_fast.errors import InvalidArgument


def call_factory(spec: str, options: Mapping[str, Any], offered: Mapping[str, Any]) -> Any:
    """What the factory named by `spec` returns.

    Parameters
    ----------
    spec : str
        "module:factory", the module as for `import`, the factory an attribute of it.
    options : mapping
        Keyword arguments that are always passed.
    offered : mapping
        Keyword arguments that are passed only where the factory's signature names them.

    Raises
    ------
    InvalidArgument
        When there is no such module or callable, or it does not take the options. Errors raised
        inside the factory pass through.
    """
    module_name, separator, attribute = spec.partition(":")
    parts = [*module_name.split("."), attribute]
    if not (separator and all(part.isidentifier() for part in parts)):
        raise InvalidArgument(f"A factory is named as 'module:factory', got {spec!r}.")
    try:
        factory = getattr(importlib.import_module(module_name), attribute, None)
    except ImportError as error:
        raise InvalidArgument(
            f"The module of {spec!r} cannot be imported: {error}. For a file of the current "
            "folder set PYTHONPATH=."
        ) from error
    if not callable(factory):
        raise InvalidArgument(f"The module {module_name!r} has no callable {attribute!r}.")
    signature = _signature(factory)
    named = {k: v for k, v in offered.items() if signature and k in signature.parameters}
    arguments = {**named, **options}
    if signature is not None:
        try:
            signature.bind(**arguments)
        except TypeError as error:
            raise InvalidArgument(
                f"{spec!r} has the signature {signature} and cannot be called with "
                f"{sorted(arguments)}: {error}."
            ) from None
    return factory(**arguments)


def _signature(factory: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(factory)
    except (TypeError, ValueError):  # some callables written in C have none
        return None
