"""IBM's Adversarial Robustness Toolbox: `PyTorchRandomizedSmoothing`, where it is installed.

It smooths the input of the model it is given, so it gets the suffix, with the features as its
input: the prefix is then evaluated once, as for all others. It draws all noise of a call at once in
NumPy, in float64. What is timed is its counting of votes, from which its `certify` and its
`predict` are made; batch size swept like a chunk.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bench.baselines.base import AbstractContender, AbstractJob, Problem
from bench.cases import CLASSES
from pixeldp_fast.types import IntArray

PACKAGE = "adversarial-robustness-toolbox"


@dataclass(frozen=True)
class Art(AbstractContender):
    """`PyTorchRandomizedSmoothing._prediction_counts`."""

    @property
    def name(self) -> str:
        return "IBM ART"

    @property
    def version(self) -> str:
        return f"{PACKAGE} {importlib.metadata.version(PACKAGE)}; torch {torch.__version__}"

    def missing(self, problem: Problem) -> str:
        # `art` is also the name of another package, hence the look at the distribution.
        try:
            importlib.metadata.version(PACKAGE)
        except importlib.metadata.PackageNotFoundError:
            return f"{PACKAGE} is not installed (extra 'bench')"
        return ""

    def prepare(self, problem: Problem, chunk: int) -> AbstractJob:
        return _ArtJob(problem, chunk)


class _ArtJob(AbstractJob):
    def __init__(self, problem: Problem, batch: int) -> None:
        from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

        self._batch = batch
        self._center = problem.center[0].numpy()
        self._smoothed = PyTorchRandomizedSmoothing(
            model=problem.model.suffix,
            loss=nn.CrossEntropyLoss(),
            input_shape=problem.noise_shape,
            nb_classes=CLASSES,
            device_type="cpu",
            scale=problem.case.mechanism.sigma,
        )

    def outputs(self, noisy: Tensor) -> Tensor:
        found = self._smoothed._predict_classifier(
            x=noisy.numpy(), batch_size=self._batch, training_mode=False
        )
        return torch.from_numpy(np.asarray(found))

    def count(self, draws: int) -> IntArray:
        counts = self._smoothed._prediction_counts(self._center, n=draws, batch_size=self._batch)
        return np.asarray(counts).astype(np.int64)
