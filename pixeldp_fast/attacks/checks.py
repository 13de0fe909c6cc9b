"""Checks that an attack is no bluff: a model that only hides its gradient fails them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pixeldp_fast.attacks.attack import attack, checked_labels
from pixeldp_fast.attacks.expectation import Expectation
from pixeldp_fast.attacks.threat import diameter
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.stream import new_seed
from pixeldp_fast.smooth.classifier import SmoothedClassifier
from pixeldp_fast.smooth.inputs import addresses, checked_count
from pixeldp_fast.types import IntArray, Norm

Mask = npt.NDArray[np.bool_]
Tell = Callable[[int, int, dict[str, Any]], None]

FEWEST = 10  # examples, held without an attack, from which anything can be concluded
HALVINGS = 8  # the first size is the box's diagonal, halved so often
UNBOUNDED = 0.99  # share that must be broken in the end
WIDE = 2.0  # how many times as many as by random points of the same norm
COSINE = 0.3  # least median agreement of gradients from disjoint draws
GRADIENT_DRAWS = 256  # for that: with few draws, honest gradients disagree, too
TINY = 1e-12


@dataclass(frozen=True)
class Check:
    """What was checked, whether it passed, and what was seen."""

    name: str
    passed: bool
    detail: str


def sanity(
    model: SmoothedClassifier,
    x: Tensor,
    y: Any,
    *,
    norm: Any = None,
    steps: int = 20,
    draws: int = 15,
    verify: int = 500,
    index: Any = None,
    progress: Tell | None = None,
) -> list[Check]:
    """Attack examples in every way and compare: gradient, growth, random, step, draws, black box.

    Parameters
    ----------
    model : SmoothedClassifier
    x : float32 [B, *input_shape]
    y : int [B]
        True classes; examples that are misclassified without an attack are left out.
    norm : {1, 2, inf}, optional
        Default: the mechanism's own.
    steps, draws, verify
        As for `attack`; every method has as many evaluations per restart, the random ones five
        times as many.
    progress : callable, optional
        Gets (done, total, info) after every attack; `info` holds `attacks_per_second`.

    Returns
    -------
    checks : list of Check

    Guarantee
        Only verified successes count. All passed does not prove that attacks are as strong as can
        be; a failure says that this model's robustness is not measured by them.
    Source
        Athalye et al., ICML 2018; Carlini et al., 2019; Lecuyer et al., IEEE S&P 2019, appendix C.
    """
    checked_count("steps", steps, 1)
    asked = model.mechanism.norm if norm is None else Norm.parse(norm)
    if model.input_range is None:
        raise InvalidArgument("`model` must state its input range: growth ends at its diagonal.")
    if not (model.seed_given or index is not None):
        model = model.with_seed(new_seed())
    at = addresses(0 if index is None else index, 0, len(x))
    clean = attack(model, x, y, size=0, norm=asked, restarts=1, verify=verify, index=at)
    held = np.flatnonzero(~clean.success)
    if len(held) < FEWEST:
        raise InvalidArgument(
            f"{len(held)} of {len(x)} examples hold without an attack, and at least {FEWEST} are "
            "needed: take more, or a model that is better under its own noise."
        )
    labels = checked_labels(y, len(x), model)
    rows = torch.from_numpy(held)
    where = x[rows], labels[rows.to(labels.device)], at[held]
    bench = _Bench(model, asked, *where, steps, draws, verify, progress, time.perf_counter())
    return [gradients(bench), *_attacks(bench)]


def gradients(bench: _Bench) -> Check:
    """Neither zero nor NaN, and from disjoint draws about the same."""
    expectation = Expectation(bench.model, bench.index)
    first, second = (
        expectation.gradient(bench.x, bench.y, k * GRADIENT_DRAWS, GRADIENT_DRAWS)[1].flatten(1)
        for k in range(2)
    )
    finite = torch.isfinite(first).all(1) & torch.isfinite(second).all(1)
    zero = finite & (first.abs().amax(1) < TINY)
    cosines = torch.cosine_similarity(first, second, dim=1)[finite & ~zero]
    median = float(cosines.median()) if len(cosines) else 0.0
    bad, none = int((~finite).sum()), int(zero.sum())
    return Check(
        "gradients are neither zero nor NaN, and agree",
        bad == none == 0 and median >= COSINE,
        f"{bad} not finite, {none} zero of {len(first)}; median cosine between disjoint draws "
        f"{median:.2f} (at least {COSINE:g})",
    )


def _attacks(bench: _Bench) -> list[Check]:
    growth, size = _growth(bench)
    seen = {name: bench.broken(size, 1 + k, **how) for k, (name, how) in enumerate(bench.rivals())}
    strong = seen["iterated"]
    return [
        growth,
        beats_random(strong, seen["random"], size),
        not_beaten("iterated beats single step", strong, seen["single step"], size),
        not_beaten("more draws do not weaken the attack", seen["more draws"], strong, size),
        not_beaten("black box does not beat white box", strong, seen["black box"], size),
    ]


def _growth(bench: _Bench) -> tuple[Check, float]:
    """The check of growth, and the first size that breaks half: there all else is compared.

    Who is broken stays so, as the balls are nested.
    """
    ends, seen, half = np.zeros(len(bench.x), dtype=np.bool_), [], None
    sizes = bench.sizes()
    for size in sizes:
        rows = np.flatnonzero(~ends)
        ends[rows] = bench.broken(size, 0, rows, method="pgd")
        seen.append(f"{100 * (1 - ends.mean()):.0f} % at {size:.3g}")
        if half is None and ends.mean() >= 0.5:
            half = size
    passed = bool(ends.mean() >= UNBOUNDED)
    name = "accuracy reaches 0 as the size grows"
    return Check(name, passed, ", ".join(seen)), sizes[-1] if half is None else half


def beats_random(strong: Mask, random: Mask, size: float) -> Check:
    """Whether the attack breaks many times as many as random points of the same norm."""
    return Check(
        "attack beats random perturbation of the same norm",
        bool(strong.sum() > 0 and strong.sum() >= WIDE * random.sum()),
        f"at size {size:.3g} {strong.sum()} of {len(strong)} broken, by random points "
        f"{random.sum()} (at most 1/{WIDE:g} of that)",
    )


def not_beaten(name: str, strong: Mask, weak: Mask, size: float) -> Check:
    """Whether the one that should be stronger breaks no fewer, up to chance.

    Examples on which both agree say nothing; of the others each may go either way, so that a
    difference of two standard errors is 2 sqrt(their number) (McNemar's test).
    """
    only_weak, only_strong = int((weak & ~strong).sum()), int((strong & ~weak).sum())
    allowed = max(1.0, 2 * math.sqrt(only_weak + only_strong))
    return Check(
        name,
        bool(strong.any() and only_weak - only_strong <= allowed),
        f"at size {size:.3g} {strong.sum()} against {weak.sum()} of {len(strong)}; only the "
        f"first broke {only_strong}, only the second {only_weak}",
    )


@dataclass
class _Bench:
    """The examples that hold, and one way to attack them."""

    model: SmoothedClassifier
    norm: Norm
    x: Tensor
    y: Tensor
    index: Any
    steps: int
    draws: int
    verify: int
    progress: Tell | None
    began: float
    done: int = 0

    def sizes(self) -> list[float]:
        """Doubling up to the box's diagonal."""
        assert self.model.input_range is not None
        whole = diameter(self.norm, self.x[0].numel(), *self.model.input_range)
        return [whole / 2 ** (HALVINGS - k) for k in range(HALVINGS + 1)]

    def rivals(self) -> list[tuple[str, dict[str, Any]]]:
        """What is compared at one size."""
        return [
            ("iterated", {"method": "pgd"}),
            ("random", {"method": "random", "steps": 5 * self.steps}),
            ("single step", {"method": "single-step"}),
            ("more draws", {"method": "pgd", "draws": 4 * self.draws}),
            ("black box", {"method": "search", "steps": 5 * self.steps}),
        ]

    def broken(self, size: float, attempt: int, rows: IntArray | None = None, **how: Any) -> Mask:
        """Which of the rows (default: all) one restart of an attack breaks."""
        chosen = np.arange(len(self.x)) if rows is None else rows
        at = torch.from_numpy(chosen)
        settings = {"steps": self.steps, "draws": self.draws, "verify": self.verify} | how
        found = attack(
            self.model,
            self.x[at],
            self.y[at.to(self.y.device)],
            size=size,
            norm=self.norm,
            restarts=1,
            index=self.index[chosen],
            attempt=attempt,
            **settings,
        )
        self.done += 1
        if self.progress is not None:
            rate = self.done / (time.perf_counter() - self.began)
            total = HALVINGS + 1 + len(self.rivals())
            self.progress(self.done, total, {"attacks_per_second": rate})
        return found.success
