"""Deciding radii for a whole data set into a folder; kill it, resume it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.errors import RecordError, RunFolderError
from pixeldp_fast.files import write_whole
from pixeldp_fast.jobs.examples import choose, labels_fingerprint
from pixeldp_fast.jobs.folder import DECISIONS, locked, writing
from pixeldp_fast.jobs.local import classifier_for, source_of, surveyed
from pixeldp_fast.jobs.progress import Progress, check_progress, reporting
from pixeldp_fast.jobs.rounds import Rounds, RuleOf, rounds
from pixeldp_fast.jobs.shards import ShardPlan
from pixeldp_fast.jobs.store import Run, begin, existing_run, manifest_of, open_run
from pixeldp_fast.smooth.classifier import SmoothedClassifier
from pixeldp_fast.smooth.decide import DecisionRule, as_radii, decision_rule
from pixeldp_fast.smooth.decision_records import jsonl, read_jsonl
from pixeldp_fast.smooth.decisions import Decisions, concatenate
from pixeldp_fast.smooth.inputs import checked_count
from pixeldp_fast.smooth.stopping import AbstractRule
from pixeldp_fast.types import ArrayLike, FloatArray


def decide_dataset(
    model: nn.Module | SmoothedClassifier,
    data: Any,
    radii: ArrayLike,
    *,
    out: str | os.PathLike[str],
    resume: bool = True,
    labels: Any = None,
    indices: Any = None,
    norm: Any = None,
    n0: int = 100,
    n_max: int = 100_000,
    alpha: float = 0.001,
    shard_draws: int = 200_000,
    progress: Progress | bool | None = None,
) -> Decisions:
    """Decide radii for a data set into a folder, from which a killed run resumes.

    Parameters
    ----------
    radii, norm, n0, n_max, alpha
        As for `SmoothedClassifier.decide`.
    model, data, out, resume, labels, indices, shard_draws
        As for `certify_dataset`.
    progress : None, True or callable
        As for `certify_dataset`. Draws that the decided examples no longer need count as done;
        `info` holds `examples`, `certified` (those that are complete), `draws` made,
        `draws_per_second` and `done_per_second`.

    Returns
    -------
    decisions : Decisions
        The same, bit by bit, as `SmoothedClassifier.decide(x, radii, index=positions)`, however
        often the run was interrupted; also in the folder, as decisions.jsonl.

    Guarantee
        As `Decisions`. Many examples share each batch: those that are still undecided.
    """
    folder = Path(out)
    check_progress(progress)
    shard_draws = checked_count("shard_draws", shard_draws, 1)
    earlier = existing_run(folder, resume)
    examples = choose(data, labels, indices)
    smoothed = classifier_for(model, examples, earlier)
    first = examples.block((0, 1))[0].to(smoothed.device)
    terms, asked = smoothed.decision_terms(first, radii, norm=norm, n0=n0, n_max=n_max, alpha=alpha)
    plan = ShardPlan.of(len(examples), terms, shard_draws, smoothed.looks(terms))
    found = surveyed(examples, plan, smoothed)
    source = source_of(examples, found)
    manifest = manifest_of(terms, plan, examples.positions, source, found.labels_fingerprint, asked)
    with locked(folder):
        run = begin(folder, manifest, resume)
        run.check_shards()
        with reporting(progress, f"decide {examples.name}") as report:
            work = Rounds(run, smoothed, examples, found, report)
            parts = [
                _decided(run, asked, block, work.block(number, _rule_of(run, asked)))
                for number, block in enumerate(plan.blocks())
            ]
        decisions = concatenate(parts)
        if found.labels is not None:
            decisions = decisions.with_labels(found.labels)
        path, text = run.path(DECISIONS), jsonl(decisions).encode()
        with writing(path):
            if not (path.is_file() and path.read_bytes() == text):
                write_whole(path, text)
        return decisions


def open_decisions(folder: str | os.PathLike[str]) -> Decisions:
    """The decisions of a complete run, checked against every shard of its folder.

    Raises
    ------
    RunFolderError
        When the folder holds no complete run of decisions, or a shard is missing or damaged.
    RecordError
        When the stored decisions are not what the shards give.
    """
    run = open_run(folder)
    path = run.path(DECISIONS)
    if run.terms.stop != "decided" or not path.is_file():
        raise RunFolderError(
            f"{folder} holds no complete run of decisions; resume it with decide_dataset and the "
            "same arguments."
        )
    stored, radii = read_jsonl(path), as_radii(run.manifest["radii"])
    parts = [
        _decided(run, radii, block, rounds(run, block, _rule_of(run, radii)))
        for block in run.plan.blocks()
    ]
    given = concatenate(parts)
    same = labels_fingerprint(stored.labels) == run.manifest["labels"] and len(stored) == len(given)
    if same and stored.labels is not None:
        given = given.with_labels(stored.labels)
    if not same or jsonl(given) != jsonl(stored):
        raise RecordError(f"{path} is not what the shards of {folder} give; delete it and resume.")
    return stored


def _rule_of(run: Run, radii: FloatArray) -> RuleOf:
    return lambda selection: decision_rule(run.terms, selection, radii, run.plan.looks)


def _decided(
    run: Run, radii: FloatArray, block: tuple[int, int], drawn: tuple[Tally, Tally, AbstractRule]
) -> Decisions:
    selection, estimation, rule = drawn
    assert isinstance(rule, DecisionRule)
    at = rule.lower_at, rule.upper_at
    return Decisions.judged(run.terms, radii, run.index[slice(*block)], selection, estimation, *at)
