"""PixelDP: a network with one noise point, and nothing of the input around it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.sampling import add_noise
from pixeldp_fast.noise.stream import Purpose, Stream


class PixelDP(nn.Module):
    """suffix(prefix(x) + Z), with fresh noise Z at every forward pass, in eval mode too.

    Parameters
    ----------
    prefix : nn.Module or None
        Deterministic, of bounded sensitivity (`pixeldp_fast.plan.sensitivity`); None or
        `nn.Identity`: noise on the input.
    mechanism : Gaussian, Laplace or Uniform
        The law of Z.
    suffix : nn.Module
        Any function of the noisy features that treats every row of a batch alone.

    Guarantee
        `forward` is one draw, not the smoothed classifier: certificates come from
        `SmoothedClassifier`. Its noise is addressed by a seed taken from torch's generator, so
        that `torch.manual_seed` makes it repeatable.
    Source
        Lecuyer et al., IEEE S&P 2019, section III.
    """

    def __init__(
        self, prefix: nn.Module | None, mechanism: AbstractMechanism, suffix: nn.Module
    ) -> None:
        super().__init__()
        if not isinstance(mechanism, AbstractMechanism):
            raise InvalidArgument(
                f"`mechanism` must be a mechanism such as Gaussian(0.25), got {mechanism!r}."
            )
        for name, part in (("prefix", prefix), ("suffix", suffix)):
            if not (isinstance(part, nn.Module) or (name == "prefix" and part is None)):
                raise InvalidArgument(f"`{name}` must be an nn.Module, got {part!r}.")
        self.prefix = nn.Identity() if prefix is None else prefix
        self.mechanism = mechanism
        self.suffix = suffix

    def forward(self, x: Tensor) -> Tensor:  # [B, *input_shape] -> [B, K]
        """The outputs under one fresh draw of noise per example."""
        return cast(Tensor, self.suffix(self.noisy(self.prefix(x))))

    def noisy(self, features: Tensor, scale: float = 1.0) -> Tensor:  # [B, *noise_shape]
        """`features` plus one fresh draw per example, the noise multiplied by `scale`.

        On a lattice the sum of scale 1 is made in integers, from the rounded features; its gradient
        is the identity's.
        """
        seed = int(torch.randint(-(2**63), 2**63 - 1, ())) + 2**63
        stream = Stream(seed, Purpose.TRAINING)
        if self.mechanism.lattice is not None and scale == 1:
            center = features.detach().float()
            total = add_noise(center, self.mechanism, stream, range(len(features)), 0, 1)[:, 0]
            return total.to(features.dtype) + (features - features.detach())
        zero = torch.zeros_like(features, dtype=torch.float32)
        noise = add_noise(zero, self.mechanism, stream, range(len(features)), 0, 1)[:, 0]
        return features + (scale * noise).to(features.dtype)

    def extra_repr(self) -> str:
        return f"mechanism={self.mechanism!r}"
