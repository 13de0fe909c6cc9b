"""Lattice noise: exact masses, tau, whole sums, the same integers everywhere, and no leak."""

import dataclasses
import itertools
import math
from decimal import Decimal
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from pixeldp_fast import Gaussian, Laplace, PixelDP, Uniform
from pixeldp_fast.errors import InvalidArgument, RecordError
from pixeldp_fast.noise import lattice, sampling
from pixeldp_fast.noise.exact import ERROR, ROOT_TWO_PI
from pixeldp_fast.noise.lattice import lattice_table, tau
from pixeldp_fast.noise.philox import words_numpy, words_torch
from pixeldp_fast.noise.registry import mechanism_from_dict
from pixeldp_fast.noise.sampling import add_noise, noise_definition, noisy_definition
from pixeldp_fast.noise.stream import Purpose, Stream, blocks_for
from tests.helpers import leaks

STREAM = Stream(0x0123456789ABCDEF, Purpose.ESTIMATION)
ISAS = ("portable", "avx2", "avx512")
SIZES = (1, 2, 3, 31, 32, 33, 63, 64, 65, 1000)
FALSE_FAILURE = 1e-8  # of each test of a law at a true sampler
TABLES = [
    Gaussian(0.3, lattice=1),
    Gaussian(0.5, lattice=255),
    Gaussian(0.12, lattice=255),
    Gaussian(1.0, lattice=16),
    Gaussian(0.01, lattice=64),
    Laplace(0.3, lattice=255),
    Laplace(0.05, lattice=64),
]
SAMPLED = [Gaussian(0.5, lattice=255), Laplace(0.3, lattice=255), Gaussian(0.25, lattice=4096)]
IMAGES = Gaussian(leaks.SIGMA, lattice=leaks.LEVELS)

each_table = pytest.mark.parametrize("mechanism", TABLES, ids=repr)
each_sampled = pytest.mark.parametrize("mechanism", SAMPLED, ids=repr)


def exact_tail(mechanism, k):
    """P(noise rounded to the lattice >= k), by mpmath."""
    x = mpmath.mpf(2 * k - 1) / (2 * mpmath.mpf(mechanism.noise_scale) * mechanism.lattice)
    if isinstance(mechanism, Gaussian):
        return mpmath.erfc(x / mpmath.sqrt(2)) / 2
    return mpmath.exp(-x) / 2


def masses(table):
    """Of -reach to reach, as fractions, from the thresholds alone."""
    ends = [0, *(int(t) for t in table.thresholds), 2**64]
    return [Fraction(b - a, 2**64) for a, b in itertools.pairwise(ends)]


# --- the table ---------------------------------------------------------------------------------


@each_table
def test_every_cumulative_mass_is_within_2_to_minus_65(mechanism):
    table = lattice_table(mechanism)
    with mpmath.workdps(60):
        limit = mpmath.mpf(2) ** -65 * (1 + mpmath.mpf(10) ** -20)
        for k in range(1, table.reach + 1):
            low = mpmath.mpf(int(table.thresholds[table.reach - k])) / 2**64
            high = 1 - mpmath.mpf(int(table.thresholds[table.reach + k - 1])) / 2**64
            exact = exact_tail(mechanism, k)
            assert abs(low - exact) <= limit
            assert abs(high - exact) <= limit
        assert exact_tail(mechanism, table.reach + 1) < mpmath.mpf(2) ** -65


