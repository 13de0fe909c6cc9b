"""One example's chain of numbers: draws, bounds, class, radius, each against its definition.

A link holds if the stored number is on its safe side and not far from the exact one. Where a link
fails, the others tell which field is the odd one out, and that one is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pixeldp_fast.verify.arithmetic import mp
from pixeldp_fast.verify.claim import Claim
from pixeldp_fast.verify.findings import Check
from pixeldp_fast.verify.intervals import binomial_tail
from pixeldp_fast.verify.probabilities import Evidence
from pixeldp_fast.verify.radii import BOUNDS
from pixeldp_fast.verify.reading import Row

ABSTAINS = -1
RELATIVE = 1e-9  # how far from its exact value a stored number may be, on its safe side
STEP = 2.0**-52  # what float64 cannot resolve near 1
# Of the scale: where p_lower and p_upper nearly agree, digits of the radius cancel. On a lattice
# the first implementation bisects a curve that is itself rounded.
ABSOLUTE, LATTICE_ABSOLUTE = 1e-12, 1e-10
_ROUND_LEVEL = 1e-6  # how near to three significant digits a level must be to be a chosen one

Predicate = Callable[[float], bool]
Pair = tuple[float, float]


class Chain:
    """Checks rows of one claim, judging equal numbers once."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._known: dict[Any, bool] = {}
        votes = claim["scores"] == "argmax"
        interval = "the binomial sum" if votes else f"{claim['mean_bound']} on the exact sums"
        other = (
            "1 - p_lower" if claim["competitor"] == "complement" else "the other classes' bounds"
        )
        self.chosen = Check("class", "the selection draws' where p_lower > p_upper, else abstains")
        self.p_lower = Check("p_lower", f"{interval}: not above, and within 1e-9")
        self.p_upper = Check("p_upper", f"{other}: not below, and within 1e-9")
        self.radius = Check(
            "radius", f"the definition of '{claim['bound']}': not above, within 1e-9"
        )

    def checks(self) -> list[Check]:
        """In the order of the report."""
        return [self.chosen, self.p_lower, self.p_upper, self.radius]

    def check(self, row: Row, countable: bool) -> None:
        """Check one row; `countable` says whether its tallies can be what the draws gave."""
        lower, upper = float(row["p_lower"]), float(row["p_upper"])
        pair, odd = (lower, upper), ""
        if countable:
            pair, odd = self._check_bounds(row, Evidence(self._claim, row))
        if odd != "selection.counts":
            self.check_class(row, pair)
        self.check_radius(row, pair)

    def _check_bounds(self, row: Row, evidence: Evidence) -> tuple[Pair, str]:
        """The pair of bounds to judge by, without an odd one, and the field that is the odd one."""
        self.p_lower.examined += 1
        self.p_upper.examined += 1
        lower, upper = float(row["p_lower"]), float(row["p_upper"])
        chosen = selected(self._claim, row)
        below = self._below(evidence, chosen)
        if not (0 <= lower <= 1 and is_safe_and_near(below, lower)):
            odd = self._odd_one(row, evidence, chosen)
            self.p_lower.add(row.where, odd, self._described(row, odd, evidence, below))
            return (1 - upper, upper) if odd == "p_lower" else (lower, upper), odd
        above = _negated(lambda p: evidence.is_upper(p, chosen, lower))
        if not (0 <= upper <= 1 and is_safe_and_near(above, -upper)):
            side = "too far above" if above(-upper) else "below"
            exact = -largest(above, -1.0, 0.0)
            self.p_upper.add(row.where, "p_upper", f"is {upper!r}, {side} {exact!r}, the bound")
            return (lower, exact), "p_upper"
        return (lower, upper), ""

    def _below(self, evidence: Evidence, chosen: int) -> Predicate:
        key = evidence.key(chosen)
        if key is None:
            return lambda p: evidence.is_lower(p, chosen)
        return lambda p: self._once(("p", p, key), lambda: evidence.is_lower(p, chosen))

    def _odd_one(self, row: Row, evidence: Evidence, chosen: int) -> str:
        """Which of level, counts, selection and p_lower disagrees with all the others."""
        if not _complements(row):
            return "p_lower"
        other = row["prediction"]
        is_class = other != chosen and 0 <= other < self._claim["num_classes"]
        if is_class and is_safe_and_near(self._below(evidence, other), float(row["p_lower"])):
            return "selection.counts"
        if self._claim["scores"] == "softmax":
            return "estimation.sums"
        return "estimation.counts" if self._other_level(row, evidence) is None else "terms.alpha"

    def _other_level(self, row: Row, evidence: Evidence) -> float | None:
        """The round alpha that p_lower stands for, if there is one: alpha was edited then."""
        hits = row["estimation"]["counts"][selected(self._claim, row)]
        share = evidence.top / self._claim["alpha"]
        level = float(binomial_tail(hits, evidence.n, float(row["p_lower"])) / float(share))
        rounded = float(f"{level:.2e}")
        chosen = math.isclose(level, rounded, rel_tol=_ROUND_LEVEL)
        return rounded if chosen and rounded != self._claim["alpha"] else None

    def _described(self, row: Row, odd: str, evidence: Evidence, below: Predicate) -> str:
        stored = float(row["p_lower"])
        if odd == "terms.alpha":
            level = self._other_level(row, evidence)
            return f"is {self._claim['alpha']}, but p_lower stands for {level}"
        side = "too far below" if 0 <= stored <= 1 and below(stored) else "above"
        exact = f" {largest(below, 0.0, 1.0)!r}," if self.p_lower.describes else ""
        if odd == "p_lower":
            return f"is {stored!r}, {side}{exact} what the draws give"
        return (
            f"disagrees with p_lower and p_upper: {stored!r} is {side}{exact} what the draws give"
        )

    def check_class(self, row: Row, pair: Pair) -> None:
        """Whether the prediction is the selected class, or none where the bounds prove nothing."""
        self.chosen.examined += 1
        chosen, claims = selected(self._claim, row), pair[0] > pair[1]
        expected = chosen if claims else ABSTAINS
        if row["prediction"] != expected:
            proved = "above" if claims else "not above"
            self.chosen.add(
                row.where,
                "prediction",
                f"is {row['prediction']}, not {expected}: the selection draws chose {chosen}, and "
                f"p_lower is {proved} p_upper",
            )

    def check_radius(self, row: Row, pair: Pair) -> None:
        """Whether the radius is what the bounds prove."""
        self.radius.examined += 1
        stored = float(row["radius"])
        if not pair[0] > pair[1]:
            if stored != 0:
                self.radius.add(row.where, "radius", f"is {stored!r}, but nothing is proved: 0")
            return
        below = self.proved(pair)
        unit = self._claim.unit
        least = unit * (ABSOLUTE if self._claim.law.lattice is None else LATTICE_ABSOLUTE)
        if not (stored >= 0 and is_safe_and_near(below, stored, least)):
            side = "too far below" if stored >= 0 and below(stored) else "above"
            exact = f" {largest(below, 0.0, 50 * unit)!r}," if self.radius.describes else ""
            self.radius.add(
                row.where, "radius", f"is {stored!r}, {side}{exact} what p_lower and p_upper prove"
            )

    def proved(self, pair: Pair) -> Predicate:
        """Whether a radius is proved by these bounds."""
        claim = self._claim
        holds = BOUNDS[claim["bound"]]

        def proved(radius: float) -> bool:
            if radius <= 0:  # about no attack at all
                return True
            m = mp()
            shift = (m.mpf(radius) * claim.sensitivity + claim["slack"]) / claim.law.scale
            tau = m.mpf(claim["tau"])
            return self._once(
                ("r", radius, pair), lambda: holds(claim.law, pair[0], pair[1], shift, tau)
            )

        return proved

    def _once(self, key: Any, question: Callable[[], bool]) -> bool:
        if key not in self._known:
            self._known[key] = question()
        return self._known[key]


def selected(claim: Claim, row: Row) -> int:
    """The class with the largest selection score, the lowest of equal ones."""
    votes = claim["scores"] == "argmax"
    scores = row["selection"]["counts"][:-1] if votes else row["selection"]["sums"]
    return int(scores.index(max(scores)))


def _complements(row: Row) -> bool:
    """Whether p_upper is 1 - p_lower but for its rounding: then p_lower was not edited alone."""
    return bool(abs(1 - mp().mpf(row["p_lower"]) - row["p_upper"]) <= 2 * STEP)


def largest(below: Predicate, low: float, high: float) -> float:
    """The largest number in [low, high] at which `below` holds, which it does at `low`."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return low


def _negated(above: Predicate) -> Predicate:
    """A predicate that holds from some number on, as one that holds up to its negative."""
    return lambda p: above(-p)


def is_safe_and_near(below: Predicate, stored: float, least: float = STEP) -> bool:
    """Whether `stored` is on the safe side, and a slightly larger number is not."""
    return below(stored) and not below(stored + abs(stored) * RELATIVE + least)
