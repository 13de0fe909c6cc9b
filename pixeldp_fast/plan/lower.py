"""From a torch module to the engines' graph, or to the list of what does not lower."""

from __future__ import annotations

import copy
import operator
import threading
import warnings
from contextlib import redirect_stderr
from io import StringIO
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.fx.node import map_arg

from pixeldp_fast.errors import UnsupportedModel
from pixeldp_fast.plan.builder import Builder, Constant, Opaque, Operand, Refused
from pixeldp_fast.plan.lower_rules import ALIASES, RULES, SIZE
from pixeldp_fast.plan.ops import Graph, Shape
from pixeldp_fast.plan.passes import prune

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

_DETACH = torch.ops.aten.detach_.default
_tracing = threading.Lock()  # a trace swaps the process's standard error and torch's own state
_TOP = "_empty_nn_module_stack_from_metadata_hook"  # torch's name for "in no module"

# Of the trace alone: an extra copy for such paddings, and tensors that the module keeps of a call,
# which the trace takes back.
_WARNINGS = (
    "Using padding='same' with even kernel lengths",
    "The tensor attributes? .* assigned during export",
)


def lower(module: nn.Module, input_shape: tuple[int, ...], *, part: str = "module") -> Graph:
    """The module as a `Graph`, one node per operation, weights by reference.

    Parameters
    ----------
    module : nn.Module
        In eval mode, on any device, of one floating dtype. It is traced on two examples of zeros
        without gradients and is not changed.
    input_shape : tuple of int
        [C, H, W] or [D], of one example.
    part : str
        What messages call the module, such as "suffix".

    Returns
    -------
    graph : Graph
        `interpret` gives its meaning. Batch-norms and arithmetic with constants are `Affine` in
        float64; all other weights share memory with the module's (with a copy of a module made
        under `torch.inference_mode`) and keep their dtype.

    Raises
    ------
    UnsupportedModel
        Lists every operation that does not lower, one a line, with its module and the reason.

    Guarantee
        For a batch of two or more examples of finite features, the graph's outputs are the
        module's in exact arithmetic; an operation that mixes examples is refused.
    Cost
        A third of a second for ResNet-20 on one core, and two seconds in a process's first call.
    """
    if len(input_shape) not in (1, 3) or min(input_shape) < 1:
        raise UnsupportedModel(
            f"{part} reads features of shape {tuple(input_shape)}; the engines run on feature maps "
            "[C, H, W] and vectors [D]."
        )
    with _tracing:
        program = _exported(_copy(module, part), tuple(input_shape), part)
        _check_any_batch(program, part)
        return prune(_Walk(program, module, part).graph())


def _copy(module: nn.Module, part: str) -> nn.Module:
    """What is traced in place of the module: the trace swaps a module's weights while it runs,
    which other threads would see, and cannot read weights made under inference_mode."""
    try:
        with torch.inference_mode(False), torch.no_grad():
            return copy.deepcopy(module)
    except Exception as error:  # copying runs the user's code
        raise UnsupportedModel(
            f"{part} cannot be copied for tracing, so it runs on the torch and reference backends "
            f"only: {type(error).__name__}: {error}"
        ) from error


def _check_any_batch(program: ExportedProgram, part: str) -> None:
    """Refuse a module that does something else for some numbers of examples."""
    ranges = [(int(r.lower), str(r.upper)) for r in program.range_constraints.values()]
    guards = getattr(program, "_guards_code", None) or []  # a trial at other sizes stands behind
    if guards or any(low > 2 or high != "int_oo" for low, high in ranges):
        raise UnsupportedModel(
            f"{part} depends on the number of examples in the batch ({'; '.join(guards) or ranges})"
            ", so that it is not a function of one example."
        )


