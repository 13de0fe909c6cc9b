"""Every environment variable the package reads, in one place.

`PIXELDP_DATA`      folder with the field's data sets (see `pixeldp_fast.data`)
`PIXELDP_NATIVE`    "0": do not use the compiled module, even where it is installed
`PIXELDP_ISA`       "portable", "avx2" or "avx512": the widest instruction set the module may use
`TRITON_INTERPRET`  Triton's own, "1": its kernels run in an interpreter on the CPU, for tests
`CUDA_HOME`         the CUDA toolkit whose nvcc compiles the kernels in CUDA C++
`XDG_CACHE_HOME`    folder of caches, ~/.cache where unset; compiled kernels: pixeldp_fast/ in it

At build time `PIXELDP_PURE_PYTHON=1` makes a wheel without the compiled module.
"""

from __future__ import annotations

import os
from pathlib import Path

from pixeldp_fast.errors import InvalidArgument

ISAS = ("portable", "avx2", "avx512")  # narrowest first


def data_folder() -> Path | None:
    """The folder named by `PIXELDP_DATA`, or None where it is unset or empty."""
    value = os.environ.get("PIXELDP_DATA", "")
    return Path(value) if value else None


def native_allowed() -> bool:
    """False when `PIXELDP_NATIVE=0`."""
    return os.environ.get("PIXELDP_NATIVE", "1") != "0"


def triton_interpreted() -> bool:
    """True when `TRITON_INTERPRET` is on, as Triton reads it."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "y", "yes")


def cuda_home() -> Path | None:
    """The folder named by `CUDA_HOME`, or None where it is unset or empty."""
    value = os.environ.get("CUDA_HOME", "")
    return Path(value) if value else None


def cache_folder() -> Path:
    """Where what can be made again is kept; it need not exist."""
    value = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(value) if value else Path.home() / ".cache") / "pixeldp_fast"


def widest_isa() -> str:
    """The instruction set named by `PIXELDP_ISA`, or "" for the machine's widest.

    Raises
    ------
    InvalidArgument
        For a name that is not one of the three.
    """
    name = os.environ.get("PIXELDP_ISA", "")
    if name not in ("", *ISAS):
        raise InvalidArgument(f"`PIXELDP_ISA` must be one of {', '.join(ISAS)}, got {name!r}.")
    return name
