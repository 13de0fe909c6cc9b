"""The samplers: their laws, their tails, their independence of everything but the address."""

import math

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats

from pixeldp_fast import Gaussian, Laplace, Uniform
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise import sampling
from pixeldp_fast.noise.sampling import add_noise, noise_definition
from pixeldp_fast.noise.stream import Purpose, Stream, blocks_for
from tests.cases import MECHANISMS

STREAM = Stream(0x0123456789ABCDEF, Purpose.ESTIMATION)
ISAS = ("portable", "avx2", "avx512")
SIZES = (1, 3, 4, 31, 32, 33, 63, 64, 65, 1000)
# Each law test fails for a true sampler with probability 1e-8; there are below 20 of them.
FALSE_FAILURE = 1e-8

each_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS, ids=repr)


def ideal(mechanism):
    """The law by scipy's own account."""
    scale = mechanism.noise_scale
    return {
        Gaussian: scipy_stats.norm(scale=scale),
        Laplace: scipy_stats.laplace(scale=scale),
        Uniform: scipy_stats.uniform(-scale, 2 * scale),
    }[type(mechanism)]


def from_torch(monkeypatch, *arguments):
    monkeypatch.setattr(sampling, "native_module", lambda: None)
    return add_noise(*arguments)


def draw(mechanism, rows=1, n=4, coordinates=64, stream=STREAM, first=0, index=(5,)):
    return add_noise(torch.zeros(rows, coordinates), mechanism, stream, index, first, n).numpy()


def law_p_value(values, mechanism):
    """Kolmogorov-Smirnov."""
    return scipy_stats.kstest(values.ravel(), ideal(mechanism).cdf).pvalue


@each_mechanism
def test_follows_its_law(mechanism):
    values = draw(mechanism, n=1000, coordinates=1000)
    assert law_p_value(values, mechanism) > FALSE_FAILURE


@each_mechanism
@pytest.mark.parametrize("fault", ["scale off by 2 %", "tail cut at 1.5 std", "repeated stream"])
def test_the_law_test_catches_planted_faults(mechanism, fault):
    values = draw(mechanism, n=1000, coordinates=1000).ravel()
    if fault == "scale off by 2 %":
        values = values * 1.02
    elif fault == "tail cut at 1.5 std":
        values = values[np.abs(values) < 1.5 * mechanism.std]
    else:
        values = np.tile(values[:3000], 333)
    assert law_p_value(values, mechanism) < FALSE_FAILURE


@each_mechanism
def test_coordinates_and_draws_are_uncorrelated(mechanism):
    values = draw(mechanism, n=2000, coordinates=40)[0]
    correlation = np.corrcoef(values, rowvar=False)
    off_diagonal = correlation[np.triu_indices(40, 1)]
    bound = scipy_stats.norm.isf(FALSE_FAILURE / off_diagonal.size / 2) / math.sqrt(2000)
    assert np.abs(off_diagonal).max() < 1.05 * bound
    lagged = np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]
    assert abs(lagged) < 6 / math.sqrt(values.size)


@each_mechanism
def test_the_definition_and_torch_agree_with_the_sampler(mechanism, monkeypatch):
    center = torch.linspace(-1, 1, 2 * 50).view(2, 50)
    exact = noise_definition(mechanism, STREAM, [7, 9], 3, 200, 50)
    quick = add_noise(center, mechanism, STREAM, [7, 9], 3, 200)
    plain = from_torch(monkeypatch, center, mechanism, STREAM, [7, 9], 3, 200)
    for values in (quick, plain):
        assert values.dtype == torch.float32
        error = np.abs(values.numpy() - (center.numpy()[:, None] + exact))
        assert error.max() < 2e-6 * mechanism.noise_scale + 2e-7


@each_mechanism
@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set_gives_the_same_bits(native, mechanism, isa):
    try:
        native.isa(isa)
    except ValueError as error:
        pytest.skip(str(error))
    index = np.array([0, 2**32 - 2], dtype=np.uint32)
    for size in SIZES:
        center = np.linspace(0, 1, 2 * size, dtype=np.float32).reshape(2, size)
        outs = []
        for name in ("portable", isa):
            out = np.full((2, 5, size), np.nan, dtype=np.float32)
            native.add_noise(
                mechanism.native_law, mechanism.noise_scale, 3, 1, index, 9, center, out, 2, name
            )
            outs.append(out)
        assert np.isfinite(outs[0]).all()
        assert outs[0].tobytes() == outs[1].tobytes()