def _exported(module: nn.Module, input_shape: Shape, part: str) -> ExportedProgram:
    """The module's trace with a symbolic number of examples."""
    from torch.export import Dim, export

    tensors = (*module.parameters(), *module.buffers())
    first = next((t for t in tensors if t.is_floating_point()), torch.empty(0))
    x = torch.zeros((2, *input_shape), dtype=first.dtype, device=first.device)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stderr(StringIO()),  # where torch prints the trace of a failure
            torch.inference_mode(False),
            torch.no_grad(),
        ):
            for message in _WARNINGS:
                warnings.filterwarnings("ignore", message)
            return export(module, (x,), dynamic_shapes=({0: Dim.DYNAMIC},))
    except Exception as error:  # tracing runs the user's code, and torch raises many kinds
        cause = str(error).strip().split("\n")[0][:200]
        raise UnsupportedModel(
            f"{part} cannot be traced by torch.export, so it runs on the torch and reference "
            f"backends only: {type(error).__name__}: {cause}"
        ) from error


class _Walk:
    """One pass over the trace: every node becomes features, a constant, or a refusal."""

    def __init__(self, program: ExportedProgram, module: nn.Module, part: str) -> None:
        self.part = part
        self.nodes: list[Node] = list(program.graph.nodes)
        self.position = {node: i for i, node in enumerate(self.nodes)}
        self.constants = _constants(program, module)
        (name,) = program.graph_signature.user_inputs
        (self.input,) = (node for node in self.nodes if node.name == name)
        self.batch, *shape = self.input.meta["val"].shape
        self.dtype = self.input.meta["val"].dtype
        self.builder = Builder(tuple(shape))
        self.bound: dict[Node, Any] = {}
        self.memory: dict[Node, Node] = {}  # every node's first one that may share its memory
        self.refusals: list[str] = []

    def graph(self) -> Graph:
        *nodes, last = self.nodes
        for node in nodes:
            self.bound[node] = self._bind(node)
        output = self._output(last)
        if self.refusals:
            raise UnsupportedModel(
                f"{self.part} does not lower to the operations of the compiled engines; it runs "
                "on the torch and reference backends. In the way:\n  " + "\n  ".join(self.refusals)
            )
        return self.builder.graph(output)

    def _bind(self, node: Node) -> Operand | Constant | Opaque:
        self.memory[node] = node
        if node is self.input:
            return Operand(0, self.builder.shapes[0])
        if node.op == "placeholder":
            return self.constants[node.name]
        bound = [self.bound[n] for n in node.all_input_nodes]
        unread = not node.users and not _writes(node.target)
        if node.op == "get_attr" or node.target is SIZE or unread or set(bound) == {Opaque.SIZE}:
            return Opaque.SIZE
        try:
            return self._lowered(node, bound)
        except Refused as refused:
            self.refusals.append(f"{self._where(node)}: {refused}")
            return self._stand_in(node)

    def _lowered(self, node: Node, bound: list[Any]) -> Operand | Constant | Opaque:
        if bound and all(isinstance(b, Constant) for b in bound) and _is_pure(node.target):
            return self._evaluated(node)
        rule = RULES.get(node.target)
        if rule is None:
            raise Refused("not an operation of the engines")
        if Opaque.REFUSED in bound:
            return Opaque.REFUSED
        self._check_memory(node)
        shape = self._shape(node)
        return Operand(rule(self.builder, shape, **_arguments(node, self.bound)), shape)

    def _shape(self, node: Node) -> Shape:
        """Of the result for one example; refuses what is not one row per example."""
        result = _result(node)
        if result is None:
            raise Refused("does not return one tensor")
        if result.dtype != self.dtype:
            raise Refused(f"returns {result.dtype}, where the input is {self.dtype}")
        shape = _shape_of_row(result, self.batch)
        if shape is None:
            raise Refused("its result is not one row per example, so it may mix examples")
        return shape

    def _check_memory(self, node: Node) -> None:
        """Refuse to write over features that are read again later under another name."""
        writes = _writes(node.target)
        if not writes and node.target not in ALIASES:
            return
        source: Any = node.args[0]
        if isinstance(self.bound[source], Constant):
            raise Refused("writes to a parameter or buffer" if writes else "acts on no features")
        self.memory[node] = root = self.memory[source]
        if not writes:
            return
        others = [n for n, first in self.memory.items() if first is root and n is not node]
        if any(self.position[user] > self.position[node] for n in others for user in n.users):
            raise Refused("writes over features that are read again later")

    def _evaluated(self, node: Node) -> Constant:
        """An operation on constants alone, evaluated once, in float64 as all that is folded."""
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: _wide(self.bound[n].tensor))
        target: Any = node.target
        with torch.no_grad():
            result = target(*args, **kwargs)
        if not isinstance(result, Tensor):
            raise Refused("does not return one tensor")
        return Constant(result.detach(), node.name)

    def _stand_in(self, node: Node) -> Operand | Opaque:
        result = node.meta.get("val")
        shape = _shape_of_row(result, self.batch) if isinstance(result, Tensor) else None
        if shape is None or len(shape) not in (1, 3):
            return Opaque.REFUSED
        return self.builder.stand_in(shape)

    def _output(self, node: Node) -> Operand:
        outputs: Any = node.args[0]
        bound = [self.bound.get(n, Opaque.SIZE) for n in outputs]
        if len(bound) == 1 and isinstance(bound[0], Operand):
            return bound[0]
        if Opaque.REFUSED not in bound:
            self.refusals.append(f"{self.part} (output): must be one tensor made from the input")
        return Operand(0, self.builder.shapes[0])

    def _where(self, node: Node) -> str:
        stack = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
        path = stack[-1] if stack and stack[-1] != _TOP else ""
        target: Any = node.target
        name = target if hasattr(target, "_schema") else getattr(target, "__name__", target)
        return f"{self.part}.{path} ({name})" if path else f"{self.part} ({name})"