@each_table
def test_tails_are_right_to_their_stated_error(mechanism):
    with mpmath.workdps(80):
        tails = mechanism.lattice_tails(lattice.LEAST_TAIL)
        for k in {1, 2, len(tails) // 2, len(tails)}:
            exact = exact_tail(mechanism, k)
            assert abs(mpmath.mpf(str(tails[k - 1])) - exact) < mpmath.mpf(str(ERROR)) / 10**9
        assert abs(mpmath.mpf(str(ROOT_TWO_PI)) - mpmath.sqrt(2 * mpmath.pi)) < 1e-69


@each_table
def test_tau_bounds_the_distance_and_is_not_vacuous(mechanism):
    table = lattice_table(mechanism)
    found = masses(table)
    assert sum(found) == 1
    with mpmath.workdps(60):
        tails = [exact_tail(mechanism, k) for k in range(1, table.reach + 2)]
        ideal = [a - b for a, b in itertools.pairwise(tails)]
        whole = [*ideal[::-1], 1 - 2 * tails[0], *ideal]
        off = sum(
            abs(mpmath.mpf(m.numerator) / m.denominator - q)
            for m, q in zip(found, whole, strict=True)
        )
        beyond = 2 * tails[-1]
        variation, stated = (off + beyond) / 2, mpmath.mpf(str(table.tau))
        assert stated >= off / 2 + beyond
        assert variation < stated < variation + 2 * beyond + mpmath.mpf(10) ** -40
    # Above 0, and at most half a unit for each threshold and tail.
    assert 0 < float(table.tau) < (table.reach + 3) * 2.0**-64


def test_tau_of_an_image():
    value = tau(IMAGES, 3072)
    assert 0 < value < 1e-13 * 3072 / 1000
    assert Decimal(value) >= lattice_table(IMAGES).tau * 3072
    assert tau(Gaussian(0.5), 3072) == 0.0
    assert tau(IMAGES, 2 * 3072) == pytest.approx(2 * value)


def test_a_wrong_table_is_caught_by_the_checks_above(monkeypatch):
    """A planted fault: masses from float64, off by 2^-54, as a naive table would have them."""
    mechanism = Gaussian(0.5, lattice=255)
    honest = lattice_table(mechanism)
    k = np.arange(1, honest.reach + 1)
    tails = scipy_stats.norm.sf((k - 0.5) / (0.5 * 255))
    low = np.array([int(t * 2**64) for t in (1 - (1 - tails))], dtype=np.uint64)[::-1]
    errors = np.abs(low.astype(object) - honest.thresholds[: honest.reach].astype(object))
    assert max(errors) > 200  # units of 2^-64: two hundred times the claim and more


@each_table
def test_the_table_is_symmetric_and_fits_64_bits(mechanism):
    table = lattice_table(mechanism)
    assert table.thresholds.dtype == np.uint64
    assert len(table.thresholds) == 2 * table.reach
    assert (np.diff(table.thresholds.astype(object)) >= 0).all()
    assert int(table.thresholds[0]) >= 1
    assert int(table.thresholds[-1]) <= 2**64 - 1
    found = masses(table)
    assert found == found[::-1]
    with pytest.raises(ValueError, match="read-only"):
        table.thresholds[0] = 0


def test_tables_are_made_once():
    assert lattice_table(Gaussian(0.5, lattice=255)) is lattice_table(Gaussian(0.5, lattice=255))


# --- words to noise ----------------------------------------------------------------------------


def edge_words(table):
    """Both sides of every threshold of interest, and the ends of the range."""
    picked = [0, 1, 2**63 - 1, 2**63, 2**64 - 1]
    for t in {0, 1, table.reach - 1, table.reach, 2 * table.reach - 2, 2 * table.reach - 1}:
        threshold = int(table.thresholds[t])
        picked += [threshold - 1, threshold, min(threshold + 1, 2**64 - 1)]
    return picked


def as_words(values):
    return np.array([[v >> 32, v & 0xFFFFFFFF] for v in values], dtype=np.uint32).reshape(-1)


@each_table
def test_words_at_the_edges(mechanism):
    table = lattice_table(mechanism)
    values = edge_words(table)
    expected = [sum(int(t) <= v for t in table.thresholds) - table.reach for v in values]
    words = as_words(values)
    made = lattice.noise_numpy(mechanism, words)
    assert made.tolist() == expected
    signed = torch.from_numpy(words.astype(np.int64))
    assert lattice.noise_torch(mechanism, signed).tolist() == expected
    assert made[0] == -table.reach
    assert made[4] == table.reach


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50))
def test_any_words_give_the_same_noise_in_numpy_and_torch(values):
    table, words = lattice_table(IMAGES), as_words(values)
    expected = np.searchsorted(table.thresholds, np.array(values, dtype=np.uint64), "right")
    expected = (expected - table.reach).tolist()
    assert lattice.noise_numpy(IMAGES, words).tolist() == expected
    signed = torch.from_numpy(words.astype(np.int64))
    assert lattice.noise_torch(IMAGES, signed).tolist() == expected


@each_sampled
def test_a_block_has_two_coordinates_the_high_word_first(mechanism):
    words = words_numpy(STREAM, [5], 3, 1, 2)[0, 0]
    table = lattice_table(mechanism)
    expected = [
        sum(int(t) <= (int(words[2 * j]) << 32 | int(words[2 * j + 1])) for t in table.thresholds)
        for j in range(4)
    ]
    noise = noise_definition(mechanism, STREAM, [5], 3, 1, 3)[0, 0] * mechanism.lattice
    assert np.rint(noise).tolist() == [e - table.reach for e in expected][:3]


# --- sums --------------------------------------------------------------------------------------


