"""Certifying a data set: killed, resumed, damaged, crowded out, and always the same bytes."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pixeldp_fast import Gaussian, PixelDP, SmoothedClassifier, Uniform, certify_dataset
from pixeldp_fast.data.dataset import Dataset
from pixeldp_fast.errors import InvalidArgument, RunFolderError
from pixeldp_fast.jobs.store import open_run
from pixeldp_fast.smooth.certificate import Certificates
from pixeldp_fast.smooth.records import jsonl

ROOT = Path(__file__).parents[2]
K = 3
SHAPE = (1, 3, 3)
EXAMPLES = 7
SETTINGS = {"n0": 20, "n": 250, "alpha": 0.01}
SHARDS = 100  # draws: three estimation shards per example


def network():
    """A linear network that is undecided at mid-grey, so that examples differ in class."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, K))
    weight = torch.randn((K, 9), generator=torch.Generator().manual_seed(0))
    net.load_state_dict({"1.weight": weight, "1.bias": -0.5 * weight.sum(dim=1)})
    return net.eval()


def smoothed(seed=11, **options):
    return SmoothedClassifier(network(), Gaussian(0.1), num_classes=K, seed=seed, **options)


def dataset(examples=EXAMPLES, classes=K):
    generator = np.random.default_rng(4)
    pixels = generator.integers(0, 256, (examples, *SHAPE), dtype=np.uint8)
    names = tuple(map(str, range(classes)))
    return Dataset("tiny", pixels, np.arange(examples) % K, names)


def run(out, **changes):
    asked = {"model": smoothed(), "data": dataset(), "shard_draws": SHARDS, **SETTINGS, **changes}
    return certify_dataset(**asked, out=out)


def result(folder):
    """Every byte that belongs to the result."""
    apart = {"timings.jsonl", "lock"}
    files = sorted(p for p in Path(folder).rglob("*") if p.is_file() and p.name not in apart)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(folder)
    return folder


def same(a, b):
    return jsonl(a) == jsonl(b)


class Stop(BaseException):
    """What a progress callback raises to end a run."""


def stop_after(reports):
    """A callback that ends the run at the given report; the first comes before any work."""
    seen = iter(range(reports))

    def progress(done, total, info):
        if next(seen, None) is None:
            raise Stop

    return progress


@pytest.mark.parametrize("scores", ["argmax", "softmax"])
@pytest.mark.parametrize("shard_draws", [7, 100, 10**6])
def test_a_run_gives_what_certify_gives(tmp_path, scores, shard_draws):
    data = dataset()
    found = run(tmp_path / "run", scores=scores, shard_draws=shard_draws, indices=slice(1, None, 2))
    positions = np.arange(1, EXAMPLES, 2)
    model, x = smoothed(), data.images(positions)
    direct = model.certify(x, scores=scores, index=positions, **SETTINGS)
    assert same(found, direct.with_labels(data.labels(positions)))
    assert found.index.tolist() == positions.tolist()
    assert (found.seconds > 0).all()
    stored = Certificates.from_jsonl(tmp_path / "run" / "certificates.jsonl")
    assert same(stored, found)
    assert same(open_run(tmp_path / "run").certificates(), found)
    assert len(np.unique(found.prediction)) > 1
    assert (found.radius > 0).any()


def test_every_kind_of_data_gives_the_same_certificates(tmp_path, whole):
    data = dataset()
    x, y = data.images(), torch.from_numpy(data.labels())
    expected = open_run(whole)
    kinds = {
        "pair": ((x, y), {}),
        "tensor": (x, {"labels": y}),
        "list": (x, {"labels": y.tolist()}),
        "items": (torch.utils.data.TensorDataset(x, y), {}),
    }
    for name, (kind, options) in kinds.items():
        found = run(tmp_path / name, data=kind, **options)
        assert same(found, expected.certificates())
        manifest = open_run(tmp_path / name).manifest
        assert manifest["data"]["fingerprint"] == data.fingerprint()
        assert manifest["labels"] == expected.manifest["labels"]
    unlabelled = run(tmp_path / "unlabelled", data=x)
    assert unlabelled.labels is None
    assert same(unlabelled.with_labels(data.labels()), expected.certificates())


def test_a_pixeldp_takes_its_classes_from_the_data_set(tmp_path):
    model = PixelDP(None, Gaussian(0.1), network()).eval()
    found = run(tmp_path / "run", model=model)
    seeded = smoothed(seed=found.terms.seed)
    assert same(found, run(tmp_path / "again", model=seeded))
    with pytest.raises(InvalidArgument, match="number of classes"):
        run(tmp_path / "tensor", model=model, data=dataset().images())


