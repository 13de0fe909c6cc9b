"""A certification run on this machine: a whole data set into a folder; kill it, resume it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.jobs.examples import Examples, Survey, choose, read_again, survey
from pixeldp_fast.jobs.folder import locked
from pixeldp_fast.jobs.progress import Progress, check_progress, reporting
from pixeldp_fast.jobs.rounds import Rounds
from pixeldp_fast.jobs.shards import ShardPlan
from pixeldp_fast.jobs.store import Run, begin, existing_run, manifest_of
from pixeldp_fast.smooth.certificate import Certificates, check_labels
from pixeldp_fast.smooth.classifier import SmoothedClassifier
from pixeldp_fast.smooth.inputs import checked_count
from pixeldp_fast.smooth.model import PixelDP
from pixeldp_fast.smooth.stopping import LossRule


def certify_dataset(
    model: nn.Module | SmoothedClassifier,
    data: Any,
    *,
    out: str | os.PathLike[str],
    resume: bool = True,
    labels: Any = None,
    indices: Any = None,
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
    shard_draws: int = 200_000,
    progress: Progress | bool | None = None,
) -> Certificates:
    """Certify a data set into a folder, from which a killed run resumes.

    Parameters
    ----------
    model : SmoothedClassifier or PixelDP
        A PixelDP needs a `Dataset`, which states the number of classes.
    data : Dataset, float32 tensor [N, ...], pair (x, y), or torch Dataset of pairs (x, y)
        Read in blocks, which are moved to the model's device.
    out : path
        The run's folder: new, empty, or of a run with the same settings.
    resume : bool
        Whether to go on with a run that is there; False: refuse it.
    labels : int [N], optional
        True classes of the whole data set; default: the data set's own.
    indices : slice, integers or booleans, optional
        Which examples, without repetition; default: all.
    norm, n0, n, alpha, scores, bound, competitor, stop, loss, mean_bound
        As for `SmoothedClassifier.certify`.
    shard_draws : int
        About how many draws a kill can lose: what is stored at a time.
    progress : None, True or callable
        True: a bar, on a terminal. A callable gets (done, total, info) at the start and after every
        shard: draws done and in all, and a dict with `examples`, `certified` (examples whose draws
        are complete) and `draws_per_second`. With stop="loss" it is that of `decide_dataset`.

    Returns
    -------
    certificates : Certificates
        `index` holds positions in the data set. The same, bit by bit, as
        `SmoothedClassifier.certify(x, index=positions)`, however often the run was interrupted.

    Guarantee
        As `SmoothedClassifier.certify`. Nothing is certified before every draw of every example is
        stored. A seed that the system drew is taken from the run that is resumed.
    Cost
        Memory for the certificates and one block of examples, whatever n is.

    Raises
    ------
    RunFolderError
        When the folder is foreign, in use, not writable, full, or of a run with other settings, or
        when a stored shard is damaged; each says what to do.
    InvalidArgument
        When an argument, a label or any example cannot be certified; before any work.
    """
    folder = Path(out)
    check_progress(progress)
    shard_draws = checked_count("shard_draws", shard_draws, 1)
    earlier = existing_run(folder, resume)
    examples = choose(data, labels, indices)
    smoothed = classifier_for(model, examples, earlier)
    first = examples.block((0, 1))[0].to(smoothed.device)
    rules = {"competitor": competitor, "stop": stop, "loss": loss, "mean_bound": mean_bound}
    terms = smoothed.terms(
        first, norm=norm, n0=n0, n=n, alpha=alpha, scores=scores, bound=bound, **rules
    )
    looks = () if stop == "fixed" else tuple(draws for draws, _ in terms.looks)
    plan = ShardPlan.of(len(examples), terms, shard_draws, looks)
    found = surveyed(examples, plan, smoothed)
    source = source_of(examples, found)
    manifest = manifest_of(terms, plan, examples.positions, source, found.labels_fingerprint)
    with locked(folder):
        run = begin(folder, manifest, resume)
        with reporting(progress, f"certify {examples.name}") as report:
            if stop == "fixed":
                _work(run, smoothed, examples, found, report)
            else:
                run.check_shards()
                work = Rounds(run, smoothed, examples, found, report)
                work.all(lambda selection: LossRule(terms, selection))
        return run.finish(found.labels)


def source_of(examples: Examples, found: Survey) -> dict[str, Any]:
    """What a manifest says of the data set."""
    return {
        "name": examples.name,
        "examples": examples.number,
        "fingerprint": found.fingerprint,
    }


def classifier_for(
    model: nn.Module | SmoothedClassifier, examples: Examples, earlier: Run | None
) -> SmoothedClassifier:
    """The smoothed classifier to draw from, with the seed of the run that is resumed."""
    if isinstance(model, PixelDP):
        if examples.num_classes is None:
            raise InvalidArgument(
                "`data` does not state the number of classes; pass a pixeldp_fast.data Dataset, or "
                "SmoothedClassifier(model, num_classes=...) as `model`."
            )
        model = SmoothedClassifier(model, num_classes=examples.num_classes)
    if not isinstance(model, SmoothedClassifier):
        raise InvalidArgument(
            f"`model` must be a SmoothedClassifier or a PixelDP, got {type(model).__name__}; a "
            "plain network needs a mechanism: SmoothedClassifier(model, Gaussian(0.25), "
            "num_classes=10)."
        )
    if earlier is not None and not model.seed_given:
        return model.with_seed(earlier.terms.seed)
    return model


def surveyed(examples: Examples, plan: ShardPlan, smoothed: SmoothedClassifier) -> Survey:
    """Every example and label checked, before any work."""

    def check(x: Tensor) -> None:
        smoothed.check_examples(x.to(smoothed.device))

    found = survey(examples, plan.blocks(), check)
    if found.labels is not None:
        check_labels(found.labels, smoothed.num_classes)
    return found


def _work(
    run: Run, smoothed: SmoothedClassifier, examples: Examples, found: Survey, report: Progress
) -> None:
    """Make the shards that are missing, in the plan's order."""
    before = done = run.check_shards()
    certified = run.examples_done()
    started = time.perf_counter()

    def tell() -> None:
        rate = (done - before) / max(time.perf_counter() - started, 1e-9)
        info = {"examples": len(examples), "certified": certified, "draws_per_second": rate}
        report(done, run.total, info)

    tell()
    for number, block in enumerate(run.plan.blocks()):
        missing = [shard for shard in run.plan.shards_of(block) if not run.has(shard)]
        if not missing:
            continue
        x = read_again(examples, block, found.digests[number]).to(smoothed.device)
        for shard in missing:
            begun = time.perf_counter()
            tally = smoothed.count(
                x,
                shard.draws[1] - shard.draws[0],
                first_draw=shard.draws[0],
                index=examples.positions[shard.rows],
                purpose=shard.purpose,
                scores=run.terms.scores,
            )
            smoothed.check_unchanged(run.terms)
            run.add(shard, tally, time.perf_counter() - begun)
            done += shard.work
            certified += block[1] - block[0] if shard is missing[-1] else 0
            tell()
