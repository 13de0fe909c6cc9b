"""Instruction sets: which one our kernels use here, and how to limit everything to AVX2."""

from __future__ import annotations

from pixeldp_fast import config
from pixeldp_fast.noise.sampling import native_module

AVX2_ONLY = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "PIXELDP_ISA": "avx2",
}


def native_isa() -> str:
    """The instruction set our kernels use here; "none" without the compiled module."""
    module = native_module()
    return "none" if module is None else str(module.isa(config.widest_isa()))
