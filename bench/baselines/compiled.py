"""torch.compile, as it comes and with freezing (weights as constants, packed for oneDNN and MKL).

Noise is drawn outside the graph: inside it, inductor's own generator is scalar and several times
slower than `normal_`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.baselines.base import AbstractContender, AbstractJob, Problem
from bench.baselines.chunks import ChunkedJob, Evaluate
from bench.baselines.layouts import labelled, laid_out, refusal

LANES = {"DEFAULT": 1, "AVX2": 256, "AVX512": 512}  # bits of the vectors in generated code


@dataclass(frozen=True)
class Compiled(AbstractContender):
    """`torch.compile` with static shapes, in default mode."""

    layout: torch.memory_format
    freezing: bool

    @property
    def name(self) -> str:
        return labelled("compiled+freezing" if self.freezing else "compiled", self.layout)

    @property
    def version(self) -> str:
        return f"torch {torch.__version__}; {_compiler_version()}"

    @property
    def guide(self) -> str:
        """Eager in the same layout: the same library kernels do the work, and compiling is slow."""
        return labelled("eager", self.layout)

    def missing(self, problem: Problem) -> str:
        if shutil.which(_compiler()) is None:
            return f"torch.compile needs a C++ compiler, and there is no {_compiler()}"
        return refusal(problem, self.layout)

    def prepare(self, problem: Problem, chunk: int) -> AbstractJob:
        import torch._dynamo.config as dynamo
        import torch._inductor.config as inductor

        settings = {
            "freezing": self.freezing,
            "compile_threads": 1,  # no worker processes beside the timing
            "cpp.simdlen": LANES.get(torch.backends.cpu.get_cpu_capability()),
            "fx_graph_cache": False,  # it would keep the check of the packed weights from counting
        }
        packed_before = _packed_weights()
        # Chunks and networks share the code of `evaluate`, hence the limit.
        with inductor.patch(settings), dynamo.patch(recompile_limit=4096):
            compiled = self._compiled(laid_out(problem, self.layout))
            job = ChunkedJob(problem, chunk, compiled, self.layout)
            job.count(chunk)  # compiles
        if self.freezing and _packed_weights() == packed_before:
            raise RuntimeError(f"{self.name}: freezing packed no weight, so it took no effect")
        return job

    def _compiled(self, suffix: nn.Module) -> Evaluate:
        def evaluate(noisy: Tensor) -> Tensor:
            return suffix(noisy)  # type: ignore[no-any-return]

        # Named here as well as patched: with equal options dynamo would hand this function the
        # code that it compiled without freezing.
        return torch.compile(evaluate, dynamic=False, options={"freezing": self.freezing})


def _packed_weights() -> int:
    from torch._dynamo.utils import counters

    return sum(v for k, v in counters["inductor"].items() if "weight_pack" in k)


def _compiler() -> str:
    return os.environ.get("CXX", "g++")


def _compiler_version() -> str:
    done = subprocess.run([_compiler(), "-dumpfullversion"], capture_output=True, text=True)
    return f"{_compiler()} {done.stdout.strip()}"
