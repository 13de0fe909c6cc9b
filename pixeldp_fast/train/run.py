"""The folder of one training run: what it was asked, how far it is, and its result."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from pixeldp_fast.data.dataset import Dataset
from pixeldp_fast.errors import RunFolderError
from pixeldp_fast.files import write_whole
from pixeldp_fast.models.checkpoint import CONFIG, CheckpointConfig
from pixeldp_fast.models.checkpoint import load as load_checkpoint
from pixeldp_fast.models.checkpoint import save as save_checkpoint
from pixeldp_fast.models.fingerprint import fingerprint
from pixeldp_fast.models.state import load_state
from pixeldp_fast.smooth.model import PixelDP
from pixeldp_fast.train.settings import TrainingSettings
from pixeldp_fast.train.sgd import MomentumSGD
from pixeldp_fast.train.state import STATE, read_state, write_state, written

HISTORY = "history.jsonl"


def identity_of(
    model: PixelDP, dataset: Dataset, settings: TrainingSettings, config: CheckpointConfig
) -> dict[str, Any]:
    """Everything that decides the final weights, as plain JSON."""
    return {
        "architecture": config.architecture,
        "options": dict(config.options),
        "mechanism": model.mechanism.to_dict(),
        "settings": settings.to_dict(),
        "dataset": {
            "name": dataset.name,
            "examples": len(dataset),
            "fingerprint": dataset.fingerprint(),
        },
        "initial_fingerprint": fingerprint(model),
    }


class Run:
    """One run's folder.

    Parameters
    ----------
    folder : Path
        Claimed by the caller.
    config : CheckpointConfig
        What rebuilds the network.
    identity : dict
        Of `identity_of`, before the weights are touched.
    """

    def __init__(self, folder: Path, config: CheckpointConfig, identity: dict[str, Any]) -> None:
        self.folder, self.config = folder, config
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))  # as it reads when stored
        self.history: list[dict[str, Any]] = []
        self.result: dict[str, Any] = {}  # of the finished run

    def restore_finished(self, model: PixelDP, resume: bool) -> bool:
        """Whether the folder holds this run's result; then `model` has its weights."""
        if not (self.folder / CONFIG).exists():
            return False
        loaded, config = load_checkpoint(self.folder, architecture=self._recorded_architecture())
        self._check_same(config.training.get("identity"), resume)
        model.load_state_dict(loaded.state_dict())
        model.eval()
        self.result = {**config.training["summary"], "fingerprint": config.fingerprint}
        (self.folder / STATE).unlink(missing_ok=True)
        return True

    def restore(self, model: PixelDP, optimiser: MomentumSGD, resume: bool) -> None:
        """Continue from the folder's state, where it has one."""
        if not (self.folder / STATE).exists():
            self._check_empty()
            return
        tensors, record = read_state(self.folder)
        self._check_same(record.get("identity"), resume)
        self.history = list(record["history"])
        weights = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
        load_state(model, weights, str(self.folder / STATE))
        for name, velocity in optimiser.velocity.items():
            velocity.copy_(tensors[f"velocity.{name}"])

    def save(self, model: PixelDP, optimiser: MomentumSGD, line: dict[str, Any]) -> None:
        """Add one epoch: state and history, each whole."""
        self.history.append(line)
        tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
        tensors |= {f"velocity.{k}": v for k, v in optimiser.velocity.items()}
        write_state(self.folder, tensors, {"identity": self.identity, "history": self.history})
        self._write_history()

    def finish(self, model: PixelDP) -> None:
        """Write the checkpoint and drop the state."""
        model.eval()
        self._write_history()
        summary = _summary(self.history)
        training = {"identity": self.identity, "summary": summary}
        config = dataclasses.replace(self.config, training=training)
        with written(self.folder):
            saved = save_checkpoint(self.folder, model, config)
            (self.folder / STATE).unlink(missing_ok=True)
        self.result = {**summary, "fingerprint": saved.fingerprint}

    def _write_history(self) -> None:
        lines = "".join(json.dumps(line) + "\n" for line in self.history)
        with written(self.folder):
            write_whole(self.folder / HISTORY, lines)

    def _recorded_architecture(self) -> str | None:
        """The caller's "module:factory" is trusted; anything else is read from the checkpoint."""
        return self.config.architecture if ":" in self.config.architecture else None

    def _check_same(self, recorded: Any, resume: bool) -> None:
        if not isinstance(recorded, dict):
            raise RunFolderError(
                f"{self.folder} holds a model that was not trained here; name another folder."
            )
        if recorded != self.identity:
            raise RunFolderError(
                f"{self.folder} holds another training run: {self._difference(recorded)}. Name "
                "another folder, or repeat the run as it was begun."
            )
        if not resume:
            raise RunFolderError(
                f"{self.folder} holds this run already; continue it with resume=True, or name "
                "another folder."
            )

    def _difference(self, recorded: dict[str, Any]) -> str:
        old, new = _flat(recorded), _flat(self.identity)
        keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        if keys == ["initial_fingerprint"]:
            return "it began from other initial weights (build the model from the same seed)"
        shown = (f"{key} is {old.get(key)!r} there and {new.get(key)!r} here" for key in keys)
        return "; ".join(s for s in shown if not s.startswith("initial_")) or "its record"

    def _check_empty(self) -> None:
        others = sorted(p.name for p in self.folder.iterdir() if not p.name.startswith("."))
        if others:
            raise RunFolderError(
                f"{self.folder} holds other files ({', '.join(others[:3])}) and no training run; "
                "name a new or empty folder."
            )


def _summary(history: list[dict[str, Any]]) -> dict[str, Any]:
    last = history[-1]
    return {
        "epochs": last["epoch"],
        "steps": last["steps"],
        "loss": last["loss"],
        "accuracy": last["accuracy"],
        "validation_accuracy": last.get("validation_accuracy"),
        "sensitivity": last["sensitivity"],
        "seconds": round(sum(line["seconds"] for line in history), 3),
    }


def _flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as "settings.epochs"."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        deeper = _flat(value, f"{key}.") if isinstance(value, dict) else {key: value}
        flat |= {f"{prefix}{k}": v for k, v in deeper.items()}
    return flat
