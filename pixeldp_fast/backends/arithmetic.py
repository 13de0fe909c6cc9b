"""The arithmetic in which modules run: stated, and shielded from the program's global switches."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrize import is_parametrized

from pixeldp_fast.errors import UnsupportedBackend

Evaluate = Callable[[Tensor], Tensor]


class Shared:
    """Switches of the process: the first of overlapping users turns them, the last turns back.

    Were each to turn back what it found, the first to leave would undo them under the second.
    """

    def __init__(self, turned: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        self._turned = turned
        self._lock = threading.Lock()
        self._users = 0
        self._back = contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Within: turned."""
        with self._lock:
            if self._users == 0:
                self._back.enter_context(self._turned())
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._back.close()


@contextlib.contextmanager
def _ieee() -> Iterator[None]:
    """Matrix products and convolutions of float32 in IEEE arithmetic, by fixed algorithms."""
    back = contextlib.ExitStack()
    try:
        with _readable():
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("highest")
            back.callback(torch.set_float32_matmul_precision, before)
            flags = {"benchmark": False, "deterministic": True, "allow_tf32": False}
            back.enter_context(torch.backends.cudnn.flags(enabled=True, **flags))
        yield
    finally:
        with _readable():
            back.close()


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Name what is wrong where torch refuses to read its switches."""
    try:
        yield
    except RuntimeError as error:
        raise UnsupportedBackend(
            "torch's switches for TF32 were set by old names (allow_tf32, "
            "set_float32_matmul_precision) and by new ones (fp32_precision), so that neither can "
            f"be read; use one kind. torch says: {error}"
        ) from error


_in_ieee = Shared(_ieee)


def _check_no_tf32() -> None:
    """Refuse a switch that outweighs those of `_ieee`: `torch.backends.fp32_precision` can."""
    convolutions: Any = torch.backends.cudnn
    for what, now in (
        ("cudnn.conv", convolutions.conv.fp32_precision),
        ("cuda.matmul", torch.backends.cuda.matmul.fp32_precision),
    ):
        if now not in ("ieee", "none"):
            raise UnsupportedBackend(
                f"torch.backends.{what}.fp32_precision is {now!r} where float32 is to be IEEE's; "
                "set it, or torch.backends.fp32_precision above it, to 'ieee'."
            )


@contextlib.contextmanager
def stated_arithmetic(device: torch.device) -> Iterator[None]:
    """No gradients, no autocast, and IEEE float32 where float32 is written.

    Fidelity
        Torch's switches for matrix products and convolutions are of the process, not of the
        thread: another thread that runs PyTorch at the same time sees them, too.
    """
    with _in_ieee(), torch.inference_mode(), torch.autocast(device.type, enabled=False):
        if device.type == "cuda":
            _check_no_tf32()
        yield


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


def prefix_in_arithmetic(prefix: nn.Module, dtype: torch.dtype) -> Evaluate:
    """A prefix as a function in `dtype`, with the very weights whose sensitivity is proved.

    A parametrised weight is converted as it reads: made anew from converted originals, as
    `in_arithmetic` would, it is another one.
    """
    return in_arithmetic(_as_read(prefix), dtype)


def _as_read(module: nn.Module) -> nn.Module:
    """`module`; where weights are parametrised, a copy with plain ones of the same values."""
    if not any(is_parametrized(part) for part in module.modules()):
        return module
    plain = copy.deepcopy(module)
    for part in list(plain.modules()):
        if is_parametrized(part):
            _make_plain(part)
    return plain


def _make_plain(part: nn.Module) -> None:
    """Keep what parametrised weights read as; torch's own removal changes a class copies share."""
    names = list(cast(nn.ModuleDict, part.parametrizations))
    values = {name: getattr(part, name).detach() for name in names}
    part.__class__ = type(part).__bases__[0]
    del part.parametrizations
    for name, value in values.items():
        part.register_parameter(name, nn.Parameter(value, requires_grad=False))


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
