"""The run folder's parts: the cut into shards, their files, the lock, lists of positions."""

import json
import os
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixeldp_fast import Gaussian
from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.errors import RunFolderError
from pixeldp_fast.files import write_whole
from pixeldp_fast.jobs.folder import append_line, is_temporary, locked, writing
from pixeldp_fast.jobs.indices import pack, unpack
from pixeldp_fast.jobs.shards import ShardPlan, decode, encode
from pixeldp_fast.jobs.store import begin, existing_run, manifest_of, open_run
from pixeldp_fast.noise.stream import Purpose
from pixeldp_fast.smooth.judge import Terms
from pixeldp_fast.types import Norm

MANIFEST = "0" * 64


def terms(scores="argmax", n0=4, n=10, shape=(3,), seed=5):
    return Terms(
        mechanism=Gaussian(0.5),
        norm=Norm.TWO,
        bound="tight",
        scores=scores,
        alpha=0.01,
        n0=n0,
        n=n,
        sensitivities=(("2", 1.0),),
        seed=seed,
        num_classes=2,
        input_shape=shape,
        backend="torch",
        arithmetic="none",
        model_fingerprint="f" * 64,
        version="0",
    )


def plan_of(examples=5, asked=None, shard_draws=4):
    return ShardPlan.of(examples, asked or terms(), shard_draws)


def tally_for(shard, scores="argmax", first=0):
    """Any tally that fits: `first` of a shard's draws vote for class 0, the rest for class 1."""
    rows, draws = shard.examples[1] - shard.examples[0], shard.draws[1] - shard.draws[0]
    counts = np.tile(np.array([first, draws - first, 0], dtype=np.int64), (rows, 1))
    soft = np.full((rows, 2), 3, dtype=np.int64) if scores == "softmax" else None
    return Tally(counts, soft, soft)


def started(folder, asked=None, shard_draws=4, **changes):
    asked = asked or terms()
    plan = plan_of(5, asked, shard_draws)
    data = {"name": "some", "examples": 9, "fingerprint": "a" * 64}
    manifest = manifest_of(asked, plan, np.arange(0, 9, 2), data, None) | changes
    folder.mkdir(exist_ok=True)
    return begin(folder, manifest, resume=True)


sizes = st.integers(1, 40)


@given(examples=sizes, n0=sizes, n=sizes, shard_draws=sizes)
def test_every_draw_of_every_example_is_in_exactly_one_shard(examples, n0, n, shard_draws):
    plan = ShardPlan.of(examples, terms(n0=n0, n=n), shard_draws)
    seen = {
        Purpose.SELECTION: np.zeros((examples, n0), int),
        Purpose.ESTIMATION: np.zeros((examples, n), int),
    }
    for shard in plan:
        seen[shard.purpose][shard.rows, slice(*shard.draws)] += 1
    assert all((s == 1).all() for s in seen.values())
    assert sum(shard.work for shard in plan) == plan.total == examples * (n0 + n)
    assert all(shard.work <= max(shard_draws, 1) for shard in plan)


@given(examples=sizes, n0=sizes, n=sizes, shard_draws=sizes)
def test_a_name_says_the_place_and_no_other_place(examples, n0, n, shard_draws):
    plan = ShardPlan.of(examples, terms(n0=n0, n=n), shard_draws)
    shards = list(plan)
    assert [plan.find(shard.name) for shard in shards] == shards
    other = ShardPlan(examples, n0, n, plan.block + 1, shard_draws + 1)
    assert {s.name for s in other if plan.find(s.name)} == {s.name for s in shards} & {
        s.name for s in other
    }
    for name in ("", "x.json", shards[0].name + "x", shards[0].name.replace("selection", "attack")):
        assert plan.find(name) is None


def test_what_is_held_of_a_data_set_does_not_grow_with_the_draws():
    image = (3, 224, 224)
    blocks = [plan_of(1000, terms(n=n, shape=image), 10**9).block for n in (1, 1000, 10**6)]
    assert blocks == [27, 27, 27]  # 16 MiB of float32
    assert plan_of(1000, terms(n=1000), 200_000).block == 200
    assert plan_of(1000, terms(n=1), 200_000).block == 256


@given(st.lists(st.integers(0, 60), unique=True, min_size=1))
def test_positions_survive_as_text(values):
    assert unpack(pack(np.array(values, dtype=np.int64))).tolist() == values


def test_regular_positions_are_short_text():
    assert pack(np.arange(0, 10_000, 20)) == "0:9981:20"
    assert pack(np.array([9, 8, 7, 3])) == "9:6:-1,3"
    assert pack(np.array([0, 20, 40, 7])) == "0:41:20,7"
    assert unpack("4:-1:-2,8").tolist() == [4, 2, 0, 8]


