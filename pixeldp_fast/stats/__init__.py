"""From draws to probabilities: confidence bounds in float64, every one rounded outward."""

from pixeldp_fast.stats.betting import betting_lower, betting_upper
from pixeldp_fast.stats.binomial import (
    binomial_test_rejects,
    clopper_pearson_lower,
    clopper_pearson_upper,
    largest_lower,
    smallest_n,
)
from pixeldp_fast.stats.levels import FINAL_SHARE, bonferroni, group_sequential, holm, planned_looks
from pixeldp_fast.stats.mean import (
    empirical_bernstein_lower,
    empirical_bernstein_upper,
    hoeffding_lower,
    hoeffding_upper,
)
from pixeldp_fast.stats.quantile import dkw_width, lower_rank, upper_rank
from pixeldp_fast.stats.sequential import confidence_sequence, decision_tables

__all__ = [
    "FINAL_SHARE",
    "betting_lower",
    "betting_upper",
    "binomial_test_rejects",
    "bonferroni",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "confidence_sequence",
    "decision_tables",
    "dkw_width",
    "empirical_bernstein_lower",
    "empirical_bernstein_upper",
    "group_sequential",
    "hoeffding_lower",
    "hoeffding_upper",
    "holm",
    "largest_lower",
    "lower_rank",
    "planned_looks",
    "smallest_n",
    "upper_rank",
]
