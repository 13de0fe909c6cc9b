"""torch.compile without its surprises: no search by timing, and no silent way back to eager."""

from __future__ import annotations

import contextlib
import types
import warnings
from collections.abc import Iterator
from subprocess import SubprocessError

import torch
from torch import Tensor

from pixeldp_fast.backends.arithmetic import Evaluate

# Nothing is chosen by a timing: the same program is made wherever torch and device are the same.
OPTIONS = {"max_autotune": False, "deterministic": True}
# Of torch's own imports, and advice to do what float32 rules out here.
_WARNINGS = (("`torch.jit", DeprecationWarning), ("TensorFloat32", UserWarning))


def compiled(network: Evaluate, backend: str = "inductor") -> Evaluate:
    """`network` for the one shape that it is called with.

    The first call compiles, and raises a `RuntimeError` where that fails.

    Guarantee
        What runs is the compiled program, or an error. Left alone, torch counts the programs of
        all engines that share a line of code, and from the ninth on runs the rest uncompiled, with
        other last bits. So every engine has code of its own, and `fullgraph` makes an error of
        whatever cannot be compiled whole.
    """
    with quiet():
        known = set(torch._inductor.list_options()) if backend == "inductor" else set()
        options = {name: value for name, value in OPTIONS.items() if name in known}
        return torch.compile(
            _with_own_code(network),
            fullgraph=True,
            dynamic=False,
            backend=backend,
            options=options or None,  # type: ignore[arg-type]
        )


def _with_own_code(network: Evaluate) -> Evaluate:
    def forward(x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():  # True in the trace: no part of the program
            raise RuntimeError("torch.compile is switched off here (TORCH_COMPILE_DISABLE?)")
        return network(x)

    return types.FunctionType(
        forward.__code__.replace(), forward.__globals__, closure=forward.__closure__
    )


def failures() -> tuple[type[Exception], ...]:
    """What compilers, drivers and their caches raise on a machine that lacks something."""
    from triton.errors import TritonError

    return (TritonError, RuntimeError, SubprocessError, OSError)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that say nothing about the caller's program."""
    with warnings.catch_warnings():
        for message, category in _WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield
