"""The compiled engine on the CPU: noise, network and count fused over tiles of draws."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from pixeldp_fast._version import __version__
from pixeldp_fast.backends.arithmetic import in_arithmetic, machine, prefix_dtype, stated_arithmetic
from pixeldp_fast.backends.base import AbstractBackend, AbstractEngine, Support
from pixeldp_fast.backends.network import check_memory, compiled
from pixeldp_fast.backends.reduction import AbstractReduction, RealParts, SoftmaxSums, Votes
from pixeldp_fast.backends.requirements import float32_noise, weights_on
from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.backends.tiles import empty_totals, own
from pixeldp_fast.errors import UnsupportedBackend, UnsupportedModel
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.sampling import native_isa, native_module, noise_source
from pixeldp_fast.noise.stream import Stream
from pixeldp_fast.plan.lower import lower
from pixeldp_fast.plan.ops import Affine, Graph
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

_graphs: WeakKeyDictionary[Plan, Graph | UnsupportedModel] = WeakKeyDictionary()


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
        for missed in (float32_noise(mechanism), weights_on(plan, device)):
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


def _graph(plan: Plan) -> Graph:
    """The suffix as a graph, traced once per plan; raises what does not lower."""
    if plan not in _graphs:
        try:
            _graphs[plan] = optimised(lower(plan.suffix, plan.noise_shape, part="suffix"))
        except UnsupportedModel as error:
            _graphs[plan] = error
    found = _graphs[plan]
    if isinstance(found, UnsupportedModel):
        raise found
    return found


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


def _packed(plan: Plan) -> _Packed:
    """The weights as they are now. The snapshot comes first: a later edit then shows in it."""
    snapshot = Snapshot(plan.prefix, plan.suffix)
    isa, native = native_isa(), native_module()
    suffix = compiled(native, _graph(plan), isa=isa, fast=True)
    exact = _exact_prefix(plan)
    prefix = None if exact is None else compiled(native, exact, isa=isa, fast=False)
    _check_meaning(plan, suffix)
    return _Packed(snapshot, suffix, prefix)


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
            _graphs.pop(self._plan, None)
            self._packed = packed = _packed(self._plan)
        return packed

    @property
    def arithmetic(self) -> str:
        packed = self._packed
        products = f"{packed.suffix.arithmetic} multiply-add"
        words = f"native {__version__} float32 {products}"
        if isinstance(self._reduction, SoftmaxSums):
            words += f" exp {' '.join(platform.libc_ver())}"
        if packed.prefix is None:
            words += f" prefix torch {torch.__version__} {machine(CPU)}"
        return words

    @property
    def granularity(self) -> int:
        return int(self._packed.suffix.lanes)

    def run(self, x: Tensor, index: IntArray, stream: Stream, first_draw: int, n: int) -> Tally:
        self._reduction.check_draws(n)
        packed = self._current()
        centers = self._centers(packed, x)
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
            *draws, first_draw, n, centers, kind, low, high, torch.get_num_threads(), self._tile
        )
        return self._reduction.tally(totals)

    def outputs(self, features: Tensor) -> Tensor:
        """The suffix's outputs [rows, K] for given noisy features, float32 [rows, *noise_shape]."""
        flat = np.ascontiguousarray(features.detach().numpy().reshape(len(features), -1))
        return torch.from_numpy(_outputs(self._current().suffix, flat, self._tile))

    def _centers(self, packed: _Packed, x: Tensor) -> Any:
        """Features at the noise point, float32 [B, D]."""
        if packed.prefix is not None:
            return _outputs(packed.prefix, np.ascontiguousarray(x.flatten(1).numpy()), 0)
        with stated_arithmetic(CPU):
            prefix = in_arithmetic(self._plan.prefix, prefix_dtype(self._plan.prefix))
            rows = [prefix(own(x, b)).float().flatten(1) for b in range(len(x))]
            features = torch.cat(rows) if rows else x.new_zeros((0, *self._plan.noise_shape))
            return features.flatten(1).contiguous().numpy()

    def _unfused(self, packed: _Packed, draws: Any, centers: Any, first_draw: int, n: int) -> Tally:
        """For reductions that the engine does not know: their outputs, a chunk after the other."""
        *law, index = draws
        nothing = empty_totals(self._reduction, CPU)
        totals = nothing.new_zeros((len(centers), len(nothing)))
        for b, start in product(range(len(centers)), range(first_draw, first_draw + n, CHUNK)):
            some = min(CHUNK, first_draw + n - start)
            if not np.isfinite(centers[b]).all():
                lost = torch.full((1, self._reduction.num_outputs), torch.nan)
                totals[b] += some * self._reduction.reduce(lost)
                continue
            (outputs,) = packed.suffix.outputs_of_draws(
                *law,
                index[b : b + 1],
                start,
                some,
                centers[b : b + 1],
                torch.get_num_threads(),
                self._tile,
            )
            totals[b] += self._reduction.reduce(torch.from_numpy(outputs))
        return self._reduction.tally(totals.numpy())


def _outputs(network: Any, rows: Any, tile: int) -> Any:
    return network.outputs_of_rows(rows, torch.get_num_threads(), tile)


def _check_meaning(plan: Plan, suffix: Any) -> None:
    """Refuse a compiled network that is not the module, on a trial of two random rows."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn((2, *plan.noise_shape), generator=generator)
    with stated_arithmetic(CPU):
        theirs = in_arithmetic(plan.suffix, torch.float32)(rows.clone())
    ours = torch.from_numpy(_outputs(suffix, rows.flatten(1).numpy(), 0))
    finite = torch.isfinite(theirs)
    scale = max([1e-30, *theirs[finite].abs().tolist()])
    if not bool(((ours - theirs)[finite].abs() <= TRIAL_TOLERANCE * scale).all()):
        raise UnsupportedModel(
            "The compiled network and the module give different outputs; does its forward "
            "depend on something outside its weights? Use backend='torch'."
        )


def _exact_prefix(plan: Plan) -> Graph | None:
    """The prefix as a graph if its layers lower as they are, with no weight rounded or folded.

    Otherwise None: it runs on torch. The sensitivity is that of the stored weights.
    """
    if prefix_dtype(plan.prefix) != torch.float32 or len(plan.input_shape) not in (1, 3):
        return None
    try:
        graph = lower(plan.prefix, plan.input_shape, part="prefix")
    except UnsupportedModel:
        return None
    return None if any(isinstance(node, Affine) for node in graph.nodes) else graph
