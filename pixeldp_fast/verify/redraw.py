"""Some of a record's draws made again, from its seed and the model, and counted."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pixeldp_fast.backends.base import AbstractEngine
from pixeldp_fast.backends.pytorch import TorchBackend
from pixeldp_fast.backends.reduction import AbstractReduction, SoftmaxSums, Votes
from pixeldp_fast.backends.registry import prepared
from pixeldp_fast.backends.tally import GRID, Tally
from pixeldp_fast.errors import InvalidArgument, UnsupportedBackend
from pixeldp_fast.noise.stream import Purpose, Stream
from pixeldp_fast.plan.plan import Plan, make_plan
from pixeldp_fast.smooth.model import PixelDP
from pixeldp_fast.verify.chain import selected
from pixeldp_fast.verify.claim import Claim
from pixeldp_fast.verify.close import MARGINS, CloseCalls
from pixeldp_fast.verify.findings import Check
from pixeldp_fast.verify.reading import TALLIES, Records, Row

if TYPE_CHECKING:
    from pixeldp_fast.data.dataset import Dataset

_ALTERED = 0.1  # the share of altered examples for which the chance to miss them all is stated

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Repeater:
    """An engine that makes a record's draws again.

    Parameters
    ----------
    engine : AbstractEngine
    device : torch.device
    close : CloseCalls or None
        None: it computes in the record's own arithmetic, so that counts must be equal.
    why : str
        How its arithmetic differs.
    """

    engine: AbstractEngine
    device: torch.device
    close: CloseCalls | None
    why: str


def repeater(claim: Claim, model: PixelDP) -> Repeater:
    """An engine in the record's arithmetic where there is one here, else one that may differ.

    Raises
    ------
    UnsupportedModel
        When the model does not take the record's input shape.
    InvalidArgument
        When it has another number of classes.
    """
    plan = make_plan(model.prefix, model.suffix, tuple(claim["input_shape"]), claim["num_classes"])
    device = next((t.device for t in model.state_dict().values()), torch.device("cpu"))
    engine, why = _in_its_arithmetic(claim, plan, model, device)
    if engine is not None:
        return Repeater(engine, device, None, "")
    close = CloseCalls(_reduction(claim), _dtype(claim) or "float32")
    return Repeater(
        TorchBackend().prepare(plan, model.mechanism, close, device), device, close, why
    )


def _in_its_arithmetic(
    claim: Claim, plan: Plan, model: PixelDP, device: torch.device
) -> tuple[AbstractEngine | None, str]:
    """The engine that the record names, or why there is none with its arithmetic."""
    tile = re.search(r" tile (\d+)", claim["arithmetic"])
    named = _dtype(claim) if claim["backend"] in ("torch", "triton") else None
    try:
        _, engine = prepared(
            claim["backend"],
            plan,
            model.mechanism,
            _reduction(claim),
            device,
            dtype=getattr(torch, named) if named else None,
            tile=int(tile[1]) if tile else None,
        )
    except (UnsupportedBackend, InvalidArgument) as error:
        return None, str(error)
    if engine.arithmetic == claim["arithmetic"]:
        return engine, ""
    return None, _difference(claim["arithmetic"], engine.arithmetic)


def _reduction(claim: Claim) -> AbstractReduction:
    classes = claim["num_classes"]
    return Votes(classes) if claim["scores"] == "argmax" else SoftmaxSums(classes)


def _dtype(claim: Claim) -> str | None:
    words = claim["arithmetic"].split()
    return next((dtype for dtype in MARGINS if dtype in words), None)


def _difference(stored: str, here: str) -> str:
    """The words in which two arithmetics differ."""
    words, own = stored.split(), here.split()
    if len(words) != len(own):
        return f"'{stored}' in the record, '{here}' here"
    places = [i for i in range(len(words)) if words[i] != own[i]]
    context = [(" ".join(w[max(i - 1, 0) : i + 1]) for w in (words, own)) for i in places]
    return ", ".join("'{}' in the record, '{}' here".format(*pair) for pair in context)


def sample(records: Records, draws: int) -> list[Row]:
    """Examples to draw again: about `draws` draws in all, at least one example, unforeseeable."""
    rows = list(records.rows)
    random.SystemRandom().shuffle(rows)
    chosen: list[Row] = []
    for row in rows:
        draws -= sum(sum(row[name]["counts"]) for name in TALLIES)
        if chosen and draws < 0:
            break
        chosen.append(row)
    return chosen


def check_draws(
    claim: Claim, rows: list[Row], total: int, again: Repeater, dataset: Dataset, report: Report
) -> Check:
    """Draw some of the `total` examples again and compare what was counted."""
    check = Check("draws", _comparison(len(rows), total, again))
    for done, row in enumerate(rows):
        report(done, len(rows))
        check.examined += 1
        x = dataset.images([row["index"]]).to(again.device)
        index = np.array([row["index"]], dtype=np.int64)
        for name, purpose in zip(TALLIES, (Purpose.SELECTION, Purpose.ESTIMATION), strict=True):
            n = sum(row[name]["counts"])
            tally = again.engine.run(x, index, Stream(claim["seed"], purpose), 0, n)
            for part, words in _differing(row[name], tally, again.close):
                check.add(row.where, f"{name}.{part}", words)
        for name in ("lower_at", "upper_at") if "radii" in row.record else ():
            hits, draws = row[name]
            stream = Stream(claim["seed"], Purpose.ESTIMATION)
            made = again.engine.run(x, index, stream, 0, draws).counts[0, selected(claim, row)]
            allowed = 0 if again.close is None else again.close.votes
            if abs(int(made) - hits) > allowed:
                check.add(row.where, name, f"says {hits} of {draws}, drawn again {made}")
    report(len(rows), len(rows))
    return check


def _comparison(examples: int, total: int, again: Repeater) -> str:
    missed = (1 - _ALTERED) ** examples
    chance = f"{examples} of {total} examples; were a tenth altered, missed with p = {missed:.2g}"
    if again.close is None:
        return f"equal counts in the same arithmetic, {chance}"
    return (
        f"another arithmetic ({again.why}): only draws whose two largest outputs lie within "
        f"{2 * again.close.margin:g} of the largest may differ; {chance}"
    )


def _differing(
    stored: dict[str, list[int]], tally: Tally, close: CloseCalls | None
) -> Iterator[tuple[str, str]]:
    """The parts of a tally that differ by more than the arithmetic explains."""
    steps = 0 if close is None else close.steps
    allowed = {
        "counts": 0 if close is None else close.votes,
        "sums": steps,
        "squares": 2 * GRID * steps,
    }
    found: dict[str, Any] = {"counts": tally.counts, "sums": tally.sums, "squares": tally.squares}
    for part, numbers in stored.items():
        here = found[part][0].tolist()
        off = [abs(a - b) for a, b in zip(numbers, here, strict=True)]
        if max(off) > allowed[part]:
            k = off.index(max(off))
            margin = f", where {allowed[part]} may differ" if close else ""
            yield part, f"has {numbers[k]} in column {k}, drawn again {here[k]}{margin}"
