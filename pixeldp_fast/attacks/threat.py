"""What an attack may do: the ball around every example, cut with the box of inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.lattice import from_lattice, rounded_torch
from pixeldp_fast.types import Norm

_BISECTIONS = 40  # of a scale in [0, 1]: below float32's spacing
_SPARSE = 20  # in the 1-norm a step moves one in so many coordinates
# How far a point that rounding put outside is pulled in at a time, and how often before x is taken.
_SHRUNK_FLOATS, _SHRUNK_LATTICE, _TRIES = 1e-6, 0.01, 200


@dataclass(frozen=True)
class Threat:
    """Perturbations of p-norm at most `size`, such that the result is an input.

    Parameters
    ----------
    norm : Norm
    x : float32 [B, *input_shape]
    size : float64 [B]
        In input units.
    low, high : float
        The box of inputs.
    lattice : int or None
        m: attacked inputs must be multiples of 1/m, as the claims that are tested are about those.
    """

    norm: Norm
    x: Tensor
    size: Tensor
    low: float
    high: float
    lattice: int | None = None

    def take(self, rows: Tensor) -> Threat:
        """The threat to some of the examples."""
        return replace(self, x=self.x[rows], size=self.size[rows])

    def projected(self, points: Tensor) -> Tensor:
        """The nearest points of ball and box together.

        For all three norms they are clip(shrunk(delta)), with one scale per example, found by
        bisection: 0 lies in both sets, and each coordinate decides alone once the scale is known.
        """
        delta = (points - self.x).flatten(1)
        lower, upper = (self.low - self.x).flatten(1), (self.high - self.x).flatten(1)
        size = self.size.to(delta.dtype)[:, None]
        if self.norm is Norm.INF:
            inside = torch.minimum(torch.maximum(delta, -size), size)
            return (self.x + inside.clamp(lower, upper).view_as(self.x)).clamp(self.low, self.high)
        feasible, infeasible = torch.zeros_like(size), torch.ones_like(size)
        fits = _norms(delta.clamp(lower, upper), self.norm)[:, None] <= size
        for _ in range(0 if bool(fits.all()) else _BISECTIONS):
            middle = (feasible + infeasible) / 2
            clipped = self._shrunk(delta, middle).clamp(lower, upper)
            small = _norms(clipped, self.norm)[:, None] <= size
            feasible = torch.where(small, middle, feasible)
            infeasible = torch.where(small, infeasible, middle)
        kept = self._shrunk(delta, torch.where(fits, 1.0, feasible)).clamp(lower, upper)
        return (self.x + kept.view_as(self.x)).clamp(self.low, self.high)

    def direction(self, at: Tensor, ascent: Tensor) -> Tensor:
        """The step that follows `ascent` [B, *input_shape]; 0 where that is 0 or NaN.

        Its norm is 1 over the coordinates that the box lets move. Those at a wall are pushed with
        them, or the projection would take them back. In the 1-norm only the largest move.
        """
        wish = ascent.nan_to_num(0.0, 0.0, 0.0).flatten(1)
        if self.norm is Norm.INF:
            return wish.sign().view_as(ascent)
        # Scaled first: squares of tiny gradients would be 0.
        wish = wish / wish.abs().amax(1, keepdim=True).clamp_min(torch.finfo(wish.dtype).tiny)
        point = at.flatten(1)
        free = wish * torch.where(wish > 0, point < self.high, point > self.low)
        if self.norm is Norm.ONE:
            count = -(-wish.shape[1] // _SPARSE)
            least = free.abs().topk(count, dim=1).values[:, -1:]
            wish, free = (part * (part.abs() >= least) for part in (wish, free))
        length = _norms(free, self.norm)[:, None]
        return torch.where(length > 0, wish / length, 0.0).view_as(ascent)

    def landed(self, points: Tensor) -> Tensor:
        """`points` as inputs that are certainly allowed: pulled in by rounding's worth, or x."""
        wish, kept = points - self.x, torch.ones_like(self.size, dtype=points.dtype)
        shrink = 1 - (_SHRUNK_FLOATS if self.lattice is None else _SHRUNK_LATTICE)
        for _ in range(_TRIES):
            inside = (self.x + column(kept, wish) * wish).clamp(self.low, self.high)
            at = self._on_lattice(inside)
            within = self.distance(at) <= self.size
            if bool(within.all()):
                break
            kept = torch.where(within, kept, shrink * kept)
        return torch.where(column(within, at), at, self.x)

    def distance(self, points: Tensor) -> Tensor:
        """The norm of points - x, float64 [B]; on a lattice that of the multiples meant."""
        if self.lattice is None:
            delta = points.double() - self.x.double()
        else:
            steps = rounded_torch(points, self.lattice) - rounded_torch(self.x, self.lattice)
            delta = steps.double() / self.lattice
        return _norms(delta.flatten(1), self.norm)

    def _on_lattice(self, points: Tensor) -> Tensor:
        if self.lattice is None:
            return points
        steps = rounded_torch(points, self.lattice).cpu().numpy()
        return torch.from_numpy(from_lattice(steps, self.lattice)).to(points.device)

    def _shrunk(self, delta: Tensor, scale: Tensor) -> Tensor:
        """Towards 0: by a factor in the 2-norm, by a soft threshold in the 1-norm."""
        if self.norm is Norm.TWO:
            return delta * scale
        threshold = (1 - scale) * delta.abs().amax(1, keepdim=True)
        return delta.sign() * (delta.abs() - threshold).clamp_min(0.0)


def diameter(norm: Norm, coordinates: int, low: float, high: float) -> float:
    """The norm of the box's diagonal: no perturbation is larger."""
    power = 0.0 if norm is Norm.INF else 1 / norm.value
    return (high - low) * math.pow(coordinates, power)


def checked_size(size: Any, examples: int, largest: float) -> Tensor:
    """`size` as float64 [B].

    Raises
    ------
    InvalidArgument
        When it is negative or not finite, has another shape, or is larger than the box.
    """
    try:
        given = torch.as_tensor(size, dtype=torch.float64).detach().cpu()
        values = given.expand(examples).clone()
    except (TypeError, ValueError, RuntimeError):
        raise InvalidArgument(
            f"`size` must be a number or one per example [{examples}], got {size!r}."
        ) from None
    biggest = float(values.max()) if examples else 0.0
    if not bool((torch.isfinite(values) & (values >= 0)).all()):
        raise InvalidArgument(f"`size` must be finite and at least 0 (input units), got {size!r}.")
    if biggest > largest * (1 + 1e-6):
        raise InvalidArgument(
            f"`size` {biggest:g} is larger than the whole box of inputs, {largest:g}: is it in "
            f"units of 0 to 255? Sizes are in input units, such as {biggest:g}/255 = "
            f"{biggest / 255:.4g}."
        )
    return values


def _norms(delta: Tensor, norm: Norm) -> Tensor:  # [B, D] -> [B]
    found: Tensor = torch.linalg.vector_norm(delta, ord=norm.value, dim=1)
    return found


def column(values: Tensor, like: Tensor) -> Tensor:
    """One value per example, shaped to meet a batch [B, ...] of them."""
    return values.view(-1, *[1] * (like.ndim - 1))