def from_torch(monkeypatch, *arguments):
    monkeypatch.setattr(sampling, "native_module", lambda: None)
    made = add_noise(*arguments)
    monkeypatch.undo()
    return made


@each_sampled
@pytest.mark.parametrize("size", SIZES)
def test_numpy_torch_and_the_compiled_module_have_the_same_bits(mechanism, size, monkeypatch):
    m = mechanism.lattice
    steps = np.random.default_rng(size).integers(-3 * m, 3 * m, (2, size))
    center = torch.from_numpy(lattice.from_lattice(steps, m))
    exact = noisy_definition(center.double().numpy(), mechanism, STREAM, [7, 2**32 - 2], 3, 5)
    arguments = (center, mechanism, STREAM, [7, 2**32 - 2], 3, 5)
    quick, plain = add_noise(*arguments), from_torch(monkeypatch, *arguments)
    assert quick.dtype == plain.dtype == torch.float32
    assert (exact.astype(np.float32) == exact).all()
    assert np.array_equal(quick.numpy(), exact)
    assert np.array_equal(plain.numpy(), exact)


@each_sampled
@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set_gives_the_same_bits(native, mechanism, isa):
    try:
        native.isa(isa)
    except ValueError as error:
        pytest.skip(str(error))
    table = sampling.native_lattice(mechanism)
    index = np.array([0, 2**32 - 2], dtype=np.uint32)
    for size in SIZES:
        center = np.arange(2 * size, dtype=np.float32).reshape(2, size)
        exact = noisy_definition(
            lattice.from_lattice(center.astype(np.int64), mechanism.lattice).astype(np.float64),
            mechanism, Stream(3, 1), index, 9, 5,
        )  # fmt: skip
        for threads in (1, 3):
            out = np.full((2, 5, size), np.nan, dtype=np.float32)
            arguments = (mechanism.native_law, mechanism.noise_scale, 3, 1, index, 9, center, out)
            native.add_noise(*arguments, threads, isa, table)
            assert np.array_equal(out, exact)


@each_sampled
def test_a_value_depends_on_its_address_alone(mechanism):
    def draw(rows=1, n=4, coordinates=64, first=0, index=(5,)):
        zero = torch.zeros(rows, coordinates)
        return add_noise(zero, mechanism, STREAM, index, first, n).numpy()

    whole = draw(rows=3, n=20, coordinates=65, index=(4, 1, 9))
    assert (draw(n=7, coordinates=65, first=13, index=(1,))[0] == whole[1, 13:]).all()
    assert (draw(n=20, coordinates=31, index=(9,))[0] == whole[2, :, :31]).all()


@each_sampled
def test_coordinates_count_in_c_order_whatever_the_layout(mechanism, monkeypatch):
    images = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5) / mechanism.lattice
    address = (mechanism, STREAM, [7, 8], 3, 2)
    expected = add_noise(images, *address)
    turned = images.transpose(2, 3).contiguous().transpose(2, 3)
    for laid in (images.to(memory_format=torch.channels_last), turned):
        assert not laid.is_contiguous()
        assert torch.equal(add_noise(laid, *address), expected)
        assert torch.equal(from_torch(monkeypatch, laid, *address), expected)


@each_sampled
def test_the_sum_is_that_of_integers(mechanism):
    m = mechanism.lattice
    steps = np.arange(-600, 600)[None]
    center = torch.from_numpy(lattice.from_lattice(steps, m))
    noise = np.rint(noise_definition(mechanism, STREAM, [1], 0, 3, 1200) * m).astype(np.int64)
    total = add_noise(center, mechanism, STREAM, [1], 0, 3).numpy()
    assert np.array_equal(total, (steps + noise).astype(np.float32) / np.float32(m))


def test_rounding_to_the_lattice_is_to_the_nearest_and_exact():
    assert lattice.to_lattice(np.float32([0, 0.5, 1, 127.4 / 255, -0.3]), 255).tolist() == [
        0, 128, 255, 127, -77,
    ]  # fmt: skip
    halves = np.array([0.5, 1.5, -0.5], dtype=np.float32)
    assert lattice.to_lattice(halves, 1).tolist() == [0, 2, 0]
    assert lattice.rounded_torch(torch.from_numpy(halves), 1).tolist() == [0, 2, 0]


@given(st.integers(-(2**23), 2**23), st.integers(1, 2**20))
def test_every_lattice_point_survives_the_way_to_float32_and_back(numerator, levels):
    value = lattice.from_lattice(np.array([numerator]), levels)
    assert lattice.on_lattice(value, levels)
    assert lattice.to_lattice(value, levels).tolist() == [numerator]


