"""Weights into a network: every name, shape and type must agree."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from pixeldp_fast.errors import CheckpointError

_LISTED = 5


def load_state(module: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Copy `state` into `module`.

    Raises
    ------
    CheckpointError
        When names are missing or unexpected, or shapes or types differ: names them.
    """
    check_state(module, state, origin)
    module.load_state_dict(dict(state), strict=True)


def check_state(module: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Refuse a `state` that is not one of `module`'s architecture; see `load_state`."""
    own = module.state_dict()
    problems = [
        ("missing", [name for name in own if name not in state]),
        ("unexpected", [name for name in state if name not in own]),
        ("of another shape or type", [_differ(n, own[n], state[n]) for n in own if n in state]),
    ]
    found = [f"{kind}: {_listed(names)}" for kind, names in problems if any(names)]
    if found:
        raise CheckpointError(
            f"{origin} is of another architecture than the network it names. Parameters "
            f"{'; '.join(found)}."
        )


def _differ(name: str, own: Tensor, other: Tensor) -> str:
    if own.shape == other.shape and own.dtype == other.dtype:
        return ""
    return (
        f"{name} ({str(other.dtype).removeprefix('torch.')} {tuple(other.shape)} instead of "
        f"{str(own.dtype).removeprefix('torch.')} {tuple(own.shape)})"
    )


def _listed(names: list[str]) -> str:
    present = [name for name in names if name]
    more = f" and {len(present) - _LISTED} more" if len(present) > _LISTED else ""
    return ", ".join(present[:_LISTED]) + more
