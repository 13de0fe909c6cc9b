"""The noise prologue in CUDA C++, with the bits of the CPU engine's noise.

Not yet run on a device: its code for one thread is tested on the host's processor, the kernel
around it compiled and read.

`pixeldp_fast.backends.triton.noise` does the same with the device's approximate functions, in half
the instructions; this one spends them on being equal to the native backend bit by bit.
"""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from torch import Tensor

from pixeldp_fast.backends.cuda import compiler
from pixeldp_fast.backends.triton.draws import Draws, Rows, check_tensor, place
from pixeldp_fast.errors import InvalidArgument, UnsupportedBackend

TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


class NoiseLaunch(ctypes.Structure):
    """`pixeldp::NoiseLaunch` of csrc/cuda/noise.cuh, field by field."""

    _fields_ = (
        ("center", ctypes.c_void_p),
        ("address", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("shifts", ctypes.c_void_p),
        ("seed", ctypes.c_uint64),
        ("rest", ctypes.c_int64),
        ("example", ctypes.c_int64),
        ("n", ctypes.c_int64),
        ("last_example", ctypes.c_int64),
        ("rows", ctypes.c_int64),
        ("pixels", ctypes.c_int64),
        ("purpose", ctypes.c_uint32),
        ("first_draw", ctypes.c_uint32),
        ("channels", ctypes.c_int32),
        ("noise_scale", ctypes.c_float),
        ("slope", ctypes.c_float),
    )


def noisy(
    center: Tensor,
    address: Tensor,
    draws: Draws,
    out: Tensor,
    *,
    channels: int,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    slope: float = 1.0,
) -> None:
    """Fill `out` with activation(scale (center + noise) + shift), one row per draw.

    Parameters are those of the Triton launcher of the same name, all tensors on one CUDA device.

    Raises
    ------
    UnsupportedBackend
        For tensors elsewhere.
    MissingCompiler, CompilationFailed
        On first use.

    Guarantee
        With neither scale nor activation, float32 rows have the bits of `noise.add_noise` from the
        compiled module.
    """
    launch = described(center, address, draws, out, channels, scale, shift, slope)
    if out.device.type != "cuda":
        raise UnsupportedBackend(
            f"CUDA kernels run on NVIDIA GPUs, the tensors are on {out.device}."
        )
    with torch.cuda.device(out.device):
        load(out.device).launch(launch, draws.law, TYPES[out.dtype], out.device.index)


def described(
    center: Tensor,
    address: Tensor,
    draws: Draws,
    out: Tensor,
    channels: int,
    scale: Tensor | None,
    shift: Tensor | None,
    slope: float,
) -> NoiseLaunch:
    """The checked launch as the kernel reads it."""
    device, rows = center.device, len(out)
    if center.ndim != 2 or channels < 1 or center.shape[1] % channels:
        raise InvalidArgument(
            f"`center` must be [B, C H W] with C = {channels}, got {tuple(center.shape)}."
        )
    examples, coordinates = center.shape
    if not 0 < coordinates < 2**31:
        raise InvalidArgument(f"Noise takes 1 to 2^31 - 1 coordinates, got {coordinates}.")
    check_tensor("center", center, (examples, coordinates), (torch.float32,), device)
    check_tensor("address", address, (examples,), (torch.int64,), device)
    check_tensor("out", out, tuple(out.shape), tuple(TYPES), device)
    if out.numel() != rows * coordinates or (channels > 1 and out.shape[-1] != channels):
        raise InvalidArgument(
            f"`out` must be [rows, H, W, {channels}] of {coordinates} coordinates a row, "
            f"got {tuple(out.shape)}."
        )
    if (scale is None) != (shift is None):
        raise InvalidArgument("`scale` and `shift` come together.")
    for name, each in (("scale", scale), ("shift", shift)):
        if each is not None:
            check_tensor(name, each, (channels,), (torch.float32,), device)
    if draws.examples != examples:
        raise InvalidArgument(f"`draws` is of {draws.examples} examples, `center` of {examples}.")
    at: Rows = place(draws, rows)
    return NoiseLaunch(
        center=center.data_ptr(),
        address=address.data_ptr(),
        out=out.data_ptr(),
        scales=None if scale is None else scale.data_ptr(),
        shifts=None if shift is None else shift.data_ptr(),
        seed=draws.seed,
        rest=at.rest,
        example=at.example,
        n=at.n,
        last_example=at.examples - 1,
        rows=rows,
        pixels=coordinates // channels,
        purpose=draws.purpose,
        first_draw=draws.first_draw,
        channels=channels,
        noise_scale=draws.scale,
        slope=slope,
    )


class _Entry:
    """The library's functions with their types."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._noise, self._error = library.pixeldp_noise, library.pixeldp_error
        self._noise.argtypes = [ctypes.c_void_p, *[ctypes.c_int] * 3, ctypes.c_void_p]
        self._error.restype = ctypes.c_char_p
        size = library.pixeldp_noise_launch_size()
        if size != ctypes.sizeof(NoiseLaunch):
            raise UnsupportedBackend(
                f"The compiled kernel takes a launch of {size} bytes, this module describes one of "
                f"{ctypes.sizeof(NoiseLaunch)}; install the package again."
            )

    def launch(self, launch: NoiseLaunch, law: int, type_: int, device: int) -> None:
        """Put it on torch's current stream of the device."""
        stream = torch.cuda.current_stream(device).cuda_stream
        code = self._noise(ctypes.byref(launch), law, type_, device, stream)
        if code:
            raise UnsupportedBackend(f"The CUDA noise kernel: {self._error(code).decode()}.")


def load(device: torch.device) -> _Entry:
    """The compiled library for a device; seconds the first time.

    Raises
    ------
    MissingCompiler, CompilationFailed
    """
    return _entry(compiler.architecture(torch.cuda.get_device_capability(device)))


@cache
def _entry(target: str) -> _Entry:
    """The library for an architecture: looked up and compiled once per process."""
    return _Entry(compiler.load(compiler.library("noise", target)))