def test_off_the_lattice_is_seen():
    assert lattice.on_lattice(np.arange(256, dtype=np.float32) / np.float32(255), 255)
    assert not lattice.on_lattice(np.float32([0.5]), 255)
    inexact = np.arange(256, dtype=np.float32) * np.float32(1 / 255)  # another float for some
    assert not lattice.on_lattice(inexact, 255)
    assert not lattice.on_lattice(np.float32([np.nan]), 255)
    assert not lattice.on_lattice(np.float32([2.0**24]), 255)


def test_features_out_of_reach_are_refused():
    for bad in (2.0**24 / 255, np.nan, np.inf):
        with pytest.raises(InvalidArgument, match="noise point"):
            lattice.to_lattice(np.float32([bad]), 255)
        with pytest.raises(InvalidArgument, match="noise point"):
            lattice.rounded_torch(torch.tensor([bad]), 255)
    kept = lattice.whole_steps(np.float32([[1, np.nan], [0.5, 1]]), 4)
    assert np.array_equal(kept, np.float32([[4, np.nan], [2, 4]]), equal_nan=True)


# --- laws --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", SAMPLED[:2], ids=repr)
def test_the_counts_are_those_of_the_masses(mechanism):
    """Chi-squared over bins of equal mass; and it sees a scale that is 2 % off."""
    table, draws = lattice_table(mechanism), 400_000
    noise = noise_definition(mechanism, STREAM, [0], 0, 400, 1000).ravel() * mechanism.lattice
    cumulative = np.array([int(t) for t in table.thresholds], dtype=np.float64) / 2**64
    edges = np.unique(np.searchsorted(cumulative, np.linspace(0.02, 0.98, 40)))
    expected = np.diff([0.0, *cumulative[edges], 1.0]) * draws

    def p_value(values):
        cells = np.searchsorted(edges - table.reach, np.rint(values), side="left")
        return scipy_stats.chisquare(np.bincount(cells, minlength=len(expected)), expected).pvalue

    assert p_value(noise) > FALSE_FAILURE
    assert p_value(noise * 1.02) < FALSE_FAILURE


@pytest.mark.parametrize("mechanism", SAMPLED, ids=repr)
def test_moments(mechanism):
    """Mean and variance within 6 standard errors; no noise at all fails."""
    zero = torch.zeros(1, 2000)
    values = add_noise(zero, mechanism, STREAM, [3], 0, 500).numpy().astype(np.float64)
    step = 1 / mechanism.lattice
    variance = mechanism.std**2 + step**2 / 12  # of the rounded law, up to 1e-9 of it
    kurtosis = 3 if isinstance(mechanism, Gaussian) else 6
    assert abs(values.mean()) < 6 * math.sqrt(variance / values.size)
    error = 6 * variance * math.sqrt((kurtosis - 1) / values.size)
    assert abs(values.var() - variance) < error


# --- no leak -----------------------------------------------------------------------------------


def draws_of(sampler_name, monkeypatch, n=200):
    """Samplers by name: centre [D] to draws [n, D], float32."""

    def definition(center):
        wide = center[None].astype(np.float64)
        return noisy_definition(wide, IMAGES, STREAM, [0], 0, n)[0].astype(np.float32)

    def torch_only(center):
        return from_torch(monkeypatch, torch.from_numpy(center[None]), IMAGES, STREAM, [0], 0, n)[
            0
        ].numpy()

    def compiled(center):
        return add_noise(torch.from_numpy(center[None]), IMAGES, STREAM, [0], 0, n)[0].numpy()

    def module(center):  # PixelDP's own forward: one draw per row
        model = PixelDP(None, IMAGES, torch.nn.Identity()).eval()
        torch.manual_seed(5)
        return model(torch.from_numpy(np.tile(center, (n, 1)))).numpy()

    return {f.__name__: f for f in (definition, torch_only, compiled, module)}[sampler_name]


def naive(center, n=200):
    """Planted: Gaussian floats added in floats."""
    law = Gaussian(leaks.SIGMA)
    return add_noise(torch.from_numpy(center[None]), law, STREAM, [0], 0, n)[0].numpy()


def rounded_then_added(center, n=200):
    """Planted: lattice noise, but the sum made in floats."""
    noise = noise_definition(IMAGES, STREAM, [0], 0, n, len(center))[0].astype(np.float32)
    return center + noise


@pytest.mark.parametrize("name", ["definition", "torch_only", "compiled", "module"])
def test_no_sampler_tells_the_images_apart(name, monkeypatch):
    assert leaks.leaks(draws_of(name, monkeypatch)) == {}


