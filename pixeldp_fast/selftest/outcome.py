"""What a test of randomness found."""

from __future__ import annotations

from dataclasses import dataclass

LEVEL = 1e-9  # at which a statistical test fails a perfect source; some 100 of them run in all


@dataclass(frozen=True)
class Source:
    """What made the noise, and of which law it should be."""

    name: str
    law: str

    def __str__(self) -> str:
        return f"{self.name}, {self.law}"


@dataclass(frozen=True)
class Outcome:
    """One test of one source.

    Parameters
    ----------
    source : Source
    test : str
    passed : bool
    detail : str
        The number that decided, and what it is about.
    false_failure : float
        Probability that a perfect source fails; 0 for an exact comparison.
    """

    source: Source
    test: str
    passed: bool
    detail: str
    false_failure: float
