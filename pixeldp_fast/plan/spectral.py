"""A proved upper bound of the largest singular value of a batch of blocks.

The eigenvalue solver only guesses. What is proved is that a Cholesky factorisation of
tau I - A A^H ran to completion, which in floating point already bounds the spectrum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from pixeldp_fast import rounding

UNIT_ROUNDOFF = 2.0**-53
LEAST_TAU = 0.125  # below 1/4, the square of the least norm a caller may have
LIKELY = 8  # blocks of largest Frobenius norm, tried first; usually the largest is among them
FIRST_SLACK = 1e-11  # raised until Cholesky completes; 1e-11 was enough up to blocks of 1024 x 1024

Blocks = npt.NDArray[Any]


def largest_singular_value(batches: Iterable[Blocks]) -> float:
    """An upper bound of the largest singular value of every block.

    Parameters
    ----------
    batches : iterable of float64 or complex128 [F, M, N]
        Finite; scaled so that the largest singular value of all is at least 1/2 and no entry
        exceeds 2^100.

    Returns
    -------
    bound : float

    Guarantee
        Never below the exact value, for any quality of the eigenvalue solver. Let n be the smaller
        and N the larger side, u = 2^-53, G the computed Gram matrix of the smaller side. Complex
        products and sums in any order are off by at most (3 N + 32) u of the sum of moduli, so the
        exact Gram matrix exceeds G by at most (3 N + 32) u trace G, and trace G <= n lambda_max(G).
        If Cholesky of tau I - G completes with factor R, then R^H R differs from tau I - G by
        at most (3 n + 32) u trace(tau I - G) <= (3 n + 32) u n tau in the 2-norm, the subtraction
        included; R^H R has no negative eigenvalue, so lambda_max(G) is at most tau plus that.
        Together: the square of the bound is tau (1 + n (3 (n + N) + 64) u), with 1.01 for the
        second-order terms. Products that underflow are below 2^-1000 of tau and vanish in the same
        term. BLAS is assumed to multiply conventionally (no Strassen products, which no BLAS in
        use with NumPy has).
    Source
        Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., sections 3.1, 3.6 and
        Theorem 10.3; Rump, Verification of positive definiteness, BIT 2006.
    Cost
        Per block one Gram matrix, one or two Cholesky factorisations and seldom an eigenvalue
        problem of side n; excess over the exact value below 1e-9 relative up to 1500 x 1500.
    """
    tau, worst = LEAST_TAU, 0.0
    for blocks in batches:
        rows, columns = blocks.shape[-2:]
        short, long = min(rows, columns), max(rows, columns)
        worst = max(worst, short * (3.0 * (short + long) + 64.0) * UNIT_ROUNDOFF)
        adjoint = blocks.conj().swapaxes(-1, -2)
        gram = blocks @ adjoint if rows <= columns else adjoint @ blocks
        if not _dominates(tau, gram):
            tau = max(tau, _dominating(gram))  # an earlier batch was proved at the old one
    return float(rounding.up(math.sqrt(tau * (1.0 + 1.01 * worst))))


def _dominating(gram: Blocks) -> float:
    """A tau, hardly above the largest eigenvalue, for which `_dominates` holds."""
    frobenius = (gram.real**2 + gram.imag**2).sum((1, 2))
    likely = np.argsort(frobenius)[-LIKELY:]
    slack = FIRST_SLACK
    tau = LEAST_TAU
    for candidates in (gram[likely], gram):
        tau = max(tau, float(np.linalg.eigvalsh(candidates).max()))
        if _dominates(tau * (1.0 + slack), gram):
            return tau * (1.0 + slack)
    while not _dominates(tau * (1.0 + slack), gram):
        slack *= 4.0
    return tau * (1.0 + slack)


def _dominates(tau: float, gram: Blocks) -> bool:
    """Whether Cholesky of tau I - gram completes for every matrix of the batch."""
    try:
        np.linalg.cholesky(tau * np.eye(gram.shape[-1]) - gram)
    except np.linalg.LinAlgError:
        return False
    return True