def test_stopped_at_every_report_and_resumed_each_time(tmp_path, whole):
    reports = len(list(open_run(whole).plan)) + 1
    assert reports == 7 * 4 + 1
    done = []
    for at in range(reports):
        with pytest.raises(Stop):
            run(tmp_path / "run", progress=stop_after(1 if at else 0))
        done.append(open_run(tmp_path / "run").done)
    assert done == sorted(set(done))  # one shard more every time, none lost
    assert done[0] == 0
    assert done[-1] == 7 * 270
    assert not (tmp_path / "run" / "certificates.jsonl").exists()
    with pytest.raises(RunFolderError, match="not complete: 1890 of 1890"):
        open_run(tmp_path / "run").certificates()
    assert same(run(tmp_path / "run"), open_run(whole).certificates())
    assert result(tmp_path / "run") == result(whole)


CHILD = """
import os, signal, sys, torch
from pixeldp_fast import files
from tests.system.test_certify_dataset import run
torch.set_num_threads(int(sys.argv[2]))
where, left = sys.argv[3], int(sys.argv[4])

def die_after_some(*unused):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

def before_the_name_is_taken(source, target, replace=os.replace):
    die_after_some()
    replace(source, target)

if where == "between":
    run(sys.argv[1], progress=die_after_some)
else:
    files.os.replace = before_the_name_is_taken
    run(sys.argv[1])
"""


def killed(folder, where, left):
    """The files of a run in another process that is killed, as the power would kill it."""
    command = [sys.executable, "-c", CHILD, str(folder), str(torch.get_num_threads()), where, left]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return result(folder)


@pytest.mark.parametrize(
    ("where", "left", "files"),
    [
        ("between", "10", 1 + 10),
        ("writing", "0", 0 + 1),  # the manifest under its temporary name
        ("writing", "6", 1 + 5 + 1),
        ("writing", str(1 + 28), 1 + 28 + 1),  # the certificates under their temporary name
    ],
)
def test_killed_and_resumed_it_gives_the_same_bytes(tmp_path, whole, where, left, files):
    left_behind = killed(tmp_path / "run", where, left)
    assert len(left_behind) == files
    assert "certificates.jsonl" not in left_behind
    for name in left_behind.keys() & result(whole).keys():
        assert left_behind[name] == result(whole)[name]
    run(tmp_path / "run")
    assert result(tmp_path / "run") == result(whole)


def test_a_complete_run_is_read_not_made_again(whole, monkeypatch):
    def count(*unused, **options):
        raise AssertionError("a draw was made")

    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.name != "lock"}
    expected = open_run(whole).certificates()
    monkeypatch.setattr(SmoothedClassifier, "count", count)
    assert same(run(whole), expected)
    assert before == {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.name != "lock"}


def test_a_seed_from_the_system_is_taken_from_the_run(tmp_path, whole):
    with pytest.raises(Stop):
        run(tmp_path / "run", progress=stop_after(9))
    found = run(tmp_path / "run", model=smoothed(seed=None))
    assert found.terms.seed == 11
    assert result(tmp_path / "run") == result(whole)


def test_two_runs_in_one_folder(tmp_path):
    refusals = []

    def intrude(done, total, info):
        with pytest.raises(RunFolderError, match=f"in use: pid {os.getpid()}") as caught:
            run(tmp_path / "run")
        refusals.append(caught)

    run(tmp_path / "run", progress=intrude, indices=[0])
    assert len(refusals) == 5


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"n": 300}, "terms.n: 250 in the folder, 300 asked"),
        ({"n0": 21}, "terms.n0: 20 in the folder, 21 asked"),
        ({"alpha": 0.001}, "terms.alpha: 0.01 in the folder, 0.001 asked"),
        ({"bound": "pixeldp"}, 'terms.bound: "tight" in the folder, "pixeldp" asked'),
        ({"norm": "inf"}, 'terms.norm: "2" in the folder, "inf" asked'),
        ({"scores": "softmax"}, 'terms.scores: "argmax" in the folder, "softmax" asked'),
        ({"shard_draws": 50}, "shards.draws: 100 in the folder, 50 asked"),
        ({"indices": [3, 1]}, 'indices: "0:7:1" in the folder, "3,1" asked'),
        ({"labels": [2] * 7}, "labels: "),
        ({"data": dataset(8)}, "data.examples: 7 in the folder, 8 asked"),
        ({"model": smoothed(seed=12)}, "terms.seed: 11 in the folder, 12 asked"),
        ({"model": smoothed(backend="torch")}, "terms.arithmetic: "),
        ({"model": smoothed(backend="reference")}, 'terms.backend: "native" in the folder'),
        (
            {"model": SmoothedClassifier(network(), Gaussian(0.2), num_classes=K)},
            "terms.mechanism.sigma: 0.1 in the folder, 0.2 asked",
        ),
        (
            {"model": SmoothedClassifier(network(), Uniform(0.2), num_classes=K)},
            'terms.mechanism.law: "Gaussian" in the folder, "Uniform" asked',
        ),
    ],
)
def test_other_settings_are_refused_by_name(whole, changes, line):
    before = result(whole)
    with pytest.raises(RunFolderError, match="other settings") as caught:
        run(whole, **changes)
    assert line in str(caught.value)
    assert result(whole) == before


