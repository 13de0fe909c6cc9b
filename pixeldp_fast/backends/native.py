"""The compiled engine on the CPU: noise, network and count fused over tiles of draws."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from pixeldp_fast._version import __version__
from pixeldp_fast.backends.arithmetic import (
    in_arithmetic,
    machine,
    prefix_dtype,
    prefix_in_arithmetic,
    stated_arithmetic,
)
from pixeldp_fast.backends.base import AbstractBackend, AbstractEngine, Support
from pixeldp_fast.backends.network import check_memory, compiled
from pixeldp_fast.backends.reduction import AbstractReduction, RealParts, SoftmaxSums, Votes
from pixeldp_fast.backends.requirements import (
    center_dtype,
    dense_weights,
    float32_noise,
    outputs_of,
    weights_on,
)
from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.backends.tiles import empty_totals, own
from pixeldp_fast.errors import UnsupportedBackend, UnsupportedModel
from pixeldp_fast.noise.lattice import whole_steps
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.sampling import native_isa, native_lattice, native_module, noise_source
from pixeldp_fast.noise.stream import Stream
from pixeldp_fast.plan.lower import lower
from pixeldp_fast.plan.ops import Graph
from pixeldp_fast.plan.passes import optimised
from pixeldp_fast.plan.plan import Plan
from pixeldp_fast.plan.snapshot import Snapshot
from pixeldp_fast.types import IntArray

FUSED = {Votes: 0, SoftmaxSums: 1, RealParts: 2}  # reductions inside the engine, by its numbers
CHUNK = 4096  # draws whose outputs are handed at once to a reduction that is not
# How far the compiled network may be from the module on a trial, relative to the largest output:
# well above float32's errors, well below any operation misunderstood.
TRIAL_TOLERANCE = 1e-3
CPU = torch.device("cpu")

# From `supports` to `prepare` a plan's graph, with what it was made from, or why there is none.
_lowered: WeakKeyDictionary[Plan, tuple[Snapshot, Graph] | UnsupportedModel] = WeakKeyDictionary()
_lowering = threading.Lock()


class NativeBackend(AbstractBackend):
    """C++ kernels in float32; what the network lowers to is evaluated, not the module.

    Guarantee
        A draw's outputs are one chain of float32 operations in an order that depends on the network
        alone: not on the batch, the tile, the split, the number of threads or, among those with
        fused multiply-add, the instruction set.
    """

    name: ClassVar[str] = "native"

    def supports(
        self,
        plan: Plan,
        mechanism: AbstractMechanism,
        reduction: AbstractReduction,
        device: torch.device,
        *,
        dtype: torch.dtype | None = None,
    ) -> Support:
        if native_module() is None:
            return Support(False, "the compiled module is not installed, or PIXELDP_NATIVE=0")
        if device.type != "cpu":
            return Support(False, f"the compiled engine runs on the CPU, not on {device}")
        if dtype not in (None, torch.float32):
            return Support(False, f"the compiled engine computes in float32, not in {dtype}")
        if noise_source(mechanism, device) != "native":
            return Support(False, f"it does not sample {type(mechanism).__name__} noise")
        for missed in (
            float32_noise(mechanism),
            weights_on(plan, device),
            dense_weights(plan),
            outputs_of(plan, reduction),
        ):
            if missed is not None:
                return Support(False, missed)
        try:
            _graph(plan)
        except UnsupportedModel as error:
            return Support(False, str(error))
        return Support(True)

    def prepare(
        self,
        plan: Plan,
        mechanism: AbstractMechanism,
        reduction: AbstractReduction,
        device: torch.device,
        *,
        dtype: torch.dtype | None = None,
        tile: int | None = None,
    ) -> AbstractEngine:
        support = self.supports(plan, mechanism, reduction, device, dtype=dtype)
        if not support.ok:
            raise UnsupportedBackend(f"native: {support.reason}")
        return _NativeEngine(plan, mechanism, reduction, tile or 0)


def _graph(plan: Plan) -> tuple[Snapshot, Graph]:
    """The suffix as a graph, traced once, and what the plan was before; raises what does not lower.

    The snapshot comes first: an edit during or after the trace then shows in it.
    """
    with _lowering:
        known = _lowered.get(plan)
        if known is None or (isinstance(known, tuple) and not known[0].matches()):
            snapshot = Snapshot(plan.prefix, plan.suffix)
            try:
                graph = optimised(lower(plan.suffix, plan.noise_shape, part="suffix"))
                _lowered[plan] = snapshot, graph
            except UnsupportedModel as error:
                _lowered[plan] = error
        found = _lowered[plan]
    if isinstance(found, UnsupportedModel):
        raise found
    return found


def _forget(plan: Plan) -> None:
    """Drop the graph and its folded weights: the next one is of the model as it is then."""
    with _lowering:
        _lowered.pop(plan, None)


@dataclass(frozen=True, eq=False)
class _Packed:
    """A plan's weights as the compiled module holds them, and what they were copied from.

    Parameters
    ----------
    suffix, prefix : Network of the compiled module
        No prefix where it must run on torch.
    """

    snapshot: Snapshot
    suffix: Any
    prefix: Any | None
    trial: Tensor  # what the module itself gave for the trial's rows


def _packed(plan: Plan) -> _Packed:
    """The weights as they were when the graph was made."""
    snapshot, graph = _graph(plan)
    _forget(plan)
    isa, native = native_isa(), native_module()
    suffix = compiled(native, graph, isa=isa, fast=True)
    exact = _exact_prefix(plan)
    prefix = None if exact is None else compiled(native, exact, isa=isa, fast=False)
    return _Packed(snapshot, suffix, prefix, _checked_trial(plan, suffix, snapshot))


class _NativeEngine(AbstractEngine):
    def __init__(
        self, plan: Plan, mechanism: AbstractMechanism, reduction: AbstractReduction, tile: int
    ) -> None:
        self._plan = plan
        self._mechanism = mechanism
        self._reduction = reduction
        self._tile = tile
        self._packed = _packed(plan)
        check_memory(self._packed.suffix, torch.get_num_threads(), tile)

    def _current(self) -> _Packed:
        """The packed weights, made anew where the model has changed.

        One object per call, so that calls from several threads never mix two versions.
        """
        packed = self._packed
        if not packed.snapshot.matches():
            self._packed = packed = _packed(self._plan)
        return packed

    def renew(self) -> None:
        """Compare with the module itself, which may have changed where no snapshot looks.

        Not at every run: PyTorch's threads hang in a forked child of a process that used them.
        """
        if not _same(_trial(self._plan), self._current().trial):
            self._packed = _packed(self._plan)

    @property
    def arithmetic(self) -> str:
        packed = self._packed
        products = f"{packed.suffix.arithmetic} multiply-add"
        words = f"native {__version__} float32 {products}, lowered by torch {torch.__version__}"
        return words if packed.prefix is not None else f"{words} prefix torch {machine(CPU)}"

    @property
    def granularity(self) -> int:
        return int(self._packed.suffix.lanes)

    def run(self, x: Tensor, index: IntArray, stream: Stream, first_draw: int, n: int) -> Tally:
        self._reduction.check_draws(n)
        packed = self._current()
        centers = self._centers(packed, x.detach())
        levels = self._mechanism.lattice
        if levels is not None:
            centers = whole_steps(centers, levels)
        if n == 0:
            return self._unfused(packed, (), centers, first_draw, 0)
        draws = (
            self._mechanism.native_law,
            self._mechanism.noise_scale,
            stream.seed,
            int(stream.purpose),
            np.ascontiguousarray(index, dtype=np.uint32),
        )
        kind = FUSED.get(type(self._reduction))
        if kind is None:
            return self._unfused(packed, draws, centers, first_draw, n)
        low, high = getattr(self._reduction, "low", 0.0), getattr(self._reduction, "high", 0.0)
        totals = packed.suffix.tally(
            *draws,
            first_draw,
            n,
            centers,
            kind,
            low,
            high,
            torch.get_num_threads(),
            self._tile,
            self._lattice(),
        )
        return self._reduction.tally(totals)

    def _lattice(self) -> Any | None:
        return None if self._mechanism.lattice is None else native_lattice(self._mechanism)

    def outputs(self, features: Tensor) -> Tensor:
        """The suffix's outputs [rows, K] for given noisy features, float32 [rows, *noise_shape]."""
        flat = np.ascontiguousarray(features.detach().numpy().reshape(len(features), -1))
        return torch.from_numpy(_outputs(self._current().suffix, flat, self._tile))

    def _centers(self, packed: _Packed, x: Tensor) -> Any:
        """Features at the noise point, float32 [B, D]."""
        if packed.prefix is not None:
            return _outputs(packed.prefix, np.ascontiguousarray(x.flatten(1).numpy()), 0)
        with stated_arithmetic(CPU):
            dtype = center_dtype(self._plan, self._mechanism)
            prefix = prefix_in_arithmetic(self._plan.prefix, dtype)
            rows = [prefix(own(x, b)).float().flatten(1) for b in range(len(x))]
            features = torch.cat(rows) if rows else x.new_zeros((0, *self._plan.noise_shape))
            return features.flatten(1).contiguous().numpy()

    def _unfused(self, packed: _Packed, draws: Any, centers: Any, first_draw: int, n: int) -> Tally:
        """For reductions that the engine does not know: their outputs, a chunk after the other."""
        nothing = empty_totals(self._reduction, CPU)
        totals = nothing.new_zeros((len(centers), len(nothing)))
        for b, start in product(range(len(centers)), range(first_draw, first_draw + n, CHUNK)):
            some = min(CHUNK, first_draw + n - start)
            if not np.isfinite(centers[b]).all():
                lost = torch.full((1, self._reduction.num_outputs), torch.nan)
                totals[b] += some * self._reduction.reduce(lost)
                continue
            *law, index = draws
            (outputs,) = packed.suffix.outputs_of_draws(
                *law,
                index[b : b + 1],
                start,
                some,
                centers[b : b + 1],
                torch.get_num_threads(),
                self._tile,
                self._lattice(),
            )
            totals[b] += self._reduction.reduce(torch.from_numpy(outputs))
        return self._reduction.tally(totals.numpy())


