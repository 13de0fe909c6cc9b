"""Runs in words and numbers as people read them."""

from __future__ import annotations

import math
from decimal import ROUND_FLOOR, Decimal

from pixeldp_fast.report.summary import Summary
from pixeldp_fast.smooth.judge import Terms
from pixeldp_fast.smooth.regression_terms import RegressionTerms
from pixeldp_fast.types import Norm

UNKNOWN_TERMS = (
    "The file states neither alpha nor the noise: its radii are as their author claims them."
)


def grouped(number: int) -> str:
    """An integer with a thin gap between groups of three digits: 100 000."""
    return f"{number:,}".replace(",", "\N{NO-BREAK SPACE}")


def percent(share: float) -> str:
    """A share as a percentage with one decimal, for example 93.4 %."""
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def percent_with_error(share: float, error: float) -> str:
    """A share with its standard error, for example 93.4 ± 0.8 %."""
    return f"{100 * share:.1f} ± {100 * error:.1f}\N{NO-BREAK SPACE}%".replace(
        " ", "\N{NO-BREAK SPACE}"
    )


def size(radius: float, digits: int = 4) -> str:
    """A radius with this many decimals, rounded down; more where it would read as 0."""
    if not math.isfinite(radius):
        return str(radius)
    if 0 < radius < 10.0 ** (1 - digits):
        digits = 2 - math.floor(math.log10(radius))
    return str(Decimal(radius).quantize(Decimal(10) ** -digits, rounding=ROUND_FLOOR))


def confidence(alpha: float) -> str:
    """1 - alpha as a percentage with all its digits: 0.001 is 99.9 %."""
    value = (100 * (1 - Decimal(repr(alpha)))).normalize()
    return f"{value:f}\N{NO-BREAK SPACE}%"


def norm_name(terms: Terms | None) -> str:
    """The norm of the radii, "2-norm"; empty where it is not recorded."""
    return "" if terms is None else f"{_norm(terms.norm)}-norm"


def _norm(norm: Norm) -> str:
    return "infinity" if norm is Norm.INF else str(norm)


def radius_axis(terms: Terms | None) -> str:
    """What a column or axis of radii is called."""
    return "radius (input units)" if terms is None else f"radius ({norm_name(terms)}, input units)"


def share_name(labelled: bool) -> str:
    """What the share at a radius is called."""
    return "certified accuracy" if labelled else "predictions certified"


def settings(summary: Summary) -> str:
    """The terms on one line, with the number of examples."""
    examples = f"{grouped(summary.examples)} example{'s' if summary.examples != 1 else ''}"
    terms = summary.terms
    if terms is None:
        return examples
    extras = [] if terms.scores == "argmax" else [f"{terms.scores} scores"]
    extras += [] if terms.bound == "tight" else [f"bound {terms.bound}"]
    extras += [] if terms.competitor == "complement" else ["against all other classes"]
    extras += [] if terms.stop != "loss" else [f"stopped at a loss of {terms.loss:g}"]
    return ", ".join(
        [
            str(terms.mechanism),
            f"n0 = {grouped(terms.n0)}",
            f"n = {grouped(terms.n)}",
            f"alpha = {terms.alpha:g}",
            *extras,
            examples,
        ]
    )


def guarantee(terms: Terms | None) -> str:
    """What the numbers promise, and what they leave open."""
    if terms is None:
        return UNKNOWN_TERMS
    return (
        f"With probability at least {confidence(terms.alpha)} over the draws (alpha = "
        f"{terms.alpha:g}: {terms.split}), for each example apart, {program(terms)}: nearer "
        f"than its radius, in the {norm_name(terms)}, the smoothed classifier gives the same "
        "class. Nothing is claimed about inputs chosen with knowledge of the seed."
    )


def program(terms: Terms | RegressionTerms) -> str:
    """For which program a claim is made, and of which inputs where it is not of all."""
    if terms.guarantee != "lattice":
        return f"in {terms.guarantee}"
    only = ""
    if terms.inputs == "lattice":
        only = f", on inputs that are multiples of 1/{terms.mechanism.lattice}"
    elif terms.input_range is not None:
        low, high = terms.input_range
        only = f", on inputs within [{_end(low)}, {_end(high)}]"
    return f"for the program that runs (noise on a lattice){only}"


def _end(value: float) -> str:
    """A number with all its digits, without those that say nothing: 0, 0.1, -2.5."""
    return repr(value).removesuffix(".0")


def for_all(summary: Summary) -> str:
    """What holds for all examples at once; empty where the draws do not say."""
    joint, terms = summary.for_all, summary.terms
    if joint is None or terms is None:
        return ""
    return (
        f"With probability at least {confidence(terms.alpha)} all {grouped(summary.examples)} "
        f"claims hold at once when each is judged at alpha/{summary.examples} (Bonferroni): "
        f"{share_name(summary.labelled)} {percent(joint.share)}, average certified radius "
        f"{size(joint.average_radius)}."
    )


def facts(summary: Summary) -> list[tuple[str, str, str]]:
    """Rows (what, value, note) of a run's other numbers."""
    curve = summary.curve
    rows = [
        (
            "accuracy" if summary.labelled else share_name(False),
            percent_with_error(summary.share, float(curve.standard_error[0])),
            "right and not abstained" if summary.labelled else "not abstained; no labels",
        ),
        (
            "abstained",
            percent(summary.abstained / summary.examples),
            f"{grouped(summary.abstained)} of {grouped(summary.examples)}",
        ),
        (
            "average certified radius",
            size(summary.average_radius),
            f"counting 0 where {'wrong or ' if summary.labelled else ''}abstained",
        ),
    ]
    if summary.terms is not None and summary.largest_radius is not None:
        note = f"when all {grouped(summary.terms.n)} draws agree"
        rows.append(("largest radius possible", size(summary.largest_radius), note))
    return rows
