"""How often the intervals are wrong, exactly: summed over all counts, no randomness."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats as laws

from bench.ledger import Row
from pixeldp_fast.stats import (
    betting_lower,
    binomial_test_rejects,
    clopper_pearson_lower,
    clopper_pearson_upper,
    confidence_sequence,
    decision_tables,
    empirical_bernstein_lower,
    hoeffding_lower,
    planned_looks,
)
from pixeldp_fast.types import FloatArray, IntArray

CASE = "exact"
TARGETS, LEVELS, LAST = (0.5, 0.9, 0.99), (0.05, 0.001), 4000
DRAWS = (10, 100, 1000)
Bound = Callable[[IntArray, int, float], FloatArray]


def run() -> list[Row]:
    """The anytime rule's crossings, the bounds' worst coverage, and the worst early stop."""
    return [*crossings(), *coverages(), *stops()]


def crossing_probability(target: float, tables: tuple[IntArray, IntArray]) -> float:
    """Chance that draws of probability `target` are ever said not to have it, exactly."""
    least, greatest = tables
    alive = np.zeros(len(least) + 1)
    alive[0], crossed = 1.0, 0.0
    for t in range(1, len(least)):
        alive[1 : t + 1] = alive[1 : t + 1] * (1 - target) + alive[:t] * target
        alive[0] *= 1 - target
        for part in (slice(least[t], t + 1), slice(0, greatest[t] + 1)):
            crossed += float(alive[part].sum())
            alive[part] = 0
    return crossed


def crossings() -> list[Row]:
    """At most alpha; with the second side forgotten, ln(1/(2 alpha)), above it."""
    rows = [
        _row("anytime rule", f"p = {p}, alpha = {alpha}", crossing_probability(p, tables), alpha)
        for p in TARGETS
        for alpha in LEVELS
        for tables in [decision_tables(p, alpha, LAST)]
    ]
    planted = crossing_probability(0.5, decision_tables(0.5, 2 * 0.05, LAST))
    return [*rows, _row("planted: ln(1/(2 alpha))", "p = 0.5, alpha = 0.05", planted, 0.05)]


def smallest_coverage(lower: FloatArray, n: int) -> float:
    """The least probability, over p, that `lower` [n + 1] is not above p.

    Between two bounds the coverage only changes smoothly, and just below a bound it is worst, so
    these points and a grid cover all p.
    """
    just_below = np.nextafter(lower[lower > 0], 0)
    p = np.concatenate([np.linspace(0, 1, 201), just_below])
    chance = laws.binom.pmf(np.arange(n + 1), n, p[:, None])
    return float(np.sum(chance * (lower <= p[:, None]), axis=1).min())


def _variance(k: IntArray, n: int) -> FloatArray:
    return np.asarray(k * (n - k) / (n * (n - 1)))


# One-sided lower bounds of hits k in n draws; scores of 0 and 1 for those of means.
BOUNDS: dict[str, Bound] = {
    "Clopper-Pearson, lower": clopper_pearson_lower,
    "Clopper-Pearson, upper": lambda k, n, a: 1 - clopper_pearson_upper(n - k, n, a),
    "anytime, lower end at n": lambda k, n, a: confidence_sequence(k, n, a)[0],
    "anytime, upper end at n": lambda k, n, a: 1 - confidence_sequence(n - k, n, a)[1],
    "Hoeffding": lambda k, n, a: hoeffding_lower(k / n, n, a),
    "empirical Bernstein": lambda k, n, a: empirical_bernstein_lower(k / n, _variance(k, n), n, a),
    "betting, guess 1/4": lambda k, n, a: betting_lower(k / n, _variance(k, n), n, a),
    "betting, guess 1e-4": lambda k, n, a: betting_lower(k / n, _variance(k, n), n, a, guess=1e-4),
}


def worst_miss(bound: Bound, n: int, alpha: float) -> float:
    """How often the bound is above the truth at the worst probability."""
    return 1 - smallest_coverage(bound(np.arange(n + 1), n, alpha), n)


def tie_rejected(n: int, alpha: float) -> float:
    """How often the test behind `predict` decides between two equally probable outcomes."""
    k = np.arange(n + 1)
    return float(laws.binom.pmf(k, n, 0.5)[binomial_test_rejects(k, n - k, alpha)].sum())


def coverages() -> list[Row]:
    """The worst miss of every bound."""
    rows = []
    for n in DRAWS:
        for alpha in LEVELS:
            label = f"n = {n}, alpha = {alpha}"
            rows += [
                _row(name, label, worst_miss(b, n, alpha), alpha) for name, b in BOUNDS.items()
            ]
            rows.append(_row("predict, at a tie", label, tie_rejected(n, alpha), alpha))
    return rows


def wrong_stop(p: float, looks: Sequence[tuple[int, float]]) -> float:
    """How often a rule that stops as soon as its claim is false ends with a false claim."""
    alive, before, missed = np.ones(1), 0, 0.0
    for draws, level in looks:
        step = laws.binom.pmf(np.arange(draws - before + 1), draws - before, p)
        alive, before = np.convolve(alive, step), draws
        false = clopper_pearson_lower(np.arange(draws + 1), draws, level) > p
        missed += float(alive[false].sum())
        alive = np.where(false, 0, alive)
    return missed


def stops() -> list[Row]:
    """Early stops at the looks of stop="loss", and the planted full alpha at each of them."""
    rows = []
    for p in TARGETS:
        looks = planned_looks(0.05, LAST)
        label = f"p = {p}, alpha = 0.05"
        rows.append(_row("worst early stop", label, wrong_stop(p, looks), 0.05))
        full = wrong_stop(p, [(draws, 0.05) for draws, _ in looks])
        rows.append(_row("planted: all of alpha at every look", label, full, 0.05))
    return rows


def _row(name: str, label: str, wrong: float, alpha: float) -> Row:
    note = f"{label}; exact, alpha = {alpha}"
    return Row(CASE, f"{name}: {label}", "wrong", wrong, wrong, wrong, "probability", note)
