"""A prepared network on one device: examples in, a tally out, one copy to the host per call."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
import triton
from torch import Tensor

from pixeldp_fast._version import __version__
from pixeldp_fast.backends.arithmetic import machine, prefix_in_arithmetic
from pixeldp_fast.backends.base import AbstractEngine
from pixeldp_fast.backends.reduction import AbstractReduction
from pixeldp_fast.backends.requirements import center_dtype
from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.backends.tiles import check_rows_alone, empty_totals, own
from pixeldp_fast.backends.triton import checks
from pixeldp_fast.backends.triton.assembly import Assembly, assembled, plain_noise, scores_of
from pixeldp_fast.backends.triton.compiling import failures, quiet
from pixeldp_fast.backends.triton.draws import Draws
from pixeldp_fast.backends.triton.executor import Pipeline, aligned, anywhere, in_c_order
from pixeldp_fast.backends.triton.fused import Scores
from pixeldp_fast.backends.triton.heads import table_width
from pixeldp_fast.backends.triton.runs import Target
from pixeldp_fast.backends.triton.tuning import machines, name_of
from pixeldp_fast.backends.triton.turns import Turns
from pixeldp_fast.backends.triton.workspace import (
    ROWS_LIMITS,
    missing,
    padded_rows,
    rows_for,
    values_of,
)
from pixeldp_fast.errors import UnsupportedBackend
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.stream import Stream
from pixeldp_fast.plan.ops import Graph
from pixeldp_fast.plan.plan import Plan
from pixeldp_fast.plan.snapshot import Snapshot
from pixeldp_fast.types import IntArray

logger = logging.getLogger(__name__)

GraphOf = Callable[[Plan], Graph | None]


def ways(device: torch.device) -> tuple[tuple[bool, bool], ...]:
    """How a suffix may run other than plainly, best first: (compiled, as a CUDA graph)."""
    return ((True, True), (True, False), (False, True)) if device.type == "cuda" else ()


class TritonEngine(AbstractEngine):
    """See `TritonBackend`.

    Reductions without a kernel (all but votes and softmax sums) get a tile's outputs from the same
    network and are computed by torch; where votes come from a fused head, those outputs may differ
    in the last bits from the ones that were counted and never stored.

    Cost
        Weights that were edited since are noticed by comparing all of them, at every call.
    """

    def __init__(
        self,
        plan: Plan,
        mechanism: AbstractMechanism,
        reduction: AbstractReduction,
        device: torch.device,
        dtype: torch.dtype,
        tile: int | None,
        graph_of: GraphOf,
    ) -> None:
        self._plan = plan
        self._mechanism = mechanism
        self._reduction = reduction
        self._device = device
        self._dtype = dtype
        self._tile = tile
        self._graph_of = graph_of
        self._turn = Turns(device)
        with self._turn():
            self._load()

    def _load(self) -> None:
        """Convert the weights as they are now, and check what comes of them.

        The snapshot comes first: an edit meanwhile then shows in it.
        """
        self._ready = False  # until all is loaded: an error must not leave half an engine
        self.__dict__.pop("_pipeline", None)  # its memory is for the next one
        self._snapshot = Snapshot(self._plan.prefix, self._plan.suffix)
        graph = self._graph_of(self._plan)
        device, dtype, asked = self._device, self._dtype, self._tile
        values = values_of(self._plan, graph)
        rows = rows_for(values, dtype, device) if asked is None else padded_rows(asked)
        lacking = missing(values, dtype, device, rows)
        if lacking is not None:
            raise UnsupportedBackend(f"triton: {lacking}.")
        self._rows = rows
        with quiet():
            self._parts, self._pipeline = self._built(graph)
            self._way = "captured " if self._pipeline.captured else ""
            self._place = aligned
            self._check(graph)
        self._ready = True

    def _built(self, graph: Graph | None) -> tuple[Assembly, Pipeline]:
        """Compiled and as a CUDA graph where that goes; what goes decides bits, and is recorded."""
        target = Target(self._device, self._dtype, self._mechanism)
        for compiling, captured in ways(self._device):
            parts = assembled(self._plan, graph, self._reduction, target, compiling=compiling)
            try:
                return parts, self._tried(parts, captured=captured)
            except torch.OutOfMemoryError:
                raise
            except failures() as error:
                cause = str(error).strip().split("\n")[0]
                way = f"compiled={compiling}, CUDA graph={captured}"
                logger.info("triton: the suffix does not run with %s: %s", way, cause)
        parts = assembled(self._plan, graph, self._reduction, target, compiling=False)
        return parts, self._tried(parts, captured=False)

    def _tried(self, parts: Assembly, *, captured: bool) -> Pipeline:
        """A pipeline that has run once."""
        if parts.whole is not None:
            self._rows, captured = ROWS_LIMITS[0], False
        pipeline = Pipeline(
            self._plan.noise_shape,
            self._rows,
            self._dtype,
            self._device,
            parts.front.noisy,
            parts.network,
            captured=captured,
        )
        pipeline.evaluated(torch.zeros((), device=self._device))
        return pipeline

    def _check(self, graph: Graph | None) -> None:
        """Refuse, before any certificate, what is wrong on this device or with this suffix."""
        shape, rows = self._plan.noise_shape, self._rows
        trial = checks.trial_features(self._plan, self._device)
        if graph is None:
            check_rows_alone(self._logits, shape, rows, self._dtype, self._device)
        tiled = self._device.type == "cuda" and self._parts.whole is None
        if tiled and checks.blind_to_place(self._logits, trial, rows):
            self._place = anywhere
        self._theirs = checks.module_outputs(self._plan, trial)
        ours = self._padded_logits(trial)
        checks.check_meaning(self._plan, graph, trial, ours, self._theirs, self._dtype)
        checks.check_noise(plain_noise(self._plan, self._mechanism, self._device), self._mechanism)
        for n in checks.trial_lengths(rows):
            self._check_tile(n)

    def _check_tile(self, n: int) -> None:
        """That a tile of `n` draws of several examples has their noise and counts their votes."""
        center = checks.trial_centers(self._plan, self._device)
        address = checks.TRIAL_ADDRESSES.to(self._device)
        draws = checks.trial_draws(self._mechanism, n, len(center))
        front = self._parts.front
        centred = front.centred(center)
        noised = in_c_order(self._pipeline.noised(centred, address, draws))
        checks.check_front(self._plan, self._mechanism, front, center, noised, n)
        scores = scores_of(self._reduction)
        if scores is None or self._parts.head is None:
            return
        (launch,) = anywhere(draws, self._rows)
        made = self._pipeline.launched(centred, address, launch)
        table = self._empty_table(len(center), scores)
        if self._parts.whole is not None:
            self._parts.whole(centred, address, draws, table)
        else:
            self._parts.head(made, draws, table)
        logits = self._parts.logits(made)
        for b in range(len(center)):
            checks.check_counts(table[b], logits[b * n : (b + 1) * n], self._dtype)

    def _empty_table(self, examples: int, scores: Scores) -> Tensor:
        width = table_width(self._reduction.num_outputs, scores)
        return torch.zeros((examples, width), dtype=torch.int64, device=self._device)

    def _logits(self, features: Tensor) -> Tensor:
        """Outputs of one whole tile of given features, float32 [rows, *noise_shape]."""
        made = self._pipeline.evaluated(self._parts.front.behind(features.float()))
        return self._parts.logits(made)

    def _padded_logits(self, features: Tensor) -> Tensor:
        """The same for at most a tile."""
        tile = features.new_zeros((self._rows, *self._plan.noise_shape))
        tile[: len(features)] = features
        return self._logits(tile)[: len(features)].clone()

    @property
    def arithmetic(self) -> str:
        """Everything on which the bits of a draw's outputs depend."""
        where = " ".join(machines(self._device))
        placed = "anywhere" if self._place is anywhere else "aligned"
        tiles = "" if self._parts.whole is not None else f"tile {self._rows} {placed} {self._way}"
        return (
            f"triton {triton.__version__} pixeldp_fast {__version__} torch {torch.__version__} "
            f"{name_of(self._dtype)} {where} {machine(self._device)} {tiles}{self._parts.words}"
        )

    def run(self, x: Tensor, index: IntArray, stream: Stream, first_draw: int, n: int) -> Tally:
        self._reduction.check_draws(n)
        with self._turn():
            self._refresh()
            totals = self._totals(x, index, stream, first_draw, n)
            return self._reduction.tally(totals.cpu().numpy())

    def _totals(
        self, x: Tensor, index: IntArray, stream: Stream, first_draw: int, n: int
    ) -> Tensor:
        """All examples' totals on the device, int64 [B, width]."""
        empty = empty_totals(self._reduction, self._device)
        if n == 0 or len(x) == 0:
            return empty.repeat(len(x), 1)
        center = self._centers(x)  # [B, D]
        finite = torch.isfinite(center).all(dim=1)
        center = self._parts.front.centred(torch.where(finite[:, None], center, 0.0))
        words = np.asarray(index).astype(np.int64)
        address = torch.from_numpy(words).to(self._device)
        asked = self._asked(stream, first_draw, n, len(x))
        scores = scores_of(self._reduction)
        if scores is None or self._parts.head is None:
            totals = self._pipeline.reduce(
                center, address, asked, self._reduction, self._parts.logits, self._place
            )
            return torch.where(finite[:, None], totals, self._lost(n, finite, empty))
        classes = self._reduction.num_outputs
        table = self._empty_table(len(x), scores)
        if self._parts.whole is not None:
            self._parts.whole(center, address, asked, table)
        else:
            self._pipeline.count(center, address, asked, table, self._parts.head, self._place)
        # Features that are not finite: noise cannot hide them, every draw counts as lost.
        lost = torch.zeros_like(table[0])
        lost[classes] = n
        return torch.where(finite[:, None], table, lost)

    def _lost(self, n: int, finite: Tensor, empty: Tensor) -> Tensor:
        """The totals of `n` draws with non-finite outputs, where an example has them."""
        if bool(finite.all()):
            return empty
        hopeless = torch.full((1, self._reduction.num_outputs), torch.nan, device=self._device)
        return n * self._reduction.reduce(hopeless)

    def _asked(self, stream: Stream, first_draw: int, n: int, examples: int) -> Draws:
        law = self._mechanism.native_law
        assert law is not None
        scale, purpose = self._mechanism.noise_scale, int(stream.purpose)
        return Draws(law, scale, stream.seed, purpose, first_draw, n, examples, 0)

    def _centers(self, x: Tensor) -> Tensor:
        """Features at the noise point in C order, float32 [B, D]."""
        dtype = center_dtype(self._plan, self._mechanism)
        prefix = prefix_in_arithmetic(self._plan.prefix, dtype)
        rows = [prefix(own(x, b)).float().flatten(1).contiguous() for b in range(len(x))]
        return torch.cat(rows)

    def outputs(self, features: Tensor) -> Tensor:
        """The suffix's outputs [rows, K] for given noisy features, float32 [rows, *noise_shape].

        From the engine's own network; where its head stores no logits, that one in torch.
        """
        found = []
        with self._turn():
            self._refresh()
            for some in torch.split(features.to(self._device), self._rows):
                found.append(self._padded_logits(some))
            return torch.cat(found) if found else features.new_zeros((0, self._plan.num_outputs))

    def renew(self) -> None:
        """Compare with the module itself, which may have changed where no snapshot looks."""
        with self._turn():
            self._refresh()
            trial = checks.trial_features(self._plan, self._device)
            now = checks.module_outputs(self._plan, trial)
            if not torch.equal(now.nan_to_num(), self._theirs.nan_to_num()):
                logger.info("triton: the module's outputs are not what they were; loaded anew")
                self._load()

    def _refresh(self) -> None:
        if not (self._ready and self._snapshot.matches()):
            self._load()
