"""The ceiling: the rate of float32 multiply-adds in registers, measured in the same run."""

from __future__ import annotations

from pixeldp_fast.noise.sampling import native_module

MILLISECONDS = 200


def fma_peak(isa: str) -> float | None:
    """GFLOP/s of one thread with that instruction set; None where nothing measures it."""
    measure = getattr(native_module(), "fma_peak", None)
    return None if measure is None else float(measure(isa, MILLISECONDS))
