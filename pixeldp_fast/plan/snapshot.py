"""What a module was when an engine copied its weights, to see whether it still is."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

_OWN = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")
_PLAIN = (bool, int, float, str, type(None))


class _Identity:
    """An object, equal to itself alone; kept, so that no other can take its place in memory."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.value is self.value

    __hash__ = None  # type: ignore[assignment]


class Snapshot:
    """Copies of the tensors, and of the plain settings of every submodule.

    Fidelity
        Sees edited weights, buffers and tensors in attributes, exchanged submodules, hooks and
        other attributes, and changed numbers, strings and tuples, lists and dictionaries of such
        (a stride, a slope); not a change inside any other object or outside the module.
    Cost
        The memory of the weights; comparing takes as long as reading them.
    """

    def __init__(self, *modules: nn.Module) -> None:
        self._modules = modules
        self._tensors = [t.detach().clone() for t in _tensors(modules)]
        self._settings = _settings(modules)

    def matches(self) -> bool:
        """Whether the modules are as they were."""
        if _settings(self._modules) != self._settings:
            return False
        now = _tensors(self._modules)
        return len(now) == len(self._tensors) and all(
            a.dtype == b.dtype and torch.equal(a, b)
            for a, b in zip(now, self._tensors, strict=True)
        )


def _tensors(modules: tuple[nn.Module, ...]) -> list[Tensor]:
    parts = [part for m in modules for part in m.modules()]
    stored = [t for m in modules for _, t in (*m.named_parameters(), *m.named_buffers())]
    return stored + [v for part in parts for v in vars(part).values() if isinstance(v, Tensor)]


def _settings(modules: tuple[nn.Module, ...]) -> list[Any]:
    """By submodule: identity, class, hooks, and attributes that are plain data."""
    found: list[Any] = []
    for module in modules:
        for path, part in module.named_modules(remove_duplicate=False):
            kept = {k: _kept(v) for k, v in vars(part).items() if k not in _OWN}
            hooks = [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
            called = [_Identity(hook) for hook in hooks]
            found.append((path, _Identity(part), type(part), part.forward, called, kept))
    return found


def _kept(value: Any) -> Any:
    """Plain data by value, all else by identity; tensors are compared apart."""
    if isinstance(value, Tensor):
        return Tensor
    return copy.deepcopy(value) if _is_plain(value) else _Identity(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(v) for v in value.values())
    return isinstance(value, _PLAIN)
