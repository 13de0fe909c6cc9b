"""What a module was when an engine copied its weights, to see whether it still is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pixeldp_fast.noise.sampling import native_module

_OWN = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")
_PLAIN = (bool, int, float, str, type(None))


class _Identity:
    """An object, equal to itself alone; kept, so that no other can take its place in memory."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.value is self.value

    __hash__ = None  # type: ignore[assignment]


class Structure:
    """What modules are apart from their numbers: on this the shapes of their outputs depend.

    Fidelity
        Sees exchanged submodules, hooks and other attributes, changed numbers, strings and tuples,
        lists and dictionaries of such (a stride, a slope, training mode), and tensors of another
        shape, type or device; not a change inside any other object or outside the module.
    """

    def __init__(self, *modules: nn.Module) -> None:
        self._modules = modules
        self._kinds = _kinds(_tensors(modules))
        self._settings = _settings(modules, copy.deepcopy)

    def matches(self) -> bool:
        """Whether the modules are built as they were."""
        return (
            _settings(self._modules) == self._settings
            and _kinds(_tensors(self._modules)) == self._kinds
        )


class Snapshot:
    """A `Structure`, and copies of all tensors.

    Fidelity
        That of `Structure`, and any changed bit of a weight, a buffer or a tensor in an attribute.
    Cost
        The memory of the weights; comparing takes as long as reading them.
    """

    def __init__(self, *modules: nn.Module) -> None:
        self._modules = modules
        self._structure = Structure(*modules)
        self._tensors = [t.detach().clone() for t in _tensors(modules)]

    def matches(self) -> bool:
        """Whether the modules are as they were."""
        return self._structure.matches() and all(
            map(_same_bits, _tensors(self._modules), self._tensors)
        )


def _tensors(modules: tuple[nn.Module, ...]) -> list[Tensor]:
    parts = [part for m in modules for part in m.modules()]
    stored = [t for m in modules for _, t in (*m.named_parameters(), *m.named_buffers())]
    return stored + [v for part in parts for v in vars(part).values() if isinstance(v, Tensor)]


def _kinds(tensors: list[Tensor]) -> list[Any]:
    return [(t.shape, t.dtype, t.device) for t in tensors]


def _same_bits(now: Tensor, then: Tensor) -> bool:
    """Of two tensors of one kind; those that are not in memory as they are read, by value."""
    native = native_module()
    if native is None or not (now.is_cpu and now.is_contiguous() and then.is_contiguous()):
        return torch.equal(now, then)
    return bool(native.same_bytes(_bytes(now), _bytes(then)))


def _bytes(tensor: Tensor) -> Any:
    return tensor.detach().reshape(-1).view(torch.uint8).numpy()


def _settings(
    modules: tuple[nn.Module, ...], keep: Callable[[Any], Any] = lambda value: value
) -> list[Any]:
    """By submodule: identity, class, hooks, and attributes that are plain data, through `keep`."""
    found: list[Any] = []
    for module in modules:
        for path, part in module.named_modules(remove_duplicate=False):
            kept = {k: _kept(v, keep) for k, v in vars(part).items() if k not in _OWN}
            hooks = [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
            called = [_Identity(hook) for hook in hooks]
            found.append((path, _Identity(part), type(part), part.forward, called, kept))
    return found


def _kept(value: Any, keep: Callable[[Any], Any]) -> Any:
    """Plain data by value, all else by identity; tensors are compared apart."""
    if isinstance(value, Tensor):
        return Tensor
    return keep(value) if _is_plain(value) else _Identity(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(v) for v in value.values())
    return isinstance(value, _PLAIN)
