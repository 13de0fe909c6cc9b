"""Certified robustness by noise: PixelDP and randomized smoothing on compiled kernels.

    from pixeldp_fast import Gaussian, SmoothedClassifier

    smoothed = SmoothedClassifier(network, Gaussian(0.25), num_classes=10)
    certificates = smoothed.certify(images, n=100_000, alpha=0.001)
    certificates.radius  # float64 [B], in input units

Public names are imported on first use, so that `import pixeldp_fast` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pixeldp_fast._version import __version__

if TYPE_CHECKING:
    from pixeldp_fast.jobs.decide import decide_dataset
    from pixeldp_fast.jobs.local import certify_dataset
    from pixeldp_fast.noise.gaussian import Gaussian
    from pixeldp_fast.noise.laplace import Laplace
    from pixeldp_fast.noise.uniform import Uniform
    from pixeldp_fast.smooth.certificate import Certificate, Certificates
    from pixeldp_fast.smooth.classifier import SmoothedClassifier
    from pixeldp_fast.smooth.decisions import Decisions
    from pixeldp_fast.smooth.model import PixelDP
    from pixeldp_fast.smooth.regressor import SmoothedRegressor
    from pixeldp_fast.types import ABSTAIN, Norm

__all__ = [
    "ABSTAIN",
    "Certificate",
    "Certificates",
    "Decisions",
    "Gaussian",
    "Laplace",
    "Norm",
    "PixelDP",
    "SmoothedClassifier",
    "SmoothedRegressor",
    "Uniform",
    "__version__",
    "certify_dataset",
    "decide_dataset",
]

_HOMES = {
    "ABSTAIN": "types",
    "Norm": "types",
    "Certificate": "smooth.certificate",
    "Certificates": "smooth.certificate",
    "Gaussian": "noise.gaussian",
    "Laplace": "noise.laplace",
    "Uniform": "noise.uniform",
    "PixelDP": "smooth.model",
    "SmoothedClassifier": "smooth.classifier",
    "SmoothedRegressor": "smooth.regressor",
    "Decisions": "smooth.decisions",
    "certify_dataset": "jobs.local",
    "decide_dataset": "jobs.decide",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted(__all__)
