"""Where a smoothed model's draws come from: its plan, its engine, and the examples' addresses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pixeldp_fast.backends.base import AbstractEngine
from pixeldp_fast.backends.reduction import AbstractReduction
from pixeldp_fast.backends.registry import backend_names, prepared
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.stream import checked_seed, new_seed
from pixeldp_fast.plan.plan import Plan, make_plan
from pixeldp_fast.plan.snapshot import Structure
from pixeldp_fast.smooth.inputs import (
    InputRange,
    addresses,
    checked_count,
    checked_examples,
    checked_range,
    device_of,
    usable_device,
)
from pixeldp_fast.smooth.model import PixelDP
from pixeldp_fast.smooth.structure import check_unaltered


class Source:
    """The draws of one model under one reduction.

    Parameters
    ----------
    model : PixelDP
        In eval mode.
    reduction : AbstractReduction
        Of as many outputs as the model has.
    input_shape, backend, dtype, seed, device, input_range, tile
        As for `SmoothedClassifier`.
    """

    def __init__(
        self,
        model: PixelDP,
        reduction: AbstractReduction,
        *,
        input_shape: tuple[int, ...] | None,
        backend: str,
        dtype: torch.dtype | None,
        seed: int | None,
        device: torch.device | str | None,
        input_range: InputRange | None,
        tile: int | None,
    ) -> None:
        if backend not in backend_names():
            raise InvalidArgument(f"`backend` must be one of {backend_names()}, got {backend!r}.")
        self.model, self.reduction = model, reduction
        self.backend, self.dtype = backend, dtype
        self.seed = new_seed() if seed is None else checked_seed(seed)
        self.input_range = checked_range(input_range)
        self.tile = None if tile is None else checked_count("tile", tile, 1)
        self.device = device_of(model) if device is None else usable_device(device)
        self.input_shape = None if input_shape is None else tuple(int(s) for s in input_shape)
        self._next_index = 0
        self._prepared: tuple[Any, str, AbstractEngine] | None = None
        self._planned: tuple[Structure, Plan] | None = None

    def check_examples(self, x: Tensor) -> None:
        """Refuse examples of the wrong type, shape, range or device."""
        checked_examples(x, self.input_shape, self.input_range, self.device)
        if self.input_shape is None:
            self._make_plan(tuple(x.shape[1:]))  # a shape that the network refuses is not kept
            self.input_shape = tuple(x.shape[1:])

    def addresses(self, index: Any, examples: int) -> Any:
        """The examples' addresses, uint32 [B]: those asked for, or the next ones of a counter."""
        found = addresses(index, self._next_index, examples)
        self._next_index += examples if index is None else 0
        return found

    def plan(self, *, fresh: bool = False) -> Plan:
        """The plan; evaluated anew if `fresh`, or where more has changed than numbers."""
        assert self.input_shape is not None
        check_unaltered(self.model)
        if self._planned is not None and not fresh:
            structure, plan = self._planned
            of_this = self.model.prefix, self.model.suffix, self.input_shape
            if of_this == (plan.prefix, plan.suffix, plan.input_shape) and structure.matches():
                return plan
        return self._make_plan(self.input_shape)

    def _make_plan(self, input_shape: tuple[int, ...]) -> Plan:
        check_unaltered(self.model)
        prefix, suffix = self.model.prefix, self.model.suffix
        structure = Structure(prefix, suffix)  # first: an edit meanwhile then shows in it
        plan = make_plan(prefix, suffix, input_shape, self.reduction.num_outputs)
        self._planned = structure, plan
        return plan

    def engine(self, *, fresh: bool = False) -> tuple[str, AbstractEngine]:
        """The backend's name and an engine for the model as it is now, prepared where it is not."""
        plan = self.plan()
        parts = tuple((part, part.forward) for part in self.model.modules())
        key = (self.model.mechanism, plan.noise_shape, parts)
        if fresh or self._prepared is None or self._prepared[0] != key:
            made = prepared(
                self.backend,
                plan,
                self.model.mechanism,
                self.reduction,
                self.device,
                dtype=self.dtype,
                tile=self.tile,
            )
            self._prepared = (key, *made)
        return self._prepared[1], self._prepared[2]
