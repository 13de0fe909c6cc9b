"""One example's decisions: both ends of its anytime interval, its radius, and every status."""

from __future__ import annotations

from pixeldp_fast.verify.chain import (
    STEP,
    Chain,
    Predicate,
    is_safe_and_near,
    selected,
)
from pixeldp_fast.verify.claim import Claim
from pixeldp_fast.verify.findings import Check
from pixeldp_fast.verify.intervals import is_anytime_lower_bound, is_anytime_upper_bound
from pixeldp_fast.verify.reading import Row

CERTIFIED, UNDECIDED, REFUTED = 1, 0, -1
# By how much a radius must be missed to be refuted: of itself, and of the scale. A radius that is
# missed by three times as much must not be left undecided.
SLACK, ABSOLUTE_SLACK = 1e-8, 1e-12


class DecisionChain:
    """Checks rows of decisions, whose draws stopped when the asked radii were decided."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._chain = Chain(claim)
        self._ends = Check("ends", "counts that are a part of the draws")
        self._lower = Check("p_lower", "the anytime interval: not above, and within 1e-9")
        self._upper = Check("p_upper", "the anytime interval: not below, and within 1e-9")
        self._status = Check("status", "every radius certified, refuted or undecided as proved")

    def checks(self) -> list[Check]:
        """In the order of the report."""
        radius, chosen = self._chain.radius, self._chain.chosen
        return [self._ends, chosen, self._lower, self._upper, radius, self._status]

    def check(self, row: Row, countable: bool) -> None:
        """Check one row; `countable` says whether its tallies can be what the draws gave."""
        if countable and self._check_ends(row):
            self._check_lower(row)
            self._check_upper(row)
        lower = float(row["p_lower"])
        pair = (lower, 1 - lower)
        self._chain.check_class(row, pair)
        self._chain.check_radius(row, pair)
        self._check_status(row)

    def _check_ends(self, row: Row) -> bool:
        self._ends.examined += 1
        counts = row["estimation"]["counts"]
        draws, hits = sum(counts), counts[selected(self._claim, row)]
        before = len(self._ends.disagreements)
        if row["draws"] != draws:
            self._ends.add(row.where, "draws", f"is {row['draws']}, but {draws} are counted")
        for name in ("lower_at", "upper_at"):
            h, t = row[name]
            if not (t >= 1 and h <= hits and 0 <= t - h <= draws - hits):
                words = f"says {h} of {t}, which are no part of {hits} of {draws}"
                self._ends.add(row.where, name, words)
        return len(self._ends.disagreements) == before

    def _check_lower(self, row: Row) -> None:
        self._lower.examined += 1
        stored, (h, t) = float(row["p_lower"]), row["lower_at"]
        alpha = self._claim["alpha"]
        if not is_safe_and_near(lambda p: is_anytime_lower_bound(p, h, t, alpha), stored):
            self._lower.add(row.where, "p_lower", f"is {stored!r}, not the end from {h} of {t}")

    def _check_upper(self, row: Row) -> None:
        self._upper.examined += 1
        stored, (h, t) = float(row["p_upper"]), row["upper_at"]
        alpha = self._claim["alpha"]
        if not is_safe_and_near(lambda p: is_anytime_upper_bound(-p, h, t, alpha), -stored):
            self._upper.add(row.where, "p_upper", f"is {stored!r}, not the end from {h} of {t}")

    def _check_status(self, row: Row) -> None:
        self._status.examined += len(row["radii"])
        proved, possible = self._radii_of(row["p_lower"]), self._radii_of(row["p_upper"])
        least = ABSOLUTE_SLACK * self._claim.unit
        if len(row["status"]) != len(row["radii"]):
            self._status.add(row.where, "status", "has another length than `radii`")
            return
        for radius, status in zip(row["radii"], row["status"], strict=True):
            certain = row["p_lower"] > 0.5 and radius <= row["radius"]
            excluded = row["p_upper"] < 0.5 or not possible(radius)
            far_away = not possible(radius * (1 - 3 * SLACK) - 3 * least)
            if row["p_lower"] > row["p_upper"]:  # an empty interval decides nothing
                fits = status == UNDECIDED
            elif status == UNDECIDED:
                fits = not certain and not (far_away or row["p_upper"] < 0.5)
            else:
                fits = (status == CERTIFIED and certain and proved(radius)) or (
                    status == REFUTED and excluded
                )
            if not fits:
                words = f"of radius {radius!r} is {status}, which the interval does not give"
                self._status.add(row.where, "status", words)

    def _radii_of(self, p: float) -> Predicate:
        """Whether a radius is proved by this probability against its complement."""
        if not p > 0.5 + STEP:
            return lambda radius: radius <= 0
        return self._chain.proved((float(p), 1 - float(p)))
