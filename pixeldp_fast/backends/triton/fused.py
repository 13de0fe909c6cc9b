"""The heads that have kernels of their own: weights converted, configurations chosen."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from pixeldp_fast.backends.arithmetic import Evaluate
from pixeldp_fast.backends.triton import heads, operators, tuning
from pixeldp_fast.backends.triton.draws import Draws
from pixeldp_fast.backends.triton.executor import Counter
from pixeldp_fast.backends.triton.runs import Target
from pixeldp_fast.backends.triton.segments import DenseHead, Head, PoolHead
from pixeldp_fast.plan.interpret import activated
from pixeldp_fast.plan.ops import Activation

Scores = Literal["votes", "softmax"]
Made = tuple[Counter, Evaluate, str]


def fused_head(head: Head, scores: Scores, target: Target) -> Made:
    """The head's kernel, the same in torch for those who ask for logits, and its words."""
    return _pool(head, scores, target) if isinstance(head, PoolHead) else _two(head, scores, target)


def _pool(head: PoolHead, scores: Scores, target: Target) -> Made:
    weight, bias = weights(head.weight, target), floats(head.bias, target.device)
    classes, channels = weight.shape
    config = tuning.chosen(
        "pool_dense",
        tuning.shape_of(head.pixels, channels, classes),
        target.dtype,
        target.device,
        heads.pool_dense_config(classes, channels, target.dtype),
    )
    fields = operators.fields_of(config)

    def seen(rows: Tensor) -> Tensor:
        return rows.view(len(rows), head.pixels, channels)

    def count(rows: Tensor, draws: Draws, table: Tensor) -> None:
        words = operators.words_of(draws)
        operators.pool_dense_count(seen(rows), weight, bias, table, words, scores, fields)

    def logits(rows: Tensor) -> Tensor:
        return functional.linear(seen(rows).float().mean(dim=1), weight.float(), bias)

    return count, logits, tuning.described("pool_dense", config)


def _two(head: DenseHead, scores: Scores, target: Target) -> Made:
    (w1, w2) = (weights(weight, target) for weight, _ in (head.hidden, head.last))
    (b1, b2) = (floats(bias, target.device) for _, bias in (head.hidden, head.last))
    hidden, inputs = w1.shape
    config = tuning.chosen(
        "dense_dense",
        tuning.shape_of(inputs, hidden, len(w2)),
        target.dtype,
        target.device,
        heads.dense_dense_config(inputs, hidden, len(w2), target.dtype),
    )
    fields = operators.fields_of(config)

    def count(rows: Tensor, draws: Draws, table: Tensor) -> None:
        x, words = rows.view(len(rows), inputs), operators.words_of(draws)
        operators.dense_dense_count(x, w1, b1, w2, b2, table, words, head.slope, scores, fields)

    def logits(rows: Tensor) -> Tensor:
        x = rows.view(len(rows), inputs).float()
        units = activated(Activation(head.slope), functional.linear(x, w1.float(), b1))
        return functional.linear(units.to(target.dtype).float(), w2.float(), b2)

    return count, logits, tuning.described("dense_dense", config)


def weights(tensor: Tensor, target: Target) -> Tensor:
    """A copy in the dtype of the products."""
    return tensor.detach().to(target.device, target.dtype).clone().contiguous()


def floats(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy in float32, for a kernel's biases, scales and shifts."""
    return tensor.detach().to(device, torch.float32).clone().contiguous()
