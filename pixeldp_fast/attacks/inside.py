"""The invariant put to the test: no attack changes a certified prediction inside its radius."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import special
from torch import Tensor

from pixeldp_fast.attacks.attack import attack
from pixeldp_fast.attacks.store import Arrays
from pixeldp_fast.attacks.threat import diameter
from pixeldp_fast.noise.stream import Purpose
from pixeldp_fast.smooth.classifier import SmoothedClassifier
from pixeldp_fast.smooth.inputs import checked_count
from pixeldp_fast.smooth.vote import predicted_classes
from pixeldp_fast.types import ABSTAIN, IntArray

SHARE = 0.999  # of the radius: claims are about attacks smaller than it
SUSPICION = 0.05  # level at which a point is worth another look
REJUDGE_ALPHA = 1e-6  # level of that look
UNSOUND = 0.001  # a number of violations less probable than this is none that alpha allows


@dataclass(frozen=True, eq=False)
class Inside:
    """What attacks inside certified radii found.

    Parameters
    ----------
    certified : int
        Examples with a radius above 0, each attacked.
    suspected : int
        Points whose class looked changed on the first fresh draws.
    violations : int64 [V]
        Addresses of the examples of which the last draws confirmed it.
    alpha : float
        Probability that a certificate is false, as it claims.
    """

    certified: int
    suspected: int
    violations: IntArray
    alpha: float

    @property
    def expected(self) -> float:
        """Violations that false certificates and false confirmations explain, at most, on mean."""
        return self.certified * (self.alpha + REJUDGE_ALPHA)

    @property
    def p_value(self) -> float:
        """Probability of at least as many violations from alpha alone, were all else sound."""
        count = len(self.violations)
        if count == 0:
            return 1.0
        chance = min(self.alpha + REJUDGE_ALPHA, 1.0)
        return float(special.betainc(count, self.certified - count + 1, chance))

    @property
    def sound(self) -> bool:
        """Whether the alphas that the certificates state explain what was found."""
        return self.p_value >= UNSOUND


def attack_inside(
    smoothed: SmoothedClassifier,
    x: Tensor,
    *,
    index: Any,
    norm: Any = None,
    n0: int = 100,
    n: int = 10_000,
    alpha: float = 0.001,
    bound: str = "tight",
    rejudge: int = 1_000_000,
    restarts: int = 15,
    verify: int = 1000,
    **settings: Any,
) -> Arrays:
    """Certify examples and attack each just inside its radius.

    Parameters
    ----------
    norm, n0, n, alpha, bound
        Of the certificates, as for `SmoothedClassifier.certify`.
    rejudge : int
        Fresh draws that judge a suspected violation, at level 1e-6.
    restarts, verify, settings
        Of `attack`.

    Returns
    -------
    arrays : dict
        `index`, `prediction` int64 and `radius` float64 [B] of the certificates; `norm` float64 of
        the point that looked changed, inf where none did; `violated` bool: the last draws confirm
        it. An abstention is no change.

    Guarantee
        The draws that certify, search, suspect and judge are four disjoint sets, and points lie
        nearer than the radius in float64. On a lattice they are on it, where claims are about it.
    """
    rejudge = checked_count("rejudge", rejudge, 1)
    at = np.asarray(index)
    certificates = smoothed.certify(x, norm=norm, n0=n0, n=n, alpha=alpha, bound=bound, index=at)
    rows = np.flatnonzero((certificates.prediction != ABSTAIN) & (certificates.radius > 0))
    found = np.full(len(x), np.inf)
    violated = np.zeros(len(x), dtype=np.bool_)
    if len(rows):
        assert certificates.terms is not None
        asked, low_high = certificates.terms.norm, smoothed.input_range
        whole = np.inf if low_high is None else diameter(asked, x[0].numel(), *low_high)
        got = attack(
            smoothed,
            x[torch.from_numpy(rows)],
            certificates.prediction[rows],
            size=np.minimum(SHARE * certificates.radius[rows], whole),
            norm=asked,
            restarts=restarts,
            verify=verify,
            alpha=SUSPICION,
            index=at[rows],
            **settings,
        )
        found[rows] = got.norm
        suspects = np.flatnonzero(got.success)
        points = got.adversarial[torch.from_numpy(suspects)]
        first = (restarts + 1) * verify
        violated[rows[suspects]] = _changed(
            smoothed, points, certificates.prediction[rows[suspects]], at[rows[suspects]],
            first, rejudge,
        )  # fmt: skip
    return {
        "index": at.astype(np.int64),
        "prediction": certificates.prediction,
        "radius": certificates.radius,
        "norm": found,
        "violated": violated,
    }


def inside_of(arrays: Arrays, alpha: float) -> Inside:
    """What the arrays of all examples say together."""
    certified = int((arrays["radius"] > 0).sum())
    suspected = int(np.isfinite(arrays["norm"]).sum())
    return Inside(certified, suspected, arrays["index"][arrays["violated"]], alpha)


def _changed(
    smoothed: SmoothedClassifier, points: Tensor, classes: IntArray, at: Any, first: int, n: int
) -> Any:
    if not len(points):
        return np.zeros(0, dtype=np.bool_)
    tally = smoothed.count(points, n, first_draw=first, index=at, purpose=Purpose.VERIFICATION)
    judged = predicted_classes(tally, "argmax", REJUDGE_ALPHA)
    return (judged != ABSTAIN) & (judged != classes)