@each_mechanism
def test_a_value_depends_on_its_address_alone(mechanism):
    whole = draw(mechanism, rows=3, n=20, coordinates=65, index=(4, 1, 9))
    assert (draw(mechanism, n=7, coordinates=65, first=13, index=(1,))[0] == whole[1, 13:]).all()
    assert (draw(mechanism, n=20, coordinates=30, index=(9,))[0] == whole[2, :, :30]).all()
    other = draw(mechanism, rows=3, n=20, coordinates=65, index=(4, 1, 9), stream=Stream(1, 0))
    assert not np.isclose(other, whole).any(axis=-1).all()


@each_mechanism
def test_the_number_of_threads_changes_nothing(native, mechanism):
    index = np.arange(3, dtype=np.uint32)
    center = np.zeros((3, 4096), dtype=np.float32)
    outs = []
    for threads in (1, 2, 7):
        out = np.full((3, 64, 4096), np.nan, dtype=np.float32)
        native.add_noise(mechanism.native_law, 1.0, 3, 1, index, 0, center, out, threads)
        outs.append(out.tobytes())
    assert outs[0] == outs[1] == outs[2]


def test_extreme_words_keep_their_precision():
    words = np.array([[0, 0, 2**32 - 1, 2**32 - 1, 2**31, 2**31 - 1, 1, 2**30]], dtype=np.uint32)
    for mechanism, largest in ((Gaussian(1), 6.7637), (Laplace(1), 22.1808), (Uniform(1), 1.0)):
        exact = mechanism.unit_noise(words, np)
        close = mechanism.unit_noise(torch.from_numpy(words.astype(np.int64)), torch).numpy()
        assert np.isfinite(exact).all()
        assert np.isfinite(close).all()
        assert np.abs(exact).max() == pytest.approx(largest, abs=1e-3)
        assert np.allclose(close, exact, rtol=1e-6, atol=3e-7)


def test_empty_requests():
    assert draw(Gaussian(1), n=0).shape == (1, 0, 64)
    assert draw(Gaussian(1), rows=0, index=()).shape == (0, 4, 64)


def test_native_refuses_arrays_that_do_not_fit(native):
    index, center = np.zeros(1, dtype=np.uint32), np.zeros((1, 8), dtype=np.float32)
    out = np.zeros((1, 2, 8), dtype=np.float32)
    for arguments, message in (
        ((3, 1.0, 0, 0, index, 0, center, out, 1), "law"),
        ((0, 1.0, 0, 0, index, 0, center[:, :4].copy(), out, 1), "agree"),
        ((0, 1.0, 0, 0, index, 2**32 - 1, center, out, 1), "counter"),
        ((0, 1.0, 0, 0, index, 0, center, out, 1, "mmx"), "unknown"),
    ):
        with pytest.raises(ValueError, match=message):
            native.add_noise(*arguments)
    with pytest.raises(TypeError):
        native.add_noise(0, 1.0, 0, 0, index, 0, center.astype(np.float64), out, 1)


def test_the_source_can_be_chosen(native, monkeypatch):
    assert sampling.noise_source(Gaussian(1)) == "native"
    assert sampling.noise_source(Gaussian(1), "cuda:0") == "torch"
    monkeypatch.setenv("PIXELDP_NATIVE", "0")
    sampling.native_module.cache_clear()
    try:
        assert sampling.noise_source(Gaussian(1)) == "torch"
    finally:
        monkeypatch.undo()
        sampling.native_module.cache_clear()


def test_the_instruction_set_can_be_limited(native, monkeypatch):
    x = torch.zeros(1, 40)
    whole = add_noise(x, Gaussian(1), STREAM, [0], 0, 3)
    for name in ISAS:
        monkeypatch.setenv("PIXELDP_ISA", name)
        assert torch.equal(add_noise(x, Gaussian(1), STREAM, [0], 0, 3), whole)
    monkeypatch.setenv("PIXELDP_ISA", "mmx")
    with pytest.raises(InvalidArgument, match="portable, avx2, avx512"):
        add_noise(x, Gaussian(1), STREAM, [0], 0, 3)


def test_more_coordinates_than_the_counter_holds_are_refused():
    assert blocks_for(2**34) == 2**32
    with pytest.raises(InvalidArgument, match="coordinates"):
        blocks_for(2**34 + 1)
