"""The definitions in mpmath, and the one question that every bound is asked."""

import math

import mpmath
from mpmath import mpf

RELATIVE = 1e-9  # how far from the exact value a bound may be, on its safe side


def check_below(got, exact, relative=RELATIVE, steps=0):
    """`got` is not above `exact` (but for `steps` float64 steps) and close to it."""
    got = float(got)
    allowed = mpf(exact) + steps * mpf(math.ulp(float(exact)))
    assert got <= allowed, f"{got!r} is above {mpmath.nstr(mpf(exact), 20)}"
    assert got >= mpf(exact) - relative * abs(mpf(exact)), f"{got!r} is far below {exact!r}"


def check_above(got, exact, relative=RELATIVE, steps=0):
    """`got` is not below `exact` (but for `steps` float64 steps) and close to it."""
    check_below(-float(got), -mpf(exact), relative, steps)


def normal_cdf(x):
    return mpmath.erfc(-x / mpmath.sqrt(2)) / 2


def normal_quantile(p):
    """By Newton's method on the logarithm of the smaller tail, from a rough start."""
    p = mpf(p)
    if p > 0.5:
        return -normal_quantile(1 - p)
    x = -mpmath.sqrt(max(-2 * mpmath.log(2 * p), mpf(0)))
    for _ in range(60):
        density = mpmath.exp(-x * x / 2) / mpmath.sqrt(2 * mpmath.pi)
        tail = normal_cdf(x)
        step = tail * mpmath.log(tail / p) / density
        x -= step
        if abs(step) < mpf(10) ** (-mpmath.mp.dps + 8):
            break
    return x


def gaussian_profile(epsilon, r):
    if r == 0:
        return mpf(0)
    first = normal_cdf(r / 2 - epsilon / r)
    return first - mpmath.exp(epsilon) * normal_cdf(-r / 2 - epsilon / r)


def laplace_profile(epsilon, r):
    return max(mpf(0), 1 - mpmath.exp((epsilon - r) / 2))


def uniform_profile(epsilon, r):
    del epsilon
    return min(mpf(1), r / 2)


def gaussian_tradeoff(alpha, r):
    if alpha in (0, 1):
        return mpf(1 - alpha)
    return normal_cdf(-normal_quantile(alpha) - r)


def laplace_tradeoff(alpha, r):
    decay = mpmath.exp(-r)
    if alpha < decay / 2:
        return 1 - alpha / decay
    return decay / (4 * alpha) if alpha <= 0.5 else decay * (1 - alpha)


def uniform_tradeoff(alpha, r):
    return max(mpf(0), 1 - alpha - r / 2)


PROFILES = {"Gaussian": gaussian_profile, "Laplace": laplace_profile, "Uniform": uniform_profile}
TRADEOFFS = {
    "Gaussian": gaussian_tradeoff,
    "Laplace": laplace_tradeoff,
    "Uniform": uniform_tradeoff,
}


def binomial_tail(k, n, x):
    """P(at least k of n) at probability x, by the series that converges for x < k/n."""
    k, n, x = mpf(k), mpf(n), mpf(x)
    log_first = (
        mpmath.loggamma(n + 1) - mpmath.loggamma(k + 1) - mpmath.loggamma(n - k + 1)
        + k * mpmath.log(x) + (n - k) * mpmath.log1p(-x)
    )  # fmt: skip
    term, total, ratio = mpf(1), mpf(1), x / (1 - x)
    while term > total * mpf(10) ** (-mpmath.mp.dps + 5) and k < n:
        term *= (n - k) / (k + 1) * ratio
        total += term
        k += 1
    return mpmath.exp(log_first) * total
