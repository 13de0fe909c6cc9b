"""What a verification found: one line per kind of check, and every disagreement by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

DESCRIBED = 20  # disagreements of a kind whose exact value is worth computing


@dataclass(frozen=True)
class Disagreement:
    """A field that is not what it must be.

    Parameters
    ----------
    where : str
        The example and its place in the file, or the file.
    field : str
        Its name in the record.
    words : str
        What is stored, and what it should be.
    """

    where: str
    field: str
    words: str

    def __str__(self) -> str:
        return f"{self.where}: `{self.field}` {self.words}"


@dataclass
class Check:
    """One kind of check.

    Parameters
    ----------
    name : str
    against : str
        What was compared with what; for a check that was not made, why not.
    examined : int
        How many values were compared.
    skipped : bool
        The check was not made; `against` says why.
    verdict : str
        What to call it where nothing disagrees.
    """

    name: str
    against: str
    examined: int = 0
    skipped: bool = False
    verdict: str = "agrees"
    disagreements: list[Disagreement] = field(default_factory=list)

    def add(self, where: str, name: str, words: str) -> None:
        """Note a disagreement."""
        self.disagreements.append(Disagreement(where, name, words))

    @property
    def describes(self) -> bool:
        """Whether one more disagreement is worth an exact value."""
        return len(self.disagreements) < DESCRIBED


@dataclass(frozen=True)
class Verification:
    """All checks of one file or folder.

    Parameters
    ----------
    source : str
    examples : int
    terms : dict
        As stored.
    checks : list of Check
    """

    source: str
    examples: int
    terms: dict[str, Any]
    checks: list[Check]

    @property
    def disagreements(self) -> list[Disagreement]:
        """Of all checks, in their order."""
        return [one for check in self.checks for one in check.disagreements]

    @property
    def passed(self) -> bool:
        """Whether nothing that was checked disagrees."""
        return not self.disagreements
