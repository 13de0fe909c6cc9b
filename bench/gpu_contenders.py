"""Every way to count votes under noise on a GPU, each the whole job, each at its best."""

from __future__ import annotations

import abc
import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.baselines.ours import _Capture
from bench.gpu_cases import SEED, GpuCase
from bench.gpu_machine import AbstractMachine
from pixeldp_fast import PixelDP, SmoothedClassifier
from pixeldp_fast.backends.reduction import Votes
from pixeldp_fast.backends.registry import BACKENDS
from pixeldp_fast.noise.stream import Purpose, Stream
from pixeldp_fast.plan.ops import Graph
from pixeldp_fast.plan.plan import Plan, make_plan
from pixeldp_fast.types import IntArray

STREAM = Stream(SEED, Purpose.ESTIMATION)
Evaluate = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class GpuProblem:
    """A case on a device, its prefix evaluated, the same for all contenders.

    Parameters
    ----------
    x : float32 [E, C, H, W]
    centers : float32 [E, *noise_shape]
    graph : Graph
        What the roofline is computed from.
    """

    case: GpuCase
    machine: AbstractMachine
    model: PixelDP
    x: Tensor
    centers: Tensor
    graph: Graph

    @classmethod
    def of(cls, case: GpuCase, machine: AbstractMachine) -> GpuProblem:
        """The problem of a case."""
        from bench.gpu_roofline import graph_of

        model = case.model(machine.device)
        x = case.images(case.examples).to(machine.device)
        with torch.inference_mode():
            centers = model.prefix(x).float().contiguous()
        return cls(case, machine, model, x, centers, graph_of(_plan(case, model)))

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Of one draw at the noise point."""
        return tuple(self.centers.shape[1:])


def _plan(case: GpuCase, model: PixelDP) -> Plan:
    return make_plan(model.prefix, model.suffix, case.input_shape, case.classes)


@contextlib.contextmanager
def fastest_torch() -> Iterator[None]:
    """Torch at its best in the stated dtype: algorithms by trial, and no TF32 for float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


class AbstractGpuJob(abc.ABC):
    """A contender, prepared."""

    gated = 2**30  # rows at most that the gate looks at

    @abc.abstractmethod
    def outputs(self, noisy: Tensor) -> Tensor:
        """Outputs [n, K] for noisy features, float32 [n, *noise_shape] on the device."""

    @abc.abstractmethod
    def count(self, examples: int) -> IntArray:
        """Votes [examples, K] of the first examples, the contender's own noise: what is timed."""

    def own_votes(self, draws: int) -> IntArray | None:
        """Votes [K] of draws [0, draws) of `STREAM` for example 0, where it reads that stream."""
        return None


class AbstractGpuContender(abc.ABC):
    """One way to do the job."""

    is_torch = True  # a baseline: the strongest of these is what a ratio is to
    chunk_guide: str = ""  # the contender whose best chunk this one takes
    dtype: torch.dtype  # of the network

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """As in tables and in the ledger; no commas."""

    @abc.abstractmethod
    def prepare(self, problem: GpuProblem, chunk: int) -> AbstractGpuJob:
        """The job; whatever happens once is done here."""

    def chunks(self, case: GpuCase) -> tuple[int, ...]:
        """The chunks to try."""
        return tuple(chunk for chunk in case.chunks if chunk <= case.draws)

    def missing(self, problem: GpuProblem) -> str:
        """Why it does not take part, or ""."""
        return ""


@dataclass(frozen=True)
class Cohen(AbstractGpuContender):
    """Cohen's loop, as published but for the counting, which is faster here; IEEE float32."""

    name = "Cohen's loop"
    dtype = torch.float32

    def chunks(self, case: GpuCase) -> tuple[int, ...]:
        return (case.batch,)

    def prepare(self, problem: GpuProblem, chunk: int) -> AbstractGpuJob:
        return _CohenJob(problem, chunk)


class _CohenJob(AbstractGpuJob):
    def __init__(self, problem: GpuProblem, batch: int) -> None:
        self._problem, self._batch = problem, batch

    def outputs(self, noisy: Tensor) -> Tensor:
        with fastest_torch():
            suffix = self._problem.model.suffix
            return torch.cat([suffix(rows) for rows in torch.split(noisy, self._batch)])

    def count(self, examples: int) -> IntArray:
        case = self._problem.case
        counts = np.zeros((examples, case.classes), dtype=np.int64)
        with fastest_torch():
            for b, center in enumerate(self._problem.centers[:examples]):
                for first in range(0, case.draws, self._batch):
                    rows = min(self._batch, case.draws - first)
                    batch = center.repeat((rows, *(1 for _ in center.shape)))
                    noise = torch.randn_like(batch) * case.mechanism.std
                    votes = self._problem.model.suffix(batch + noise).argmax(1)
                    counts[b] += np.bincount(votes.cpu().numpy(), minlength=case.classes)
        return counts


