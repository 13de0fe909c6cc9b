"""Deciding radii of a data set: killed, resumed, damaged, and always the same bytes."""

import numpy as np
import pytest
import torch
from torch import nn

from pixeldp_fast import Gaussian, SmoothedClassifier, certify_dataset
from pixeldp_fast.errors import InvalidArgument, RecordError, RunFolderError
from pixeldp_fast.jobs import shards
from pixeldp_fast.jobs.decide import decide_dataset, open_decisions
from pixeldp_fast.jobs.store import open_run
from pixeldp_fast.smooth.decision_records import jsonl
from pixeldp_fast.smooth.decisions import Decisions
from pixeldp_fast.smooth.records import jsonl as certificates_jsonl
from tests.system.test_certify_dataset import Stop, dataset, result, smoothed, stop_after

RADII = [0.02, 0.1]
SETTINGS = {"n0": 20, "n_max": 800, "alpha": 0.01}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(shards, "BLOCK_EXAMPLES", 3)


def run(out, **changes):
    asked = {"model": smoothed(tile=16), "data": dataset(), "radii": RADII, "shard_draws": 100}
    return decide_dataset(out=out, **(asked | SETTINGS | changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "BLOCK_EXAMPLES", 3)
        run(folder)
    return folder


@pytest.mark.parametrize("shard_draws", [7, 10**6])
def test_a_run_gives_what_decide_gives(tmp_path, shard_draws):
    positions = np.arange(1, 7, 2)
    found = run(tmp_path / "run", shard_draws=shard_draws, indices=positions)
    data = dataset()
    direct = smoothed(tile=16).decide(data.images(positions), RADII, index=positions, **SETTINGS)
    assert jsonl(found) == jsonl(direct.with_labels(data.labels(positions)))
    assert jsonl(Decisions.from_jsonl(tmp_path / "run" / "decisions.jsonl")) == jsonl(found)
    assert jsonl(open_decisions(tmp_path / "run")) == jsonl(found)
    assert len(set(found.draws.tolist())) > 1


def test_a_run_stopped_anywhere_resumes_to_the_same_bytes(tmp_path, whole):
    reports = 0

    def counting(done, total, info):
        nonlocal reports
        reports += 1

    run(tmp_path / "count", progress=counting)
    assert reports > 20
    for reached in range(0, reports, 5):
        folder = tmp_path / str(reached)
        with pytest.raises(Stop):
            run(folder, progress=stop_after(reached))
        with pytest.raises(RunFolderError, match="no complete run"):
            open_decisions(folder)
        run(folder)
        assert result(folder) == result(whole)


def test_progress_rises_to_all_of_the_draws(tmp_path):
    told = []
    run(tmp_path / "run", progress=lambda done, total, info: told.append((done, total, info)))
    done = [d for d, _, _ in told]
    assert done == sorted(done)
    assert done[-1] == told[-1][1] == 7 * 820
    complete = [i["certified"] for _, _, i in told]
    assert complete == sorted(complete)
    info = told[-1][2]
    assert info["certified"] == 7
    assert info["draws"] == open_decisions(tmp_path / "run").draws.sum() + 7 * 20


def shard_files(folder):
    return sorted((folder / "shards").glob("estimation-*"))


def test_a_shard_of_other_examples_is_refused(tmp_path):
    """Its rows are not those that go on there, though its checksum is right."""
    folder = tmp_path / "run"
    run(folder)
    opened = open_run(folder)
    path = next(
        p for p in shard_files(folder) if (opened.tally(opened.plan.find(p.name)).draws == 0).any()
    )
    shard = opened.plan.find(path.name)
    tally = opened.tally(shard)
    counts = tally.counts.copy()
    counts[tally.draws == 0, 0] = shard.draws[1] - shard.draws[0]
    path.write_bytes(shards.encode(shard, opened.digest, type(tally)(counts)))
    for use in (lambda: run(folder), lambda: open_decisions(folder)):
        with pytest.raises(RunFolderError, match="other examples"):
            use()


def test_a_missing_or_edited_shard_is_noticed(tmp_path):
    folder = tmp_path / "run"
    before = jsonl(run(folder))
    path = shard_files(folder)[1]
    path.write_bytes(path.read_bytes().replace(b'"counts":[[', b'"counts":[[1'))
    with pytest.raises(RunFolderError, match="edited"):
        open_decisions(folder)
    path.unlink()
    with pytest.raises(RunFolderError, match="cannot be read"):
        open_decisions(folder)
    assert jsonl(run(folder)) == before


def test_edited_decisions_are_noticed(tmp_path):
    folder = tmp_path / "run"
    run(folder)
    path = folder / "decisions.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(RecordError, match="not what the shards"):
        open_decisions(folder)


def test_other_radii_are_another_run(tmp_path, whole):
    with pytest.raises(RunFolderError, match="radii"):
        run(whole, radii=[0.02])
    with pytest.raises(RunFolderError, match="decisions about radii"):
        open_run(whole).certificates()
    with pytest.raises(InvalidArgument, match="can prove a radius of 3"):
        run(tmp_path / "far", radii=[3.0])
    assert not (tmp_path / "far").exists()


@pytest.mark.parametrize("shard_draws", [100, 10**6])
def test_certificates_that_stop_early_are_made_in_runs_too(tmp_path, shard_draws):
    settings = {"n0": 20, "n": 800, "alpha": 0.01, "stop": "loss", "loss": 0.2}
    folder = tmp_path / "run"

    def go(**more):
        return certify_dataset(
            smoothed(), dataset(), out=folder, shard_draws=shard_draws, **settings, **more
        )

    with pytest.raises(Stop):
        go(progress=stop_after(5))
    found = go()
    data = dataset()
    direct = smoothed().certify(data.images(), index=np.arange(7), **settings)
    assert certificates_jsonl(found) == certificates_jsonl(direct.with_labels(data.labels()))
    assert certificates_jsonl(open_run(folder).certificates()) == certificates_jsonl(found)
    assert found.draws.min() < 800
    gone = shard_files(folder)[0]
    (folder / "certificates.jsonl").unlink()
    gone.unlink()
    assert certificates_jsonl(go()) == certificates_jsonl(found)


def test_draws_behind_a_missing_shard_do_not_count(tmp_path):
    """Without three of its ten shards an example has as many draws as it may stop at: 560."""
    folder = tmp_path / "run"
    settings = {"n0": 20, "n": 800, "alpha": 0.01, "stop": "loss", "loss": 0.05}
    found = certify_dataset(smoothed(), dataset(), out=folder, shard_draws=100, **settings)
    assert found.draws.max() == 800
    for path in shard_files(folder):
        if path.name.endswith(
            ("0100-0000000200.json", "0400-0000000500.json", "0560-0000000600.json")
        ):
            path.unlink()
    with pytest.raises(RecordError, match="ends at 100 draws"):
        open_run(folder).judged(None)


def test_draws_of_an_edited_model_are_not_kept(tmp_path):
    from pixeldp_fast.errors import UnsupportedModel

    model = smoothed(tile=16)
    linear = next(m for m in model.model.modules() if isinstance(m, nn.Linear))
    seen = 0

    def meddle(done, total, info):
        nonlocal seen
        seen += 1
        if seen == 4:
            with torch.no_grad():
                linear.bias.add_(0.01)

    with pytest.raises(UnsupportedModel, match="model_fingerprint"):
        run(tmp_path / "run", model=model, progress=meddle)
    assert len(list((tmp_path / "run" / "shards").iterdir())) < 4


def test_a_model_needs_no_labels(tmp_path):
    x = dataset().images()
    model = SmoothedClassifier(smoothed().model.suffix, Gaussian(0.1), num_classes=3, seed=11)
    found = decide_dataset(model, x, 0.05, out=tmp_path / "run", **SETTINGS)
    assert found.labels is None
    assert jsonl(open_decisions(tmp_path / "run")) == jsonl(found)
