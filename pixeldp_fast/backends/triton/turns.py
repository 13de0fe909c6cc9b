"""Whose turn it is: one user of an engine's memory at a time, in arithmetic that is stated."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

from pixeldp_fast.backends.arithmetic import Shared, stated_arithmetic

# Torch's names for sums of 16-bit products that may be narrower than float32.
NARROW = (
    "allow_bf16_reduced_precision_reduction",
    "allow_fp16_reduced_precision_reduction",
    "allow_fp16_accumulation",
)


class Turns:
    """The right to an engine's buffers, on the host and on the device.

    Threads wait for each other. A turn on another stream than the last waits on the device, too:
    tiles of both would otherwise meet in one buffer.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._lock = threading.RLock()
        self._last: torch.cuda.Event | None = None

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """A turn: the engine's device current, its arithmetic as stated."""
        with self._lock, pinned(self._device):
            if self._device.type != "cuda":
                yield
                return
            stream = torch.cuda.current_stream(self._device)
            if self._last is not None:
                stream.wait_event(self._last)
            try:
                yield
            finally:
                self._last = stream.record_event()


@contextlib.contextmanager
def pinned(device: torch.device) -> Iterator[None]:
    """`stated_arithmetic` with this device current and 16-bit products summed in float32."""
    on_device = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
    with _in_wide_sums(), stated_arithmetic(device), on_device:
        yield


@contextlib.contextmanager
def _wide_sums() -> Iterator[None]:
    matmul = torch.backends.cuda.matmul
    before = {name: getattr(matmul, name) for name in NARROW}
    try:
        for name in NARROW:
            setattr(matmul, name, False)
        yield
    finally:
        for name, value in before.items():
            setattr(matmul, name, value)


_in_wide_sums = Shared(_wide_sums)
