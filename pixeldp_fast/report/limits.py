"""What n draws at level alpha can give at most: known before the first draw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pixeldp_fast.backends.tally import GRID, Tally
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.smooth.certificate import Certificates
from pixeldp_fast.smooth.judge import Terms
from pixeldp_fast.stats import binomial

_SEARCH_LIMIT = 2**20  # draws; a custom law that needs more certifies nothing in practice


def largest_radius(terms: Terms) -> float:
    """The radius of an example whose n draws all agree; no example gets a larger one.

    In input units and the norm of the terms; 0 where n is too small for any claim at this alpha.
    """
    return float(_unanimous(terms).radius[0])


def smallest_n(terms: Terms) -> int:
    """The least n at which an example whose draws all agree gets a radius above 0.

    Source
        By bisection on `judge` itself: the bounds grow with n. For votes it begins at the least n
        with alpha^(1/n) > 1/2, which is 10 at alpha = 0.001 and enough for the tight bound.
    """
    low = binomial.smallest_n(terms.alpha) - 1 if terms.scores == "argmax" else 0
    high = low + 1
    while not _certifies(terms, high):
        low, high = high, 2 * high
        if high > _SEARCH_LIMIT:
            raise InvalidArgument(
                f"Nothing can be certified with alpha = {terms.alpha:g} and the bound "
                f"{terms.bound!r} at any n up to {_SEARCH_LIMIT}."
            )
    while high - low > 1:
        middle = (low + high) // 2
        if _certifies(terms, middle):
            high = middle
        else:
            low = middle
    return high


def _certifies(terms: Terms, n: int) -> bool:
    return largest_radius(replace(terms, n=n)) > 0


def _unanimous(terms: Terms) -> Certificates:
    """The certificate of one example that every draw puts into class 0 with full score."""

    def tally(draws: int) -> Tally:
        first = np.eye(1, terms.num_classes + 1, dtype=np.int64)
        if terms.scores == "argmax":
            return Tally(draws * first)
        score = first[:, :-1]
        return Tally(draws * first, draws * GRID * score, draws * GRID**2 * score)

    index = np.zeros(1, dtype=np.int64)
    return Certificates.judged(terms, index, tally(terms.n0), tally(terms.n))