def test_the_leak_of_float_noise_is_caught():
    black, grey = leaks.shares(naive, leaks.finer_than_2_to_minus_32)
    assert black > 0.98
    assert grey < 0.02
    assert "finer_than_2_to_minus_32" in leaks.leaks(naive)


def test_the_leak_of_rounded_noise_added_in_floats_is_caught():
    assert leaks.shares(rounded_then_added, leaks.off_the_lattice) == (0.0, 1.0)
    assert leaks.leaks(rounded_then_added).keys() == {"off_the_lattice"}


# --- the mechanism object ----------------------------------------------------------------------


def test_a_mechanism_prints_and_stores_its_lattice():
    mechanism = Gaussian(0.5, lattice=255)
    assert repr(mechanism) == "Gaussian(sigma=0.5, lattice=255)"
    assert eval(repr(mechanism)) == mechanism
    assert mechanism.to_dict() == {"law": "Gaussian", "sigma": 0.5, "lattice": 255}
    assert mechanism_from_dict(mechanism.to_dict()) == mechanism
    assert mechanism != Gaussian(0.5)
    assert len({mechanism, Gaussian(0.5), Gaussian(0.5, lattice=256)}) == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        mechanism.lattice = 3


def test_without_a_lattice_nothing_is_stored():
    for mechanism in (Gaussian(0.5), Laplace(0.3), Uniform(0.8)):
        assert mechanism.lattice is None
        assert "lattice" not in mechanism.to_dict()
        assert "lattice" not in repr(mechanism)


@pytest.mark.parametrize("bad", [0, -1, 2.5, "255", True, math.nan, 2**20 + 1])
@pytest.mark.parametrize("law", [Gaussian, Laplace])
def test_bad_lattices_are_refused(law, bad):
    with pytest.raises(InvalidArgument, match="whole number"):
        law(0.5, lattice=bad)


def test_useless_and_huge_lattices_are_refused():
    with pytest.raises(InvalidArgument, match="finer"):
        Gaussian(0.0005, lattice=255)
    with pytest.raises(InvalidArgument, match="coarser"):
        Laplace(300.0, lattice=255)


def test_uniform_says_that_it_has_no_lattice_mode():
    with pytest.raises(InvalidArgument, match=r"no lattice mode yet.*Laplace"):
        Uniform(0.5, lattice=255)
    with pytest.raises(RecordError, match="lattice"):
        mechanism_from_dict({"law": "Uniform", "half_width": 0.5, "lattice": 255})
    with pytest.raises(NotImplementedError, match="Uniform"):
        Uniform(0.5).lattice_tails(Decimal(1))


def test_two_words_a_coordinate_halve_the_room_of_the_counter():
    assert blocks_for(3, 2) == 2
    assert blocks_for(2**33, 2) == 2**32
    with pytest.raises(InvalidArgument, match=r"at most 2\^33"):
        blocks_for(2**33 + 1, 2)
    with pytest.raises(InvalidArgument, match=r"at most 2\^34"):
        blocks_for(2**34 + 1)


def test_the_gradient_passes_the_lattice():
    features = torch.tensor([[0.5, 0.25]], requires_grad=True)
    PixelDP(None, IMAGES, torch.nn.Identity()).noisy(features).sum().backward()
    assert features.grad.tolist() == [[1.0, 1.0]]


def test_the_compiled_module_refuses_what_it_would_misread(native):
    table = sampling.native_lattice(IMAGES)
    index, out = np.zeros(1, dtype=np.uint32), np.zeros((1, 1, 2), dtype=np.float32)

    def noise(center, lattice_noise=table):
        array = np.array([center], dtype=np.float32)
        native.add_noise(0, 0.5, 0, 0, index, 0, array, out, 1, "", lattice_noise)

    for bad in ([0.5, 1.0], [2.0**24, 0.0]):
        with pytest.raises(ValueError, match="whole numbers"):
            noise(bad)
    noise([2.0**23, -(2.0**23)])
    for thresholds in ([2, 1], [1], [1, 2, 3]):
        with pytest.raises(ValueError, match="ascending"):
            native.LatticeNoise(np.array(thresholds, dtype=np.uint64), 255)
    with pytest.raises(ValueError, match="levels"):
        native.LatticeNoise(np.array([1, 2], dtype=np.uint64), 0)


def test_torch_words_of_a_lattice_are_numpys():
    ours = lattice.noise_numpy(IMAGES, words_numpy(STREAM, [3], 7, 2, 9))
    theirs = lattice.noise_torch(IMAGES, words_torch(STREAM, [3], 7, 2, 9, "cpu"))
    assert np.array_equal(ours, theirs.numpy())