@pytest.mark.parametrize("scores", ["argmax", "softmax"])
def test_a_shard_is_read_as_written(tmp_path, scores):
    asked = terms(scores)
    for shard in plan_of(5, asked):
        tally = tally_for(shard, scores)
        data = encode(shard, MANIFEST, tally)
        assert data == encode(shard, MANIFEST, tally)
        assert decode(tmp_path / shard.name, data, shard, MANIFEST, asked) == tally


def test_a_truncated_shard_is_refused_at_every_length(tmp_path):
    shard = next(iter(plan_of()))
    data = encode(shard, MANIFEST, tally_for(shard))
    for length in range(len(data)):
        with pytest.raises(RunFolderError, match=f"{shard.name} cannot be used.*Delete this file"):
            decode(tmp_path / shard.name, data[:length], shard, MANIFEST, terms())


def test_a_shard_with_any_byte_changed_is_refused(tmp_path):
    shard = next(iter(plan_of()))
    data = encode(shard, MANIFEST, tally_for(shard))
    for at in range(len(data)):
        for bit in (1, 16):
            edited = bytearray(data)
            edited[at] ^= bit
            with pytest.raises(RunFolderError, match="cannot be used"):
                decode(tmp_path / shard.name, bytes(edited), shard, MANIFEST, terms())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" * 100_000, "damaged"),
        (b"[]", "not a shard"),
        (b'{"format":2}', "not a shard"),
        (b'{"format":1,"manifest":"' + b"1" * 64 + b'"}', "another manifest"),
        (b'{"format":1,"manifest":"' + b"0" * 64 + b'"}', "damaged"),
        (b'{"format":1,"manifest":"' + b"0" * 64 + b'","counts":[[1],[2,3]]}', "damaged"),
        (b'{"format":1,"manifest":"' + b"0" * 64 + b'","counts":[[1e400]]}', "damaged"),
        (b'{"format":1,"manifest":"' + b"0" * 64 + b'","counts":[[-1,5,0]]}', "damaged"),
        (b'{"format":1,"manifest":"' + b"0" * 64 + b'","counts":[[2,2,0]]}', "edited"),
    ],
)
def test_damage_is_named(tmp_path, content, reason):
    shard = next(iter(plan_of()))
    with pytest.raises(RunFolderError, match=reason):
        decode(tmp_path / shard.name, content, shard, MANIFEST, terms())


def test_a_shard_with_a_right_checksum_must_still_fit_its_place(tmp_path):
    first, second = list(plan_of())[:2]

    def refuse(data, shard, reason, asked=None):
        with pytest.raises(RunFolderError, match=reason):
            decode(tmp_path / "s", data, shard, MANIFEST, asked or terms())

    refuse(encode(first, MANIFEST, tally_for(first)), second, "place")
    refuse(encode(first, "1" * 64, tally_for(first)), first, "another manifest")
    short = Tally(np.array([[1, 2, 0]], dtype=np.int64))
    refuse(encode(first, MANIFEST, short), first, "do not add up")
    wide = Tally(np.array([[1, 2, 1, 0]], dtype=np.int64))
    refuse(encode(first, MANIFEST, wide), first, "classes")
    rows = Tally(np.array([[1, 3, 0]] * 2, dtype=np.int64))
    refuse(encode(first, MANIFEST, rows), first, "examples")
    refuse(encode(first, MANIFEST, tally_for(first)), first, "scores", terms("softmax"))
    refuse(encode(first, MANIFEST, tally_for(first, "softmax")), first, "scores")


def test_a_run_is_certified_only_when_every_shard_is_there(tmp_path):
    run = started(tmp_path / "run")
    assert (run.done, run.total, run.complete) == (0, 70, False)
    shards = list(run.plan)
    for shard in shards:
        with pytest.raises(RunFolderError, match="nothing is certified from a part"):
            run.judged(None)
        run.add(shard, tally_for(shard), 0.5)
    certificates = run.finish(None)
    assert certificates.estimation.draws.tolist() == [10] * 5
    assert certificates.selection.draws.tolist() == [4] * 5
    assert certificates.index.tolist() == [0, 2, 4, 6, 8]
    assert certificates.seconds == pytest.approx(np.full(5, 0.5 * len(shards) / 5))
    again = open_run(tmp_path / "run")
    assert (again.done, again.complete) == (70, True)
    assert (again.certificates().radius == certificates.radius).all()
    for shard in shards:
        path = run.path("shards", shard.name)
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(RunFolderError, match=re.escape(shard.name)):
            again.certificates()
        path.write_bytes(data)


