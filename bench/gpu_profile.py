"""`python -m bench gpu --profile`: where the time of ours goes, kernel by kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.profiler import ProfilerActivity, profile

from bench import gpu_cases
from bench.gpu_contenders import AbstractGpuContender, GpuProblem, OursGpu
from bench.gpu_machine import AbstractMachine, present
from bench.gpu_unit import DTYPES

LINES = 25


@dataclass(frozen=True)
class Kernel:
    """One kernel's part of a run."""

    name: str
    calls: int
    milliseconds: float
    share: float


def kernels(contender: AbstractGpuContender, problem: GpuProblem, chunk: int) -> list[Kernel]:
    """What the device ran for one count of the case's draws, the longest first."""
    job = contender.prepare(problem, chunk)
    examples = problem.case.examples
    job.count(examples)
    on_gpu = problem.machine.device.type == "cuda"
    activities = [ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]
    with profile(activities=activities) as found:
        job.count(examples)
        problem.machine.settle()
    times = [(event, _microseconds(event, on_gpu)) for event in found.key_averages()]
    whole = sum(time for _, time in times) or 1.0
    made = [Kernel(e.key, e.count, time / 1e3, time / whole) for e, time in times if time > 0]
    return sorted(made, key=lambda kernel: -kernel.milliseconds)


def _microseconds(event: Any, on_gpu: bool) -> float:
    return float(event.self_device_time_total if on_gpu else event.self_cpu_time_total)


def report(names: Sequence[str] = (), machine: AbstractMachine | None = None) -> None:
    """Print the kernels of the named cases, or of all, in every dtype."""
    machine = present() if machine is None else machine
    for name in list(names) or [case.name for case in gpu_cases.CASES]:
        problem = GpuProblem.of(gpu_cases.by_name(name), machine)
        for dtype in DTYPES:
            ours = OursGpu("triton", DTYPES[dtype])
            reason = ours.missing(problem)
            print(f"\n{name}, {dtype}, {ours.name}, {machine.words}")
            if reason:
                print(f"  not here: {reason}")
                continue
            print("   ms      share  calls  kernel")
            for one in kernels(ours, problem, problem.case.draws)[:LINES]:
                words = f"{one.milliseconds:9.3f} {one.share:6.1%} {one.calls:6d}"
                print(f"{words}  {one.name[:80]}")
