"""What is asked of a certificate, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pixeldp_fast.backends.reduction import AbstractReduction, SoftmaxSums, Votes
from pixeldp_fast.bounds.registry import radius_function
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.stream import check_draws
from pixeldp_fast.smooth.inputs import checked_alpha, checked_count
from pixeldp_fast.smooth.judge import MEAN_BOUND, check_rules, check_scores
from pixeldp_fast.types import Norm

SOFT_BOUND = "betting"  # where nothing is said; the tightest of them nearly always


@dataclass(frozen=True)
class Request:
    """A checked request; the fields are those of `Terms`."""

    norm: Norm | None
    n0: int
    n: int
    alpha: float
    scores: str
    bound: str
    competitor: str
    stop: str
    loss: float | None
    mean_bound: str


def checked_request(
    num_classes: int,
    *,
    norm: Any = None,
    n0: int = 100,
    n: int = 100_000,
    alpha: float = 0.001,
    scores: str = "argmax",
    bound: str = "tight",
    competitor: str = "complement",
    stop: str = "fixed",
    loss: float | None = None,
    mean_bound: str | None = None,
) -> Request:
    """The request with its defaults filled in.

    Raises
    ------
    InvalidArgument
        For an argument that no certificate can have, or a combination that makes no sense.
    """
    check_scores(scores)
    radius_function(bound)
    if stop == "decided":
        raise InvalidArgument(
            "`stop` must be fixed or loss; `decide` stops when radii are decided."
        )
    if mean_bound is None:
        mean_bound = MEAN_BOUND if scores == "argmax" else SOFT_BOUND
    elif scores == "argmax":
        check_rules(scores, competitor, stop, loss, SOFT_BOUND)  # refuses it, and says why
    if stop == "loss":
        loss = 0.01 if loss is None else loss
        loss = float(loss) if type(loss) is int else loss
    check_rules(scores, competitor, stop, loss, mean_bound)
    asked = None if norm is None else Norm.parse(norm)
    n0, n = checked_count("n0", n0, 1), checked_count("n", n, 1)
    alpha = checked_alpha(alpha)
    for draws in (n0, n):
        check_draws(0, draws)
        reduction(scores, num_classes).check_draws(draws)
    return Request(asked, n0, n, alpha, scores, bound, competitor, stop, loss, mean_bound)


def reduction(scores: str, num_classes: int) -> AbstractReduction:
    """What is kept of a draw for these scores."""
    return Votes(num_classes) if scores == "argmax" else SoftmaxSums(num_classes)
