"""Lists of positions as short text: what a manifest says of the chosen examples."""

from __future__ import annotations

import numpy as np

from pixeldp_fast.types import IntArray


def pack(index: IntArray) -> str:
    """Integers as text, runs of equal steps as first:end:step: [0, 20, 40, 7] is "0:41:20,7"."""
    parts: list[str] = []
    values = [int(v) for v in index]
    start = 0
    while start < len(values):
        end = start + 1
        step = values[end] - values[start] if end < len(values) else 0
        while end < len(values) and values[end] - values[end - 1] == step:
            end += 1
        if end - start >= 3:
            first, last = values[start], values[end - 1]
            parts.append(f"{first}:{last + (1 if step > 0 else -1)}:{step}")
            start = end
        else:
            parts.append(str(values[start]))
            start += 1
    return ",".join(parts)


def unpack(text: str) -> IntArray:
    """The integers that `pack` wrote."""
    found: list[int] = []
    for part in text.split(","):
        numbers = [int(v) for v in part.split(":")]
        found.extend(range(*numbers) if len(numbers) == 3 else numbers)
    return np.array(found, dtype=np.int64)
