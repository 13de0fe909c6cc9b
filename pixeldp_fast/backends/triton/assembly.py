"""From a plan to what runs: kernels with their configurations, a compiled network, a head."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pixeldp_fast.backends.arithmetic import Evaluate, in_arithmetic
from pixeldp_fast.backends.reduction import AbstractReduction, SoftmaxSums, Votes
from pixeldp_fast.backends.triton import heads, noise, operators, tuning
from pixeldp_fast.backends.triton.checks import TRIAL_ADDRESS, trial_draws
from pixeldp_fast.backends.triton.compiling import compiled
from pixeldp_fast.backends.triton.draws import Draws
from pixeldp_fast.backends.triton.executor import Counter, Noisy, channels_last
from pixeldp_fast.backends.triton.fused import Scores, Target, floats, fused_head
from pixeldp_fast.backends.triton.segments import Prologue, split_head, split_prologue
from pixeldp_fast.backends.triton.suffix import GraphModule
from pixeldp_fast.backends.triton.whole import Whole, whole
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.plan.interpret import activated
from pixeldp_fast.plan.ops import Activation, Graph
from pixeldp_fast.plan.plan import Plan


@dataclass(frozen=True)
class Assembly:
    """What an engine is made of.

    Parameters
    ----------
    noisy : callable
        Makes a tile of noisy features, with what was folded into the prologue.
    behind : callable
        What was folded, in torch: from float32 features [rows, *noise_shape] to such.
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

    noisy: Noisy
    behind: Evaluate
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
    single = whole(graph, scores, target)
    compiling = compiling and single is None
    parts = _parts(plan, graph, reduction, target, scores, compiling)
    return parts if single is None else replace(parts, whole=single[0], words=single[1])


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
        front = _noise(plan, Prologue(), target)
        return _with_count(front, network, scores, reduction, target, f"{how} module")
    prologue, behind = split_prologue(graph)
    front = _noise(plan, prologue, target)
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
        return Assembly(front.noisy, front.behind, None, counter, logits, words)
    graph_module = GraphModule(body, target.dtype, target.device, for_head=True)
    network = made(graph_module)
    words = f"{front.words} > {how} graph of {len(body.nodes)}{graph_module.words} > {named}"
    return Assembly(front.noisy, front.behind, network, counter, logits, words)


def _on_channels_last(module: Evaluate) -> Evaluate:
    """The module with its outputs in the memory that heads read."""
    return lambda x: module(x).contiguous()


def plain_noise(plan: Plan, mechanism: AbstractMechanism, device: torch.device) -> Tensor:
    """The kernel's float32 noise for a check, [rows, D] in C order; see `checks.check_noise`."""
    coordinates = torch.Size(plan.noise_shape).numel()
    front = _noise(plan, Prologue(), Target(device, torch.float32))
    memory = channels_last(plan.noise_shape)
    out = torch.full((front.least_rows, *memory), torch.nan, device=device)
    center = torch.zeros((1, coordinates), device=device)
    address = torch.full((1,), TRIAL_ADDRESS, dtype=torch.int64, device=device)
    front.noisy(center, address, trial_draws(mechanism, len(out)), out)
    return (out.permute(0, 3, 1, 2) if out.ndim == 4 else out).flatten(1)


@dataclass(frozen=True)
class _Front:
    """The prologue's kernel, what is folded into it in torch, and its words."""

    noisy: Noisy
    behind: Evaluate
    words: str
    least_rows: int  # of a tile


def _noise(plan: Plan, prologue: Prologue, target: Target) -> _Front:
    coordinates = torch.Size(plan.noise_shape).numel()
    channels = plan.noise_shape[0] if len(plan.noise_shape) == 3 else 1
    scale = shift = None
    if prologue.scale is not None and prologue.shift is not None:
        scale, shift = (floats(t, target.device) for t in (prologue.scale, prologue.shift))
        channels = len(scale)
    config = tuning.chosen(
        "noise",
        tuning.shape_of(channels, coordinates),
        target.dtype,
        target.device,
        noise.default_config(channels, coordinates),
    )
    fields = operators.fields_of(config)

    def noisy(center: Tensor, address: Tensor, draws: Draws, out: Tensor) -> None:
        operators.noisy(
            center,
            address,
            out,
            scale,
            shift,
            channels,
            prologue.slope,
            draws.scale,
            operators.words_of(draws),
            fields,
        )

    def behind(features: Tensor) -> Tensor:
        if scale is not None and shift is not None:
            axes = (-1,) + (1,) * (features.ndim - 2)
            features = features * scale.view(axes) + shift.view(axes)
        return activated(Activation(prologue.slope), features)

    return _Front(noisy, behind, tuning.described("noise", config), max(config.rows, 8))


def _with_count(
    front: _Front,
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
        return Assembly(
            front.noisy, front.behind, network, None, same, f"{words} > reduced by torch"
        )
    classes = reduction.num_outputs
    shape, default = tuning.shape_of(classes), heads.count_config(classes)
    config = tuning.chosen("count", shape, target.dtype, target.device, default)
    fields = operators.fields_of(config)

    def head(rows: Tensor, draws: Draws, table: Tensor) -> None:
        operators.count(rows, table, operators.words_of(draws), scores, fields)

    words = f"{words} > {tuning.described('count', config)}"
    return Assembly(front.noisy, front.behind, network, head, same, words)
