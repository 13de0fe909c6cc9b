"""The smoothed regressor: the mean of a real output under noise, with certified intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pixeldp_fast._version import __version__
from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.errors import InvalidArgument, UnsupportedModel
from pixeldp_fast.models.fingerprint import fingerprint
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.stream import Purpose, Stream, check_draws
from pixeldp_fast.smooth.inputs import (
    InputRange,
    checked_alpha,
    checked_count,
    checked_range,
)
from pixeldp_fast.smooth.regression_judge import outside
from pixeldp_fast.smooth.regression_record import Intervals
from pixeldp_fast.smooth.regression_terms import (
    RegressionTerms,
    check_choices,
    checked_output,
    checked_radii,
)
from pixeldp_fast.smooth.soundness import (
    CERTIFYING,
    check_declared,
    checked_inputs,
    soundness,
)
from pixeldp_fast.smooth.source import Source
from pixeldp_fast.smooth.structure import as_pixeldp, sensitivities
from pixeldp_fast.types import ArrayLike, Norm

BINS = 1024


class SmoothedRegressor:
    """The regressor that averages a real output over noise: certify how far it can be moved.

    Parameters
    ----------
    model : PixelDP or nn.Module
        In eval mode, with one output. Any other module than a PixelDP needs `mechanism`: noise on
        its input.
    mechanism : Gaussian, Laplace or Uniform, optional
        Only with a plain module.
    low, high : float
        The declared range of the output, finite, low <= 0 <= high.
    clip : bool
        True: outputs are clipped to the range, as part of the certified model. False: a draw beyond
        it is refused; the certified model then still counts outputs that no draw has shown as the
        end they are beyond.
    non_finite : float
        In [low, high]; what an output counts as that is NaN or infinite.
    bins : int
        Cells of the histogram behind the bounds "distribution" and "quantile": a cell is how much
        they lose to rounding.
    input_shape, backend, dtype, seed, device, input_range, tile, inputs
        As for `SmoothedClassifier`.

    Guarantee
        Intervals are about the expectation (or the quantile) of the output under noise, not about
        the network alone, and hold for inputs chosen without knowledge of the seed.
    """

    def __init__(
        self,
        model: nn.Module,
        mechanism: AbstractMechanism | None = None,
        *,
        low: float,
        high: float,
        clip: bool = False,
        non_finite: float = 0.0,
        bins: int = BINS,
        input_shape: tuple[int, ...] | None = None,
        backend: str = "auto",
        dtype: torch.dtype | None = None,
        seed: int | None = None,
        device: torch.device | str | None = None,
        input_range: InputRange | None = (0.0, 1.0),
        tile: int | None = None,
        inputs: str | None = None,
    ) -> None:
        self.reduction = checked_output(low, high, non_finite, bins)
        if not isinstance(clip, bool):
            raise InvalidArgument(f"`clip` must be True or False, got {clip!r}.")
        self.clip = clip
        self.model = as_pixeldp(model, mechanism)
        of_model = self.model.mechanism, self.model.prefix
        self.inputs = checked_inputs(inputs, *of_model, checked_range(input_range))
        self._source = Source(
            self.model,
            self.reduction,
            input_shape=input_shape,
            backend=backend,
            dtype=dtype,
            seed=seed,
            device=device,
            input_range=input_range,
            tile=tile,
        )
        self._checked_weights = ""

    @property
    def mechanism(self) -> AbstractMechanism:
        """The law of the noise."""
        return self.model.mechanism

    @property
    def seed(self) -> int:
        """Of all draws; recorded in every result."""
        return self._source.seed

    @property
    def device(self) -> torch.device:
        """Where examples must be."""
        return self._source.device

    def count(
        self,
        x: Tensor,
        n: int,
        *,
        first_draw: int = 0,
        index: Any = None,
        purpose: str | Purpose = "estimation",
    ) -> Tally:
        """Tally `n` draws of every example: see `RealHistogram` for the columns.

        Parameters
        ----------
        x : float32 [B, *input_shape]
        n : int
            At least 0.
        first_draw : int
            Draws [first_draw, first_draw + n): tallies of adjoining ranges add up.
        index : int or int [B], optional
            The examples' addresses; an int is the first of consecutive ones. Default: a counter of
            this object goes on, so that successive calls never share noise.
        """
        purpose = Purpose.parse(purpose)
        n, first_draw = checked_count("n", n, 0), checked_count("first_draw", first_draw, 0)
        check_draws(first_draw, n)
        self._source.check_examples(x)
        certified = purpose in CERTIFYING
        check_declared(x, self.mechanism, self.inputs, certified=certified)
        addresses = self._source.addresses(index, len(x))
        engine = self._source.engine()[1]
        return engine.run(x, addresses, Stream(self.seed, purpose), first_draw, n)

    def certify(
        self,
        x: Tensor,
        radius: ArrayLike,
        *,
        norm: Any = None,
        n: int = 10_000,
        alpha: float = 0.001,
        bound: str = "parts",
        mean_bound: str = "betting",
        quantile: float = 0.5,
        index: Any = None,
    ) -> Intervals:
        """How far attacks within each radius can move the smoothed output, for every example.

        Parameters
        ----------
        x : float32 [B, *input_shape]
        radius : float or float [R]
            In input units and `norm`, at least 0.
        norm : {1, 2, inf}, optional
            The attack's; default: the mechanism's own.
        n : int
            Draws per example.
        alpha : float
            Probability, per example, that an interval is wrong at any of the radii; shared by all
            one-sided bounds behind it.
        bound : {"lemma2", "mean", "parts", "distribution", "quantile"}
            From what is known of the draws: the paper's Lemma 2 at its best epsilon, the mean, the
            means of both parts (never wider than Lemma 2), the whole distribution. "quantile" is
            about another smoothed model: the one that serves the quantile.
        mean_bound : {"betting", "bernstein", "hoeffding"}
            The confidence bound of means; betting is nearly always the narrowest.
        quantile : float
            In (0, 1), for the bound "quantile"; 0.5 is the median.
        index : int or int [B], optional
            As for `count`; an explicit one makes the call repeatable.

        Returns
        -------
        intervals : Intervals
            `.mean` [B]; `.lower` and `.upper` [B], or [B, R] for a list of radii.

        Raises
        ------
        InvalidArgument
            Before any draw for bad arguments; after the draws when one left the declared range and
            `clip` is not set.
        """
        terms = self.terms(
            x,
            radius,
            norm=norm,
            n=n,
            alpha=alpha,
            bound=bound,
            mean_bound=mean_bound,
            quantile=quantile,
        )
        addresses = self._source.addresses(index, len(x))
        tally = self.count(x, terms.n, index=addresses)
        self._check_unchanged(terms)
        self._check_range(tally)
        one = np.ndim(radius) == 0
        return Intervals.judged(terms, addresses.astype(np.int64), tally, one_radius=one)

    def terms(
        self,
        x: Tensor,
        radius: ArrayLike,
        *,
        norm: Any = None,
        n: int = 10_000,
        alpha: float = 0.001,
        bound: str = "parts",
        mean_bound: str = "betting",
        quantile: float = 0.5,
    ) -> RegressionTerms:
        """Check a request to certify, and everything its intervals will state.

        `x` gives the shape and is checked like the examples of `certify`.
        """
        asked = self.mechanism.norm if norm is None else Norm.parse(norm)
        n, alpha, radii = checked_count("n", n, 1), checked_alpha(alpha), checked_radii(radius)
        check_choices(bound, mean_bound, quantile, n)
        check_draws(0, n)
        self.reduction.check_draws(n)
        source = self._source
        source.check_examples(x)
        check_declared(x, self.mechanism, self.inputs, certified=True)
        plan = source.plan(fresh=True)
        weights = fingerprint(self.model)
        name, engine = source.engine(fresh=weights != self._checked_weights)
        engine.renew()
        self._checked_weights = weights
        return RegressionTerms(
            mechanism=self.mechanism,
            norm=asked,
            radii=radii,
            bound=bound,
            mean_bound=mean_bound,
            alpha=alpha,
            n=n,
            low=self.reduction.low,
            high=self.reduction.high,
            clip=self.clip,
            non_finite=self.reduction.non_finite,
            bins=self.reduction.bins,
            quantile=quantile,
            sensitivities=sensitivities(plan, asked, self.mechanism.norm),
            seed=self.seed,
            input_shape=plan.input_shape,
            backend=name,
            arithmetic=engine.arithmetic,
            model_fingerprint=weights,
            version=__version__,
            **vars(soundness(plan, self.mechanism, self.inputs, source.input_range)),
        )

    def _check_unchanged(self, terms: RegressionTerms) -> None:
        """Refuse draws of a model that is no longer what `terms` say."""
        now = {
            "mechanism": self.mechanism,
            "arithmetic": self._source.engine()[1].arithmetic,
            "model_fingerprint": fingerprint(self.model),
        }
        changed = [name for name, value in now.items() if value != getattr(terms, name)]
        if changed:
            raise UnsupportedModel(
                f"{', '.join(changed)} changed while draws were made, so that they are not draws "
                "of one regressor; leave the model and torch's settings alone and start again."
            )

    def _check_range(self, tally: Tally) -> None:
        beyond = outside(tally)
        if self.clip or not beyond.any():
            return
        row = int(beyond.argmax())
        raise InvalidArgument(
            f"{int(beyond.sum())} draws left the declared range [{self.reduction.low:g}, "
            f"{self.reduction.high:g}], {int(beyond[row])} of them of example {row}. Outputs are "
            "never clipped silently: declare a wider range, or clip=True, which makes the clipping "
            "part of the certified model."
        )