def test_stored_certificates_must_be_what_the_shards_give(tmp_path):
    run = started(tmp_path / "run")
    for shard in run.plan:
        run.add(shard, tally_for(shard), 0.0)
    with pytest.raises(RunFolderError, match="not complete: 70 of 70"):
        run.certificates()
    run.finish(None)
    shard = list(run.plan)[-1]
    write_whole(
        run.path("shards", shard.name), encode(shard, run.digest, tally_for(shard, first=1))
    )
    with pytest.raises(ValueError, match="not what the shards"):
        run.certificates()


def test_other_settings_are_listed_with_both_values(tmp_path):
    started(tmp_path / "run", terms(n=10, seed=5))
    with pytest.raises(RunFolderError) as caught:
        started(tmp_path / "run", terms(n=12, seed=6), data={"name": "other", "examples": 9})
    message = str(caught.value)
    assert "terms.n: 10 in the folder, 12 asked" in message
    assert "terms.seed: 5 in the folder, 6 asked" in message
    assert 'data.name: "some" in the folder, "other" asked' in message
    assert f'data.fingerprint: "{"a" * 64}" in the folder, absent asked' in message
    assert "alpha:" not in message


def test_only_an_empty_folder_or_a_run_is_accepted(tmp_path):
    folder = tmp_path / "run"
    assert existing_run(folder, True) is None
    folder.mkdir()
    (folder / "lock").write_text("pid 1")
    (folder / ".manifest.json.abc").write_text("{")
    assert existing_run(folder, True) is None
    started(folder)
    assert not (folder / ".manifest.json.abc").exists()
    assert existing_run(folder, True) is not None
    with pytest.raises(RunFolderError, match="`resume` is False"):
        existing_run(folder, False)
    (folder / "manifest.json").unlink()
    with pytest.raises(RunFolderError, match=r"holds shards but no manifest\.json"):
        existing_run(folder, True)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="not a folder"):
        existing_run(tmp_path / "file", True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda m: "",
        lambda m: json.dumps(m)[:-3],
        lambda m: "[]",
        lambda m: json.dumps(m | {"format": 2}),
        lambda m: json.dumps(m | {"indices": "0:x"}),
        lambda m: json.dumps(m | {"indices": ""}),
        lambda m: json.dumps(m | {"shards": {"examples": 0, "draws": 4}}),
        lambda m: json.dumps(m | {"shards": {"examples": 1.5, "draws": 4}}),
        lambda m: json.dumps(m | {"terms": m["terms"] | {"sigma": 1}}),
        lambda m: json.dumps({k: v for k, v in m.items() if k != "terms"}),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path, damage):
    run = started(tmp_path / "run")
    run.path("manifest.json").write_text(damage(run.manifest))
    with pytest.raises(RunFolderError, match=r"manifest\.json is damaged"):
        open_run(tmp_path / "run")


def test_a_folder_without_a_run_is_not_opened(tmp_path):
    with pytest.raises(RunFolderError, match="not the folder of a run"):
        open_run(tmp_path)


def test_torn_times_are_passed_over(tmp_path):
    run = started(tmp_path / "run")
    assert run.seconds() is None
    run.path("timings.jsonl").write_text(
        '{"shard": "a", "examples": [0, 5], "seconds": 10.0}\n{"sh'
    )
    append_line(run.path("timings.jsonl"), '{"shard": "b", "examples": [0, 1], "seconds": 1.0}')
    append_line(run.path("timings.jsonl"), '{"shard": "c", "examples": [4, 5], "seconds": 2.0}')
    assert run.seconds().tolist() == [3.0, 2.0, 2.0, 2.0, 4.0]


def test_the_lock_names_its_holder_and_is_released(tmp_path):
    with locked(tmp_path / "run"):
        with (
            pytest.raises(RunFolderError, match=f"in use: pid {os.getpid()} on "),
            locked(tmp_path / "run"),
        ):
            pass
        # The refused attempt must not have released the holder's lock.
        with pytest.raises(RunFolderError, match="in use"), locked(tmp_path / "run"):
            pass
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "run"):
        raise KeyboardInterrupt
    with locked(tmp_path / "run"):
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RunFolderError, match="cannot be written"),
        locked(tmp_path / "file" / "run"),
    ):
        pass


def test_errors_of_the_system_say_what_to_do(tmp_path):
    with pytest.raises(RunFolderError, match=r"No space left.*make room"), writing(tmp_path):
        raise OSError(28, "No space left on device")


def test_leftovers_are_told_from_files():
    assert is_temporary(".manifest.json.x1")
    assert is_temporary(".estimation-e0-1.json.x1")
    assert not is_temporary("manifest.json")
    assert not is_temporary(".hidden")
