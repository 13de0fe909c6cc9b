"""Cohen's `Smooth`, unchanged in meaning: his scripts run by changing one import."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.gaussian import Gaussian
from pixeldp_fast.noise.stream import checked_seed, new_seed
from pixeldp_fast.smooth.classifier import SmoothedClassifier
from pixeldp_fast.types import ABSTAIN


class Smooth:
    """A classifier smoothed by Gaussian noise on its input, one example at a time.

    Parameters
    ----------
    base_classifier : nn.Module
        Maps [B, C, H, W] to [B, num_classes]. Put into eval mode here, as his scripts do.
    num_classes : int
    sigma : float
        In input units.
    seed : int, optional
        In [0, 2^64). Default: from the operating system.

    Guarantee
        As `SmoothedClassifier.predict` and `.certify`; the radius is rounded down.
    Source
        Cohen, Rosenfeld and Kolter, ICML 2019, and the interface of their published code.
    """

    ABSTAIN = ABSTAIN

    def __init__(
        self,
        base_classifier: nn.Module,
        num_classes: int,
        sigma: float,
        *,
        seed: int | None = None,
    ) -> None:
        if not isinstance(base_classifier, nn.Module):
            raise InvalidArgument(
                f"`base_classifier` must be an nn.Module, got {type(base_classifier).__name__}."
            )
        self.base_classifier = base_classifier.eval()
        self.num_classes = num_classes
        self.sigma = sigma
        self.seed = new_seed() if seed is None else checked_seed(seed)
        self._smoothed: dict[int, SmoothedClassifier] = {}
        self._next_index = 0

    def certify(
        self, x: Tensor, n0: int, n: int, alpha: float, batch_size: int
    ) -> tuple[int, float]:
        """The class of one example [C, H, W] and its 2-norm radius, or (ABSTAIN, 0.0)."""
        certificates = self._for(batch_size).certify(
            self._batch(x), n0=n0, n=n, alpha=alpha, index=self._address()
        )
        return int(certificates.prediction[0]), float(certificates.radius[0])

    def predict(self, x: Tensor, n: int, alpha: float, batch_size: int) -> int:
        """The class of one example [C, H, W], or ABSTAIN."""
        smoothed = self._for(batch_size)
        return int(smoothed.predict(self._batch(x), n, alpha, index=self._address())[0])

    def _for(self, batch_size: int) -> SmoothedClassifier:
        """One smoothed classifier per batch size, all with the same seed."""
        if batch_size not in self._smoothed:
            self._smoothed[batch_size] = SmoothedClassifier(
                self.base_classifier,
                Gaussian(self.sigma),
                num_classes=self.num_classes,
                seed=self.seed,
                input_range=None,
                tile=batch_size,
            )
        return self._smoothed[batch_size]

    def _address(self) -> int:
        """A new address per call, so that no two calls share noise."""
        self._next_index += 1
        return self._next_index - 1

    @staticmethod
    def _batch(x: Tensor) -> Tensor:
        if not isinstance(x, torch.Tensor) or x.ndim < 1:
            raise InvalidArgument("`x` must be one example, a float32 tensor [C, H, W].")
        return x[None]
