"""Drawing in rounds: examples that have what they need stop, the others share the next batch."""

from __future__ import annotations

import abc
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.errors import RecordError
from pixeldp_fast.smooth.judge import Terms, radius_of, selected_classes
from pixeldp_fast.smooth.probability import probabilities
from pixeldp_fast.stats.binomial import clopper_pearson_lower, clopper_pearson_upper
from pixeldp_fast.types import FloatArray, IntArray

Mask = npt.NDArray[np.bool_]
Count = Callable[[IntArray, int, int], Tally]  # (rows, first draw, n) -> tally of the rows


class AbstractRule(abc.ABC):
    """When an example needs no more draws. It is fixed before the first estimation draw."""

    @property
    @abc.abstractmethod
    def ends(self) -> tuple[int, ...]:
        """The numbers of draws at which it looks, ascending; the last is the cap."""

    @abc.abstractmethod
    def look(self, rows: IntArray, estimation: Tally) -> Mask:
        """Which of these examples need more draws, given all their draws so far.

        Asked once at every one of `ends`, in order, with the examples that are still drawn for.
        """


def drawn(count: Count, rule: AbstractRule, examples: int) -> Tally:
    """The estimation draws of all examples, each up to where the rule let it stop."""
    rows = np.arange(examples)
    total = count(rows, 0, rule.ends[0])
    for first, end in zip(rule.ends, (*rule.ends[1:], 0), strict=True):
        rows = rows[rule.look(rows, total.take(rows))]
        if not (rows.size and end):
            break
        total = _added(total, rows, count(rows, first, end - first))
    return total


def _added(total: Tally, rows: IntArray, part: Tally) -> Tally:
    counts = total.counts.copy()
    counts[rows] += part.counts
    return Tally(counts)


class LossRule(AbstractRule):
    """Stops where the radius is predicted to be nearly that of all draws.

    At a look the radius that is proved there is compared with the one that all n draws would prove,
    were the shares of the votes so far kept to the end: it stops where the first is at least
    1 - loss of the second. Where nothing is proved it stops once another class provably wins.

    Guarantee
        The prediction only plans: what is claimed is the interval at the look, which holds together
        with those of all looks.
    """

    def __init__(self, terms: Terms, selection: Tally) -> None:
        self._terms = terms
        self._selection = selection
        self._selected = selected_classes(terms, selection)

    @property
    def ends(self) -> tuple[int, ...]:
        return tuple(draws for draws, _ in self._terms.looks)

    def look(self, rows: IntArray, estimation: Tally) -> Mask:
        terms, chosen = self._terms, self._selected[rows]
        now = self._radius(rows, estimation)
        predicted = self._radius(rows, _extrapolated(estimation, chosen, terms.n))
        enough = (now > 0) & (now >= (1 - (terms.loss or 0.0)) * predicted)
        return np.asarray(~(enough | ((now == 0) & self._hopeless(estimation, chosen))))

    def _radius(self, rows: IntArray, estimation: Tally) -> FloatArray:
        """The tight radius: that of the terms' bound would plan no better, and slower."""
        terms, chosen = self._terms, self._selected[rows]
        p_lower, p_upper = probabilities(terms, self._selection.take(rows), estimation, chosen)
        radius = np.zeros(len(rows))
        claim = p_lower > p_upper
        radius[claim] = radius_of(terms, p_lower[claim], p_upper[claim], "tight")
        return radius

    def _hopeless(self, estimation: Tally, chosen: IntArray) -> Mask:
        """Whether the class provably loses against the competitor."""
        at, draws = np.arange(len(chosen)), estimation.draws
        levels = dict(self._terms.looks)
        alpha = np.array([levels[int(t)] for t in draws])
        upper = clopper_pearson_upper(estimation.counts[at, chosen], draws, alpha)
        if self._terms.competitor == "complement":
            return np.asarray(upper < 0.5)
        others = estimation.counts[:, :-1].copy()
        others[at, chosen] = 0
        return np.asarray(upper < clopper_pearson_lower(others.max(axis=1), draws, alpha))


def _extrapolated(estimation: Tally, chosen: IntArray, n: int) -> Tally:
    """The tally of n draws with the shares so far; of a unanimous class it expects some misses."""
    draws = estimation.draws[:, None]
    counts = np.floor(estimation.counts / np.maximum(draws, 1) * n).astype(np.int64)
    at = np.arange(len(chosen))
    hits, drawn_ = estimation.counts[at, chosen], estimation.draws
    tempered = np.floor((hits + 0.5) / (drawn_ + 1) * n).astype(np.int64)
    counts[at, chosen] = np.minimum(counts[at, chosen], tempered)
    counts[:, -1] += n - counts.sum(axis=1)
    return Tally(counts)


def check_stopped(terms: Terms, selection: Tally, estimation: Tally) -> None:
    """Refuse draws that ended where the rule of the terms goes on.

    Raises
    ------
    RecordError
    """
    if terms.stop == "fixed":
        return
    rule = LossRule(terms, selection)
    early = np.flatnonzero(estimation.draws < terms.n)
    going_on = early[rule.look(early, estimation.take(early))] if early.size else early
    if going_on.size:
        ended = int(estimation.draws[going_on[0]])
        raise RecordError(
            f"An example ends at {ended} draws, where stop='loss' goes on: partial or edited."
        )
