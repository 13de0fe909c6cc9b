"""The list of backends, and the choice between them."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch

from pixeldp_fast.backends.base import AbstractBackend, AbstractEngine
from pixeldp_fast.backends.native import NativeBackend
from pixeldp_fast.backends.pytorch import TorchBackend
from pixeldp_fast.backends.reduction import AbstractReduction
from pixeldp_fast.backends.reference import ReferenceBackend
from pixeldp_fast.backends.triton.backend import TritonBackend
from pixeldp_fast.errors import InvalidArgument, UnsupportedBackend
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.plan.plan import Plan

logger = logging.getLogger(__name__)

BACKENDS: tuple[AbstractBackend, ...] = (
    TritonBackend(),
    NativeBackend(),
    TorchBackend(),
    ReferenceBackend(),
)
# Fastest first. The reference is never chosen silently; nor is triton, before its tests have passed
# on a device: until then who wants it names it.
AUTO = ("native", "torch")


def backend_names() -> list[str]:
    """The accepted values of `backend`."""
    return ["auto", *(b.name for b in BACKENDS)]


def select(
    name: str,
    plan: Plan,
    mechanism: AbstractMechanism,
    reduction: AbstractReduction,
    device: torch.device,
    *,
    dtype: torch.dtype | None = None,
) -> AbstractBackend:
    """The backend of that name, or for "auto" the first one that supports the combination.

    Raises
    ------
    UnsupportedBackend
        With the backend's reason. An explicit choice never falls back.
    """
    reasons: list[str] = []
    for backend in _supporting(name, plan, mechanism, reduction, device, dtype, reasons):
        _log(backend, reasons)
        return backend
    raise UnsupportedBackend(f"No backend runs this model here ({'; '.join(reasons)}).")


def prepared(
    name: str,
    plan: Plan,
    mechanism: AbstractMechanism,
    reduction: AbstractReduction,
    device: torch.device,
    *,
    dtype: torch.dtype | None = None,
    tile: int | None = None,
) -> tuple[str, AbstractEngine]:
    """The name and engine of the selected backend; "auto" passes over one that fails to prepare.

    Raises
    ------
    UnsupportedBackend
        As from `select`, or from an explicit choice's `prepare`.
    """
    reasons: list[str] = []
    for backend in _supporting(name, plan, mechanism, reduction, device, dtype, reasons):
        try:
            engine = backend.prepare(plan, mechanism, reduction, device, dtype=dtype, tile=tile)
        except UnsupportedBackend as error:
            if name != "auto":
                raise
            reasons.append(str(error))
        else:
            _log(backend, reasons)
            return backend.name, engine
    raise UnsupportedBackend(f"No backend runs this model here ({'; '.join(reasons)}).")


def _supporting(
    name: str,
    plan: Plan,
    mechanism: AbstractMechanism,
    reduction: AbstractReduction,
    device: torch.device,
    dtype: torch.dtype | None,
    reasons: list[str],
) -> Iterator[AbstractBackend]:
    """The backends to try, in order; why the others are not goes to `reasons`."""
    if name not in backend_names():
        raise InvalidArgument(f"`backend` must be one of {backend_names()}, got {name!r}.")
    by_name = {b.name: b for b in BACKENDS}
    for candidate in AUTO if name == "auto" else (name,):
        support = by_name[candidate].supports(plan, mechanism, reduction, device, dtype=dtype)
        if support.ok and not (name == "auto" and support.only_named):
            yield by_name[candidate]
        else:
            reasons.append(f"{candidate}: {support.reason}")


def _log(backend: AbstractBackend, reasons: list[str]) -> None:
    if reasons:
        logger.info("backend %s: %s", backend.name, "; ".join(reasons))