@dataclass(frozen=True)
class Eager(AbstractGpuContender):
    """The suffix in its dtype, channels last, on every chunk."""

    dtype: torch.dtype = torch.bfloat16

    @property
    def name(self) -> str:
        return "eager channels-last"

    def prepare(self, problem: GpuProblem, chunk: int) -> AbstractGpuJob:
        return _EagerJob(problem, chunk, suffix_in(problem, self.dtype), self.dtype)


class _EagerJob(AbstractGpuJob):
    """Noise in float32 into a buffer, cast with the sum; all buffers allocated once."""

    def __init__(
        self, problem: GpuProblem, chunk: int, evaluate: Evaluate, dtype: torch.dtype
    ) -> None:
        self._problem, self._chunk, self._evaluate = problem, chunk, evaluate
        self._centers = _in_memory_order(problem.centers)
        shape = (chunk, *self._centers.shape[1:])
        self._noise = torch.empty(shape, device=problem.machine.device)
        self._noisy = torch.empty(shape, device=problem.machine.device, dtype=dtype)
        self._features = _seen(self._noisy)

    def outputs(self, noisy: Tensor) -> Tensor:
        return _by_chunks(self._of_chunk, noisy, self._chunk)

    def _of_chunk(self, noisy: Tensor) -> Tensor:
        self._features.copy_(noisy)
        with fastest_torch():
            return self._evaluate(self._features)

    def count(self, examples: int) -> IntArray:
        case = self._problem.case
        classes = torch.arange(case.classes, device=self._noise.device)
        totals = torch.zeros((examples, case.classes), dtype=torch.int64, device=classes.device)
        with fastest_torch():
            for b in range(examples):
                for _ in range(case.draws // self._chunk):
                    self._noise.normal_()
                    sigma = case.mechanism.std
                    torch.add(self._centers[b], self._noise, alpha=sigma, out=self._noisy)
                    totals[b] += _votes(self._evaluate(self._features), classes)
        return np.asarray(totals.cpu().numpy())


@dataclass(frozen=True)
class Compiled(AbstractGpuContender):
    """Noise, network and votes in one graph by torch.compile, shapes static.

    One graph, since compiling takes most of the time that there is: it also returns its first row's
    outputs, and the gate reads these, row by row, from whole chunks of one row without noise.

    Parameters
    ----------
    backend, mode : str
        "max-autotune" tries kernels by timing and replays CUDA graphs.
    """

    dtype: torch.dtype
    backend: str = "inductor"
    mode: str | None = "max-autotune"
    chunk_guide = "eager channels-last"

    @property
    def name(self) -> str:
        return f"compiled {self.mode or self.backend}"

    def prepare(self, problem: GpuProblem, chunk: int) -> AbstractGpuJob:
        return _CompiledJob(problem, chunk, self)


class _CompiledJob(AbstractGpuJob):
    gated = 32

    def __init__(self, problem: GpuProblem, chunk: int, contender: Compiled) -> None:
        self._problem, self._chunk = problem, chunk
        self._centers = _in_memory_order(problem.centers)
        device, dtype = problem.machine.device, contender.dtype
        suffix = suffix_in(problem, dtype)
        shape = (chunk, *self._centers.shape[1:])
        classes = torch.arange(problem.case.classes, device=device)

        def step(center: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
            noise = torch.randn(shape, device=device)
            outputs = suffix(_seen((center + sigma * noise).to(dtype)))
            return _votes(outputs, classes), outputs[:1].clone()

        options: dict[str, Any] = {"backend": contender.backend, "dynamic": False}
        if contender.mode is not None:
            options["mode"] = contender.mode
        self._step = torch.compile(step, **options)
        self._sigma = torch.tensor(problem.case.mechanism.std, device=device)
        with fastest_torch():
            self._step(self._centers[0], self._sigma)

    def outputs(self, noisy: Tensor) -> Tensor:
        """Of the timed graph itself; its votes for a chunk of one row must be for that row's class.

        Raises
        ------
        RuntimeError
            Where they are not.
        """
        quiet, found, winners = torch.zeros_like(self._sigma), [], []
        with fastest_torch():
            for row in _in_memory_order(noisy.float()):
                votes, outputs = self._step(row, quiet)
                found.append(outputs.float().clone())
                winners.append(votes.argmax()[None])
        made, winner = torch.cat(found), torch.cat(winners)
        short = made.amax(dim=1) - made.gather(1, winner[:, None])[:, 0]
        if not bool((short <= 2e-2 * made.abs().amax(dim=1)).all()):
            raise RuntimeError("the compiled graph counts other votes than its outputs are for")
        return made

    def count(self, examples: int) -> IntArray:
        case, device = self._problem.case, self._centers.device
        totals = torch.zeros((examples, case.classes), dtype=torch.int64, device=device)
        with fastest_torch():
            for b in range(examples):
                for _ in range(case.draws // self._chunk):
                    totals[b] += self._step(self._centers[b], self._sigma)[0]
        return np.asarray(totals.cpu().numpy())


@dataclass(frozen=True)
class OursGpu(AbstractGpuContender):
    """One of the package's backends through its public door; the backend chooses its tile."""

    backend: str
    dtype: torch.dtype

    @property
    def name(self) -> str:
        return f"pixeldp_fast {self.backend}"

    @property
    def is_torch(self) -> bool:  # type: ignore[override]
        return False

    def chunks(self, case: GpuCase) -> tuple[int, ...]:
        return (case.draws,)

    def missing(self, problem: GpuProblem) -> str:
        backend = {b.name: b for b in BACKENDS}.get(self.backend)
        if backend is None:
            return f"this version has no backend {self.backend!r}"
        case, plan = problem.case, _plan(problem.case, problem.model)
        reduction, device = Votes(case.classes), problem.machine.device
        support = backend.supports(plan, case.mechanism, reduction, device, dtype=self.dtype)
        return "" if support.ok else support.reason

    def prepare(self, problem: GpuProblem, chunk: int) -> AbstractGpuJob:
        return _OurJob(problem, self)


class _OurJob(AbstractGpuJob):
    def __init__(self, problem: GpuProblem, contender: OursGpu) -> None:
        self._problem, self._contender = problem, contender
        self._index = np.arange(problem.case.examples)
        self.smoothed = SmoothedClassifier(
            problem.model,
            num_classes=problem.case.classes,
            backend=contender.backend,
            dtype=contender.dtype,
            seed=SEED,
            device=problem.machine.device,
        )
        self.own_votes(1)  # prepares the engine

    def count(self, examples: int) -> IntArray:
        x, index = self._problem.x[:examples], self._index[:examples]
        counts: IntArray = self.smoothed.count(x, self._problem.case.draws, index=index).counts
        return counts[:, :-1]

    def own_votes(self, draws: int) -> IntArray | None:
        counts: IntArray = self.smoothed.count(self._problem.x[:1], draws, index=0).counts
        return counts[0, :-1]

    def outputs(self, noisy: Tensor) -> Tensor:
        """Of the prepared engine, or, where it has no such entry, on its own draws of `STREAM`."""
        direct = getattr(self.smoothed._engine("argmax")[1], "outputs", None)
        if direct is not None:
            given: Tensor = direct(noisy)
            return given
        problem, capture = self._problem, _Capture(self._problem.case.classes)
        backend = {b.name: b for b in BACKENDS}[self._contender.backend]
        engine = backend.prepare(
            _plan(problem.case, problem.model),
            problem.case.mechanism,
            capture,
            problem.machine.device,
            dtype=self._contender.dtype,
        )
        engine.run(problem.x[:1], np.zeros(1, dtype=np.int64), STREAM, 0, len(noisy))
        return torch.cat(capture.rows)


def suffix_in(problem: GpuProblem, dtype: torch.dtype) -> nn.Module:
    """A copy of the suffix in a dtype, its convolutions' weights channels last."""
    suffix = copy.deepcopy(problem.model.suffix).to(dtype=dtype)
    return suffix.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _in_memory_order(centers: Tensor) -> Tensor:
    """[E, C, H, W] as contiguous [E, H, W, C]; a vector as it is."""
    return centers.movedim(1, -1).contiguous() if centers.ndim == 4 else centers


def _seen(rows: Tensor) -> Tensor:
    """[n, H, W, C] as [n, C, H, W] over the same memory."""
    return rows.movedim(-1, 1) if rows.ndim == 4 else rows


def _votes(outputs: Tensor, classes: Tensor) -> Tensor:
    """How many rows each class wins, without the synchronisation of `bincount`."""
    return (outputs.argmax(dim=1)[:, None] == classes).sum(dim=0)


def _by_chunks(evaluate: Evaluate, noisy: Tensor, chunk: int) -> Tensor:
    """Outputs for rows in chunks of one shape, the last filled up with zeros."""
    found = []
    for rows in torch.split(noisy, chunk):
        padded = rows.new_zeros((chunk, *rows.shape[1:]))
        padded[: len(rows)] = rows
        found.append(evaluate(padded)[: len(rows)].clone())
    return torch.cat(found)


def contenders(dtype: torch.dtype) -> tuple[AbstractGpuContender, ...]:
    """All of one dtype, and Cohen's loop in its own; the one that takes longest to prepare last."""
    return (
        OursGpu("triton", dtype),
        Eager(dtype),
        Cohen(),
        OursGpu("torch", dtype),
        Compiled(dtype),
    )
