"""From probabilities to a radius or an interval; everything in float64, rounded outward."""

from pixeldp_fast.bounds.distribution import distribution_interval, quantile_levels
from pixeldp_fast.bounds.pixeldp import pixeldp_radius
from pixeldp_fast.bounds.registry import BOUNDS, radius_function
from pixeldp_fast.bounds.regression import (
    lemma2_interval,
    tight_mean_interval,
    tight_parts_interval,
)
from pixeldp_fast.bounds.tight import tight_radius

__all__ = [
    "BOUNDS",
    "distribution_interval",
    "lemma2_interval",
    "pixeldp_radius",
    "quantile_levels",
    "radius_function",
    "tight_mean_interval",
    "tight_parts_interval",
    "tight_radius",
]
