"""The seam: one kernel takes a run of a network's operations, whatever it is written in.

Along the graph, at every node that is still free, the kernels on a list are asked in order what
they would take from there on; the first that claims a run and supports it here has it. What none
takes is torch's. The lists are in `kernels`.
"""

from __future__ import annotations

import abc
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from pixeldp_fast.backends.base import Support
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.plan.ops import Graph, Node, Shape
from pixeldp_fast.plan.passes import operands

logger = logging.getLogger(__name__)
Made = TypeVar("Made")


@dataclass(frozen=True)
class Target:
    """Where and in what an engine computes, and whose noise its runs begin with."""

    device: torch.device
    dtype: torch.dtype
    mechanism: AbstractMechanism | None = None

    @property
    def on_lattice(self) -> bool:
        """Whether that noise is on a lattice."""
        return self.mechanism is not None and self.mechanism.lattice is not None


@dataclass(frozen=True, eq=False)
class Run:
    """Nodes [first, last) of a graph; its result is value `last`.

    With `first` -1 the noise itself belongs to it, as the maker of value 0.
    """

    graph: Graph
    first: int
    last: int

    @property
    def nodes(self) -> tuple[Node, ...]:
        """In the order of evaluation."""
        return self.graph.nodes[max(self.first, 0) : self.last]

    @property
    def reads(self) -> tuple[int, ...]:
        """The values from in front of the run, in the order in which they are first read."""
        read = (value for node in self.nodes for value in operands(node) if value <= self.first)
        return tuple(dict.fromkeys(read))

    @property
    def shape(self) -> Shape:
        """Of the result, per draw."""
        return self.graph.shapes[self.last]

    @property
    def closed(self) -> bool:
        """Whether nothing behind the run reads what is inside it, but for its result."""
        inside = range(self.first + 1, self.last)
        later = (v for node in self.graph.nodes[self.last :] for v in operands(node))
        return self.graph.output not in inside and not any(v in inside for v in later)

    @property
    def rest(self) -> Graph:
        """What stands behind a run that begins with the noise, its result as value 0."""
        graph = self.graph
        nodes = tuple(_shifted(node, self.last) for node in graph.nodes[self.last :])
        return Graph(nodes, graph.shapes[self.last :], graph.output - self.last)


def _shifted(node: Node, by: int) -> Node:
    """The node with every value that it reads renumbered."""
    changed = {
        name: getattr(node, name) - by
        for name in ("source", "other", "residual")
        if getattr(node, name, None) is not None
    }
    return replace(node, **changed)


class AbstractKernel(abc.ABC, Generic[Made]):
    """One kernel that stands in for the operations of a run.

    `on_lattice` says what noise it makes, where its runs begin with the noise; none makes both.
    """

    name: ClassVar[str]
    on_lattice: ClassVar[bool] = False

    @abc.abstractmethod
    def claim(self, graph: Graph, first: int, target: Target) -> int | None:
        """The end of the run that it would take from node `first` on; None: it takes none."""

    @abc.abstractmethod
    def supports(self, run: Run, target: Target) -> Support:
        """Whether it can, on this device and with what is installed; compiles nothing."""

    @abc.abstractmethod
    def prepare(self, run: Run, target: Target) -> Made:
        """What executes the run, with copies of the weights as they are now.

        Everything that can fail fails here, compilers included: not in a certificate.
        """


class RunModule(nn.Module, abc.ABC):
    """A run inside the network, in place of its nodes; weights are its buffers.

    `words` is everything here on which bits depend.
    """

    words: str

    @abc.abstractmethod
    def forward(self, *inputs: Tensor) -> Tensor:
        """The result for what the run reads, in order.

        Values are [rows, H, W, C] or [rows, D], contiguous, in the dtype of the target.
        """


class ForeignRun(RunModule):
    """A run by code that torch does not see through, such as CUDA C++.

    To torch.compile and to CUDA graphs it is one operator; `launch` puts the work on the current
    stream and does not wait.
    """

    def __init__(self, words: str, shape: Shape) -> None:
        super().__init__()
        self.words = words
        self._shape = [shape[1], shape[2], shape[0]] if len(shape) == 3 else list(shape)
        self._number = next(_numbers)
        FOREIGN[self._number] = self

    @abc.abstractmethod
    def launch(self, inputs: Sequence[Tensor], out: Tensor) -> None:
        """Fill `out`, [rows, H', W', C'] or [rows, D'], from what the run reads."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """`launch` into new memory."""
        made: Tensor = torch.ops.pixeldp_fast.foreign(list(inputs), self._number, self._shape)
        return made


_numbers = itertools.count()
FOREIGN: WeakValueDictionary[int, ForeignRun] = WeakValueDictionary()  # for `operators.foreign`


def taken(
    kernels: Sequence[AbstractKernel[Made]], graph: Graph, first: int, target: Target
) -> tuple[Run, Made] | None:
    """The run from node `first` on that a kernel takes, and what executes it; None: no kernel.

    A kernel that cannot run here leaves its run to the next on the list, and the log says why. One
    that makes noise in floats is never asked for a lattice, or a certificate would be false.
    """
    for kernel in kernels:
        if first < 0 and kernel.on_lattice != target.on_lattice:
            continue
        last = kernel.claim(graph, first, target)
        if last is None:
            continue
        run = Run(graph, first, last)
        assert run.closed, f"{kernel.name} claims nodes whose inner values others read"
        support = kernel.supports(run, target)
        if support.ok:
            return run, kernel.prepare(run, target)
        logger.info("triton: %s leaves its run: %s", kernel.name, support.reason)
    return None
