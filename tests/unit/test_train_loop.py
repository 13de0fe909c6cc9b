"""The training loop: it learns, holds the prefix, resumes bit for bit, and refuses early."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pixeldp_fast import Gaussian, Laplace
from pixeldp_fast.data import Dataset, from_arrays, load
from pixeldp_fast.errors import InvalidArgument, RunFolderError, TrainingDiverged
from pixeldp_fast.models import CheckpointConfig, checkpoint
from pixeldp_fast.models.fingerprint import fingerprint
from pixeldp_fast.plan.sensitivity import sensitivity
from pixeldp_fast.smooth.model import PixelDP
from pixeldp_fast.train import TrainingSettings, loop, state
from pixeldp_fast.train.evaluate import NoiseCheck, accuracy_under_noise, check_noise
from pixeldp_fast.train.initial import initial_model
from pixeldp_fast.train.loop import train
from pixeldp_fast.train.sgd import MomentumSGD

DIGITS = load("digits", "train").subset(slice(0, 400))
TEST = load("digits", "test").subset(slice(0, 100))
SETTINGS = TrainingSettings(epochs=3, batch_size=50, learning_rate=0.1)
CONFIG: dict[str, Any] = {
    "architecture": "pixeldp_cnn",
    "options": {"noise_after": 1, "hidden": 16, "channels": [8, 8]},
}


def start(
    settings: TrainingSettings = SETTINGS,
    mechanism: Any = None,
    config: dict[str, Any] = CONFIG,
    data: Dataset = DIGITS,
) -> PixelDP:
    return initial_model(
        config["architecture"],
        mechanism or Gaussian(0.1),
        settings,
        input_shape=data.input_shape,
        num_classes=data.num_classes,
        options=config["options"],
    )


def trained(out: Path, settings: TrainingSettings = SETTINGS, **more: Any) -> dict[str, Any]:
    return train(start(settings), DIGITS, settings, out=out, config=CONFIG, **more)


def stop_after(steps: int) -> Callable[..., None]:
    """A progress callback that interrupts the run; needs every step reported."""

    def callback(done: int, total: int, info: dict[str, Any]) -> None:
        if done >= steps:
            raise KeyboardInterrupt

    return callback


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0.0)


def contents(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_training_learns_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=8, batch_size=20, learning_rate=0.1)
    model = start(settings)
    before = torch.get_rng_state()
    summary = train(model, DIGITS, settings, out=tmp_path, config=CONFIG, validation=TEST)
    assert torch.equal(before, torch.get_rng_state())
    assert summary["accuracy"] > 0.8
    assert summary["validation_accuracy"] == accuracy_under_noise(model, TEST) > 0.6
    assert summary["steps"] == 8 * 20
    assert contents(tmp_path) == {"model.safetensors", "config.json", "history.jsonl"}
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 9))
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    loaded, config = checkpoint.load(tmp_path)
    assert fingerprint(loaded) == fingerprint(model) == summary["fingerprint"]
    assert config.training["identity"]["dataset"]["fingerprint"] == DIGITS.fingerprint()
    assert config.mechanism == Gaussian(0.1).to_dict()
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("norm", "mechanism"), [(2, Gaussian(0.1)), (1, Laplace(0.1)), ("inf", Gaussian(0.1))]
)
def test_the_prefix_ends_at_sensitivity_one(tmp_path: Path, norm: Any, mechanism: Any) -> None:
    settings = TrainingSettings(epochs=1, batch_size=50, norm=norm)
    model = start(settings, mechanism)
    summary = train(model, DIGITS, settings, out=tmp_path, config=CONFIG)
    measured = sensitivity(model.prefix, DIGITS.input_shape, norm, mechanism.norm)
    assert 0.99 < measured <= 1.0
    assert summary["sensitivity"] == measured
    moved = model.prefix.weight / start(settings, mechanism).prefix.weight
    assert moved.std() > 1e-3 * moved.mean().abs()  # learnt, and not only scaled


def test_without_the_projection_the_prefix_would_leave_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "hold_", sensitivity)
    assert abs(trained(tmp_path)["sensitivity"] - 1.0) > 0.01


def test_noise_on_the_image_is_held_by_nothing(tmp_path: Path) -> None:
    config = {"architecture": "mlp", "options": {"widths": [8]}}
    model = start(config=config)
    summary = train(model, DIGITS, SETTINGS, out=tmp_path, config=config)
    assert summary["sensitivity"] == 1.0


def test_the_noise_is_in_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    factors: list[float] = []
    seeds: set[int] = set()
    original = PixelDP.noisy

    def counted(self: PixelDP, features: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        factors.append(scale)
        noisy = original(self, features, scale)
        seeds.add(hash(tuple((noisy - features).flatten()[:8].tolist())))
        return noisy

    monkeypatch.setattr(PixelDP, "noisy", counted)
    monkeypatch.setattr(loop, "noise_factor", lambda settings, step: 1.0 + step)
    trained(tmp_path)
    assert factors == [1.0 + step for step in range(24)]
    assert len(seeds) == 24


def test_the_update_is_that_of_torch() -> None:
    models = [start(), start()]
    own = MomentumSGD(models[0], 0.9, 0.01)
    weights = [p for p in models[1].parameters() if p.ndim > 1]
    biases = [p for p in models[1].parameters() if p.ndim == 1]
    groups = [{"params": weights, "weight_decay": 0.01}, {"params": biases}]
    reference = torch.optim.SGD(groups, lr=0.0, momentum=0.9)
    for step in range(4):
        for group in reference.param_groups:
            group["lr"] = 0.1 / (step + 1)
        for model in models:
            torch.manual_seed(step)
            loss = model(DIGITS.images(range(20))).square().mean()
            (own if model is models[0] else reference).zero_grad()
            loss.backward()
        own.step(0.1 / (step + 1))
        reference.step()
    for first, second in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-7)
    for parameter in models[0].parameters():
        parameter.requires_grad_(False)
    with pytest.raises(InvalidArgument, match="no parameters"):
        MomentumSGD(models[0], 0.9, 0.0)


def test_training_does_not_load_the_compiler(tmp_path: Path) -> None:
    code = (
        "import sys; from tests.unit.test_train_loop import trained; from pathlib import Path; "
        f"trained(Path({str(tmp_path)!r})); assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_equal_seeds_give_equal_weights(tmp_path: Path) -> None:
    first, second = trained(tmp_path / "a"), trained(tmp_path / "b")
    torch.manual_seed(99)
    third = trained(tmp_path / "c", TrainingSettings(**{**SETTINGS.to_dict(), "seed": 1}))
    assert first["fingerprint"] == second["fingerprint"] != third["fingerprint"]


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("steps", [3, 8, 13, 23, 24])
def test_killed_and_resumed_is_as_never_killed(tmp_path: Path, steps: int) -> None:
    more = {"crop_padding": 1, "flip": True, "centred": True}
    settings = TrainingSettings(**{**SETTINGS.to_dict(), **more})
    whole = trained(tmp_path / "whole", settings)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", settings, progress=stop_after(steps))
    epochs = (steps - 1) // 8
    assert ("state.safetensors" in contents(tmp_path / "cut")) == (epochs > 0)
    torch.manual_seed(steps)
    calls: list[int] = []
    resumed = trained(
        tmp_path / "cut", settings, progress=lambda done, total, info: calls.append(done)
    )
    assert resumed["fingerprint"] == whole["fingerprint"]
    assert calls == list(range(8 * epochs + 1, 25))
    histories = [
        [
            {k: v for k, v in json.loads(line).items() if k != "seconds"}
            for line in (tmp_path / name / "history.jsonl").read_text().splitlines()
        ]
        for name in ("whole", "cut")
    ]
    assert histories[0] == histories[1]


def test_the_setting_centres_the_layer_behind_the_noise(tmp_path: Path) -> None:
    centred = TrainingSettings(**{**SETTINGS.to_dict(), "centred": True})
    model = start(centred)
    train(model, DIGITS, centred, out=tmp_path / "centred", config=CONFIG)
    assert not model.suffix.conv2._forward_pre_hooks
    plain = trained(tmp_path / "plain")
    assert fingerprint(model) != plain["fingerprint"]
    config = {"architecture": "resnet20", "options": {}}
    message = r"`centred` needs a Linear or Conv2d layer .* use centred=False"
    with pytest.raises(InvalidArgument, match=message):
        train(start(config=config), DIGITS, centred, out=tmp_path / "refused", config=config)
    assert not (tmp_path / "refused").exists()


@pytest.mark.usefixtures("every_step")
def test_resuming_needs_the_momentum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", progress=stop_after(9))
    tensors, record = state.read_state(tmp_path / "cut")
    for name, tensor in tensors.items():
        if name.startswith("velocity."):
            assert tensor.any()
            tensor.zero_()
    state.write_state(tmp_path / "cut", tensors, record)
    assert trained(tmp_path / "cut")["fingerprint"] != whole["fingerprint"]


@pytest.mark.parametrize("where", ["state", "history", "checkpoint"])
def test_a_kill_while_writing_costs_at_most_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    from pixeldp_fast.train import run

    whole = trained(tmp_path / "whole")
    victim, name = {
        "state": (run, "write_state"),
        "history": (run, "write_whole"),
        "checkpoint": (run, "save_checkpoint"),
    }[where]
    original, calls = getattr(victim, name), []

    def killed(*arguments: Any) -> Any:
        calls.append(name)
        if len(calls) == (1 if where == "checkpoint" else 2):
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(victim, name, killed)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "cut")
    assert trained(tmp_path / "cut")["fingerprint"] == whole["fingerprint"]
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_finished_run_is_returned_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = trained(tmp_path)
    monkeypatch.setattr(loop._Trainer, "train", None)
    model = start()
    again = train(model, DIGITS, SETTINGS, out=tmp_path, config=CONFIG)
    assert again == first
    assert fingerprint(model) == first["fingerprint"]
    with pytest.raises(RunFolderError, match="holds this run already"):
        trained(tmp_path, resume=False)


@pytest.mark.usefixtures("every_step")
def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, progress=stop_after(9))
    for _ in range(2):  # an unfinished run, then a finished one
        other = TrainingSettings(**{**SETTINGS.to_dict(), "learning_rate": 0.2})
        with pytest.raises(RunFolderError, match=r"settings.learning_rate is 0.1 there and 0.2"):
            trained(tmp_path, other)
        with pytest.raises(RunFolderError, match=r"mechanism.sigma is 0.1 there and 0.2 here"):
            train(start(mechanism=Gaussian(0.2)), DIGITS, SETTINGS, out=tmp_path, config=CONFIG)
        with pytest.raises(RunFolderError, match=r"dataset.examples is 400 there and 300 here"):
            train(start(), DIGITS.subset(range(300)), SETTINGS, out=tmp_path, config=CONFIG)
        model = start()
        with torch.no_grad():
            model.suffix.fc2.bias.add_(1.0)
        with pytest.raises(RunFolderError, match="other initial weights"):
            train(model, DIGITS, SETTINGS, out=tmp_path, config=CONFIG)
        trained(tmp_path)


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(RunFolderError, match=r"holds other files \(thesis.tex\)"):
        trained(tmp_path)
    other = tmp_path / "model"
    checkpoint.save(
        other, start(), CheckpointConfig("pixeldp_cnn", (1, 8, 8), 10, CONFIG["options"])
    )
    with pytest.raises(RunFolderError, match="not trained here"):
        trained(other)
    with pytest.raises(RunFolderError, match="cannot be used"):
        trained(tmp_path / "thesis.tex")
    with state.claimed(tmp_path / "busy"), pytest.raises(RunFolderError, match="Another process"):
        trained(tmp_path / "busy")


@pytest.mark.usefixtures("every_step")
def test_a_damaged_state_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, progress=stop_after(9))
    path = tmp_path / "state.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-7])
    with pytest.raises(RunFolderError, match="not the state of a training run"):
        trained(tmp_path)
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(RunFolderError, match="was edited"):
        trained(tmp_path)
    path.write_bytes(good)
    trained(tmp_path)


def test_divergence_stops_and_keeps_the_last_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, rate = loop.learning_rate, SETTINGS.learning_rate

    def explosive(settings: TrainingSettings, step: int, total: int) -> float:
        return 1e30 if step == 10 else original(settings, step, total)

    monkeypatch.setattr(loop, "learning_rate", explosive)
    with pytest.raises(TrainingDiverged, match=rf"Try `learning_rate` {rate / 10:g} instead of"):
        trained(tmp_path)
    tensors, record = state.read_state(tmp_path)
    assert len(record["history"]) == 1
    assert all(torch.isfinite(t).all() for t in tensors.values())


def test_an_optimiser_step_to_infinity_at_the_end_of_an_epoch_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"architecture": "mlp", "options": {"widths": [8]}}
    original = loop.learning_rate

    def explosive(settings: TrainingSettings, step: int, total: int) -> float:
        return float("inf") if step == 15 else original(settings, step, total)

    monkeypatch.setattr(loop, "learning_rate", explosive)
    with pytest.raises(TrainingDiverged, match="is not finite after epoch 2"):
        train(start(config=config), DIGITS, SETTINGS, out=tmp_path, config=config)
    assert len(state.read_state(tmp_path)[1]["history"]) == 1


def wrong_call(out: Path, **changes: Any) -> None:
    arguments: dict[str, Any] = {
        "model": start(),
        "dataset": DIGITS,
        "settings": SETTINGS,
        "config": CONFIG,
        **changes,
    }
    train(
        arguments.pop("model"),
        arguments.pop("dataset"),
        arguments.pop("settings"),
        out=out,
        **arguments,
    )


def images_of(shape: tuple[int, ...], classes: int = 10) -> Dataset:
    images = np.zeros((4, *shape), np.float32)
    return from_arrays("blank", images, np.arange(4) % classes, num_classes=classes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": nn.Linear(2, 2)}, "`model` must be a PixelDP"),
        ({"settings": {"epochs": 3}}, "`settings` must be TrainingSettings"),
        ({"config": {}}, "`config` must have 'architecture'"),
        ({"config": {"architecture": "mlp", "option": {}}}, "`config` must have"),
        ({"config": {"architecture": "mlp"}}, "`config` does not rebuild the model"),
        ({"config": {"architecture": "nlp"}}, "must be one of"),
        ({"dataset": images_of((1, 8, 9))}, "does not fit"),
        ({"dataset": images_of((3, 8, 8))}, "does not fit"),
        ({"dataset": images_of((1, 8, 8), 11)}, "does not fit"),
        ({"dataset": DIGITS.subset(range(0))}, "no examples"),
        ({"validation": images_of((1, 8, 9))}, "`validation` has images"),
        ({"settings": TrainingSettings(noise_ramp="original")}, "at least 2303 epochs"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        wrong_call(tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_a_prefix_without_proof_is_refused(tmp_path: Path) -> None:
    model = start()
    model.prefix = nn.Sequential(model.prefix, nn.GELU())
    with pytest.raises(ValueError, match="GELU"):
        wrong_call(tmp_path / "out", model=model)
    assert not (tmp_path / "out").exists()


def test_the_noise_check_tells_an_untrained_model(tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=15, batch_size=20, learning_rate=0.1)
    config = {"architecture": "mlp", "options": {"widths": [64]}}
    model = start(settings, Gaussian(1e-3), config)
    train(model, DIGITS, settings, out=tmp_path, config=config)
    model.train()
    model.prefix.eval()
    loud = PixelDP(None, Gaussian(1.0), model.suffix)
    before = torch.get_rng_state()
    checks = [check_noise(m, TEST) for m in (model, loud)]
    assert [check.untrained for check in checks] == [False, True]
    assert checks[0].without_noise == checks[1].without_noise > 0.8
    assert checks[1].examples == 100
    assert checks[1] == check_noise(loud, TEST)
    assert torch.equal(before, torch.get_rng_state())
    assert model.suffix.training
    assert not model.prefix.training
    message = NoiseCheck(0.31, 0.94, 1000).message()
    assert "looks untrained for this noise: 31% under noise, 94% without" in message
    with pytest.raises(InvalidArgument, match="At least one example"):
        check_noise(model, TEST, examples=0)
