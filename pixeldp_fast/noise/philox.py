"""Philox4x32-10 in NumPy and torch; the compiled module holds the third copy of the same words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pixeldp_fast.noise.stream import Stream, check_draws, checked_index

if TYPE_CHECKING:
    import torch

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
MASK = 0xFFFFFFFF


def philox(counter: Any, key: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """The four words of every counter, as 64-bit integers below 2^32.

    Parameters
    ----------
    counter : four uint64 arrays (NumPy) or int64 tensors (torch), broadcastable
        Counter words, each below 2^32.
    key : (int, int)
        Low and high word of the seed.

    Fidelity
        torch has no unsigned 64-bit product: the signed one wraps to the same 64 bits, and masking
        after the shift drops the copies of the sign. The words are exact.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & MASK) ^ c1 ^ k0,
            p1 & MASK,
            ((p0 >> 32) & MASK) ^ c3 ^ k1,
            p0 & MASK,
        )
        k0, k1 = (k0 + KEY_STEPS[0]) & MASK, (k1 + KEY_STEPS[1]) & MASK
    return c0, c1, c2, c3


def words_numpy(
    stream: Stream, index: Any, first_draw: int, n: int, blocks: int
) -> npt.NDArray[np.uint32]:
    """The stream's words for draws [first_draw, first_draw + n), as uint32 [B, n, 4 blocks]."""
    examples = checked_index(index).astype(np.uint64)[:, None, None]
    check_draws(first_draw, n)
    draws = np.arange(first_draw, first_draw + n, dtype=np.uint64)[None, :, None]
    block = np.arange(blocks, dtype=np.uint64)[None, None, :]
    purpose = np.full((1, 1, 1), int(stream.purpose), dtype=np.uint64)
    shape = (len(examples), n, blocks)
    words = philox((block, draws, examples, purpose), stream.key)
    stacked = np.stack([np.broadcast_to(w, shape) for w in words], axis=-1)
    return stacked.astype(np.uint32).reshape(len(examples), n, 4 * blocks)


def words_torch(
    stream: Stream, index: Any, first_draw: int, n: int, blocks: int, device: Any
) -> torch.Tensor:
    """The same words as int64 [B, n, 4 blocks] on `device`."""
    import torch

    def axis(values: Any, view: tuple[int, int, int]) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.int64, device=device).view(view)

    examples = axis(checked_index(index).astype(np.int64), (-1, 1, 1))
    check_draws(first_draw, n)
    draws = axis(range(first_draw, first_draw + n), (1, -1, 1))
    block = axis(range(blocks), (1, 1, -1))
    purpose = axis([int(stream.purpose)], (1, 1, 1))
    shape = (len(examples), n, blocks)
    words = philox((block, draws, examples, purpose), stream.key)
    stacked = torch.stack([w.expand(shape) for w in words], dim=-1)
    return stacked.reshape(len(examples), n, 4 * blocks)
