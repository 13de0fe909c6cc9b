"""The smoothed classifier: counts, predictions and certificates of one network and mechanism."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pixeldp_fast._version import __version__
from pixeldp_fast.backends.base import AbstractEngine
from pixeldp_fast.backends.registry import backend_names, prepared
from pixeldp_fast.backends.tally import Tally
from pixeldp_fast.errors import InvalidArgument, UnsupportedModel
from pixeldp_fast.models.fingerprint import fingerprint
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.stream import Purpose, Stream, check_draws, checked_seed, new_seed
from pixeldp_fast.plan.plan import Plan, make_plan
from pixeldp_fast.plan.snapshot import Structure
from pixeldp_fast.smooth.certificate import Certificates
from pixeldp_fast.smooth.decide import checked_radii, decision_rule, looks, radius_at
from pixeldp_fast.smooth.decisions import Decisions
from pixeldp_fast.smooth.inputs import (
    InputRange,
    addresses,
    checked_alpha,
    checked_count,
    checked_examples,
    checked_range,
    device_of,
    usable_device,
)
from pixeldp_fast.smooth.judge import Terms, check_scores
from pixeldp_fast.smooth.request import checked_request, reduction
from pixeldp_fast.smooth.soundness import CERTIFYING, check_declared, checked_inputs, soundness
from pixeldp_fast.smooth.stopping import AbstractRule, LossRule, drawn
from pixeldp_fast.smooth.structure import as_pixeldp, check_unaltered, sensitivities
from pixeldp_fast.smooth.vote import predicted_classes
from pixeldp_fast.types import ArrayLike, FloatArray, IntArray


class SmoothedClassifier:
    """The classifier that votes over noise: predict it, certify it.

    Parameters
    ----------
    model : PixelDP or nn.Module
        In eval mode. Any other module than a PixelDP needs `mechanism`: noise on its input.
    mechanism : Gaussian, Laplace or Uniform, optional
        Only with a plain module.
    num_classes : int
        At least 2; checked against the network's outputs.
    input_shape : tuple of int, optional
        Of one example; default: that of the first call.
    backend : {"auto", "triton", "native", "torch", "reference"}
        An explicit choice never falls back.
    dtype : torch.dtype, optional
        Default: IEEE float32, TF32 off. Others only when named here.
    seed : int, optional
        In [0, 2^64). Default: from the operating system; recorded in every certificate.
    device : optional
        Default: the model's. Nothing is moved silently.
    input_range : (low, high) or None
        What the values of x must lie in, default [0, 1]; None: no check. sigma and radii are in
        these units. With lattice noise behind a prefix claims are about inputs within it alone.
    tile : int, optional
        Draws per evaluation of the network. On torch and triton it is part of the arithmetic:
        results for different tiles may differ in the last bits of the outputs; triton rounds it up
        to a power of two of at least 128. On native it is an upper limit and changes no result.

    inputs : {"lattice", "real attacks", "real"}, optional
        With lattice noise, which inputs claims are about: points of the lattice, default where the
        noise is on the input; any attack on such a point; or any input at all. Rounding the
        others to the lattice costs radius: s sqrt(D)/2 in the 2-norm, s D/2 in the 1-norm, s the
        spacing, for the attack and once more for the example.

    Guarantee
        Certificates are about this smoothed classifier (with as many draws as it may need), not
        about the network alone, and hold for inputs chosen without knowledge of the seed.
    """

    def __init__(
        self,
        model: nn.Module,
        mechanism: AbstractMechanism | None = None,
        *,
        num_classes: int,
        input_shape: tuple[int, ...] | None = None,
        backend: str = "auto",
        dtype: torch.dtype | None = None,
        seed: int | None = None,
        device: torch.device | str | None = None,
        input_range: InputRange | None = (0.0, 1.0),
        tile: int | None = None,
        inputs: str | None = None,
    ) -> None:
        self.model = as_pixeldp(model, mechanism)
        self.input_range = checked_range(input_range)
        of_model = self.model.mechanism, self.model.prefix
        self.inputs = checked_inputs(inputs, *of_model, self.input_range)
        self.num_classes = checked_count("num_classes", num_classes, 2)
        self.seed_given = seed is not None
        self.seed = new_seed() if seed is None else checked_seed(seed)
        if backend not in backend_names():
            raise InvalidArgument(f"`backend` must be one of {backend_names()}, got {backend!r}.")
        self.backend = backend
        self.dtype = dtype
        self.tile = None if tile is None else checked_count("tile", tile, 1)
        self.device = device_of(self.model) if device is None else usable_device(device)
        self.input_shape = None if input_shape is None else tuple(int(s) for s in input_shape)
        self._next_index = 0
        self._engines: dict[Any, tuple[str, AbstractEngine]] = {}
        self._checked_weights = ""
        self._planned: tuple[Structure, Plan] | None = None

    @property
    def mechanism(self) -> AbstractMechanism:
        """The law of the noise."""
        return self.model.mechanism

    def with_seed(self, seed: int) -> SmoothedClassifier:
        """The same smoothed classifier drawing from another seed, its addresses starting at 0."""
        copy = SmoothedClassifier(
            self.model,
            num_classes=self.num_classes,
            input_shape=self.input_shape,
            backend=self.backend,
            dtype=self.dtype,
            seed=seed,
            device=self.device,
            input_range=self.input_range,
            tile=self.tile,
            inputs=self.inputs,
        )
        copy._engines, copy._checked_weights = self._engines, self._checked_weights
        copy._planned = self._planned
        return copy

    def count(
        self,
        x: Tensor,
        n: int,
        *,
        first_draw: int = 0,
        index: Any = None,
        purpose: str | Purpose = "estimation",
        scores: str = "argmax",
    ) -> Tally:
        """Tally `n` draws of every example.

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
        purpose : {"selection", "estimation", "prediction", ...}
            Draws of different purposes never coincide.
        scores : {"argmax", "softmax"}
            "softmax" adds sums of softmax scores.

        Returns
        -------
        tally : Tally
            `.counts` int64 [B, K + 1], the last column for non-finite outputs.
        """
        check_scores(scores)
        purpose = Purpose.parse(purpose)
        n, first_draw = checked_count("n", n, 0), checked_count("first_draw", first_draw, 0)
        check_draws(first_draw, n)
        self.check_examples(x, certified=purpose in CERTIFYING)
        engine = self._engine(scores)[1]
        stream = Stream(self.seed, purpose)
        return engine.run(x, self._addresses(index, len(x)), stream, first_draw, n)

    def predict(
        self,
        x: Tensor,
        n: int = 1000,
        alpha: float = 0.001,
        *,
        scores: str = "argmax",
        index: Any = None,
    ) -> IntArray:
        """The smoothed classifier's class for every example, or ABSTAIN.

        Parameters
        ----------
        x : float32 [B, *input_shape]
        n : int
            Draws per example, at least 1.
        alpha : float
            Probability, per example, of returning a class that is not the smoothed one's.

        Returns
        -------
        prediction : int64 [B]
            -1 where the draws do not decide.

        Guarantee
            For inputs chosen without knowledge of the draws. Without a seed and an index, every
            call draws from a fresh secret of the operating system; with either, the draws can be
            known beforehand: for repeating results, not for serving.
        Source
            Cohen et al., ICML 2019, section 3.2.1 (votes); Hoeffding, 1963 (softmax).
        """
        n, alpha = checked_count("n", n, 1), checked_alpha(alpha)
        self.check_examples(x, certified=False)
        serving = self if self.seed_given or index is not None else self.with_seed(new_seed())
        tally = serving.count(x, n, index=index, purpose=Purpose.PREDICTION, scores=scores)
        return predicted_classes(tally, scores, alpha)

    def certify(
        self,
        x: Tensor,
        *,
        norm: Any = None,
        n0: int = 100,
        n: int = 100_000,
        alpha: float = 0.001,
        scores: str = "argmax",
        bound: str = "tight",
        competitor: str = "complement",
        stop: str = "fixed",
        loss: float | None = None,
        mean_bound: str | None = None,
        index: Any = None,
    ) -> Certificates:
        """A class and a radius within which it does not change, for every example.

        Parameters
        ----------
        x : float32 [B, *input_shape]
        norm : {1, 2, inf}, optional
            The attack's; default: the mechanism's own.
        n0, n : int
            Draws that select the class, and draws that bound its probability.
        alpha : float
            Probability, per example, that the claim is false.
        bound : {"tight", "pixeldp", "pixeldp-classical"}
            From probabilities to radius; `tight` is never smaller than the others.
        competitor : {"complement", "all"}
            Against what the class must win: all of alpha on its own bound and the rest of the
            probability, or half of alpha shared by bounds of the other classes.
        stop : {"fixed", "loss"}
            "loss" ends an example early where its radius is then predicted to be within `loss`
            (relative, default 0.01) of that of n draws. A quarter of alpha goes to the early ends.
        mean_bound : {"betting", "bernstein", "hoeffding", "hoeffding+bernstein"}, optional
            Of softmax scores; default: "betting".
        index : int or int [B], optional
            As for `count`; an explicit one makes the call repeatable.

        Returns
        -------
        certificates : Certificates
            Radius in input units.
        """
        rules = {"competitor": competitor, "stop": stop, "loss": loss, "mean_bound": mean_bound}
        terms = self.terms(
            x, norm=norm, n0=n0, n=n, alpha=alpha, scores=scores, bound=bound, **rules
        )
        at = self._addresses(index, len(x))
        selection = self.count(x, terms.n0, index=at, purpose=Purpose.SELECTION, scores=scores)
        if stop == "fixed":
            estimation = self.count(x, terms.n, index=at, scores=scores)
        else:
            estimation = self._drawn(x, at, LossRule(terms, selection))
        self.check_unchanged(terms)
        return Certificates.judged(terms, at.astype(np.int64), selection, estimation)

    def decide(
        self,
        x: Tensor,
        radii: ArrayLike,
        *,
        norm: Any = None,
        n0: int = 100,
        n_max: int = 100_000,
        alpha: float = 0.001,
        index: Any = None,
    ) -> Decisions:
        """Whether each radius holds, with as few draws as it takes: one run answers all radii.

        Parameters
        ----------
        x : float32 [B, *input_shape]
        radii : float or float [R]
            In input units and `norm`, at least 0.
        n0, n_max : int
            Draws that select the class, and the most that decide about it.
        alpha : float
            Probability, per example, that any of its answers is wrong.

        Returns
        -------
        decisions : Decisions
            `.status` int8 [B, R], `.draws` int64 [B], `.radius` float64 [B].

        Raises
        ------
        InvalidArgument
            Before any draw, for a radius that `n_max` unanimous draws do not prove.
        """
        terms, asked = self.decision_terms(x, radii, norm=norm, n0=n0, n_max=n_max, alpha=alpha)
        at = self._addresses(index, len(x))
        selection = self.count(x, terms.n0, index=at, purpose=Purpose.SELECTION)
        rule = decision_rule(terms, selection, asked, self.looks(terms))
        estimation = self._drawn(x, at, rule)
        self.check_unchanged(terms)
        return Decisions.judged(
            terms,
            asked,
            at.astype(np.int64),
            selection,
            estimation,
            rule.lower_at,
            rule.upper_at,
        )

    def decision_terms(
        self, x: Tensor, radii: ArrayLike, *, n_max: int = 100_000, **request: Any
    ) -> tuple[Terms, FloatArray]:
        """Check a request to decide: its terms, and the radii float64 [R]."""
        terms = replace(self.terms(x, n=n_max, **request), stop="decided")
        return terms, checked_radii(radii, radius_at(terms), terms.alpha, terms.n)

    def looks(self, terms: Terms) -> tuple[int, ...]:
        """The numbers of draws at which `decide` looks; the engine fills each."""
        return tuple(looks(terms.n, self._engine("argmax")[1].granularity))

    def _drawn(self, x: Tensor, at: Any, rule: AbstractRule) -> Tally:
        """Votes of every example until the rule stops it."""
        engine, stream = self._engine("argmax")[1], Stream(self.seed, Purpose.ESTIMATION)

        def count(rows: IntArray, first: int, n: int) -> Tally:
            return engine.run(x[torch.from_numpy(rows)], at[rows], stream, first, n)

        return drawn(count, rule, len(x))

    def terms(self, x: Tensor, **request: Any) -> Terms:
        """Check a request to certify, and everything its certificates will state.

        `x` gives the shape and is checked like the examples of `certify`; `request` holds the
        keyword arguments of `certify`, but for `index`.
        """
        asked = checked_request(self.num_classes, **request)
        self.check_examples(x)
        assert self.input_shape is not None
        plan = self._plan_for(self.input_shape)
        weights = fingerprint(self.model)
        name, engine = self._engine(asked.scores, fresh=weights != self._checked_weights)
        engine.renew()
        self._checked_weights = weights
        values = vars(asked) | {"norm": asked.norm or self.mechanism.norm}
        return Terms(
            mechanism=self.mechanism,
            sensitivities=sensitivities(plan, values["norm"], self.mechanism.norm),
            seed=self.seed,
            num_classes=self.num_classes,
            input_shape=plan.input_shape,
            backend=name,
            arithmetic=engine.arithmetic,
            model_fingerprint=weights,
            version=__version__,
            **values,
            **vars(soundness(plan, self.mechanism, self.inputs, self.input_range)),
        )

    def check_examples(self, x: Any, *, certified: bool = True) -> None:
        """Refuse examples of the wrong type, shape, range or device, or off a declared lattice.

        `certified`: whether claims are made around them; else they may be attacked inputs.
        """
        checked_examples(x, self.input_shape, self.input_range, self.device)
        check_declared(x, self.mechanism, self.inputs, certified=certified)
        if self.input_shape is None:
            self._plan_for(tuple(x.shape[1:]))  # a shape that the network refuses is not kept
            self.input_shape = tuple(x.shape[1:])

    def check_unchanged(self, terms: Terms) -> None:
        """Refuse to go on when the model, or how it is evaluated, is no longer what `terms` say.

        Raises
        ------
        UnsupportedModel
            Naming what changed since the terms were made.
        """
        _, engine = self._engine(terms.scores)
        now = {
            "mechanism": self.mechanism,
            "seed": self.seed,
            "arithmetic": engine.arithmetic,
            "model_fingerprint": fingerprint(self.model),
        }
        changed = [name for name, value in now.items() if value != getattr(terms, name)]
        if changed:
            raise UnsupportedModel(
                f"{', '.join(changed)} changed while draws were made, so that they are not draws "
                "of one classifier; leave the model and torch's settings alone and start again."
            )

    def _addresses(self, index: Any, examples: int) -> Any:
        found = addresses(index, self._next_index, examples)
        self._next_index += examples if index is None else 0
        return found

    def _plan_for(self, input_shape: tuple[int, ...]) -> Plan:
        """The plan of the model as it is now, its shapes measured by evaluating it."""
        check_unaltered(self.model)
        prefix, suffix = self.model.prefix, self.model.suffix
        structure = Structure(prefix, suffix)  # first: an edit meanwhile then shows in it
        plan = make_plan(prefix, suffix, input_shape, self.num_classes)
        self._planned = structure, plan
        return plan

    def _checked_plan(self) -> Plan:
        """The plan; evaluated anew where more has changed than numbers of equal shape."""
        assert self.input_shape is not None
        check_unaltered(self.model)
        if self._planned is not None:
            structure, plan = self._planned
            of_this = self.model.prefix, self.model.suffix, self.input_shape
            if of_this == (plan.prefix, plan.suffix, plan.input_shape) and structure.matches():
                return plan
        return self._plan_for(self.input_shape)

    def _engine(self, scores: str, *, fresh: bool = False) -> tuple[str, AbstractEngine]:
        """An engine for the model as it is now; a prepared one if no part was exchanged since.

        Preparing evaluates the suffix a few times, to see that it is a function.
        """
        plan = self._checked_plan()
        kept = reduction(scores, self.num_classes)
        key = (
            kept,
            self.mechanism,
            self.backend,
            self.dtype,
            self.tile,
            self.device,
            plan.noise_shape,
            tuple((part, part.forward) for part in self.model.modules()),
        )
        if fresh or key not in self._engines:
            made = prepared(
                self.backend,
                plan,
                self.mechanism,
                kept,
                self.device,
                dtype=self.dtype,
                tile=self.tile,
            )
            self._engines.clear()  # only the model as it is now; copies share the dictionary
            self._engines[key] = made
        return self._engines[key]
