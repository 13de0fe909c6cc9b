"""The two orders of memory in which torch runs convolutions."""

from __future__ import annotations

import copy

import torch
from torch import nn

from bench.baselines.base import Problem

PLAIN, CHANNELS_LAST = torch.contiguous_format, torch.channels_last


def labelled(name: str, layout: torch.memory_format) -> str:
    """A contender's name with its layout, where that is not the usual one."""
    return f"{name} channels-last" if layout == CHANNELS_LAST else name


def laid_out(problem: Problem, layout: torch.memory_format) -> nn.Module:
    """The suffix with its weights in that order."""
    return copy.deepcopy(problem.model.suffix).to(memory_format=layout)  # type: ignore[call-overload, no-any-return]


def refusal(problem: Problem, layout: torch.memory_format) -> str:
    """Why the order means nothing for this network, or ""."""
    has_convolutions = any(isinstance(m, nn.Conv2d) for m in problem.model.suffix.modules())
    return "" if layout == PLAIN or has_convolutions else "the network has no convolutions"
