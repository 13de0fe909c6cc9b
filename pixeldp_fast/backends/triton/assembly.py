"""From a plan to what runs: kernels with their configurations, a compiled network, a head."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from pixeldp_fast.backends.arithmetic import Evaluate, in_arithmetic
from pixeldp_fast.backends.reduction import AbstractReduction, SoftmaxSums, Votes
from pixeldp_fast.backends.triton import heads, kernels, operators, tuning
from pixeldp_fast.backends.triton.checks import TRIAL_ADDRESS, trial_draws
from pixeldp_fast.backends.triton.compiling import compiled
from pixeldp_fast.backends.triton.draws import Draws
from pixeldp_fast.backends.triton.executor import Counter, channels_last, in_c_order
from pixeldp_fast.backends.triton.fronts import Front, plain
from pixeldp_fast.backends.triton.fused import Scores, fused_head
from pixeldp_fast.backends.triton.runs import Target, taken
from pixeldp_fast.backends.triton.segments import split_head
from pixeldp_fast.backends.triton.suffix import GraphModule
from pixeldp_fast.backends.triton.whole import Whole
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.plan.ops import Graph
from pixeldp_fast.plan.plan import Plan


@dataclass(frozen=True)
class Assembly:
    """What an engine is made of.

    Parameters
    ----------
    front : Front
        Makes a tile of noisy features, with what was folded into it.
    network : callable or None
        From features to what the head reads; None: the features themselves.
    head : callable or None
        Counts; None for reductions without a kernel.
    logits : callable
        From what the head reads to float outputs [rows, K], in torch.
    whole : callable or None
        Where one kernel does all of it, that; the others are then for checks and `outputs`.
    words : str
        Everything here on which bits depend.
    """

    front: Front
    network: Evaluate | None
    head: Counter | None
    logits: Evaluate
    words: str
    whole: Whole | None = None


def scores_of(reduction: AbstractReduction) -> Scores | None:
    """What a head's kernel keeps for this reduction, None if there is none for it."""
    if type(reduction) is Votes and reduction.num_classes <= heads.MAX_COUNT_CLASSES:
        return "votes"
    if type(reduction) is SoftmaxSums and reduction.num_classes <= heads.MAX_COUNT_CLASSES:
        return "softmax"
    return None


def assembled(
    plan: Plan,
    graph: Graph | None,
    reduction: AbstractReduction,
    target: Target,
    *,
    compiling: bool,
) -> Assembly:
    """The engine's parts; the weights are copied as they are now.

    With `compiling`, the network's first call compiles it, and raises where that fails.
    """
    scores = scores_of(reduction)
    found = None
    if graph is not None and scores is not None:
        found = taken(kernels.WHOLES, graph, -1, target)
    if found is None or scores is None:
        return _parts(plan, graph, reduction, target, scores, compiling)
    parts = _parts(plan, graph, reduction, target, scores, compiling=False)
    _, single = found
    return replace(parts, whole=partial(single.count, scores=scores), words=single.words)


def _parts(
    plan: Plan,
    graph: Graph | None,
    reduction: AbstractReduction,
    target: Target,
    scores: Scores | None,
    compiling: bool,
) -> Assembly:
    how = "compiled" if compiling else "eager"
    made = compiled if compiling else lambda network: network
    if graph is None:
        layout = torch.channels_last if len(plan.noise_shape) == 3 else torch.contiguous_format
        module = in_arithmetic(plan.suffix, target.dtype, layout)
        network = made(_on_channels_last(module))
        front, _ = front_and_rest(plain(plan.noise_shape), target)
        return _with_count(front, network, scores, reduction, target, f"{how} module")
    front, behind = front_and_rest(graph, target)
    # IEEE float32 products have no tensor cores to go to: a wide layer is left to the library.
    body, head = split_head(behind, two_layers=target.dtype != torch.float32)
    if head is None or scores is None or plan.num_outputs > heads.MAX_CLASSES:
        graph_module = GraphModule(behind, target.dtype, target.device)
        network = made(graph_module)
        words = f"{how} graph of {len(behind.nodes)}{graph_module.words}"
        return _with_count(front, network, scores, reduction, target, words)
    counter, logits, named = fused_head(head, scores, target)
    if not body.nodes:  # the head reads the noise as it is in memory
        words = f"{front.words} > {named}"
        return Assembly(front, None, counter, logits, words)
    graph_module = GraphModule(body, target.dtype, target.device, for_head=True)
    network = made(graph_module)
    words = f"{front.words} > {how} graph of {len(body.nodes)}{graph_module.words} > {named}"
    return Assembly(front, network, counter, logits, words)


def _on_channels_last(module: Evaluate) -> Evaluate:
    """The module with its outputs in the memory that heads read."""
    return lambda x: module(x).contiguous()


def front_and_rest(graph: Graph, target: Target) -> tuple[Front, Graph]:
    """What begins every tile, and the network behind it."""
    found = taken(kernels.FRONTS, graph, -1, target)
    assert found is not None, "one of the last fronts takes any network"
    run, front = found
    return front, run.rest


def plain_noise(plan: Plan, mechanism: AbstractMechanism, device: torch.device) -> Tensor:
    """The kernel's float32 noise for a check, [rows, D] in C order; see `checks.check_noise`."""
    target = Target(device, torch.float32, mechanism)
    front, _ = front_and_rest(plain(plan.noise_shape), target)
    coordinates = torch.Size(plan.noise_shape).numel()
    memory = channels_last(plan.noise_shape)
    out = torch.full((front.least_rows, *memory), torch.nan, device=device)
    center = front.centred(torch.zeros((1, coordinates), device=device))
    address = torch.full((1,), TRIAL_ADDRESS, dtype=torch.int64, device=device)
    front.noisy(center, address, trial_draws(mechanism, len(out)), out)
    return in_c_order(out)


def _with_count(
    front: Front,
    network: Evaluate,
    scores: Scores | None,
    reduction: AbstractReduction,
    target: Target,
    words: str,
) -> Assembly:
    """Logits stored for one tile, then counted."""
    words = f"{front.words} > {words}"

    def same(rows: Tensor) -> Tensor:
        return rows

    if scores is None:
        return Assembly(front, network, None, same, f"{words} > reduced by torch")
    classes = reduction.num_outputs
    shape, default = tuning.shape_of(classes), heads.count_config(classes)
    config = tuning.chosen("count", shape, target.dtype, target.device, default)
    fields = operators.fields_of(config)

    def head(rows: Tensor, draws: Draws, table: Tensor) -> None:
        operators.count(rows, table, operators.words_of(draws), scores, fields)

    words = f"{words} > {tuning.described('count', config)}"
    return Assembly(front, network, head, same, words)