def _outputs(network: Any, rows: Any, tile: int) -> Any:
    return network.outputs_of_rows(rows, torch.get_num_threads(), tile)


def _trial_rows(plan: Plan, rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn((rows, *plan.noise_shape), generator=generator)


def _trial(plan: Plan, rows: int = 2) -> Tensor:
    """What the module itself gives for a few fixed random rows."""
    with stated_arithmetic(CPU):
        return in_arithmetic(plan.suffix, torch.float32)(_trial_rows(plan, rows)).clone()


def _same(a: Tensor, b: Tensor) -> bool:
    """Bit by bit, any NaN equal to any other."""
    return torch.equal(a.nan_to_num(), b.nan_to_num()) and torch.equal(a.isnan(), b.isnan())


def _checked_trial(plan: Plan, suffix: Any, snapshot: Snapshot) -> Tensor:
    """The module's trial, after comparing it with itself and with the compiled network.

    Raises
    ------
    UnsupportedBackend
        For a module that is not a function of its input, or not what it was lowered to.
    """
    once = _trial(plan)
    if not (_same(once, _trial(plan)) and snapshot.matches()):
        raise UnsupportedBackend(
            "native: suffix changes from call to call (a state or noise of its own?), so that it "
            "is not what was compiled."
        )
    for rows in (2, 3):
        theirs, features = _trial(plan, rows), _trial_rows(plan, rows).flatten(1)
        difference = (torch.from_numpy(_outputs(suffix, features.numpy(), 0)) - theirs).abs()
        finite = torch.isfinite(theirs)
        scale = max([1e-30, *theirs[finite].abs().tolist()])
        if not bool((difference[finite] <= TRIAL_TOLERANCE * scale).all()):
            raise UnsupportedBackend(
                "native: the compiled network and the module give different outputs; does its "
                "forward depend on the batch or on something outside its weights? Use "
                "backend='torch'."
            )
    return once


def _exact_prefix(plan: Plan) -> Graph | None:
    """The prefix as a graph if its layers lower as they are, every weight as it is stored.

    Otherwise None: it runs on torch. The sensitivity is that of the stored weights.
    """
    if prefix_dtype(plan.prefix) != torch.float32 or len(plan.input_shape) not in (1, 3):
        return None
    try:
        graph = lower(plan.prefix, plan.input_shape, part="prefix")
    except UnsupportedModel:
        return None
    stored = {(t.data_ptr(), t.dtype) for t in plan.prefix.state_dict().values()}
    for node in graph.nodes:
        weights = [getattr(node, name, None) for name in ("weight", "bias", "scale", "shift")]
        if any(w is not None and (w.data_ptr(), w.dtype) not in stored for w in weights):
            return None
    return graph
