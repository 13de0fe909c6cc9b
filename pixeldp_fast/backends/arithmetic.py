"""The arithmetic in which modules run: stated, and shielded from the program's global switches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

Evaluate = Callable[[Tensor], Tensor]


@contextlib.contextmanager
def stated_arithmetic(device: torch.device) -> Iterator[None]:
    """No gradients, no autocast, and IEEE float32 where float32 is written.

    Fidelity
        Torch's switches for matrix products and convolutions are of the process, not of the
        thread: another thread that runs PyTorch at the same time sees them, too.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with (
            torch.inference_mode(),
            torch.autocast(device.type, enabled=False),
            torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            ),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def in_arithmetic(
    module: nn.Module,
    dtype: torch.dtype,
    layout: torch.memory_format = torch.contiguous_format,
) -> Evaluate:
    """`module` as a function in `dtype`, with its weights as they are now, converted where needed.

    `layout` is for four-dimensional tensors, weights and inputs alike.
    """

    def converted(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        plain = tensor.ndim != 4
        return tensor.to(dtype, memory_format=torch.contiguous_format if plain else layout)

    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    weights = {name: converted(tensor) for name, tensor in state.items()}
    if all(weights[name] is tensor for name, tensor in state.items()):
        return lambda x: cast(Tensor, module(converted(x)))
    return lambda x: cast(Tensor, functional_call(module, weights, (converted(x),)))


def prefix_dtype(prefix: nn.Module) -> torch.dtype:
    """float64 for a float64 prefix, float32 for any other: no weight is rounded.

    The sensitivity is that of the stored weights, so these must be the ones that are used.
    """
    wide = any(v.dtype == torch.float64 for v in prefix.state_dict().values())
    return torch.float64 if wide else torch.float32


def machine(device: torch.device) -> str:
    """The part of the arithmetic that the machine and its libraries decide."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} cuda {torch.version.cuda}"
    onednn = "on" if torch.backends.mkldnn.enabled else "off"
    return (
        f"{device.type} {torch.backends.cpu.get_cpu_capability()} "
        f"threads {torch.get_num_threads()} onednn {onednn}"
    )
