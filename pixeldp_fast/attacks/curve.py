"""Accuracy under attack as the size grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixeldp_fast.attacks.attack import attack
from pixeldp_fast.attacks.store import Arrays
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.smooth.classifier import SmoothedClassifier
from pixeldp_fast.smooth.inputs import checked_alpha
from pixeldp_fast.stats.levels import bonferroni
from pixeldp_fast.types import FloatArray, IntArray

CSV_COLUMNS = ("size", "accuracy", "standard_error", "right", "examples")


@dataclass(frozen=True, eq=False)
class AttackCurve:
    """The share of examples that hold at every size.

    Parameters
    ----------
    sizes : float64 [S]
        Ascending from 0, in input units.
    right : int64 [S]
        Examples of which no attack up to that size found a verified point.
    examples : int
    """

    sizes: FloatArray
    right: IntArray
    examples: int

    @property
    def accuracy(self) -> FloatArray:
        """Upper bound on the robust accuracy of these examples, as any attack gives, [S]."""
        share: FloatArray = self.right / float(self.examples)
        return share

    @property
    def standard_error(self) -> FloatArray:
        """Binomial standard error of `accuracy` as an estimate for the population, [S]."""
        error: FloatArray = np.sqrt(self.accuracy * (1 - self.accuracy) / self.examples)
        return error

    def csv(self) -> str:
        """One row per size."""
        columns = (self.sizes, self.accuracy, self.standard_error, self.right)
        rows = zip(*(c.tolist() for c in columns), strict=True)
        lines = [",".join((*map(repr, row), str(self.examples))) for row in rows]
        return "\n".join([",".join(CSV_COLUMNS), *lines]) + "\n"


def checked_sizes(sizes: Sequence[float]) -> FloatArray:
    """Sizes in ascending order with 0 first, float64 [S]."""
    values = np.asarray(sizes, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.all(np.isfinite(values) & (values >= 0)):
        raise InvalidArgument(
            f"`sizes` must be finite numbers of at least 0, in input units, got {sizes!r}."
        )
    return np.unique(np.append(values, 0.0))


def attack_sizes(
    smoothed: SmoothedClassifier,
    x: Tensor,
    y: Any,
    sizes: FloatArray,
    *,
    index: Any,
    alpha: float = 0.001,
    tell: Callable[[int], None] = lambda broken: None,
    **settings: Any,
) -> Arrays:
    """Attack at every size, the smallest first; who is broken stays so, as the balls are nested.

    Parameters
    ----------
    sizes : float64 [S]
        From `checked_sizes`.
    alpha : float
        Probability, per example, that its success at any size is none.
    tell : function
        Called after every size, with the number of examples broken.
    settings
        Of `attack`.

    Returns
    -------
    arrays : dict
        `broken` int64 [B], the position in `sizes` of the first success, S for none; `norm`,
        `draws`, `calls` and `adversarial` as in `AttackResult`.
    """
    level, labels = bonferroni(checked_alpha(alpha), len(sizes)), np.asarray(y)
    broken = np.full(len(x), len(sizes), dtype=np.int64)
    norm = np.full(len(x), np.inf)
    draws, calls = (np.zeros(len(x), dtype=np.int64) for _ in range(2))
    adversarial, at = x.clone(), np.asarray(index)
    for number, size in enumerate(sizes):
        rows = np.flatnonzero(broken == len(sizes))
        if len(rows):
            found = attack(
                smoothed, x[torch.from_numpy(rows)], labels[rows], size=float(size),
                index=at[rows], alpha=level, attempt=number, **settings,
            )  # fmt: skip
            draws[rows] += found.draws
            calls[rows] += found.calls
            won = rows[found.success]
            broken[won], norm[won] = number, found.norm[found.success]
            adversarial[torch.from_numpy(won)] = found.adversarial[torch.from_numpy(found.success)]
        tell(int((broken < len(sizes)).sum()))
    return {
        "index": at.astype(np.int64),
        "label": labels.astype(np.int64),
        "broken": broken,
        "norm": norm,
        "draws": draws,
        "calls": calls,
        "adversarial": adversarial.cpu().numpy(),
    }


def curve_of(sizes: FloatArray, broken: IntArray) -> AttackCurve:
    """The curve of the first successes."""
    right = np.array([(broken > number).sum() for number in range(len(sizes))], dtype=np.int64)
    return AttackCurve(sizes, right, len(broken))
