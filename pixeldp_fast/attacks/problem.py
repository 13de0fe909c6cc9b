"""What every method of attack is given, and the randomness that its starts are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pixeldp_fast.attacks.expectation import Expectation
from pixeldp_fast.attacks.threat import Threat, column
from pixeldp_fast.noise.gaussian import Gaussian
from pixeldp_fast.noise.laplace import Laplace
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.sampling import add_noise
from pixeldp_fast.noise.stream import WORD_LIMIT, Purpose, Stream
from pixeldp_fast.noise.uniform import Uniform
from pixeldp_fast.types import Norm

# Laws whose directions are uniform on the ball's surface (1, 2) or fill the cube (inf).
_LAWS: dict[Norm, AbstractMechanism] = {
    Norm.ONE: Laplace(1.0),
    Norm.TWO: Gaussian(1.0),
    Norm.INF: Uniform(1.0),
}


@dataclass(frozen=True)
class Problem:
    """Examples to lead astray, and by which means.

    Parameters
    ----------
    expectation : Expectation
    threat : Threat
    y : int64 [B]
        The classes to leave.
    steps : int
        Of an iterated method; points or queries of one that samples.
    step : float or None
        Length of a step in input units; None: 2.5 size / steps.
    draws : int
        Per evaluation of the expectation.
    fresh : bool
        Draw anew at every step instead of once per restart.
    first_draw : int
        Where this restart's draws begin.
    number : int
        Of this restart among all that these examples see: it names its random points.
    from_x : bool
        Whether the search starts at x, or at a random point.
    """

    expectation: Expectation
    threat: Threat
    y: Tensor
    steps: int
    step: float | None
    draws: int
    fresh: bool
    first_draw: int
    number: int
    from_x: bool

    @property
    def stride(self) -> Tensor:
        """Length of a step for every example, shaped to multiply a batch."""
        size = self.threat.size.to(torch.float32)
        length = torch.full_like(size, self.step) if self.step else 2.5 * size / self.steps
        return column(length, self.threat.x)

    def draw_of(self, step: int) -> int:
        """Where the draws of a step begin."""
        return self.first_draw + (step * self.draws if self.fresh else 0)

    def gradient(self, at: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The margin at these points and its gradient, by the draws of this step."""
        return self.expectation.gradient(at, self.y, self.draw_of(step), self.draws)

    def margin(self, at: Tensor, step: int) -> Tensor:
        """The margin at these points; NaN, which nothing can be said about, counts as held."""
        margin = self.expectation.margin(at, self.y, self.draw_of(step), self.draws)
        return margin.nan_to_num(torch.inf, torch.inf, -torch.inf)

    def random(self, number: int) -> Tensor:
        """A random perturbation of norm `size` (1, 2), or within the cube (inf), [B, *shape].

        Addressed like all noise, from the far end of the draws.
        """
        threat = self.threat
        stream = Stream(self.expectation.smoothed.seed, Purpose.ATTACK)
        at = WORD_LIMIT - 1 - number
        zero, index = torch.zeros_like(threat.x), self.expectation.index
        noise = add_noise(zero, _LAWS[threat.norm], stream, index, at, 1)[:, 0]
        size = column(threat.size.to(noise.dtype), noise)
        if threat.norm is Norm.INF:
            return size * noise
        power = threat.norm.value
        length = torch.linalg.vector_norm(noise.flatten(1), ord=power, dim=1)
        scaled: Tensor = size * noise / column(length, noise)
        return scaled


class Best:
    """The point of smallest margin seen so far, for every example."""

    def __init__(self, like: Tensor) -> None:
        self.point = like.clone()
        self.margin = torch.full((len(like),), torch.inf, device=like.device)

    def see(self, points: Tensor, margin: Tensor) -> None:
        """Keep what is better."""
        better = margin.nan_to_num(torch.inf, torch.inf, -torch.inf) < self.margin
        self.margin = torch.where(better, margin, self.margin)
        self.point = torch.where(column(better, points), points, self.point)


def default_steps(norm: Norm, size: float, steps: int | None, step: Any) -> tuple[int, Any]:
    """How many steps of which length, where nobody says.

    Source
        Lecuyer et al., IEEE S&P 2019, appendix C: 100 of 2.5 size/100; in the infinity-norm
        max(L + 8, 1.5 L) of 0.003, L the size in units of 1/255.
    """
    if steps is not None:
        return steps, step
    if norm is not Norm.INF:
        return 100, step
    units = 255 * size
    return max(1, math.ceil(max(units + 8, 1.5 * units))), 0.003 if step is None else step
