"""Training a PixelDP network: noise in every step, the prefix at sensitivity 1, resumable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixeldp_fast.data.dataset import Dataset
from pixeldp_fast.errors import (
    CheckpointError,
    InvalidArgument,
    TrainingDiverged,
    UnsupportedModel,
)
from pixeldp_fast.models.checkpoint import CheckpointConfig
from pixeldp_fast.models.registry import build
from pixeldp_fast.models.state import check_state
from pixeldp_fast.plan.plan import make_plan
from pixeldp_fast.plan.sensitivity import sensitivity
from pixeldp_fast.smooth.model import PixelDP
from pixeldp_fast.train.batches import batches, derived_seed, steps_per_epoch
from pixeldp_fast.train.centring import Centring
from pixeldp_fast.train.evaluate import accuracy_under_noise
from pixeldp_fast.train.prefix import hold_
from pixeldp_fast.train.run import Run, identity_of
from pixeldp_fast.train.schedule import FULL_NOISE_STEP, learning_rate, noise_factor
from pixeldp_fast.train.settings import TrainingSettings
from pixeldp_fast.train.sgd import MomentumSGD
from pixeldp_fast.train.state import claimed
from pixeldp_fast.types import Norm

REPORT_SECONDS = 0.1  # at most ten reports a second
Progress = Callable[[int, int, dict[str, Any]], None]


def train(
    model: PixelDP,
    dataset: Dataset,
    settings: TrainingSettings,
    *,
    out: str | Path,
    config: Mapping[str, Any],
    resume: bool = True,
    progress: Progress | None = None,
    validation: Dataset | None = None,
) -> dict[str, Any]:
    """Minimise the cross-entropy of single noisy draws, one per example and step.

    Parameters
    ----------
    model : PixelDP
        Trained in place, on the device it is on, and left in eval mode. Its prefix, where it has
        weights to train, is held at sensitivity 1 after every step; it is always evaluated in eval
        mode, since a map that depends on the batch has no sensitivity.
    dataset : Dataset
        Its classes are the model's outputs.
    settings : TrainingSettings
    out : path
        A folder of this run's own, made where it is missing. Ends with `model.safetensors`,
        `config.json` and `history.jsonl`, one line per epoch.
    config : mapping
        "architecture", a name of `pixeldp_fast.models.NETWORKS` or "module:factory", and
        "options", its keyword arguments: what rebuilds the network.
    resume : bool
        Whether to continue the same run, or return its result where it is finished; False refuses
        a folder that holds one.
    progress : callable or None
        Called with (steps done, steps in all, info) at most ten times a second and at the end;
        info has "epoch", "epochs", "loss", "accuracy", "learning_rate" and "steps_per_second".
    validation : Dataset or None
        Of which up to 2000 examples are classified by one draw each after every epoch.

    Returns
    -------
    summary : dict
        "epochs", "steps", "loss", "accuracy", "validation_accuracy", "sensitivity", "seconds" and
        "fingerprint"; accuracies of single draws, loss and accuracy over the last epoch.

    Raises
    ------
    InvalidArgument, DataError, UnsupportedModel, RunFolderError
        Before any work, for what does not fit together.
    TrainingDiverged
        When the loss is not finite. The state after the last whole epoch is kept.

    Guarantee
        Equal arguments, initial weights and torch build on one CPU with one number of threads give
        equal weights, however often the run was killed and resumed: all randomness of an epoch is
        derived from the seed and the number of the epoch. A trained prefix ends with a
        `sensitivity` not above 1. Torch's own generator is left as it was.
    Source
        Lecuyer et al., IEEE S&P 2019, section III-C; the exact bound takes the place of their
        approximate projection.
    """
    checkpoint = _checked(model, dataset, settings, config, validation)
    folder = Path(out)
    with claimed(folder):
        run = Run(folder, checkpoint, identity_of(model, dataset, settings, checkpoint))
        if not run.restore_finished(model, resume):
            trainer = _Trainer(model, dataset, settings, run, progress, validation)
            run.restore(model, trainer.optimiser, resume)
            trainer.train()
            run.finish(model)
        return run.result


class _Trainer:
    def __init__(
        self,
        model: PixelDP,
        dataset: Dataset,
        settings: TrainingSettings,
        run: Run,
        progress: Progress | None,
        validation: Dataset | None,
    ) -> None:
        self.model, self.dataset, self.settings = model, dataset, settings
        self.run, self.progress, self.validation = run, progress, validation
        self.optimiser = MomentumSGD(model, settings.momentum, settings.weight_decay)
        self.centring = Centring(model.suffix) if settings.centred else None
        self.per_epoch = steps_per_epoch(dataset, settings)
        self.total = self.per_epoch * settings.epochs
        self.device = _device(model)
        self.sensitivity = 0.0
        self.reported = self.started = time.monotonic()

    def train(self) -> None:
        """All epochs that the run does not have yet."""
        cuda = [self.device] if self.device.type == "cuda" else []
        first = len(self.run.history)
        # A restored prefix was held already: scaling it again could change its last bits.
        measure = _prefix_sensitivity if first else _hold_prefix
        self.sensitivity = measure(self.model, self.dataset, self.settings)
        watching = self.centring.watching() if self.centring else nullcontext()
        with torch.random.fork_rng(devices=cuda), watching:
            for epoch in range(first, self.settings.epochs):
                begun = time.monotonic()
                torch.manual_seed(derived_seed(self.settings, epoch, 1))
                self.model.train()
                self.model.prefix.eval()
                line = self._epoch(epoch, first)
                self.model.eval()
                self._check_weights(epoch)
                if self.validation is not None:
                    line["validation_accuracy"] = accuracy_under_noise(self.model, self.validation)
                line["seconds"] = round(time.monotonic() - begun, 3)
                self.run.save(self.model, self.optimiser, line)

    def _epoch(self, epoch: int, first: int) -> dict[str, Any]:
        loss_sum, right, seen, rate = 0.0, 0, 0, 0.0
        for i, (images, labels) in enumerate(batches(self.dataset, self.settings, epoch)):
            step = epoch * self.per_epoch + i
            rate = learning_rate(self.settings, step, self.total)
            loss, hits = self._step(images.to(self.device), labels.to(self.device), step, rate)
            seen, right, loss_sum = seen + len(labels), right + hits, loss_sum + loss * len(labels)
            self._report(
                step + 1,
                first * self.per_epoch,
                {"epoch": epoch + 1, "loss": loss_sum / seen, "accuracy": right / seen},
                rate,
            )
        return {
            "epoch": epoch + 1,
            "steps": (epoch + 1) * self.per_epoch,
            "loss": loss_sum / seen,
            "accuracy": right / seen,
            "learning_rate": rate,
            "sensitivity": self.sensitivity,
        }

    def _step(self, images: Tensor, labels: Tensor, step: int, rate: float) -> tuple[float, int]:
        features = self.model.prefix(images)
        logits = self.model.suffix(self.model.noisy(features, noise_factor(self.settings, step)))
        loss = functional.cross_entropy(logits, labels)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._diverged(f"The loss became {value} at step {step}")
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        with self.centring.step() if self.centring else nullcontext():
            self.optimiser.step(rate)
        if _trains_prefix(self.model):
            try:
                self.sensitivity = _hold_prefix(self.model, self.dataset, self.settings)
            except (InvalidArgument, UnsupportedModel) as error:
                raise self._diverged(f"The prefix was lost at step {step} ({error})") from error
        return value, int((logits.argmax(1) == labels).sum())

    def _check_weights(self, epoch: int) -> None:
        for name, tensor in self.model.state_dict().items():
            if not torch.isfinite(tensor).all():
                raise self._diverged(f"{name} is not finite after epoch {epoch + 1}")

    def _diverged(self, what: str) -> TrainingDiverged:
        return TrainingDiverged(
            f"{what} of {self.total}. Try `learning_rate` {self.settings.learning_rate / 10:g} "
            f"instead of {self.settings.learning_rate:g}, or less noise, in a new folder. "
            f"{self.run.folder} keeps the state after epoch {len(self.run.history)}."
        )

    def _report(self, step: int, start: int, info: dict[str, Any], rate: float) -> None:
        now = time.monotonic()
        if self.progress is None or (now - self.reported < REPORT_SECONDS and step < self.total):
            return
        self.reported = now
        speed = (step - start) / max(now - self.started, 1e-9)
        more = {"epochs": self.settings.epochs, "learning_rate": rate, "steps_per_second": speed}
        self.progress(step, self.total, {**info, **more})


def _checked(
    model: PixelDP,
    dataset: Dataset,
    settings: TrainingSettings,
    config: Mapping[str, Any],
    validation: Dataset | None,
) -> CheckpointConfig:
    """What rebuilds the network, after everything that can be refused has been looked at."""
    if not isinstance(model, PixelDP):
        raise InvalidArgument(f"`model` must be a PixelDP, got {type(model).__name__}.")
    if not isinstance(settings, TrainingSettings):
        raise InvalidArgument(f"`settings` must be TrainingSettings, got {settings!r}.")
    unknown = set(config) - {"architecture", "options"}
    if unknown or not isinstance(config.get("architecture"), str):
        raise InvalidArgument(
            "`config` must have 'architecture', a name, and may have 'options', a mapping; got "
            f"{dict(config)!r}."
        )
    if len(dataset) == 0:
        raise InvalidArgument(f"The data set {dataset.name} has no examples to train on.")
    shape, classes = dataset.input_shape, dataset.known_classes()
    if validation is not None and (validation.input_shape, validation.known_classes()) != (
        shape,
        classes,
    ):
        raise InvalidArgument(
            f"`validation` has images {validation.input_shape} of {validation.num_classes} "
            f"classes, the training data {shape} of {classes}."
        )
    _check_fit(model, dataset)
    _prefix_sensitivity(model, dataset, settings)  # refuses what cannot be certified
    _check_ramp(dataset, settings)
    if settings.centred:
        Centring(model.suffix)  # refuses a suffix without such a layer
    options = dict(config.get("options") or {})
    checkpoint = CheckpointConfig(config["architecture"], shape, classes, options)
    _check_rebuilds(model, checkpoint)
    return checkpoint


def _check_fit(model: PixelDP, dataset: Dataset) -> None:
    model.eval()
    try:
        make_plan(model.prefix, model.suffix, dataset.input_shape, dataset.known_classes())
    except (UnsupportedModel, InvalidArgument) as error:
        shape = "x".join(map(str, dataset.input_shape))
        raise InvalidArgument(
            f"The model does not fit the data set {dataset.name} ({shape} images, "
            f"{dataset.num_classes} classes): {error}"
        ) from error


def _check_rebuilds(model: PixelDP, config: CheckpointConfig) -> None:
    """Refuse now what `models.checkpoint` would refuse after the last epoch."""
    with torch.random.fork_rng(devices=[]):
        prefix, suffix = build(
            config.architecture,
            input_shape=config.input_shape,
            num_classes=config.num_classes,
            **config.options,
        )
    rebuilt = PixelDP(prefix, model.mechanism, suffix)
    try:
        check_state(rebuilt, model.state_dict(), "The model")
    except CheckpointError as error:
        raise InvalidArgument(f"`config` does not rebuild the model: {error}") from error


def _check_ramp(dataset: Dataset, settings: TrainingSettings) -> None:
    per_epoch = steps_per_epoch(dataset, settings)
    if settings.noise_ramp == "original" and settings.epochs * per_epoch <= FULL_NOISE_STEP:
        raise InvalidArgument(
            f"The noise ramp reaches the full noise at step {FULL_NOISE_STEP}, after the end of "
            f"{settings.epochs} epochs of {per_epoch} steps. Use noise_ramp='none', or at least "
            f"{FULL_NOISE_STEP // per_epoch + 1} epochs."
        )


def _trains_prefix(model: PixelDP) -> bool:
    return any(p.requires_grad for p in model.prefix.parameters())


def _prefix_sensitivity(model: PixelDP, dataset: Dataset, settings: TrainingSettings) -> float:
    return sensitivity(model.prefix, dataset.input_shape, *_norms(model, settings))


def _hold_prefix(model: PixelDP, dataset: Dataset, settings: TrainingSettings) -> float:
    """The prefix's sensitivity, after scaling it to 1 where it is trained."""
    if not _trains_prefix(model):
        return _prefix_sensitivity(model, dataset, settings)
    return hold_(model.prefix, dataset.input_shape, *_norms(model, settings))


def _norms(model: PixelDP, settings: TrainingSettings) -> tuple[Norm, Norm]:
    """Of the attack and of the mechanism."""
    q = model.mechanism.norm
    return (q if settings.norm is None else settings.norm), q


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
