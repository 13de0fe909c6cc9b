"""What the draws of one example allow p_lower and p_upper to be."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from pixeldp_fast.verify.claim import Claim
from pixeldp_fast.verify.intervals import Exact, is_lower_bound, is_upper_bound
from pixeldp_fast.verify.means import GRID, Sums, guessed_variance, is_below
from pixeldp_fast.verify.reading import Row


class Evidence:
    """One example's estimation draws, at its share of alpha.

    Parameters
    ----------
    claim : Claim
    row : Row
        Whose number of estimation draws is one of the claim's looks.
    """

    def __init__(self, claim: Claim, row: Row) -> None:
        self._claim, self._row = claim, row
        self.n = sum(row["estimation"]["counts"])
        level = claim.looks[self.n]
        alone = claim["competitor"] == "complement"
        self.top = level if alone else level / 2
        self._others = Fraction(0) if alone else (level - self.top) / (claim["num_classes"] - 1)

    def key(self, chosen: int) -> Any:
        """What `is_lower` depends on; None where keeping its answers is not worth it."""
        votes = self._claim["scores"] == "argmax"
        return (self.n, self._row["estimation"]["counts"][chosen]) if votes else None

    def is_lower(self, p: Exact, chosen: int) -> bool:
        """Whether `p` is at most the lower bound of the class's probability or mean score."""
        if self._claim["scores"] == "argmax":
            return is_lower_bound(p, self._row["estimation"]["counts"][chosen], self.n, self.top)
        return is_below(self._claim["mean_bound"], p, self._sums(chosen), self.top)

    def is_upper(self, p: Exact, chosen: int, p_lower: float) -> bool:
        """Whether `p` is at least what every other class is bounded by, given `p_lower`."""
        if p >= 1 - Fraction(p_lower):
            return True
        if self._claim["competitor"] == "complement":
            return False
        if self._claim["scores"] == "argmax":
            counts = self._row["estimation"]["counts"]
            most = max(c for k, c in enumerate(counts[:-1]) if k != chosen)
            return is_upper_bound(p, most, self.n, self._others)
        # One minus a score is a score; flooring to the grid lowered it by less than a step.
        missed = 1 + Fraction(1, GRID) - Fraction(p)
        classes = (k for k in range(self._claim["num_classes"]) if k != chosen)
        return missed <= 0 or all(
            is_below(self._claim["mean_bound"], missed, self._sums(k).mirrored(), self._others)
            for k in classes
        )

    def _sums(self, k: int) -> Sums:
        selection, estimation = self._row["selection"], self._row["estimation"]
        guess = guessed_variance(self._claim["n0"], selection["sums"][k], selection["squares"][k])
        return Sums(self.n, estimation["sums"][k], estimation["squares"][k], guess)
