"""The report of decisions: counts per radius, draws against the cap, the guarantee in words."""

import json

import numpy as np
import pytest

from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.report.decisions import (
    decided_draws,
    decision_markdown,
    summarise_decisions,
    write_decisions,
)
from pixeldp_fast.smooth.decisions import Decisions
from tests.unit.test_certificates import terms

CAP = 1000


@pytest.fixture(scope="module")
def summary():
    return summarise_decisions(decisions(), "net on data")


def decisions():
    """Certified at once, refuted later, undecided at the cap; the last one's class is wrong."""
    counts = np.array([[100, 0, 0, 0], [350, 150, 0, 0], [510, 490, 0, 0], [100, 0, 0, 0]])
    at = np.stack([counts[:, 0], counts.sum(axis=1)], axis=1)
    selection = Tally(np.tile(np.array([10, 0, 0, 0]), (4, 1)))
    asked = terms(stop="decided", n=CAP)
    found = Decisions.judged(
        asked, np.array([0.0, 0.5]), np.arange(4), selection, Tally(counts), at, at
    )
    return found.with_labels([0, 0, 0, 1])


def test_every_answer_is_counted(summary):
    at_zero, at_half = (vars(one) for one in summary.answers)
    assert at_zero == {"radius": 0.0, "certified": 3, "refuted": 0, "undecided": 1, "right": 2}
    assert at_half == {"radius": 0.5, "certified": 2, "refuted": 2, "undecided": 0, "right": 1}


def test_draws_are_told_against_the_cap(summary):
    assert summary.mean == (100 + 500 + 1000 + 100) / 4
    assert summary.within == [(1, 0), (10, 0), (100, 2), (500, 3), (1000, 4)]
    text = " ".join(decided_draws(summary)).replace("\N{NO-BREAK SPACE}", " ")
    assert "425 on average, 300 in the median; 2.4 times fewer than the cap" in text
    assert "50.0 % took at most 100, 75.0 % took at most 500" in text


def test_the_page_says_what_is_promised(summary):
    page = decision_markdown(summary)
    assert "| 0.5 | 25.0 % | 50.0 % | 50.0 % | 0.0 % |" in page
    assert "With probability at least 99.9 % over the draws" in page
    assert "Krichevsky-Trofimov" in page


def test_files_are_written(tmp_path):
    write_decisions(tmp_path, decisions(), "net")
    record = json.loads((tmp_path / "summary.json").read_text())
    assert record["draws"] == {"mean": 425.0, "median": 300.0, "most": 1000.0}
    assert (tmp_path / "summary.md").read_text().startswith("# net\n")
