"""Verification of whole runs: the folder's every file, the data, the model, the draws again."""

import hashlib
import json
import re
import sys

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from pixeldp_fast import Gaussian, PixelDP, SmoothedClassifier, certify_dataset
from pixeldp_fast.cli.app import app
from pixeldp_fast.cli.verify import DISAGREES
from pixeldp_fast.data import load
from pixeldp_fast.errors import RecordError
from pixeldp_fast.smooth import soundness
from pixeldp_fast.verify.arithmetic import mp
from pixeldp_fast.verify.close import MARGINS, CloseCalls
from pixeldp_fast.verify.folder import Manifest, check_folder
from pixeldp_fast.verify.model import check_data, check_model
from pixeldp_fast.verify.redraw import check_draws, repeater, sample
from pixeldp_fast.verify.whole import read, verify

INDICES = np.arange(0, 120, 20)
SHARDS = 150  # draws: two estimation shards per example


def network(num_classes, seed=0):
    """A linear network on digits with some classes undecided."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
    weight = torch.randn((num_classes, 64), generator=torch.Generator().manual_seed(seed))
    net.load_state_dict({"1.weight": weight, "1.bias": torch.zeros(num_classes)})
    return net.eval()


def smoothed(**options):
    options = {"backend": "torch", "seed": 7, **options}
    return SmoothedClassifier(network(10), Gaussian(0.2), num_classes=10, **options)


def run(folder, model=None, **changes):
    asked = {"n0": 20, "n": 300, "indices": INDICES, "shard_draws": SHARDS, **changes}
    certify_dataset(model or smoothed(), load("digits", "test"), out=folder, **asked)
    return folder


@pytest.fixture
def folder(tmp_path):
    return run(tmp_path / "run")


def fields(path):
    """The fields that verification names in a run's folder."""
    return {one.field for one in verify(path, *read(path)).disagreements}


@pytest.mark.parametrize("scores", ["argmax", "softmax"])
def test_a_run_agrees(tmp_path, scores):
    found = verify(*_of(run(tmp_path / "run", scores=scores)))
    assert found.passed, found.disagreements
    by_name = {check.name: check for check in found.checks}
    assert by_name["shards"].examined == 18
    assert not by_name["manifest"].skipped
    alone = tmp_path / "run" / "certificates.jsonl"
    skipped = [check.name for check in verify(alone, *read(alone)).checks if check.skipped]
    assert skipped == ["program", "shards"]


def _of(folder):
    return folder, *read(folder)


