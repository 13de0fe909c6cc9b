"""What noise on a lattice costs: tau by the table's masses, slack by the rounding of inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable

from pixeldp_fast.verify.arithmetic import Real, mp
from pixeldp_fast.verify.claim import INPUTS, Claim
from pixeldp_fast.verify.findings import Check
from pixeldp_fast.verify.laws import AbstractLaw, GaussianLaw

RELATIVE = 1e-9
_DIGITS = 50  # of the masses, which differ from the table's by 2^-65 at most
_WORD = 2**64


def check_lattice(claim: Claim) -> Check:
    """tau and slack against their definitions; without a lattice there is nothing to check.

    What a prefix adds to the slack is of the model, which a record does not hold: `check_model`.
    """
    law = claim.law
    if law.lattice is None:
        return Check("program", "real arithmetic: float rounding is not covered", skipped=True)
    check = Check("program", "lattice: tau from the table's masses, slack from the rounding", 3)
    whole = math.prod(claim["input_shape"])
    prefix = claim["input_range"] is not None
    if not prefix and claim["coordinates"] != whole:
        words = f"is {claim['coordinates']}, but the input has {whole}, and no prefix is stated"
        check.add("every example", "terms.coordinates", words)
    exact = claim["coordinates"] * tau_of_one(law)
    if not exact <= claim["tau"] <= exact * (1 + RELATIVE):
        words = f"is {claim['tau']!r}, but the table's masses give {mp().nstr(exact, 17)}"
        check.add("every example", "terms.tau", words)
    least = least_slack(claim)
    if not claim["slack"] >= least:
        words = f"is {claim['slack']!r}, but rounding alone costs {mp().nstr(least, 17)}"
        check.add("every example", "terms.slack", words)
    elif prefix:
        check.against += "; what the prefix adds to it is not checked without the model"
    elif claim["slack"] > least * (1 + RELATIVE):
        words = f"is {claim['slack']!r}, but rounding costs {mp().nstr(least, 17)}, and no prefix "
        check.add("every example", "terms.slack", f"{words}is stated: `input_range` is missing")
    return check


def tau_of_one(law: AbstractLaw) -> Real:
    """Half the sum of |mass - ideal mass|, and the ideal mass beyond the table, of one coordinate.

    The table holds the tails P(noise >= k steps), rounded to multiples of 2^-64.
    """
    assert law.lattice is not None
    m = mp()
    with m.workdps(_DIGITS):
        step = 1 / (m.mpf(law.scale) * law.lattice)
        ideal, table, k = [], [], 1
        while True:
            ideal.append(law.upper_tail((k - m.mpf(1) / 2) * step))
            table.append(m.nint(ideal[-1] * _WORD) / _WORD)
            if table[-1] == 0:
                break
            k += 1
        differences = abs(2 * (ideal[0] - table[0]))  # the bin of 0
        for i in range(len(table) - 1):
            mass, rounded = ideal[i] - ideal[i + 1], table[i] - table[i + 1]
            differences += 2 * abs(mass - rounded)
        # Beyond the last bin lies ideal[-1] on either side: half as a difference, and as the tail.
        return +(differences / 2 + 2 * ideal[-1])


def least_slack(claim: Claim) -> Real:
    """Half a step per coordinate, once for attacks off the lattice, twice for examples too."""
    m, lattice = mp(), claim.law.lattice
    assert lattice is not None
    often = INPUTS.index(claim["inputs"])
    coordinates = m.mpf(claim["coordinates"])
    size = m.sqrt(coordinates) if claim["mechanism"]["law"] == "Gaussian" else coordinates
    return often * size / (2 * lattice)


def prefix_slack(law: AbstractLaw, budget: Iterable[float]) -> Real:
    """What centres cost that are computed within `budget` each, and then rounded, twice."""
    m = mp()
    assert law.lattice is not None
    off = [m.mpf(error) + m.mpf(1) / (2 * law.lattice) for error in budget]
    size = m.sqrt(m.fsum(off, squared=True)) if isinstance(law, GaussianLaw) else m.fsum(off)
    return 2 * size
