"""The lists: whoever adds a member here inherits every generic test."""

from __future__ import annotations

from pixeldp_fast.bounds.registry import BOUNDS
from pixeldp_fast.noise import Gaussian, Laplace, Uniform

MECHANISMS = [Gaussian(0.5), Laplace(0.3), Uniform(0.8)]
MECHANISM_IDS = [type(mechanism).__name__ for mechanism in MECHANISMS]

# What a bound is not proved for, and refuses.
REFUSED = {("pixeldp-classical", "Uniform")}

# Every other pair of a bound and a mechanism.
BOUND_CASES = [
    (bound, mechanism)
    for bound in BOUNDS
    for mechanism in MECHANISMS
    if (bound, type(mechanism).__name__) not in REFUSED
]
BOUND_IDS = [f"{bound}-{type(mechanism).__name__}" for bound, mechanism in BOUND_CASES]
