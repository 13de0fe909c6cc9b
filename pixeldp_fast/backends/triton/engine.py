"""A prepared network on one device: examples in, a tally out, one copy to the host per call."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
import triton
from torch import Tensor

from pixeldp_fast._version import __version__
from pixeldp_fast.backends.arithmetic import in_arithmetic, machine, prefix_dtype
from pixeldp_fast.backends.base import AbstractEngine
from pixeldp_fast.backends.reduction import AbstractReduction
from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.backends.tiles import check_rows_alone, empty_totals, own
from pixeldp_fast.backends.triton import checks
from pixeldp_fast.backends.triton.assembly import Assembly, assembled, plain_noise, scores_of
from pixeldp_fast.backends.triton.compiling import quiet
from pixeldp_fast.backends.triton.draws import Draws
from pixeldp_fast.backends.triton.executor import Pipeline, aligned, anywhere, pinned
from pixeldp_fast.backends.triton.fused import Scores, Target
from pixeldp_fast.backends.triton.heads import table_width
from pixeldp_fast.backends.triton.tuning import machines, name_of
from pixeldp_fast.backends.triton.workspace import ROWS_LIMITS, missing, padded_rows, rows_for
from pixeldp_fast.errors import UnsupportedBackend
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.stream import Stream
from pixeldp_fast.plan.ops import Graph
from pixeldp_fast.plan.plan import Plan
from pixeldp_fast.plan.snapshot import Snapshot
from pixeldp_fast.types import IntArray

logger = logging.getLogger(__name__)

GraphOf = Callable[..., Graph | None]


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
        self._load(graph_of(plan))

    def _load(self, graph: Graph | None) -> None:
        """Convert the weights as they are now, and check what comes of them."""
        self._snapshot = Snapshot(self._plan.prefix, self._plan.suffix)
        device, dtype = self._device, self._dtype
        asked = self._tile
        rows = rows_for(self._plan, graph, dtype, device) if asked is None else padded_rows(asked)
        lacking = missing(self._plan, graph, dtype, device, rows)
        if lacking is not None:
            raise UnsupportedBackend(f"triton: {lacking}.")
        self._rows = rows
        with pinned(device), quiet():
            self._parts, self._pipeline = self._built(graph)
            self._place = aligned
            self._check(graph)
        self._ready = True

    def _built(self, graph: Graph | None) -> tuple[Assembly, Pipeline]:
        """Compiled and as a CUDA graph where that goes; what goes decides bits, and is recorded."""
        target = Target(self._device, self._dtype)
        for compiling, captured in ways(self._device):
            parts = assembled(self._plan, graph, self._reduction, target, compiling=compiling)
            try:
                return parts, self._tried(parts, captured=captured)
            except torch.OutOfMemoryError as error:
                raise UnsupportedBackend(
                    f"triton: a tile of {self._rows} draws does not fit {self._device}; name a "
                    "smaller `tile` or torch.bfloat16."
                ) from error
            except RuntimeError as error:
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
            parts.noisy,
            parts.network,
            captured=captured,
        )
        pipeline.evaluated(torch.zeros((), device=self._device))
        return pipeline

    def _check(self, graph: Graph | None) -> None:
        """Refuse, before any certificate, what is wrong on this device or with this suffix."""
        shape, rows = self._plan.noise_shape, self._rows
        generator = torch.Generator().manual_seed(0)
        trial = torch.randn((ROWS_LIMITS[0], *shape), generator=generator).to(self._device)
        if graph is None:
            check_rows_alone(self._logits, shape, rows, self._dtype, self._device)
        tiled = self._device.type == "cuda" and self._parts.whole is None
        if tiled and checks.blind_to_place(self._logits, trial, rows):
            self._place = anywhere
        ours = self._padded_logits(trial)
        checks.check_meaning(self._plan, graph, trial, ours, self._dtype)
        checks.check_noise(plain_noise(self._plan, self._mechanism, self._device), self._mechanism)
        self._check_head()

    def _check_head(self) -> None:
        """That a tile's votes are those of its logits."""
        scores = scores_of(self._reduction)
        if scores is None or self._parts.head is None:
            return
        coordinates = torch.Size(self._plan.noise_shape).numel()
        center = torch.zeros((1, coordinates), device=self._device)
        address = torch.full((1,), checks.TRIAL_ADDRESS, dtype=torch.int64, device=self._device)
        draws = checks.trial_draws(self._mechanism, self._rows)
        launch = next(iter(anywhere(draws, self._rows)))
        made = self._pipeline.launched(center, address, launch)
        table = self._empty_table(1, scores)
        if self._parts.whole is not None:
            self._parts.whole(center, address, draws, table)
        else:
            self._parts.head(made, draws, table)
        checks.check_counts(table[0], self._parts.logits(made), self._dtype)

    def _empty_table(self, examples: int, scores: Scores) -> Tensor:
        width = table_width(self._reduction.num_outputs, scores)
        return torch.zeros((examples, width), dtype=torch.int64, device=self._device)

    def _logits(self, features: Tensor) -> Tensor:
        """Outputs of one whole tile of given features, float32 [rows, *noise_shape]."""
        made = self._pipeline.evaluated(self._parts.behind(features.float()))
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
        tiles = "" if self._parts.whole is not None else f"tile {self._rows} {placed} "
        return (
            f"triton {triton.__version__} pixeldp_fast {__version__} torch {torch.__version__} "
            f"{name_of(self._dtype)} {where} {machine(self._device)} {tiles}{self._parts.words}"
        )

    def run(self, x: Tensor, index: IntArray, stream: Stream, first_draw: int, n: int) -> Tally:
        self._reduction.check_draws(n)
        self._refresh()
        with pinned(self._device):
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
        center = torch.where(finite[:, None], center, 0.0)
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
        prefix = in_arithmetic(self._plan.prefix, prefix_dtype(self._plan.prefix))
        rows = [prefix(own(x, b)).float().flatten(1).contiguous() for b in range(len(x))]
        return torch.cat(rows)

    def outputs(self, features: Tensor) -> Tensor:
        """The suffix's outputs [rows, K] for given noisy features, float32 [rows, *noise_shape].

        From the engine's own network; where its head stores no logits, that one in torch.
        """
        self._refresh()
        found = []
        with pinned(self._device):
            for some in torch.split(features.to(self._device), self._rows):
                found.append(self._padded_logits(some))
            return torch.cat(found) if found else features.new_zeros((0, self._plan.num_outputs))

    def _refresh(self) -> None:
        if self._ready and self._snapshot.matches():
            return
        self._ready = False  # until all is loaded: an error must not leave half an engine
        self.__dict__.pop("_pipeline", None)  # its memory is for the next one
        self._load(self._graph_of(self._plan, again=True))
