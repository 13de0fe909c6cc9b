"""Noise mechanisms and the addressed stream of random words they are drawn from."""

from pixeldp_fast.noise.gaussian import Gaussian
from pixeldp_fast.noise.laplace import Laplace
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.registry import MECHANISMS, mechanism_from_dict
from pixeldp_fast.noise.stream import Purpose, Stream
from pixeldp_fast.noise.uniform import Uniform

__all__ = [
    "MECHANISMS",
    "AbstractMechanism",
    "Gaussian",
    "Laplace",
    "Purpose",
    "Stream",
    "Uniform",
    "mechanism_from_dict",
]
