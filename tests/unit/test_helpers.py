"""The comparison helpers can fail, and fail where they should."""

import torch

from tests.helpers.close import FLOOR, tolerance, unexplained_flips

EXACT = torch.tensor([[1.0, 0.0], [0.5, 0.5 - 1e-6], [0.0, 2.0]], dtype=torch.float64)


def test_the_tolerance_is_twice_eagers_error_or_the_floor():
    assert tolerance(EXACT, EXACT) == 2 * FLOOR
    assert abs(tolerance(EXACT, EXACT + 0.01) - 0.02) < 1e-12


def test_only_flips_inside_the_margin_are_explained():
    flipped = EXACT.flip(dims=[1])
    assert unexplained_flips(EXACT, EXACT, 1e-5) == []
    assert unexplained_flips(EXACT, flipped, 1e-5) == [0, 2]
    assert unexplained_flips(EXACT, flipped, 1e-8) == [0, 1, 2]
