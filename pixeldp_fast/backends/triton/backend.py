"""The GPU engine: noise and counts by Triton kernels, the network in between compiled by torch."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

import torch

from pixeldp_fast import config
from pixeldp_fast.backends.base import AbstractBackend, Support
from pixeldp_fast.backends.reduction import AbstractReduction
from pixeldp_fast.backends.requirements import float32_noise, outputs_of, weights_on
from pixeldp_fast.errors import UnsupportedBackend, UnsupportedModel
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.plan.lower import lower
from pixeldp_fast.plan.ops import Graph
from pixeldp_fast.plan.passes import optimised
from pixeldp_fast.plan.plan import Plan

if TYPE_CHECKING:
    from pixeldp_fast.backends.triton.engine import TritonEngine

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OLDEST = (8, 0)  # compute capability that Triton compiles for, and the first with bfloat16

# By plan, what a row of a tile holds: a number, and not the graph, whose folded weights grow old.
_values: WeakKeyDictionary[Plan, int] = WeakKeyDictionary()


class TritonBackend(AbstractBackend):
    """One NVIDIA GPU; float32 (IEEE, TF32 off) unless bfloat16 or float16 is named.

    Networks that lower run with their batch-norms folded and, where their ends have kernels, with
    no logit stored; all others as the module they are. In Triton's interpreter (TRITON_INTERPRET=1)
    the same path runs on the CPU, slowly, for tests; "auto" never chooses that.

    Fidelity
        Written and checked without a GPU: in the interpreter and by reading compiled code. So every
        engine first compares its noise, its network and its counts on the device with their
        definitions, and refuses to work where they differ.
    """

    name: ClassVar[str] = "triton"

    def supports(
        self,
        plan: Plan,
        mechanism: AbstractMechanism,
        reduction: AbstractReduction,
        device: torch.device,
        *,
        dtype: torch.dtype | None = None,
    ) -> Support:
        interpreted = device.type == "cpu" and config.triton_interpreted()
        missed = None if interpreted else _device_missed(device)
        for found in (
            missed,
            _dtype_missed(dtype),
            _law_missed(mechanism),
            float32_noise(mechanism),
            weights_on(plan, device),
            outputs_of(plan, reduction),
        ):
            if found is not None:
                return Support(False, found)
        if interpreted:
            return Support(True, "Triton's interpreter is for tests", only_named=True)
        missed = _memory_missed(plan, device, dtype or torch.float32)
        return Support(missed is None, missed or "")

    def prepare(
        self,
        plan: Plan,
        mechanism: AbstractMechanism,
        reduction: AbstractReduction,
        device: torch.device,
        *,
        dtype: torch.dtype | None = None,
        tile: int | None = None,
    ) -> TritonEngine:
        """An engine; `tile` is rounded up to a power of two of at least 128 draws.

        Memory for the smallest tile is asked for by `supports`, for this one here.
        """
        support = self.supports(plan, mechanism, reduction, device, dtype=dtype)
        if not support.ok:
            raise UnsupportedBackend(f"triton: {support.reason}")
        from pixeldp_fast.backends.triton.compiling import failures
        from pixeldp_fast.backends.triton.engine import TritonEngine

        chosen = dtype or torch.float32
        try:
            return TritonEngine(plan, mechanism, reduction, device, chosen, tile, graph_of)
        except UnsupportedBackend:
            raise
        except torch.OutOfMemoryError as error:
            raise UnsupportedBackend(
                f"triton: a tile of draws does not fit what memory is free on {device}; name a "
                "smaller `tile`, name torch.bfloat16, or free some of it."
            ) from error
        except failures() as error:
            cause = str(error).strip().split("\n")[0]
            raise UnsupportedBackend(
                f"triton: its kernels or the suffix do not compile or run on {device} "
                f"({type(error).__name__}: {cause}); use backend='torch'."
            ) from error


def graph_of(plan: Plan) -> Graph | None:
    """The suffix as a graph, of its weights as they are now; None where it does not lower.

    Never from a memory: batch-norms are folded into copies of weights, which an edit leaves behind.
    """
    try:
        return optimised(lower(plan.suffix, plan.noise_shape, part="suffix"))
    except UnsupportedModel:
        return None


def _device_missed(device: torch.device) -> str | None:
    if device.type != "cuda" or torch.version.hip is not None:
        return (
            f"it runs on an NVIDIA GPU, and the examples are on {device}; move model and examples "
            "to 'cuda', or use backend='native' or 'torch'"
        )
    if not torch.cuda.is_available():
        return "torch finds no NVIDIA GPU that it can use; backend='native' or 'torch' need none"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install triton); backend='torch' works without it"
    if config.triton_interpreted():
        return "TRITON_INTERPRET is set, so that no kernel is compiled; unset it"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST:
        has, needs = (".".join(map(str, c)) for c in (capability, OLDEST))
        return (
            f"Triton and bfloat16 need a GPU of compute capability {needs}, "
            f"{torch.cuda.get_device_name(device)} has {has}; backend='torch' runs float32 there"
        )
    return None


def _dtype_missed(dtype: torch.dtype | None) -> str | None:
    if dtype is None or dtype in DTYPES:
        return None
    names = ", ".join(map(str, DTYPES))
    return f"it computes in one of {names}, not in {dtype}; use backend='torch' for others"


def _law_missed(mechanism: AbstractMechanism) -> str | None:
    # Only for the very class that names the law: a subclass may have changed it.
    if vars(type(mechanism)).get("native_law") in (0, 1, 2):
        return None
    return (
        f"it samples Gaussian, Laplace and Uniform noise, not {type(mechanism).__name__}; use "
        "backend='torch'"
    )


def _memory_missed(plan: Plan, device: torch.device, dtype: torch.dtype) -> str | None:
    from pixeldp_fast.backends.triton.workspace import ROWS_LIMITS, missing, values_of

    if plan not in _values:
        _values[plan] = values_of(plan, graph_of(plan))
    return missing(_values[plan], dtype, device, ROWS_LIMITS[0])
