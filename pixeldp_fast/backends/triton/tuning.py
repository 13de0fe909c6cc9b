"""Which configuration a kernel runs with: read from a table, never searched for here.

A timing would decide anew in every process, and with it the last bits of a draw's outputs. The
table, `tunings.json`, is written by `python -m bench tune` and shipped with the package; where it
has no line, a kernel's own default runs, which was chosen from compiled code and never timed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

import torch

Config = TypeVar("Config")
NAME = "tunings.json"
INTERPRETED_ROWS = 128  # the least tile


def shape_class(*sizes: int) -> str:
    """The sizes, each rounded up to a power of two: shapes of one class share a configuration."""
    return "x".join(str(1 << max(size - 1, 0).bit_length()) for size in sizes)


def machines(device: torch.device) -> tuple[str, ...]:
    """What lines of the table may call this device, the most particular first."""
    if device.type != "cuda":
        return ("interpreter",)  # no line of the table is for it
    major, minor = torch.cuda.get_device_capability(device)
    return torch.cuda.get_device_name(device), f"sm_{major}{minor}"


def chosen(
    kernel: str,
    shape: str,
    dtype: torch.dtype,
    device: torch.device,
    default: Config,
    *,
    table: Iterable[Mapping[str, Any]] | None = None,
) -> Config:
    """`default`, a frozen dataclass, with what the table says for this kernel, shape and device.

    In the interpreter, where programs cost and values do not, a program takes a whole tile's rows.
    """
    if device.type != "cuda":
        return dataclasses.replace(default, rows=INTERPRETED_ROWS)  # type: ignore[type-var]
    lines = shipped() if table is None else table
    for machine in machines(device):
        for line in lines:
            if key_of(line) == (kernel, shape, name_of(dtype), machine):
                return dataclasses.replace(default, **line["config"])  # type: ignore[type-var]
    return default


def key_of(line: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """What a line of the table is about."""
    return line["kernel"], line["shape"], line["dtype"], line["device"]


def described(kernel: str, config: Any) -> str:
    """A configuration in the words of a certificate's record."""
    values = ",".join(f"{k}={v}" for k, v in dataclasses.asdict(config).items())
    return f"{kernel}({values})"


def name_of(dtype: torch.dtype) -> str:
    """ "float32" and the like."""
    return str(dtype).removeprefix("torch.")


@cache
def shipped() -> tuple[Mapping[str, Any], ...]:
    """The table that came with the package."""
    text = files("pixeldp_fast.backends.triton").joinpath(NAME).read_text()
    return tuple(json.loads(text)["lines"])
