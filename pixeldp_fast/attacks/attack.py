"""`attack`: points against the smoothed model, believed only when fresh draws confirm them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pixeldp_fast.attacks import blind, pgd
from pixeldp_fast.attacks.expectation import Expectation
from pixeldp_fast.attacks.problem import Problem, default_steps
from pixeldp_fast.attacks.threat import Threat, checked_size, diameter
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.stream import WORD_LIMIT, Purpose, new_seed
from pixeldp_fast.smooth.classifier import SmoothedClassifier
from pixeldp_fast.smooth.inputs import addresses, checked_alpha, checked_count
from pixeldp_fast.smooth.vote import predicted_classes
from pixeldp_fast.stats.binomial import binomial_test_rejects
from pixeldp_fast.stats.levels import bonferroni
from pixeldp_fast.types import ABSTAIN, FloatArray, IntArray, Norm

METHODS: dict[str, Callable[[Problem], Tensor]] = {
    "pgd": pgd.run,
    "single-step": pgd.single_step,
    "random": blind.random_points,
    "search": blind.search,
}
_PROBED = 8  # examples on which outputs are looked at


@dataclass(frozen=True, eq=False)
class AttackResult:
    """What an attack achieved on B examples.

    Parameters
    ----------
    adversarial : float32 [B, *input_shape]
        A verified point where there is one, else the example itself.
    success : bool [B]
        Whether fresh draws confirmed that the smoothed class is another than `y`.
    norm : float64 [B]
        Of the perturbation, in the attack's norm and input units; 0 where the example itself is
        misclassified, inf where nothing was found.
    draws : int64 [B]
        Verification draws spent.
    calls : int64 [B]
        Evaluations of the network spent on searching; a gradient counts as one.

    Guarantee
        Per example, `success` is false with probability at most the alpha of `attack`, over the
        verification draws, however many restarts there were. Nothing follows from a failure.
    """

    adversarial: Tensor
    success: npt.NDArray[np.bool_]
    norm: FloatArray
    draws: IntArray
    calls: IntArray


def attack(
    model: SmoothedClassifier,
    x: Tensor,
    y: Any,
    *,
    size: Any,
    norm: Any = None,
    method: str = "pgd",
    steps: int | None = None,
    step: float | None = None,
    restarts: int = 15,
    draws: int = 15,
    verify: int = 1000,
    alpha: float = 0.001,
    score: str = "log",
    fresh: bool = False,
    index: Any = None,
    attempt: int = 0,
) -> AttackResult:
    """Attack the smoothed model within a ball around every example.

    Parameters
    ----------
    model : SmoothedClassifier
        Its network gives logits.
    x : float32 [B, *input_shape]
    y : int [B]
        The classes to leave.
    size : float or float [B]
        Of the ball, in input units.
    norm : {1, 2, inf}, optional
        Default: the mechanism's own.
    method : {"pgd", "single-step", "random", "search"}
        The iterated attack, its single step, the best of random points of the same norm, and a
        random search without gradients.
    steps : int, optional
        Default: 100; in the infinity-norm max(L + 8, 1.5 L), L the size in units of 1/255.
    step : float, optional
        Length of a step; default: 2.5 size / steps; with the default steps of the infinity-norm,
        0.003.
    restarts : int
        Tries per example, each verified on draws of its own; who is broken rests.
    draws : int
        Over which a score is averaged, of purpose "attack".
    verify : int
        Fresh draws, of purpose "verification", that judge the example and then each restart.
    alpha : float
        Probability, per example, that a success is none; shared by all its looks.
    score : {"log", "softmax"}
        Whether the margin is that of the mean softmax's logarithm or of itself.
    fresh : bool
        Whether every step draws anew, instead of every restart.
    index : int or int [B], optional
        The examples' addresses; default: from 0 on, under a fresh seed unless the model has one.
    attempt : int
        Of several attacks on the same examples, the one that this is: each has its own draws.

    Returns
    -------
    result : AttackResult

    Guarantee
        Points are allowed exactly: within the ball in float64, within the box, and on the lattice
        where the model declares its inputs to be there.
    Cost
        restarts x steps x draws gradients of the network per example that holds out.
    """
    smoothed, attempt = _checked_model(model, index), checked_count("attempt", attempt, 0)
    smoothed.check_examples(x, certified=False)
    labels = checked_labels(y, len(x), smoothed)
    counts = {"restarts": restarts, "draws": draws, "verify": verify}
    restarts, draws, verify = (checked_count(name, value, 1) for name, value in counts.items())
    level = bonferroni(checked_alpha(alpha), restarts + 1)
    _check_verifiable(verify, level, alpha)
    if method not in METHODS:
        raise InvalidArgument(f"`method` must be one of {', '.join(METHODS)}, got {method!r}.")
    if step is not None and not 0 < step < float("inf"):
        raise InvalidArgument(f"`step` must be a finite number above 0 or None, got {step!r}.")
    threat = _threat(smoothed, x, size, norm)
    largest = float(threat.size.max()) if len(x) else 0.0
    steps = None if steps is None else checked_count("steps", steps, 1)
    taken, length = default_steps(threat.norm, largest, steps, step)
    span = draws * (taken + 1 if fresh else 1)
    if (attempt + 1) * (restarts + 1) * max(span, taken + 1, verify) > WORD_LIMIT // 2:
        raise InvalidArgument("So many attempts, restarts, steps and draws do not fit the stream.")
    at = addresses(0 if index is None else index, 0, len(x))
    _check_logits(smoothed, x[:_PROBED])
    work = _Work(smoothed, threat, labels, at, verify, level)
    work.judge(torch.arange(len(x)), x, attempt * (restarts + 1))
    for restart in range(restarts):
        rows = torch.from_numpy(np.flatnonzero(~work.success & (threat.size.cpu().numpy() > 0)))
        if not len(rows):
            break
        expectation = Expectation(smoothed, at[rows.numpy()], score)
        number = attempt * restarts + restart
        problem = Problem(
            expectation,
            threat.take(rows),
            labels[rows],
            steps=taken,
            step=length,
            draws=draws,
            fresh=fresh,
            first_draw=number * span,
            number=number,
            from_x=restart == 0,
        )
        points = problem.threat.landed(METHODS[method](problem))
        work.calls[rows.numpy()] += expectation.calls
        work.judge(rows, points, attempt * (restarts + 1) + 1 + restart)
    return AttackResult(work.adversarial, work.success, work.norm, work.draws, work.calls)


class _Work:
    """What is known so far, and the judgement by fresh draws that alone adds to it."""

    def __init__(
        self,
        smoothed: SmoothedClassifier,
        threat: Threat,
        labels: Tensor,
        index: Any,
        verify: int,
        level: float,
    ) -> None:
        examples = len(labels)
        self.adversarial = threat.x.clone()
        self.success = np.zeros(examples, dtype=np.bool_)
        self.norm = np.full(examples, np.inf)
        self.draws, self.calls = (np.zeros(examples, dtype=np.int64) for _ in range(2))
        self._given = smoothed, threat, labels.cpu().numpy(), index, verify, level

    def judge(self, rows: Tensor, points: Tensor, look: int) -> None:
        """Count draws that no search has seen; a success is another class by `predict`'s test."""
        smoothed, threat, labels, index, verify, level = self._given
        at = rows.numpy()
        tally = smoothed.count(
            points, verify, first_draw=look * verify, index=index[at], purpose=Purpose.VERIFICATION
        )
        found = predicted_classes(tally, "argmax", level)
        broken = (found != ABSTAIN) & (found != labels[at])
        self.draws[at] += verify
        self.success[at[broken]] = True
        chosen = torch.from_numpy(broken)
        norms = threat.take(rows).distance(points).cpu().numpy()
        self.norm[at[broken]] = norms[broken]
        self.adversarial[rows[chosen]] = points[chosen]


