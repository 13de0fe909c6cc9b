"""The noise prologue in CUDA C++ as a run that a network can begin with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from pixeldp_fast.backends.base import Support
from pixeldp_fast.backends.cuda import compiler, noise
from pixeldp_fast.backends.triton import tuning
from pixeldp_fast.backends.triton.fronts import Front, channels_of, front_of
from pixeldp_fast.backends.triton.runs import AbstractKernel, Run, Target
from pixeldp_fast.backends.triton.segments import leading
from pixeldp_fast.errors import CompilationFailed, MissingCompiler
from pixeldp_fast.plan.ops import Graph


@dataclass(frozen=True)
class CudaNoiseConfig:
    """Nothing to choose: a line of the table, with an empty `config`, says that it runs."""


class CudaNoise(AbstractKernel[Front]):
    """Noise with the CPU engine's bits, and an affine or activation that alone reads it.

    Twice the instructions of the Triton kernel: only where the table of tunings names it.
    """

    name: ClassVar[str] = "cuda_noise"

    def claim(self, graph: Graph, first: int, target: Target) -> int | None:
        last = leading(graph)
        shape = tuning.shape_of(*channels_of(Run(graph, first, last)))
        config = tuning.listed(self.name, shape, target.dtype, target.device, CudaNoiseConfig())
        return None if config is None else last

    def supports(self, run: Run, target: Target) -> Support:
        if target.device.type != "cuda":
            return Support(False, f"CUDA C++ runs on an NVIDIA GPU, not on {target.device}")
        try:
            compiler.nvcc()
            compiler.architecture(torch.cuda.get_device_capability(target.device))
        except (MissingCompiler, CompilationFailed) as error:
            return Support(False, str(error))
        return Support(True)

    def prepare(self, run: Run, target: Target) -> Front:
        noise.load(target.device)
        return front_of(run, target, noise.noisy, f"{self.name}()", rows=1)
