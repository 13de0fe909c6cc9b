"""The compiled kernels; see csrc/bind.cpp."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

def isa(widest: str = "") -> str: ...
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
