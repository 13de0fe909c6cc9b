"""The command line's parts: what it imports, how it reads words, how it ends."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pixeldp_fast.cli import checkup, opening, progress
from pixeldp_fast.cli.app import INTERRUPTED, USER_ERROR, Commands, _how_to_resume, app
from pixeldp_fast.cli.train import assemble, mechanism_of, parse_options
from pixeldp_fast.data import load
from pixeldp_fast.errors import InvalidArgument, RunFolderError
from pixeldp_fast.noise.gaussian import Gaussian
from pixeldp_fast.noise.laplace import Laplace

COMMANDS = (
    *("demo", "train", "certify", "predict", "verify", "regress", "attack", "sanity"),
    *("report", "doctor"),
)
runner = CliRunner()


def test_help_imports_nothing_heavy():
    code = f"""
import contextlib, io, sys
from pixeldp_fast.cli.app import app
for words in ([], *([c] for c in {COMMANDS!r})):
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:
        app([*words, "--help"], prog_name="pixeldp-fast")
    assert "Usage" in out.getvalue(), words
heavy = {{"torch", "scipy", "numpy", "matplotlib", "safetensors"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_the_version():
    done = runner.invoke(app, ["--version"])
    assert (done.exit_code, done.output.split()[0]) == (0, "pixeldp_fast")


@pytest.mark.parametrize("words", [["certfy"], ["certify"], ["certify", "a", "--n", "many"]])
def test_usage_errors_exit_with_2(words):
    assert runner.invoke(app, words).exit_code == 2


def failing(error):
    """A program whose command raises `error`."""
    small = typer.Typer(cls=Commands)

    @small.callback()
    def options() -> None: ...

    @small.command()
    def train(word: str) -> None:
        raise error

    return small


def ending(error):
    done = runner.invoke(failing(error), ["train", "a b"])
    return done.exit_code, done.output


def test_errors_of_the_package_are_one_message():
    code, output = ending(RunFolderError("the [folder] is odd"))
    assert code == USER_ERROR == 1
    assert output == "error: the [folder] is odd\n"


def test_errors_of_the_system_are_one_message():
    code, output = ending(PermissionError(13, "Permission denied", "x"))
    assert code == 1
    assert "Permission denied" in output
    assert "Traceback" not in output


def test_an_interruption_says_how_to_go_on():
    code, output = ending(KeyboardInterrupt())
    assert code == INTERRUPTED == 130
    assert "pixeldp-fast train 'a b'" in output


def test_the_way_on_does_not_refuse_the_folder():
    text = _how_to_resume(["certify", "model", "--no-resume", "--n", "10"])
    assert text.endswith("pixeldp-fast certify model --n 10")
    assert _how_to_resume(["doctor"]) == "interrupted"


def test_bugs_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        runner.invoke(failing(ZeroDivisionError()), ["train", "a"], catch_exceptions=False)


def test_noise_words():
    words = opening.NoiseWords
    assert words(sigma="8/255").mechanism() == Gaussian(8 / 255)
    assert words(laplace="0.5").mechanism() == Laplace(0.5)
    assert words().mechanism() is None
    with pytest.raises(InvalidArgument, match="--sigma and --laplace"):
        words(sigma="1", laplace="1").mechanism()
    with pytest.raises(InvalidArgument, match="above 0"):
        words(sigma="0").mechanism()


def test_the_papers_construction_bound():
    none = opening.NoiseWords()
    assert mechanism_of(none, "0.3").sigma == pytest.approx(0.7612, abs=1e-4)
    assert mechanism_of(none, None) is None
    with pytest.raises(InvalidArgument, match="--L"):
        mechanism_of(opening.NoiseWords(sigma="1"), "0.3")


def test_chosen_positions_are_those_of_skip_and_max():
    test = load("digits", "test")
    assert opening.chosen(test, 100, -1).tolist() == [0, 100, 200, 300]
    assert opening.chosen(test, 2, 5).tolist() == [0, 2, 4]
    assert len(opening.chosen(test, 1, 10**6)) == len(test)
    for skip, stop in ((0, -1), (1, 0), (1, -2)):
        with pytest.raises(InvalidArgument, match="at least 1"):
            opening.chosen(test, skip, stop)


def test_radii_and_options():
    assert opening.parse_radii("0.1, 8/255") == [0.1, 8 / 255]
    assert opening.parse_radii(None) is None
    with pytest.raises(InvalidArgument, match="fraction"):
        opening.parse_radii("0.1,x")
    assert parse_options(["hidden=64", "name=a", "widths=[1,2]"]) == {
        "hidden": 64,
        "name": "a",
        "widths": [1, 2],
    }
    with pytest.raises(InvalidArgument, match="name=value"):
        parse_options(["hidden"])


def test_names_of_folders():
    made = opening.default_out("certify", "a/b/model one.pth.tar", "./my data.npz", "")
    assert made == Path("runs/certify-model_one.pth.tar-my_data.npz")


def test_devices_and_dtypes():
    assert opening.parse_device("cpu").type == "cpu"
    assert opening.parse_dtype(None) is None
    assert str(opening.parse_dtype("float64")) == "torch.float64"
    with pytest.raises(InvalidArgument, match="--dtype"):
        opening.parse_dtype("int8")
    for name in ("cuda:99", "nonsense"):
        with pytest.raises(InvalidArgument, match="--device"):
            opening.parse_device(name)


def test_recipes_are_overridden_by_options():
    base = assemble("digits", None, None, None, {}, {"epochs": None})
    changed = assemble("digits", None, None, Gaussian(0.1), {}, {"epochs": 3})
    assert (changed.settings.epochs, changed.mechanism) == (3, Gaussian(0.1))
    assert changed.architecture == base.architecture
    other = assemble("digits", "resnet20", None, None, {"noise_after": 1}, {})
    assert other.options == {"noise_after": 1}
    with pytest.raises(InvalidArgument, match="digits"):
        assemble("nonsense", None, None, None, {}, {})
    with pytest.raises(InvalidArgument, match="--data, --sigma"):
        assemble(None, "mlp", None, None, {}, {})


def test_times_as_people_say_them():
    assert [progress.duration(s) for s in (0.2, 89, 120, 5400, 9000)] == [
        "1 s",
        "89 s",
        "2 min",
        "1.5 h",
        "2.5 h",
    ]
    assert progress.time_left(50, 100, 10) == "about 5 s left"
    assert progress.time_left(0, 100, 0) == progress.time_left(100, 100, 5) == ""


def test_lines_where_there_is_no_terminal(monkeypatch, capsys):
    clock = iter([0.0, 1.0, 3.0, 4.0, 20.0, 21.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.shown("work", lambda info: f"{info['rate']:g}/s", "rate") as report:
        for done in (1, 2, 3, 4, 10):
            report(done, 10, {"rate": 2.0})
    assert capsys.readouterr().err.splitlines() == [
        "work: 20 %, 2/s, about 4 s left",
        "work: 40 %, 2/s, about 3 s left",
        "work: 100 %, 2/s",
    ]


def test_the_first_speed_alone_gives_no_estimate(monkeypatch, capsys):
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with progress.shown("work", lambda info: f"{info['rate']:g}/s", "rate") as report:
        for done, rate in ((0, 0.0), (1, 1.0), (50, 10.0), (100, 10.0)):
            report(done, 100, {"rate": rate})
    assert capsys.readouterr().err.splitlines() == [
        "work: 50 %, 10/s, about 5 s left",
        "work: 100 %, 10/s",
    ]


def test_the_self_tests_pass_here():
    results = checkup.self_tests()
    assert all(result.passed for result in results)
    assert {r.name.split(",")[0] for r in results} >= {"Philox4x32-10", "Gaussian noise"}


def test_the_self_tests_fail_on_a_wrong_word(monkeypatch):
    counter, key, words = checkup.KNOWN_ANSWERS[1]
    wrong = (*words[:3], words[3] ^ 1)
    monkeypatch.setattr(checkup, "KNOWN_ANSWERS", (checkup.KNOWN_ANSWERS[0], (counter, key, wrong)))
    failed = [r for r in checkup.self_tests() if not r.passed]
    assert {r.detail for r in failed} == {"known answer 2 is wrong"}
    assert len(failed) >= 2


def test_the_self_tests_fail_on_wrong_noise(monkeypatch):
    from pixeldp_fast.noise import sampling

    honest = sampling.noise_definition
    monkeypatch.setattr(sampling, "noise_definition", lambda *a: honest(*a) * (1 + 1e-4))
    assert sum(not r.passed for r in checkup.self_tests()) >= 3
