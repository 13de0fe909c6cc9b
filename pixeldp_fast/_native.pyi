"""The compiled kernels; see csrc/bind.cpp."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

def isa(widest: str = "") -> str: ...
def fma_peak(isa: str, milliseconds: int) -> float: ...
def philox(counter: Sequence[int], key: Sequence[int]) -> list[int]: ...
def add_noise(
    law: int,
    scale: float,
    seed: int,
    purpose: int,
    index: npt.NDArray[np.uint32],
    first_draw: int,
    center: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    threads: int,
    isa: str = "",
) -> None: ...

class Network:
    def __init__(self, input_shape: Sequence[int], slope: float, isa: str = "") -> None: ...
    def convolution(
        self,
        source: int,
        weight: npt.NDArray[np.float32],
        bias: npt.NDArray[np.float32],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        residual: int,
        slope: float,
        fast: bool,
    ) -> int: ...
    def pool(
        self,
        source: int,
        rows: Sequence[int],
        columns: Sequence[int],
        divisors: Sequence[float],
    ) -> int: ...
    def affine(
        self, source: int, scale: Sequence[float], shift: Sequence[float], slope: float
    ) -> int: ...
    def add(self, source: int, other: int, slope: float) -> int: ...
    def slice_pad(self, source: int, stride: Sequence[int], low: int, high: int) -> int: ...
    def finish(self, output: int) -> None: ...
    def shape(self, value: int) -> list[int]: ...
    @property
    def isa(self) -> str: ...
    @property
    def arithmetic(self) -> str: ...
    @property
    def lanes(self) -> int: ...
    @property
    def tile_draws(self) -> int: ...
    def tile_bytes(self, tile: int = 0) -> int: ...
    def tally(
        self,
        law: int,
        scale: float,
        seed: int,
        purpose: int,
        index: npt.NDArray[np.uint32],
        first_draw: int,
        n: int,
        centers: npt.NDArray[np.float32],
        reduction: int,
        low: float,
        high: float,
        threads: int,
        tile: int = 0,
    ) -> npt.NDArray[np.int64]: ...
    def outputs_of_draws(
        self,
        law: int,
        scale: float,
        seed: int,
        purpose: int,
        index: npt.NDArray[np.uint32],
        first_draw: int,
        n: int,
        centers: npt.NDArray[np.float32],
        threads: int,
        tile: int = 0,
    ) -> npt.NDArray[np.float32]: ...
    def outputs_of_rows(
        self, features: npt.NDArray[np.float32], threads: int, tile: int = 0
    ) -> npt.NDArray[np.float32]: ...
