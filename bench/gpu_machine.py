"""The device that is measured, and its clock: injected, so that all else runs without one, too."""

from __future__ import annotations

import abc
import importlib.metadata
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

MIB = 2**20


class AbstractMachine(abc.ABC):
    """A device with a clock and a meter of memory."""

    device: torch.device
    buffer_bytes: ClassVar[int]  # of each side of the copy that measures bandwidth
    matrix: ClassVar[int]  # side of the product that measures the rate

    @property
    @abc.abstractmethod
    def slug(self) -> str:
        """The hardware as a file name."""

    @property
    @abc.abstractmethod
    def words(self) -> str:
        """Device and software, in words."""

    @abc.abstractmethod
    def seconds(self, run: Callable[[], object]) -> float:
        """How long the device is at it."""

    @abc.abstractmethod
    def settle(self) -> None:
        """Wait for the device and return unused memory to it."""

    @abc.abstractmethod
    def held(self) -> float:
        """MiB that torch holds."""

    @abc.abstractmethod
    def peak(self, run: Callable[[], object]) -> float:
        """The most MiB that torch holds during `run`."""


class Cuda(AbstractMachine):
    """The first NVIDIA GPU."""

    buffer_bytes = 2**30
    matrix = 8192

    def __init__(self) -> None:
        self.device = torch.device("cuda", torch.cuda.current_device())

    @property
    def slug(self) -> str:
        name = torch.cuda.get_device_name(self.device)
        return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

    @property
    def words(self) -> str:
        return (
            f"{torch.cuda.get_device_name(self.device)}; torch {torch.__version__}; "
            f"CUDA {torch.version.cuda}; {_triton()}"
        )

    def seconds(self, run: Callable[[], object]) -> float:
        start, end = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            for _ in range(2)
        )
        torch.cuda.synchronize(self.device)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize(self.device)
        return float(start.elapsed_time(end)) / 1e3

    def settle(self) -> None:
        torch.cuda.synchronize(self.device)
        torch.cuda.empty_cache()

    def held(self) -> float:
        return torch.cuda.memory_reserved(self.device) / MIB

    def peak(self, run: Callable[[], object]) -> float:
        torch.cuda.reset_peak_memory_stats(self.device)
        run()
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_reserved(self.device) / MIB


def _triton() -> str:
    try:
        return f"triton {importlib.metadata.version('triton')}"
    except importlib.metadata.PackageNotFoundError:
        return "no triton"


def present() -> AbstractMachine:
    """The GPU of this machine.

    Raises
    ------
    SystemExit
        Where there is none.
    """
    if not torch.cuda.is_available() or torch.version.hip is not None:
        raise SystemExit(
            "bench gpu measures an NVIDIA GPU, and torch sees none here: run it on a machine with "
            "one, with a CUDA build of torch."
        )
    return Cuda()


@dataclass(frozen=True)
class Ceilings:
    """What the device reached in this very run: bytes per second, and operations per second."""

    bandwidth: float
    rates: dict[torch.dtype, float]


def ceilings(
    machine: AbstractMachine, dtypes: tuple[torch.dtype, ...], repeats: int = 20
) -> Ceilings:
    """Copy bandwidth (bytes read and written) and the rate of square products in each dtype."""
    return Ceilings(_bandwidth(machine, repeats), {d: _rate(machine, d, repeats) for d in dtypes})


def _bandwidth(machine: AbstractMachine, repeats: int) -> float:
    source = torch.zeros(machine.buffer_bytes // 4, device=machine.device)
    target = torch.empty_like(source)
    best = _best(machine, lambda: target.copy_(source), repeats)
    return 2 * source.numel() * 4 / best


def _rate(machine: AbstractMachine, dtype: torch.dtype, repeats: int) -> float:
    # Of random values: with zeros the chip draws less power and runs at a higher clock.
    a, b = (
        torch.randn((machine.matrix, machine.matrix), device=machine.device).to(dtype)
        for _ in range(2)
    )
    out = torch.empty_like(a)
    return 2 * machine.matrix**3 / _best(machine, lambda: torch.mm(a, b, out=out), repeats)


def _best(machine: AbstractMachine, run: Callable[[], object], repeats: int) -> float:
    run()
    return min(machine.seconds(run) for _ in range(repeats))
