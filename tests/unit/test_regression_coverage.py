"""Coverage of the judged intervals, summed exactly over every outcome of the draws.

The output is `low` or `high`, the worst one there is: a half-line of the noise, for which the
trade-off curve is attained. So the smoothed output under the best attack is known, and the
probability that an interval misses it is a sum over the number of draws that were `high`.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from pixeldp_fast import SmoothedRegressor
from pixeldp_fast.smooth.regression_judge import judge_regression
from pixeldp_fast.smooth.regression_terms import BOUNDS, MEAN_BOUNDS
from tests.cases import MECHANISM_IDS, MECHANISMS

N, ALPHA, LOW, HIGH = 60, 0.05, -1.0, 2.0
RATIOS = [0.0, 0.4, 1.1]  # radii in units of the scale
PROBABILITIES = [0.02, 0.1, 0.35, 0.5, 0.8, 0.97]
each_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS, ids=MECHANISM_IDS)


def terms_and_tally(mechanism, **options):
    """The terms of such a run, and the tallies of all N + 1 outcomes as one batch."""
    regressor = SmoothedRegressor(
        nn.Linear(2, 1).eval(), mechanism, low=LOW, high=HIGH, clip=True, backend="torch", bins=8
    )
    radii = [ratio * mechanism.noise_scale for ratio in RATIOS]
    terms = regressor.terms(torch.zeros(1, 2), radii, n=N, alpha=ALPHA, **options)
    hits = torch.arange(N + 1)
    outputs = torch.where(torch.arange(N) < hits[:, None], HIGH, LOW)[..., None]  # [N + 1, N, 1]
    totals = [terms.reduction.reduce(row.double()).numpy() for row in outputs]
    return terms, terms.reduction.tally(np.stack(totals))


def ends_under_attack(mechanism, p, ratio):
    """The smallest and the largest probability of `high` that an attack can make."""
    shift = ratio * mechanism.noise_scale
    return mechanism.tradeoff(1 - p, shift), 1 - mechanism.tradeoff(p, shift)


def missed(mechanism, terms, tally, p, columns=slice(None)):
    """Probability over the draws that some radius' interval is left by the best attack."""
    verdict = judge_regression(terms, tally)
    wrong = np.zeros(N + 1, dtype=bool)
    for r in range(len(RATIOS))[columns]:
        least, most = ends_under_attack(mechanism, p, RATIOS[r])
        wrong |= verdict.lower[:, r] > LOW + (HIGH - LOW) * least + 1e-12
        wrong |= verdict.upper[:, r] < LOW + (HIGH - LOW) * most - 1e-12
    return float(stats.binom.pmf(np.arange(N + 1), N, p)[wrong].sum())


@each_mechanism
@pytest.mark.parametrize("mean_bound", MEAN_BOUNDS)
@pytest.mark.parametrize("bound", BOUNDS[:-1])
def test_intervals_of_the_mean_miss_at_most_alpha(mechanism, bound, mean_bound):
    terms, tally = terms_and_tally(mechanism, bound=bound, mean_bound=mean_bound)
    for p in PROBABILITIES:
        assert missed(mechanism, terms, tally, p) <= ALPHA


@each_mechanism
def test_intervals_of_the_median_miss_at_most_alpha(mechanism):
    """The median is `high` if its probability is above one half, `low` if below."""
    terms, tally = terms_and_tally(mechanism, bound="quantile")
    verdict = judge_regression(terms, tally)
    for p in PROBABILITIES:
        wrong = np.zeros(N + 1, dtype=bool)
        for r, ratio in enumerate(RATIOS):
            least, most = ends_under_attack(mechanism, p, ratio)
            wrong |= (least < 0.5) & (verdict.lower[:, r] > LOW)
            wrong |= (most > 0.5) & (verdict.upper[:, r] < HIGH)
        assert stats.binom.pmf(np.arange(N + 1), N, p)[wrong].sum() <= ALPHA


@each_mechanism
@pytest.mark.parametrize("bound", ["mean", "distribution"])
def test_shifts_that_are_too_small_miss_too_often(mechanism, bound):
    """The planted fault: a tenth of the radius, where the draws leave no doubt about the mean."""
    terms, tally = terms_and_tally(mechanism, bound=bound)
    small = replace(terms, radii=tuple(radius / 10 for radius in terms.radii))
    assert missed(mechanism, replace(small, alpha=0.9), tally, 0.5) > 0.9


def test_a_mean_taken_as_known_misses_too_often(monkeypatch):
    """The planted fault: no confidence interval around the mean."""
    from pixeldp_fast.smooth import regression_judge

    mechanism = MECHANISMS[0]
    terms, tally = terms_and_tally(mechanism, bound="parts", mean_bound="hoeffding")
    for name in ("hoeffding_lower", "hoeffding_upper"):
        monkeypatch.setattr(regression_judge, name, lambda mean, *_: mean)
    assert missed(mechanism, terms, tally, 0.35) > ALPHA