def _checked_model(model: Any, index: Any) -> SmoothedClassifier:
    if not isinstance(model, SmoothedClassifier):
        raise InvalidArgument(
            f"`model` must be a SmoothedClassifier, got {type(model).__name__}: the attacked "
            "object is the smoothed model. SmoothedClassifier(model, num_classes=10) makes one."
        )
    # As for predict: without a seed or an address nothing repeats, so nothing is drawn twice.
    return model if model.seed_given or index is not None else model.with_seed(new_seed())


def checked_labels(y: Any, examples: int, smoothed: SmoothedClassifier) -> Tensor:
    """`y` as int64 [B] on the model's device."""
    given = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    classes = smoothed.num_classes
    if given.shape != (examples,) or (given.dtype.kind not in "iu" and examples):
        raise InvalidArgument(
            f"`y` must hold {examples} integers, one class per example; got {given.dtype} "
            f"{given.shape}."
        )
    if examples and not (given.min() >= 0 and given.max() < classes):
        raise InvalidArgument(
            f"`y` must lie in [0, {classes - 1}] for {classes} classes, got values from "
            f"{given.min()} to {given.max()}."
        )
    return torch.from_numpy(given.astype(np.int64)).to(smoothed.device)


def _threat(smoothed: SmoothedClassifier, x: Tensor, size: Any, norm: Any) -> Threat:
    asked = smoothed.mechanism.norm if norm is None else Norm.parse(norm)
    low, high = smoothed.input_range or (-float("inf"), float("inf"))
    largest = diameter(asked, x[0].numel() if len(x) else 1, low, high)
    sizes = checked_size(size, len(x), largest).to(x.device)
    lattice = smoothed.mechanism.lattice if smoothed.inputs == "lattice" else None
    return Threat(asked, x.detach(), sizes, low, high, lattice)


def _check_verifiable(verify: int, level: float, alpha: float) -> None:
    if not bool(binomial_test_rejects(verify, 0, level)):
        raise InvalidArgument(
            f"`verify` {verify} draws can confirm nothing at alpha = {alpha:g} shared by all "
            "looks, even if all agree; 1000 are customary."
        )


def _check_logits(smoothed: SmoothedClassifier, x: Tensor) -> None:
    """Refuse outputs that are probabilities: their softmax hides the gradient."""
    if not len(x):
        return
    with torch.no_grad():
        outputs = smoothed.model.suffix(smoothed.model.prefix(x))
    inside = bool(((outputs >= 0) & (outputs <= 1)).all())
    if inside and bool(((outputs.sum(1) - 1).abs() < 1e-4).all()):
        raise InvalidArgument(
            "The network's outputs look like probabilities; an attack needs logits, as the softmax "
            "of a softmax hides its gradient. Take the last softmax off the network."
        )
