"""For which program a claim holds: ideal real arithmetic, or the very one that runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from pixeldp_fast.backends.arithmetic import stated_arithmetic
from pixeldp_fast.errors import InvalidArgument, UnsupportedModel
from pixeldp_fast.noise.lattice import on_lattice, tau
from pixeldp_fast.noise.mechanism import AbstractMechanism
from pixeldp_fast.noise.stream import Purpose
from pixeldp_fast.plan.layers import leaves
from pixeldp_fast.plan.plan import Plan
from pixeldp_fast.plan.rounding_budget import rounding_budget
from pixeldp_fast.smooth.inputs import InputRange, device_of
from pixeldp_fast.types import Norm

REAL_ARITHMETIC, LATTICE = "real arithmetic", "lattice"
INPUTS = ("lattice", "real attacks", "real")
# How often half a step per coordinate is lost to rounding: at the example, and at the attack.
_ROUNDED = dict(zip(INPUTS, (0, 1, 2), strict=True))
COARSEST_BEHIND_PREFIX = 2**12
CERTIFYING = (Purpose.SELECTION, Purpose.ESTIMATION)  # of draws around an example of a claim


@dataclass(frozen=True)
class Soundness:
    """What `Terms` state about the program.

    Parameters
    ----------
    guarantee : {"real arithmetic", "lattice"}
        "real arithmetic": the theorems are applied to ideal noise; float rounding is not covered.
        "lattice": the claim holds for the program that runs.
    inputs : {"lattice", "real attacks", "real"}
        Which inputs the claim is about. "lattice": the example and every attacked one are
        multiples of 1/m. "real attacks": the example is on the lattice, attacked ones anywhere.
        "real": both anywhere. An input on the lattice stands for the multiple k/m itself, from
        which distances count, not for its float32, which is up to 2^-24 of it away.
    coordinates : int
        D at the noise point.
    tau : float
        See `noise.lattice.tau`.
    slack : float
        What rounding to the lattice adds to the shift of the centre, in noise units, rounded up.
    input_range : (low, high) or None
        Behind a prefix the claim is about inputs within it, over which the prefix's rounding, a
        part of the slack, is bounded.
    """

    guarantee: str = REAL_ARITHMETIC
    inputs: str = "real"
    coordinates: int = 0
    tau: float = 0.0
    slack: float = 0.0
    input_range: InputRange | None = None


def soundness(
    plan: Plan, mechanism: AbstractMechanism, inputs: str, input_range: InputRange | None
) -> Soundness:
    """What holds for this plan and mechanism, inputs being of the declared class.

    Raises
    ------
    UnsupportedModel
        Behind a prefix whose rounding nothing bounds, or a lattice too coarse for it.
    InvalidArgument
        Behind a prefix, without a declared range of the inputs.
    """
    if mechanism.lattice is None:
        return Soundness()
    coordinates = math.prod(plan.noise_shape)
    if is_identity(plan.prefix):
        box, slack = None, rounding_slack(mechanism, coordinates, inputs)
    else:
        box = _declared(input_range)
        slack = _prefix_slack(plan, mechanism, box)
    return Soundness(LATTICE, inputs, coordinates, tau(mechanism, coordinates), slack, box)


def rounding_slack(mechanism: AbstractMechanism, coordinates: int, inputs: str) -> float:
    """Half a step in every coordinate, once or twice: s sqrt(D)/2 or s D/2 each; rounded up."""
    assert mechanism.lattice is not None
    often = _ROUNDED[inputs]
    size = coordinates if mechanism.norm is Norm.ONE else math.sqrt(coordinates)
    return _up(often * size / (2 * mechanism.lattice)) if often else 0.0


def _prefix_slack(plan: Plan, mechanism: AbstractMechanism, box: InputRange) -> float:
    """2 ||e + s/2||_q: the computed features are within e of the real ones, and then rounded."""
    levels = mechanism.lattice
    assert levels is not None
    if not _is_fine(levels):
        raise UnsupportedModel(
            f"Behind a prefix the lattice must be a power of two of at least "
            f"{COARSEST_BEHIND_PREFIX}, got {levels}: the features are no multiples of 1/{levels}, "
            f"and rounding them costs radius. Try lattice={COARSEST_BEHIND_PREFIX}, or put the "
            "noise on the input."
        )
    with stated_arithmetic(device_of(plan.prefix)):  # weights read as they do for the engines
        off = rounding_budget(plan.prefix, plan.input_shape, box) + 0.5 / levels
    size = off.sum() if mechanism.norm is Norm.ONE else math.sqrt(float((off * off).sum()))
    return _up(2 * float(size))


def _is_fine(levels: int) -> bool:
    return levels >= COARSEST_BEHIND_PREFIX and not levels & (levels - 1)


def _declared(input_range: InputRange | None) -> InputRange:
    if input_range is None:
        raise InvalidArgument(
            "Behind a prefix, lattice noise needs a declared range of the inputs, over which the "
            "prefix's rounding is bounded: state `input_range=(low, high)`."
        )
    return input_range


def _up(value: float) -> float:
    """Above the exact value: the sums and roots here are off by far less than 1e-11 of it."""
    return math.nextafter(value * (1 + 1e-11), math.inf)


def is_identity(prefix: nn.Module) -> bool:
    """Whether the noise is on the input as it is, but for its shape."""
    return all(isinstance(layer, (nn.Identity, nn.Flatten)) for _, layer in leaves(prefix))


def checked_inputs(
    inputs: Any, mechanism: AbstractMechanism, prefix: nn.Module, input_range: InputRange | None
) -> str:
    """The class of inputs that claims are about; None: the narrowest there is.

    Raises
    ------
    InvalidArgument
        For an unknown class, and for one that this mechanism or prefix cannot have; on a lattice
        behind a prefix without a range of the inputs, since what is served must be within it, too.
    """
    possible: tuple[str, ...] = INPUTS[-1:]
    if mechanism.lattice is not None:
        if is_identity(prefix):
            possible = INPUTS
        else:
            _declared(input_range)
    if inputs is None:
        return possible[0]
    if inputs not in INPUTS:
        raise InvalidArgument(f"`inputs` must be one of {', '.join(INPUTS)}, got {inputs!r}.")
    if inputs not in possible:
        why = (
            "noise in floats has no lattice: name one, such as Gaussian(0.25, lattice=255)"
            if mechanism.lattice is None
            else "the features behind a prefix are on no lattice"
        )
        raise InvalidArgument(f"`inputs` {inputs!r} cannot be declared here: {why}.")
    return str(inputs)


def check_recorded(
    mechanism: AbstractMechanism,
    guarantee: str,
    inputs: str,
    coordinates: Any,
    off: Any,
    slack: Any,
    input_shape: tuple[int, ...],
    input_range: Any,
) -> None:
    """Raise a `ValueError` that names the first field of a record that no result could have.

    tau is a number of the mechanism and of D, computed anew. A prefix, which the record does not
    hold, only adds to the slack, and then the range of the inputs is stated. Without one D is that
    of the input, and the slack that of rounding alone.
    """
    expected = REAL_ARITHMETIC if mechanism.lattice is None else LATTICE
    if guarantee != expected:
        raise ValueError(f"`guarantee` must be {expected!r} for {mechanism}")
    if mechanism.lattice is None:
        if (inputs, coordinates, off, slack, input_range) != ("real", 0, 0.0, 0.0, None):
            names = "`inputs`, `coordinates`, `tau`, `slack` and `input_range`"
            raise ValueError(f"{names} are of a lattice")
        return
    if inputs not in INPUTS:
        raise ValueError(f"`inputs` must be one of {', '.join(INPUTS)}")
    if type(coordinates) is not int or coordinates < 1:
        raise ValueError("`coordinates` must be an integer of at least 1")
    if inputs != "real" and coordinates != math.prod(input_shape):
        raise ValueError(f"`coordinates` must be {math.prod(input_shape)}, as of the input")
    if type(off) is not float or off != tau(mechanism, coordinates):
        raise ValueError(f"`tau` must be {tau(mechanism, coordinates)!r} for {mechanism}")
    least = rounding_slack(mechanism, coordinates, inputs)
    if type(slack) is not float or not least <= slack < math.inf:
        raise ValueError(f"`slack` must be finite and at least {least!r} for these inputs")
    if input_range is not None:
        _check_range(mechanism, inputs, input_range)
    elif coordinates != math.prod(input_shape) or slack != least:
        raise ValueError(
            f"`input_range` must be stated behind a prefix; without one `coordinates` are "
            f"{math.prod(input_shape)} and `slack` is {least!r}"
        )


def _check_range(mechanism: AbstractMechanism, inputs: str, input_range: Any) -> None:
    two = isinstance(input_range, tuple) and len(input_range) == 2
    if not (
        two
        and all(type(v) is float and math.isfinite(v) for v in input_range)
        and input_range[0] < input_range[1]
    ):
        raise ValueError("`input_range` must be finite numbers (low, high) with low < high")
    assert mechanism.lattice is not None
    if inputs != "real" or not _is_fine(mechanism.lattice):
        raise ValueError(
            "`input_range` is of a prefix, behind which `inputs` are 'real' and the lattice is a "
            f"power of two of at least {COARSEST_BEHIND_PREFIX}"
        )


def plain_range(terms: dict[str, Any]) -> dict[str, Any]:
    """Terms with their input range as a record holds it: a list, or nothing where there is none."""
    box = terms["input_range"]
    rest = {name: value for name, value in terms.items() if name != "input_range"}
    return rest if box is None else {**rest, "input_range": list(box)}


def stored_range(record: dict[str, Any]) -> dict[str, Any]:
    """The input range that a record holds, as a tuple by its name; the inverse of `plain_range`."""
    if "input_range" not in record:
        return {}
    if not isinstance(record["input_range"], list):
        raise ValueError("`input_range` must be a list [low, high], or left out")
    return {"input_range": tuple(record["input_range"])}


def check_declared(
    x: Tensor, mechanism: AbstractMechanism, inputs: str, *, certified: bool
) -> None:
    """Refuse inputs that are not what claims are declared to be about.

    `certified`: whether claims are made around `x`, or `x` may itself be an attacked input.
    """
    levels = mechanism.lattice
    if levels is None or inputs == "real" or (inputs == "real attacks" and not certified):
        return
    if not on_lattice(x.detach().cpu().numpy().astype(np.float32), levels):
        raise InvalidArgument(
            f"`x` is not on the lattice of multiples of 1/{levels}, which `inputs` declares. For "
            f"8-bit images take lattice=255 and images.float() / 255; round others by "
            f"torch.round(x * {levels}) / {levels} on the CPU; or declare inputs='real', which "
            "takes the rounding off the radius."
        )