def test_other_weights_are_refused(whole):
    net = network()
    with torch.no_grad():
        net[1].bias[0] = torch.nextafter(net[1].bias[0], torch.tensor(9.0))
    model = SmoothedClassifier(net, Gaussian(0.1), num_classes=K)
    with pytest.raises(RunFolderError, match=r"terms\.model_fingerprint") as caught:
        run(whole, model=model)
    assert str(caught.value).count(" asked") == 1


def test_an_existing_run_is_refused_without_resume(whole):
    with pytest.raises(RunFolderError, match="`resume` is False"):
        run(whole, resume=False)


def test_resume_false_begins_a_new_run(tmp_path):
    assert len(run(tmp_path / "run", resume=False, indices=[2])) == 1


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(RunFolderError, match=r"thesis\.tex.*Choose a new or empty"):
        run(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("damage", ["truncated", "edited", "foreign", "renamed", "empty"])
def test_a_damaged_shard_is_named_and_replaced_after_deletion(tmp_path, whole, damage):
    folder = tmp_path / "run"
    run(folder)
    shards = sorted((folder / "shards").iterdir())
    victim = shards[5]
    data = victim.read_bytes()
    if damage == "truncated":
        victim.write_bytes(data[: len(data) // 2])
    elif damage == "edited":
        counts = data.index(b'"counts":[[') + len(b'"counts":[[')
        digit = data[counts : counts + 1]
        victim.write_bytes(data[:counts] + (b"2" if digit == b"1" else b"1") + data[counts + 1 :])
    elif damage == "foreign":
        run(tmp_path / "other", model=smoothed(seed=12))
        victim.write_bytes((tmp_path / "other" / "shards" / victim.name).read_bytes())
    elif damage == "renamed":
        victim.write_bytes(shards[6].read_bytes())
    else:
        victim.write_bytes(b"")
    with pytest.raises(RunFolderError, match=f"{victim.name}.*Delete this file and resume"):
        run(folder)
    with pytest.raises(RunFolderError, match=victim.name):
        open_run(folder).certificates()
    victim.unlink()
    (folder / "certificates.jsonl").unlink()
    run(folder)
    assert result(folder) == result(whole)


def test_a_stray_file_among_the_shards_is_named(tmp_path):
    run(tmp_path / "run", indices=[0])
    (tmp_path / "run" / "shards" / "copy.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"copy\.json is no shard of this run"):
        run(tmp_path / "run", indices=[0])


def test_a_run_without_a_shard_is_not_certified_again_from_the_rest(tmp_path, whole):
    folder = tmp_path / "run"
    run(folder)
    sorted((folder / "shards").iterdir())[3].unlink()
    with pytest.raises(RunFolderError, match="nothing is certified from a part"):
        open_run(folder).certificates()
    assert open_run(folder).done < open_run(folder).total
    run(folder)
    assert result(folder) == result(whole)


@pytest.mark.parametrize("fails_at", [1, 2, 3, 15, 30])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, whole, monkeypatch, fails_at):
    calls = iter(range(1, 1000))
    sync = os.fsync

    def full(descriptor):
        if next(calls) == fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RunFolderError, match=r"No space left on device.*then resume"):
            run(tmp_path / "run")
    left = result(tmp_path / "run")
    assert left.items() <= result(whole).items()
    run(tmp_path / "run")
    assert result(tmp_path / "run") == result(whole)


def test_a_folder_that_cannot_be_written_is_refused_before_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(SmoothedClassifier, "count", None)
    with pytest.raises(RunFolderError, match=r"cannot be written|not a folder"):
        run(tmp_path / "file")
    with pytest.raises(RunFolderError, match="cannot be written"):
        run(tmp_path / "file" / "below")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_the_right_to_write_is_refused(tmp_path):
    (tmp_path / "run").mkdir(mode=0o500)
    with pytest.raises(RunFolderError, match="cannot be written: Permission denied"):
        run(tmp_path / "run")


def spoiled(value, at=5):
    x = dataset().images()
    x[at, 0, 1, 1] = value
    return x


class Bare:
    def __init__(self, item):
        self.item = item

    def __len__(self):
        return 3

    def __getitem__(self, position):
        return self.item


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": spoiled(float("nan")), "shard_draws": 10**6}, "examples 0 to 6: .*NaN"),
        ({"data": spoiled(float("nan"))}, "examples 5 to 5: .*NaN"),
        ({"data": spoiled(1.5)}, "examples 5 to 5: .*outside the input range"),
        ({"data": dataset().images().double()}, "must be float32"),
        ({"data": dataset().images().numpy()}, "`data` must be"),
        ({"data": torch.zeros(())}, "`data` must be"),
        ({"data": [1, 2, 3]}, "`data` must be"),
        ({"data": torch.zeros(0, *SHAPE)}, "at least one example"),
        ({"data": torch.zeros(4, 9)}, "takes"),
        ({"data": Bare(torch.zeros(SHAPE))}, "must be a pair"),
        ({"data": Bare((torch.zeros(SHAPE), 0.5))}, "must be a pair"),
        ({"data": Bare((torch.zeros(SHAPE), 3))}, r"labels. must lie in \[0, 3\)"),
        ({"labels": [0, 1, 2, 0, 1, 2, 3]}, r"`labels` must lie in \[0, 3\)"),
        ({"labels": [0, 1, 2, 0, 1, 2, -1]}, r"`labels` must lie in \[0, 3\)"),
        ({"labels": [0, 1, 2]}, r"integers \[7\]"),
        ({"labels": [0.5] * 7}, "float64"),
        ({"data": (dataset().images(), [0] * 7), "labels": [0] * 7}, "given twice"),
        ({"indices": [7]}, "`indices` must be integers within the 7"),
        ({"indices": [0.5]}, "`indices` must be"),
        ({"indices": []}, "at least one"),
        ({"indices": [[0], [1]]}, "one dimension"),
        ({"indices": [1, 2, 1]}, "distinct"),
        ({"indices": [True, False]}, "booleans"),
        ({"model": network()}, "needs a mechanism"),
        ({"n": 0}, "`n` must be"),
        ({"n": 2**32 + 1}, r"within \[0, 2\^32\)"),
        ({"n": 2**22 + 1, "scores": "softmax"}, "at most 4194304 draws"),
        ({"alpha": 0}, "`alpha`"),
        ({"bound": "best"}, "`bound`"),
        ({"shard_draws": 0}, "`shard_draws`"),
        ({"progress": "yes"}, "`progress`"),
    ],
)
def test_everything_is_checked_before_any_work(tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(SmoothedClassifier, "count", None)
    # The model knows its shape, as one that has been used.
    model = {"model": smoothed(input_shape=SHAPE)} | changes
    with pytest.raises(InvalidArgument, match=message):
        run(tmp_path / "run", **model)
    assert not (tmp_path / "run").exists()


def test_data_that_change_between_readings_are_refused(tmp_path):
    class Restless(Bare):
        def __getitem__(self, position):
            return torch.rand(SHAPE), 0

    with pytest.raises(InvalidArgument, match="read again"):
        run(tmp_path / "run", data=Restless(None))


def test_progress_counts_draws(tmp_path, capsys):
    reports = []
    with pytest.raises(Stop):
        run(tmp_path / "run", progress=stop_after(6))
    run(tmp_path / "run", progress=lambda *report: reports.append(report))
    done, totals, infos = zip(*reports, strict=True)
    assert done[0] == 20 + 250 + 20 + 100  # from the first part
    assert list(done) == sorted(done)
    assert set(totals) == {done[-1]} == {7 * 270}
    assert [infos[0]["certified"], infos[-1]["certified"]] == [1, 7]
    assert {i["examples"] for i in infos} == {7}
    assert infos[-1]["draws_per_second"] > 0
    assert run(tmp_path / "quiet", progress=True, indices=[0]) is not None
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    run(tmp_path / "run", progress=True, indices=[0])
    out, err = capsys.readouterr()
    assert out == ""
    assert "certify tiny" in err


MEMORY = """
import resource, sys
from tests.system.test_certify_dataset import run

for n in (1000, 1_000_000):
    run(f"{sys.argv[1]}/{n}", n=n, indices=[0], shard_draws=200_000)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_draws(tmp_path):
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    few_kib, many_kib = (int(line) for line in done.stdout.split())
    assert many_kib - few_kib < 64 * 1024
