"""Lattice noise: whole multiples of 1/m with exact masses, added in integers, the same everywhere.

A lattice point plus rounded noise is the rounding of that point plus the noise itself. So the sum,
made in integers, is the ideal mechanism followed by a function, and every claim about the ideal
mechanism holds for what is computed, up to the distance `tau` between the table's law and the
ideal one. Nothing of the input's low-order bits is left for a network to read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise import exact
from pixeldp_fast.noise.mechanism import AbstractMechanism

if TYPE_CHECKING:
    import torch

WORD_BITS = 64
LEAST_TAIL = Decimal(2) ** -65  # rounds to no word at all
FARTHEST = 2**23  # steps from 0 of any centre; with the noise still exact in float32


@dataclass(frozen=True, eq=False)
class LatticeTable:
    """The map from a uniform 64-bit word to noise in whole steps.

    Parameters
    ----------
    thresholds : uint64 [2 reach]
        Ascending; noise = -reach + (thresholds <= word). P(noise <= -k) = P(noise >= k) =
        thresholds[reach - k]/2^64 for k = 1 to reach.
    reach : int
        The largest noise.
    tau : Decimal
        Upper bound of the total variation between one coordinate's noise and the rounded ideal one.

    Guarantee
        Every tail is the ideal one rounded to 2^-64: within 2^-65. No cumulative value is 2^64.
    """

    thresholds: npt.NDArray[np.uint64]
    reach: int
    tau: Decimal


@lru_cache(maxsize=16)
def lattice_table(mechanism: AbstractMechanism) -> LatticeTable:
    """The table of a mechanism with a lattice; made once, 0.1 s for 8-bit images at sigma = 0.5.

    tau is half the sum over the bins of |mass - ideal mass|, plus the ideal mass beyond the last
    bins. With e_k = q_k - Q_k, the table's tail minus the ideal one, the masses differ by -2 e_1 in
    bin 0, by e_k - e_{k+1} in bins k and -k, and by e_K + Q_{K+1} in the last ones; beyond lies
    2 Q_{K+1}. Each Q_k is known to `exact.ERROR`, and enters at most five times.
    """
    word = Decimal(2**WORD_BITS)
    ideal = mechanism.lattice_tails(LEAST_TAIL)
    with localcontext(exact.DIGITS):
        counts = [int((q * word).to_integral_value(ROUND_HALF_EVEN)) for q in ideal]
        while counts and counts[-1] == 0:  # the last, and one at 2^-65 itself
            counts.pop()
        reach, beyond = len(counts), ideal[len(counts)]
        off = [count / word - q for count, q in zip(counts, ideal, strict=False)]  # e_1 to e_K
        steps = [abs(a - b) for a, b in pairwise(off)]
        differences = abs(off[0]) + sum(steps) + abs(off[-1] + beyond)  # half of all bins
        tau = differences + 2 * beyond + 5 * (reach + 1) * exact.ERROR
    below = np.array(counts[::-1], dtype=np.uint64)
    above = np.array([2**WORD_BITS - count for count in counts], dtype=np.uint64)
    thresholds = np.concatenate([below, above])
    thresholds.setflags(write=False)
    return LatticeTable(thresholds, reach, tau)


def tau(mechanism: AbstractMechanism, coordinates: int) -> float:
    """How far the noise that is drawn is from the ideal law, rounded: 0 without a lattice.

    Parameters
    ----------
    coordinates : int
        D at the noise point.

    Returns
    -------
    tau : float
        D times that of one coordinate, rounded up: an upper bound of the total variation between
        two products of D laws. The probability of any event differs by at most that.
    """
    if mechanism.lattice is None:
        return 0.0
    with localcontext(exact.DIGITS):
        total = lattice_table(mechanism).tau * coordinates
    return math.nextafter(float(total), math.inf)


def to_lattice(values: Any, levels: int) -> npt.NDArray[np.int64]:
    """The nearest whole multiples of 1/levels, as numerators, ties to even; int64.

    Parameters
    ----------
    values : float32 or float64, finite

    Guarantee
        Exact for float32 values: the product of 24 and 20 bits is one float64.

    Raises
    ------
    InvalidArgument
        For values beyond `FARTHEST` steps, whose sums float32 could not hold.
    """
    numerators: npt.NDArray[np.float64] = np.rint(np.asarray(values, dtype=np.float64) * levels)
    _check_reach(float(np.abs(numerators).max()) if numerators.size else 0.0, levels)
    return numerators.astype(np.int64)


def rounded_torch(values: torch.Tensor, levels: int) -> torch.Tensor:
    """`to_lattice` for a tensor, on its device; int64."""
    numerators = (values.double() * levels).round()
    _check_reach(float(numerators.abs().max()) if numerators.numel() else 0.0, levels)
    return numerators.long()


def whole_steps(centers: npt.NDArray[np.float32], levels: int) -> npt.NDArray[np.float32]:
    """`to_lattice` as float32 [B, D], for the compiled module; what is not finite stays so."""
    finite = np.isfinite(centers)
    numerators = to_lattice(np.where(finite, centers, 0.0), levels)
    return np.where(finite, numerators, centers).astype(np.float32)


def _check_reach(steps: float, levels: int) -> None:
    if not steps <= FARTHEST:
        raise InvalidArgument(
            f"The features at the noise point exceed {FARTHEST} steps of 1/{levels}, up to which "
            "sums with lattice noise are exact; scale them down or choose a coarser lattice."
        )


def from_lattice(numerators: npt.NDArray[np.int64], levels: int) -> npt.NDArray[np.float32]:
    """float32(numerator)/levels, one rounding: the only way from sums back to floats."""
    converted: npt.NDArray[np.float32] = numerators.astype(np.float32) / np.float32(levels)
    return converted


def on_lattice(values: Any, levels: int) -> bool:
    """Whether every float32 value is the float32 of a multiple of 1/levels."""
    given = np.asarray(values, dtype=np.float32)
    numerators = np.rint(given.astype(np.float64) * levels)
    same = numerators.astype(np.float32) / np.float32(levels) == given
    return bool(np.all(same & (np.abs(numerators) <= FARTHEST)))


def noise_numpy(mechanism: AbstractMechanism, words: npt.NDArray[np.uint32]) -> Any:
    """Noise in steps from words [..., 4 k]: int64 [..., 2 k], high word first."""
    table = lattice_table(mechanism)
    wide = words.astype(np.uint64)
    word = (wide[..., 0::2] << np.uint64(32)) | wide[..., 1::2]
    return np.searchsorted(table.thresholds, word, side="right") - table.reach


def noise_torch(mechanism: AbstractMechanism, words: torch.Tensor) -> torch.Tensor:
    """The same from int64 tensors below 2^32; int64.

    torch compares signed integers: words and thresholds are moved down by 2^63 together.
    """
    import torch

    table = lattice_table(mechanism)
    signed = (table.thresholds ^ np.uint64(2**63)).view(np.int64)
    thresholds = torch.from_numpy(signed).to(words.device)
    word = (words[..., 0::2] - 2**31) * 2**32 + words[..., 1::2]
    return torch.searchsorted(thresholds, word.contiguous(), right=True) - table.reach
