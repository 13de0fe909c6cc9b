"""Examples with a real target: what a regressor learns, and the range it declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pixeldp_fast.data.dataset import Indices
from pixeldp_fast.errors import DataError
from pixeldp_fast.types import FloatArray


@dataclass(frozen=True, eq=False, repr=False)
class RealDataset:
    """Inputs and real targets, in a fixed order.

    Parameters
    ----------
    name : str
        What messages and titles call it.
    inputs : float32 [N, ...]
        Finite.
    targets : float64 [N]
        Counted from `origin`; finite. Those of a test split may lie outside the range.
    low, high : float
        The range that a regressor of this task declares, low <= 0 <= high.
    origin : float
        Added to an output it is a value of `quantity` again. A range must hold 0, and a bound by
        parts knows the more the more evenly the outputs lie around it.
    quantity, unit : str
        What the targets are, and in what sizes of attacks are measured.
    input_range : (low, high) or None
        Of every input value; None where there is no such range.
    """

    name: str
    inputs: npt.NDArray[np.float32]
    targets: FloatArray
    low: float
    high: float
    origin: float
    quantity: str
    unit: str
    input_range: tuple[float, float] | None

    def __post_init__(self) -> None:
        good = self.inputs.dtype == np.float32 and self.inputs.ndim >= 2
        if not good or self.targets.shape != (len(self.inputs),):
            raise DataError(
                f"{self.name}: float32 inputs [N, ...] and targets [N] are needed, got "
                f"{self.inputs.dtype} {self.inputs.shape} and {self.targets.shape}."
            )
        if not (np.isfinite(self.inputs).all() and np.isfinite(self.targets).all()):
            raise DataError(f"{self.name}: inputs and targets must be finite.")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one example."""
        return self.inputs.shape[1:]

    def batch(self, indices: Indices = None) -> Tensor:
        """The inputs at `indices`, in that order: float32 [B, ...], a fresh copy on the CPU."""
        return torch.from_numpy(self.inputs[_rows(indices)].copy())

    def values(self, indices: Indices = None) -> FloatArray:
        """The targets at `indices`, counted from `origin`: float64 [B], a fresh copy."""
        found: FloatArray = self.targets[_rows(indices)].copy()
        return found

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.input_shape))
        return f"<RealDataset {self.name}: {len(self)} examples {shape}, {self.quantity}>"


def _rows(indices: Indices) -> Any:
    if indices is None:
        return slice(None)
    return indices.numpy() if isinstance(indices, Tensor) else indices
