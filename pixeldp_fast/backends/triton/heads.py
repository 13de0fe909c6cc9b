"""Heads that end in counts: no logit is stored, and a launch adds integers to one line per example.

Not yet run on a device: checked in Triton's interpreter and by reading compiled code.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,import-untyped"

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from pixeldp_fast.backends.triton.draws import Draws, check_tensor, place, power_of_two
from pixeldp_fast.backends.triton.math import count_rows, locate, locate_more
from pixeldp_fast.errors import InvalidArgument

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SCORES = ("votes", "softmax")
MAX_COUNT_CLASSES = 8192  # of given logits: one row of a program
MAX_CLASSES = 128  # of the fused heads: a tile's logits stay in registers
ROWS_LIKE = [  # scalars that differ between launches: no specialisation, so one compiled kernel
    "rest",
    "example",
    "n",
    "last_example",
    "valid",
]


@dataclass(frozen=True)
class HeadConfig:
    """The tile of one program: `rows` draws, `hidden` columns at a time, `depth` inputs a step."""

    rows: int
    hidden: int = 0
    depth: int = 0
    warps: int = 4
    stages: int = 1


def table_width(classes: int, scores: str) -> int:
    """Columns of a table: votes and the lost draws; with softmax the scores and their squares."""
    return classes + 1 if scores == "votes" else 3 * classes + 1


def _check(draws: Draws, table: torch.Tensor, scores: str, classes: int, most: int) -> None:
    if scores not in SCORES:
        raise InvalidArgument(f"`scores` must be one of {SCORES}, got {scores!r}.")
    if not 1 <= classes <= most:
        raise InvalidArgument(f"This head takes 1 to {most} classes, got {classes}.")
    shape = (draws.examples, table_width(classes, scores))
    check_tensor("table", table, shape, (torch.int64,), table.device)


def _check_rows(name: str, rows: int, config: HeadConfig) -> None:
    if rows % config.rows:
        raise InvalidArgument(f"`{name}` must have a multiple of {config.rows} rows, got {rows}.")


@triton.jit
def tally_tile(
    logits,
    table,
    rest,
    example,
    n,
    last_example,
    valid,
    CLASSES: tl.constexpr,
    PADDED: tl.constexpr,
    SCORES: tl.constexpr,
    FEW: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Count the logits [ROWS, PADDED] of program 0's tile of rows."""
    first = tl.program_id(0) * ROWS
    if first < valid:
        i = tl.arange(0, ROWS)
        first_example, first_rest = locate(rest, example, first, n, WIDE)
        examples, _ = locate_more(first_rest, first_example, i, n, FEW)
        counted = first + i < valid
        end = tl.max(tl.where(counted, examples, 0), axis=0)
        width = 3 * CLASSES + 1 if SCORES else CLASSES + 1
        count_rows(
            logits, examples, counted, first_example, end, table, width, CLASSES, PADDED, SCORES
        )


@triton.jit(do_not_specialize=ROWS_LIKE)
def _count_kernel(
    logits,
    table,
    rest,
    example,
    n,
    last_example,
    valid,
    CLASSES: tl.constexpr,
    PADDED: tl.constexpr,
    SCORES: tl.constexpr,
    FEW: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, PADDED)[None, :]
    given = tl.load(logits + row * CLASSES + column, mask=column < CLASSES, other=0.0)
    tally_tile(
        given.to(tl.float32),
        table,
        rest,
        example,
        n,
        last_example,
        valid,
        CLASSES,
        PADDED,
        SCORES,
        FEW,
        WIDE,
        ROWS,
    )


def count_config(classes: int) -> HeadConfig:
    """A tile of about 4,096 logits, 16 a thread."""
    padded = power_of_two(classes + 1)
    return HeadConfig(rows=min(max(4096 // padded, 1), 128), warps=8 if padded >= 256 else 4)


def count(
    logits: torch.Tensor,
    draws: Draws,
    table: torch.Tensor,
    *,
    scores: str = "votes",
    config: HeadConfig | None = None,
) -> None:
    """Add the votes of given logits to `table`.

    Parameters
    ----------
    logits : float32, bfloat16 or float16 [rows, K]
    draws : Draws
        Rows from examples x n on are padding and are not counted.
    table : int64 [B, K + 1], or [B, 3 K + 1] with softmax
        Votes, then draws with a logit that is not finite; with softmax the scores floored to 2^-20
        and their squares follow.
    scores : "votes" or "softmax"

    Guarantee
        Exact: integers, the same in any order of programs. A row's scores sum to at most 1.
    """
    if logits.ndim != 2:
        raise InvalidArgument(f"`logits` must be [rows, K], got {tuple(logits.shape)}.")
    rows, classes = logits.shape
    _check(draws, table, scores, classes, MAX_COUNT_CLASSES)
    check_tensor("logits", logits, (rows, classes), DTYPES, table.device)
    config = config or count_config(classes)
    _check_rows("logits", rows, config)
    at = place(draws, rows)
    _count_kernel[(rows // config.rows,)](
        logits,
        table,
        at.rest,
        at.example,
        at.n,
        at.examples - 1,
        at.valid,
        CLASSES=classes,
        PADDED=power_of_two(classes + 1),
        SCORES=scores == "softmax",
        FEW=at.n < config.rows,
        WIDE=at.wide,
        ROWS=config.rows,
        num_warps=config.warps,
        num_stages=config.stages,
        enable_fp_fusion=True,
    )
