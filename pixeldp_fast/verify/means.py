"""Bounds for a mean of scores in [0, 1], from exact sums, by their definitions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from pixeldp_fast.verify.arithmetic import Real, exactly, mp

GRID = 2**20  # scores are whole multiples of 1/GRID
_OCTAVES = range(-3, 4)  # the bets around the planned one
_PLANNED_CAPITAL = 1000


@dataclass(frozen=True)
class Sums:
    """What is kept of n scores.

    Parameters
    ----------
    n : int
    total, squares : int
        Sums of the scores in steps of 1/GRID, and of their squares in steps of 1/GRID^2.
    guess : Fraction
        The variance that the selection draws led to expect.
    """

    n: int
    total: int
    squares: int
    guess: Fraction

    @property
    def mean(self) -> Fraction:
        """Of the scores."""
        return Fraction(self.total, self.n * GRID)

    @property
    def spread(self) -> Fraction:
        """The variance about the mean, divided by n."""
        spread = Fraction(self.n * self.squares - self.total**2, (self.n * GRID) ** 2)
        return max(spread, Fraction(0))

    def mirrored(self) -> Sums:
        """The sums of one minus every score."""
        size = self.n * GRID
        squares = size * GRID - 2 * GRID * self.total + self.squares
        return Sums(self.n, size - self.total, squares, self.guess)


def guessed_variance(n0: int, total: int, squares: int) -> Fraction:
    """The selection draws' variance with one draw of variance 1/4 added."""
    spread = Fraction(n0 * squares - total * total, n0 * GRID**2)
    return (spread + Fraction(1, 4)) / (n0 + 1)


# Whether a number is at most the lower bound that sums give at a level.
Below = Callable[[float, Sums, Fraction], bool]


def below_hoeffding(p: float, sums: Sums, alpha: Fraction) -> bool:
    """p <= mean - sqrt(ln(1/alpha) / (2 n)).

    Source
        Hoeffding, 1963.
    """
    m = mp()
    return p <= 0 or bool(
        exactly(p) <= exactly(sums.mean) - m.sqrt(-m.log(exactly(alpha)) / (2 * sums.n))
    )


def below_bernstein(p: float, sums: Sums, alpha: Fraction) -> bool:
    """p <= mean - sqrt(2 V ln(2/alpha) / n) - 7 ln(2/alpha) / (3 (n - 1)), V unbiased.

    Source
        Maurer and Pontil, COLT 2009, Theorem 4.
    """
    m, n = mp(), sums.n
    log = m.log(2 / exactly(alpha))
    variance = exactly(sums.spread * n / (n - 1))
    width = m.sqrt(2 * variance * log / n) + 7 * log / (3 * (n - 1))
    return p <= 0 or bool(exactly(p) <= exactly(sums.mean) - width)


def below_betting(p: float, sums: Sums, alpha: Fraction) -> bool:
    """Whether a bettor against the mean p would have made 1/alpha of 1, whatever the scores' order.

    Source
        Waudby-Smith and Ramdas, JRSS B 86, 2024; Fan, Grama and Liu, 2015, Lemma 4.1.
    """
    if p <= 0:
        return True
    if p >= sums.mean:
        return False
    m, at, mean = mp(), exactly(p), exactly(sums.mean)
    square = exactly(sums.spread) + (mean - at) ** 2  # mean of (x - p)^2
    planned = m.sqrt(2 * m.log(_PLANNED_CAPITAL) / (sums.n * exactly(sums.guess)))
    capital = m.mpf(0)
    for octave in _OCTAVES:
        bet = min(min(planned, m.mpf(1)) * m.mpf(2) ** octave, m.mpf(1))
        stake = m.mpf(0.6) / m.mpf(4) ** abs(octave)
        price = (-m.log1p(-bet * at) - bet * at) / at**2
        capital += stake * m.exp(sums.n * (bet * (mean - at) - price * square))
    return bool(capital >= 1 / exactly(alpha))


def below_better_of_two(p: float, sums: Sums, alpha: Fraction) -> bool:
    """Hoeffding or empirical Bernstein, at alpha/2 each."""
    half = alpha / 2
    return below_hoeffding(p, sums, half) or below_bernstein(p, sums, half)


MEANS: dict[str, Below] = {
    "hoeffding": below_hoeffding,
    "bernstein": below_bernstein,
    "betting": below_betting,
    "hoeffding+bernstein": below_better_of_two,
}


def is_below(name: str, p: Real, sums: Sums, alpha: Fraction) -> bool:
    """Whether `p` is at most the bound of this name; one draw has no variance, so Hoeffding's."""
    return (below_hoeffding if sums.n < 2 else MEANS[name])(p, sums, alpha)
