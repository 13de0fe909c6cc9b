"""Which configuration a kernel runs with: read from a table, never searched for here.

A timing would decide anew in every process, and with it the last bits of a draw's outputs. The
table, `tunings.json`, is written by `python -m bench tune` and shipped with the package; where it
has no line, a kernel's own default runs, which was chosen from compiled code and never timed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any, TypeAlias, TypeVar

import torch

Config = TypeVar("Config")
Line: TypeAlias = Mapping[str, Any]
NAME = "tunings.json"
INTERPRETED_ROWS = 128  # the least tile


@dataclasses.dataclass(frozen=True)
class Request:
    """A configuration that was asked for: its key, and what a line for it changes.

    `listed` says that without a line the kernel does not run at all.
    """

    kernel: str
    shape: str
    dtype: str
    machine: str
    default: Any
    listed: bool


@dataclasses.dataclass
class Trial:
    """Lines that go before the table's, and what was asked for meanwhile."""

    lines: tuple[Line, ...]
    requests: list[Request]


_TRIAL: ContextVar[Trial | None] = ContextVar("trial", default=None)


@contextlib.contextmanager
def trial(*lines: Line) -> Iterator[Trial]:
    """Engines prepared within run with these lines: for measuring them, and for tests."""
    made = Trial(lines, [])
    token = _TRIAL.set(made)
    try:
        yield made
    finally:
        _TRIAL.reset(token)


def shape_of(*sizes: int) -> str:
    """The sizes exactly: what fits one shape may not fit the next."""
    return "x".join(map(str, sizes))


def machines(device: torch.device) -> tuple[str, ...]:
    """What lines of the table may call this device, the most particular first."""
    if device.type != "cuda":
        return ("interpreter",)  # no line of the table is for it
    major, minor = torch.cuda.get_device_capability(device)
    return torch.cuda.get_device_name(device), f"sm_{major}{minor}"


def chosen(
    kernel: str, shape: str, dtype: torch.dtype, device: torch.device, default: Config
) -> Config:
    """`default`, a frozen dataclass, with what the table says for this kernel, shape and device.

    In the interpreter, where programs cost and values do not, a program takes a whole tile's rows.
    """
    if device.type != "cuda":
        default = replace(default, rows=INTERPRETED_ROWS)  # type: ignore[type-var]
    return _from_line(kernel, shape, dtype, device, default, listed=False) or default


def listed(
    kernel: str, shape: str, dtype: torch.dtype, device: torch.device, default: Config
) -> Config | None:
    """The same for a kernel that runs only where the table has a line for it; None elsewhere."""
    return _from_line(kernel, shape, dtype, device, default, listed=True)


def _from_line(
    kernel: str,
    shape: str,
    dtype: torch.dtype,
    device: torch.device,
    default: Config,
    *,
    listed: bool,
) -> Config | None:
    names, now = machines(device), _TRIAL.get()
    lines = shipped()
    if now is not None:
        now.requests.append(Request(kernel, shape, name_of(dtype), names[0], default, listed))
        lines = (*now.lines, *lines)
    for machine in names:
        for line in lines:
            if key_of(line) == (kernel, shape, name_of(dtype), machine):
                return replace(default, **line["config"])  # type: ignore[type-var]
    return None


def key_of(line: Line) -> tuple[str, str, str, str]:
    """What a line of the table is about."""
    return line["kernel"], line["shape"], line["dtype"], line["device"]


def described(kernel: str, config: Any) -> str:
    """A configuration in the words of a certificate's record."""
    values = ",".join(f"{k}={v}" for k, v in dataclasses.asdict(config).items())
    return f"{kernel}({values})"


def name_of(dtype: torch.dtype) -> str:
    """The dtype without `torch.`."""
    return str(dtype).removeprefix("torch.")


@cache
def shipped() -> tuple[Line, ...]:
    """The table that came with the package."""
    text = files("pixeldp_fast.backends.triton").joinpath(NAME).read_text()
    return tuple(json.loads(text)["lines"])
