"""The network as the engines see it: prefix, noise point, suffix, and the prefix's sensitivity."""

from pixeldp_fast.plan.normalise import normalise_
from pixeldp_fast.plan.plan import Plan, make_plan
from pixeldp_fast.plan.sensitivity import output_shape, sensitivity

__all__ = ["Plan", "make_plan", "normalise_", "output_shape", "sensitivity"]
