"""The list of backends, and the choice between them."""

from __future__ import annotations

import logging

import torch

from pixeldp_fast.backends.base import AbstractBackend
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
AUTO = ("triton", "native", "torch")  # fastest first; the reference is never chosen silently


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
    if name not in backend_names():
        raise InvalidArgument(f"`backend` must be one of {backend_names()}, got {name!r}.")
    by_name = {b.name: b for b in BACKENDS}
    reasons: list[str] = []
    for candidate in AUTO if name == "auto" else (name,):
        support = by_name[candidate].supports(plan, mechanism, reduction, device, dtype=dtype)
        if support.ok and not (name == "auto" and support.only_named):
            if reasons:
                logger.info("backend %s: %s", candidate, "; ".join(reasons))
            return by_name[candidate]
        reasons.append(f"{candidate}: {support.reason}")
    raise UnsupportedBackend(f"No backend runs this model here ({'; '.join(reasons)}).")