def rewrite(path, change):
    """Change the JSON values of a file, one per line."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        change(line)
    text = "\n".join(json.dumps(line, separators=(",", ":")) for line in lines) + "\n"
    path.write_text(text)


def sealed(content):
    """A shard with the checksum of its content."""
    content.pop("checksum")
    body = json.dumps(content, separators=(",", ":"))
    content["checksum"] = hashlib.sha256(body.encode()).hexdigest()


def first_shard(folder, purpose="estimation"):
    return min((folder / "shards").glob(f"{purpose}*"))


def moved(content):
    row = content["counts"][0]
    best = row.index(max(row))
    row[best] -= 1
    row[best - 1] += 1


def test_a_fingerprint_edited_everywhere_is_not_the_manifests(folder):
    def edit(line):
        line["terms"]["model_fingerprint"] = "e" * 64

    rewrite(folder / "certificates.jsonl", edit)
    assert fields(folder) == {"terms.model_fingerprint"}


def test_a_fingerprint_edited_in_the_manifest_too_is_not_the_shards(folder):
    for name in ("certificates.jsonl", "manifest.json"):
        path = folder / name
        text = path.read_text()
        found = re.search(r'"model_fingerprint": ?"(\w+)"', text)
        path.write_text(text.replace(found[1], "e" * 64))
    assert "shard" in fields(folder)


# What is changed in a shard, and the field that is to be named.
EDITS = {
    "counts": ("shard", moved),
    "counts, sealed": ("estimation.counts", lambda c: (moved(c), sealed(c))),
    "a draw more, sealed": ("shard", lambda c: (c["counts"].append([1] * 11), sealed(c))),
    "place, sealed": ("shard", lambda c: (c.update(draws=[0, 149]), sealed(c))),
    "unknown, sealed": ("shard", lambda c: (c.update(more=1), sealed(c))),
    "manifest, sealed": ("shard", lambda c: (c.update(manifest="0" * 64), sealed(c))),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_shard_is_named(folder, edit):
    field, change = EDITS[edit]
    rewrite(first_shard(folder), change)
    found = verify(*_of(folder)).disagreements
    assert field in {one.field for one in found}
    name = first_shard(folder).name if field == "shard" else "example 0"
    assert any(name in one.where for one in found)


def test_missing_truncated_and_foreign_shards_are_named(folder):
    path = first_shard(folder)
    whole = path.read_bytes()
    path.unlink()
    assert "estimation.draws" in fields(folder)
    path.write_bytes(whole[:-20])
    assert "shard" in fields(folder)
    path.write_bytes(whole)
    assert fields(folder) == set()
    (folder / "shards" / "notes.txt").write_text("mine")
    assert fields(folder) == {"shard"}


def test_labels_and_examples_are_the_manifests(folder):
    path = folder / "certificates.jsonl"
    before = path.read_text()
    rewrite(path, lambda line: line.update(label=(line["label"] + 1) % 10))
    assert fields(folder) == {"label"}
    path.write_text(before)
    rewrite(path, lambda line: line.update(index=line["index"] + 1))
    assert fields(folder) == {"index"}
    path.write_text("".join(before.splitlines(keepends=True)[:-1]))
    assert {"index", "label"} <= fields(folder)


def test_a_run_that_cannot_be_read_is_refused(folder):
    manifest = folder / "manifest.json"
    before = manifest.read_text()
    for text, message in (
        (before[:-50], "not JSON"),
        (before.replace('"format": 1', '"format": 3'), "`format` is not 1"),
        (before.replace('"labels"', '"names"'), "'labels', 'names'"),
        (before.replace('"indices": "', '"indices": "x'), "`indices` cannot be read"),
        (re.sub(r'"version": "[^"]*"', '"version": "0.0.1"', before), "by pixeldp_fast 0.0.1"),
    ):
        manifest.write_text(text)
        with pytest.raises(RecordError, match=message):
            read(folder)
    manifest.write_text(before)
    (folder / "certificates.jsonl").unlink()
    with pytest.raises(RecordError, match="not complete"):
        read(folder)


def checked_again(folder, model=None, rows=None):
    """The check of the draws, with a model that may be another one."""
    records, _ = read(folder)
    again = repeater(records.claim, model or smoothed().model)
    chosen = rows or records.rows
    data = load("digits", "test")
    return again, check_draws(
        records.claim, chosen, len(records.rows), again, data, lambda done, total: None
    )


@pytest.mark.parametrize("backend", ["torch", "native", "reference"])
@pytest.mark.parametrize("scores", ["argmax", "softmax"])
def test_the_same_arithmetic_gives_the_same_counts(tmp_path, backend, scores):
    if backend == "native":
        pytest.importorskip("pixeldp_fast._native")
    run(tmp_path / "run", smoothed(backend=backend), scores=scores)
    again, check = checked_again(tmp_path / "run")
    assert again.close is None
    assert check.disagreements == []
    assert check.examined == len(INDICES)
    assert "same arithmetic" in check.against


def test_a_tile_and_a_type_of_the_record_are_used_again(tmp_path):
    run(tmp_path / "run", smoothed(tile=32, dtype=torch.float64))
    again, check = checked_again(tmp_path / "run")
    assert (again.close, check.disagreements) == (None, [])


@pytest.mark.parametrize("scores", ["argmax", "softmax"])
def test_another_arithmetic_is_said_and_its_close_calls_are_counted(tmp_path, scores):
    run(tmp_path / "run", smoothed(dtype=torch.bfloat16), scores=scores)
    for name in ("manifest.json", "certificates.jsonl"):
        path = tmp_path / "run" / name
        path.write_text(path.read_text().replace("threads ", "threads 9"))
    again, check = checked_again(tmp_path / "run")
    assert again.close is not None
    assert "another arithmetic ('threads 9" in check.against
    assert again.close.margin == MARGINS["bfloat16"]
    assert check.disagreements == []


def test_draws_of_another_seed_disagree(folder):
    for name in ("manifest.json", "certificates.jsonl"):
        path = folder / name
        path.write_text(re.sub(r'"seed": ?7', '"seed": 8', path.read_text()))
    _, check = checked_again(folder)
    assert {one.field for one in check.disagreements} == {"selection.counts", "estimation.counts"}


def test_counts_that_another_arithmetic_does_not_explain_disagree(folder):
    def edit(line):
        line["terms"]["arithmetic"] = "by hand"
        for _ in range(30):
            moved({"counts": [line["estimation"]["counts"]]})

    rewrite(folder / "certificates.jsonl", edit)
    again, check = checked_again(folder / "certificates.jsonl")
    assert again.close is not None
    assert {one.field for one in check.disagreements} == {"estimation.counts"}
    assert "may differ" in str(check.disagreements[0])


def test_another_model_or_noise_or_prefix_is_named(folder):
    records, _ = read(folder)
    right = PixelDP(None, Gaussian(0.2), network(10)).eval()
    assert check_model(records.claim, right).disagreements == []
    names = {
        "terms.model_fingerprint": PixelDP(None, Gaussian(0.2), network(10, seed=1)),
        "terms.mechanism": PixelDP(None, Gaussian(0.3), network(10)),
        "terms.sensitivities": PixelDP(
            nn.Sequential(nn.Flatten(), nn.Linear(64, 64, bias=False)), Gaussian(0.2), network(10)
        ),
    }
    with torch.no_grad():
        names["terms.sensitivities"].prefix[1].weight.copy_(1.01 * torch.eye(64))
    for field, model in names.items():
        assert field in {
            one.field for one in check_model(records.claim, model.eval()).disagreements
        }


def behind_a_prefix():
    layer = nn.Linear(64, 64, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(64))
    noise = Gaussian(0.2, lattice=4096)
    return PixelDP(nn.Sequential(nn.Flatten(), layer), noise, network(10)).eval()


@pytest.fixture
def prefixed(tmp_path):
    options = {"num_classes": 10, "backend": "torch", "seed": 7}
    return run(tmp_path / "prefixed", SmoothedClassifier(behind_a_prefix(), **options))


def test_the_rounding_of_a_prefix_is_checked_with_the_model(prefixed):
    found = verify(*_of(prefixed))
    assert found.passed, found.disagreements
    against = {check.name: check.against for check in found.checks}
    assert "the prefix adds to it is not checked without the model" in against["program"]
    records, manifest = read(prefixed)
    assert records.claim["input_range"] == [0.0, 1.0]
    check = check_model(records.claim, behind_a_prefix())
    assert (check.disagreements, check.examined) == ([], 4)
    assert "its slack computed anew" in check.against
    assert check_data(records, manifest, load("digits", "test")).disagreements == []


# What is changed in the terms of a record behind a prefix, and the field named with the model.
OF_A_PREFIX = {
    "wider": ("terms.slack", lambda t: t.update(input_range=[0.0, 1.5])),
    "lower": ("terms.slack", lambda t: t.update(input_range=[-1.1, 1.0])),
    "narrower": ("terms.slack", lambda t: t.update(input_range=[0.0, 0.5])),
    "less slack": ("terms.slack", lambda t: t.update(slack=t["slack"] * (1 - 1e-10))),
    "only rounding": ("terms.slack", lambda t: t.update(slack=8 / 4096)),
    "more slack": ("terms.slack", lambda t: t.update(slack=t["slack"] * 1.01)),
    "no range": ("terms.input_range", lambda t: t.pop("input_range")),
    "fewer": ("terms.coordinates", lambda t: t.update(coordinates=63)),
}


@pytest.mark.parametrize("edit", OF_A_PREFIX)
def test_an_edit_of_what_a_prefix_costs_is_named_with_the_model(prefixed, edit):
    field, change = OF_A_PREFIX[edit]
    path = prefixed / "certificates.jsonl"
    rewrite(path, lambda row: change(row["terms"]))
    claim = read(path)[0].claim
    assert {one.field for one in check_model(claim, behind_a_prefix()).disagreements} == {field}
    assert field != "terms.input_range" or "terms.slack" in fields(path)


def test_a_planted_budget_of_nothing_is_caught_with_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr(soundness, "rounding_budget", lambda *asked: np.zeros(64))
    options = {"num_classes": 10, "backend": "torch", "seed": 7}
    folder = run(tmp_path / "run", SmoothedClassifier(behind_a_prefix(), **options))
    assert fields(folder) == set()  # nothing but the model can tell
    found = check_model(read(folder)[0].claim, behind_a_prefix()).disagreements
    assert {one.field for one in found} == {"terms.slack"}


def test_a_range_is_of_a_prefix_and_its_examples_are_within_it(prefixed, tmp_path):
    path = prefixed / "certificates.jsonl"
    rewrite(path, lambda row: row["terms"].update(input_range=[0.0, 0.5]))
    found = check_data(read(path)[0], None, load("digits", "test")).disagreements
    assert {one.field for one in found} == {"terms.input_range"}
    assert len(found) == len(INDICES)
    bare = PixelDP(None, Gaussian(0.2, lattice=4096), network(10)).eval()
    named = {one.field for one in check_model(read(path)[0].claim, bare).disagreements}
    assert named == {"terms.model_fingerprint", "terms.input_range"}
    unbounded = PixelDP(nn.AvgPool2d(1), Gaussian(0.2, lattice=4096), network(10)).eval()
    words = [str(one) for one in check_model(read(path)[0].claim, unbounded).disagreements]
    assert any("nothing bounds this model's rounding" in one for one in words)


@pytest.mark.parametrize(
    "change",
    [
        {"input_range": [1.0, 0.0]},
        {"input_range": [0, 1]},
        {"input_range": 1.0},
        {"inputs": "lattice"},
        {"mechanism": {"law": "Gaussian", "sigma": 0.2, "lattice": 255}},
    ],
)
def test_a_range_that_no_prefix_has_is_refused(prefixed, change):
    path = prefixed / "certificates.jsonl"
    rewrite(path, lambda row: row["terms"].update(change))
    with pytest.raises(RecordError, match=r"`terms\.input_range`"):
        read(path)


def test_other_data_are_named(folder):
    records, manifest = read(folder)
    data = load("digits", "test")
    assert check_data(records, manifest, data).disagreements == []
    other = load("digits", "train")
    found = {one.field for one in check_data(records, manifest, other).disagreements}
    assert found == {"data.fingerprint", "label"}
    few = {one.field for one in check_data(records, None, data.subset(np.arange(50))).disagreements}
    assert few == {"index"}


def test_a_sample_is_about_as_large_as_asked(folder):
    records, _ = read(folder)
    assert len(sample(records, 1)) == 1
    assert len(sample(records, 2 * 320)) == 2
    assert len(sample(records, 10**9)) == len(INDICES)


def test_close_calls_are_counted():
    from pixeldp_fast.backends.reduction import SoftmaxSums, Votes

    outputs = torch.tensor([[1.0, 1.0001], [1.0, 2.0], [0.0, 0.0], [float("nan"), 1.0]])
    for reduction in (Votes(2), SoftmaxSums(2)):
        close = CloseCalls(reduction, "float32")
        tally = close.tally(close.reduce(outputs)[None].numpy())
        assert tally == reduction.tally(reduction.reduce(outputs)[None].numpy())
        assert close.votes == 3
        assert 2**20 + 3 < close.steps < 2**20 + 300


def test_the_manifest_is_compared_as_stored(folder):
    records, manifest = read(folder)
    other = Manifest({**manifest.content, "terms": None}, manifest.digest, manifest.index)
    check = check_folder(folder, other, records)[0]
    assert len(check.disagreements) == len(records.claim.terms)


runner = CliRunner()
MODEL = "tests.system.test_verify_runs:network"


def command(*words, code=0):
    done = runner.invoke(app, ["verify", *map(str, words)])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return " ".join(done.output.split())


def test_the_command_says_what_agrees(folder):
    output = command(folder)
    assert "Nothing that was checked disagrees." in output
    for line in ("p_lower agrees 6", "radius agrees 6", "shards agrees 18", "draws not checked"):
        assert line in output
    assert "recertify allowed another alpha, another bound" in output


def test_the_command_draws_again(folder):
    output = command(
        folder, "--model", MODEL, "--data", "digits", "--device", "cpu", "--draws", 700
    )
    assert "draws agrees 2 equal counts in the same arithmetic, 2 of 6 examples" in output
    assert "model agrees" in output
    assert "drawing again: examples" in output


def test_the_command_names_what_disagrees(folder):
    rewrite(folder / "certificates.jsonl", lambda line: line.update(radius=line["radius"] + 0.5))
    output = command(folder, code=DISAGREES)
    assert "6 DISAGREE" in output
    assert "example 0 (line 1): `radius` is" in output
    assert "6 disagreements" in output


def test_the_command_names_the_extra_that_it_needs(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "mpmath", None)
    mp.cache_clear()
    try:
        assert "pip install 'pixeldp_fast[verify]'" in command(folder, code=1)
    finally:
        monkeypatch.undo()
        mp.cache_clear()


def test_the_command_refuses_bad_input(folder, tmp_path):
    assert "needs --data" in command(folder, "--model", MODEL, code=1)
    assert "at least 1" in command(folder, "--draws", 0, code=1)
    assert "no file of certificates" in command(tmp_path / "none", code=1)


def test_the_command_draws_nothing_with_another_model(folder, tmp_path):
    rewrite(
        folder / "certificates.jsonl",
        lambda line: line["terms"].update(model_fingerprint="e" * 64),
    )
    path = folder / "certificates.jsonl"
    output = command(path, "--model", MODEL, "--data", "digits", "--device", "cpu", code=DISAGREES)
    assert "`terms.model_fingerprint`" in output
    assert "draws not checked" in output