def _constants(program: ExportedProgram, module: nn.Module) -> dict[str, Constant]:
    """Every placeholder that is not the input, by name, with its tensor by reference."""
    tensors: dict[str, Any] = dict(program.constants)
    tensors.update(module.named_parameters(remove_duplicate=False))
    tensors.update(module.named_buffers(remove_duplicate=False))
    signature = program.graph_signature
    targets = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    return {name: Constant(tensors[at].detach(), at) for name, at in targets.items()}


def _arguments(node: Node, bound: dict[Node, Any]) -> dict[str, Any]:
    """The arguments by their names in the schema, defaults included; the first is `x`."""
    args, kwargs = map_arg((node.args, node.kwargs), bound.__getitem__)
    target: Any = node.target
    if target is operator.getitem:
        return {"x": args[0], "index": args[1]}
    schema = target._schema.arguments
    given = dict(zip((a.name for a in schema), args, strict=False)) | kwargs
    named = {a.name: given.get(a.name, a.default_value) for a in schema}
    first = next(iter(named))
    return {"x" if name == first else name: value for name, value in named.items()}


def _result(node: Node) -> Tensor | None:
    """The traced result; of several, the first."""
    result = node.meta.get("val")
    if isinstance(result, (tuple, list)) and result:
        result = result[0]
    return result if isinstance(result, Tensor) else None


def _shape_of_row(result: Tensor, batch: Any) -> Shape | None:
    """The shape without the examples' dimension; None where that is not the first or only one."""
    sizes = tuple(result.shape)
    # Symbols are compared as text: comparing them as numbers would add assumptions to the trace.
    if not sizes or str(sizes[0]) != str(batch) or not all(type(n) is int for n in sizes[1:]):
        return None
    return sizes[1:]


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float64) if tensor.is_floating_point() else tensor


def _is_pure(target: Any) -> bool:
    random = torch.Tag.nondeterministic_seeded in getattr(target, "tags", ())
    return hasattr(target, "_schema") and not random and not _writes(target)


def _writes(target: Any) -> bool:
    """Whether an operation changes its argument; `detach_`, of literals, only in name."""
    schema = getattr(target, "_schema", None)
    return schema is not None and schema.is_mutable and target is not _DETACH
