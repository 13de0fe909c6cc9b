"""The Triton kernels in Triton's interpreter, on tiny shapes, against the definition in NumPy.

The interpreter takes the portable branch of the approximate functions, truncates where a device
rounds to bfloat16, and sums in NumPy's order: what is compared bit by bit here is what does not
depend on these.
"""

import itertools
from itertools import pairwise

import numpy as np
import pytest
import torch

from pixeldp_fast import Gaussian, Laplace, Uniform
from pixeldp_fast.backends.reduction import SoftmaxSums, Votes
from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.philox import words_numpy
from pixeldp_fast.noise.sampling import noise_definition
from pixeldp_fast.noise.stream import SHARED_EXAMPLE, Purpose, Stream

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from pixeldp_fast.backends.triton import convolution, heads, mlp, noise  # noqa: E402
from pixeldp_fast.backends.triton.draws import Draws, key_words, place, signed  # noqa: E402
from pixeldp_fast.backends.triton.math import INTERPRETED, philox  # noqa: E402

pytestmark = pytest.mark.skipif(
    not INTERPRETED.value, reason="Triton's interpreter is off: tests/gpu has these on the device"
)

LAWS = (Gaussian, Laplace, Uniform)
SEED = 0x89ABCDEF12345678
NOISE_ERROR = 1e-5  # at scale 1: what `noise.noisy` states
BFLOAT_ULP = 2.0**-7  # of the value, and twice what rounding to nearest may err by


def draws_of(n, examples, *, law=0, scale=1.0, first_draw=0, first_row=0, seed=SEED):
    return Draws(law, scale, seed, int(Purpose.ESTIMATION), first_draw, n, examples, first_row)


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def random(*shape, dtype=torch.float32, scale=1.0, seed=1):
    return (torch.randn(*shape, generator=generator(seed)) * scale).to(dtype)


def definition(center, address, draws, channels=1):
    """Center plus noise, float64 [B n, C, pixels], for all rows of the call."""
    stream = Stream(draws.seed, draws.purpose)
    mechanism = LAWS[draws.law](draws.scale)
    coordinates = center.shape[1]
    unit = [
        shared_noise(mechanism, stream, draws, coordinates)
        if a == SHARED_EXAMPLE
        else noise_definition(mechanism, stream, [a], draws.first_draw, draws.n, coordinates)
        for a in address.tolist()
    ]
    z = torch.tensor(np.concatenate(unit))  # [B, n, D]
    return (center.double()[:, None] + z).reshape(-1, channels, coordinates // channels)


def shared_noise(mechanism, stream, draws, coordinates):
    """The noise at the address that `noise_definition` reserves."""
    from pixeldp_fast.noise.philox import philox as words

    blocks = -(-coordinates // 4)
    block = np.arange(blocks, dtype=np.uint64)[None, :]
    draw = np.arange(draws.first_draw, draws.first_draw + draws.n, dtype=np.uint64)[:, None]
    counter = (block, draw, np.uint64(SHARED_EXAMPLE), np.uint64(int(stream.purpose)))
    stacked = np.stack([np.broadcast_to(w, (draws.n, blocks)) for w in words(counter, stream.key)])
    flat = np.moveaxis(stacked, 0, -1).astype(np.uint32).reshape(1, draws.n, 4 * blocks)
    return mechanism.noise_scale * mechanism.unit_noise(flat, np)[..., :coordinates]


def kernel_noise(center, address, draws, rows, *, channels=1, dtype=torch.float32, **options):
    """The kernel's rows as [rows, C, pixels], from a buffer that held NaN."""
    coordinates = center.shape[1]
    shape = (rows, coordinates // channels, channels) if channels > 1 else (rows, coordinates)
    out = torch.full(shape, torch.nan, dtype=dtype)
    noise.noisy(center, address, draws, out, channels=channels, **options)
    return out.view(rows, -1, channels).transpose(1, 2).double()


@triton.jit
def _words_kernel(out, draw, address, purpose, key_low, key_high, BLOCKS: tl.constexpr):
    block = tl.arange(0, BLOCKS)
    w0, w1, w2, w3 = philox(
        block.to(tl.uint32),
        draw.to(tl.uint32),
        address.to(tl.uint32),
        purpose.to(tl.uint32),
        key_low,
        key_high,
    )
    tl.store(out + 4 * block, w0.to(tl.int64))
    tl.store(out + 4 * block + 1, w1.to(tl.int64))
    tl.store(out + 4 * block + 2, w2.to(tl.int64))
    tl.store(out + 4 * block + 3, w3.to(tl.int64))


@pytest.mark.parametrize("seed", [0, 7, 0x7FFFFFFF, 0x80000001, SEED, 2**64 - 1])
@pytest.mark.parametrize(("draw", "address"), [(0, 0), (2**32 - 1, 2**32 - 2), (2**31, 5)])
def test_words_are_the_streams(seed, draw, address):
    out = torch.full((64,), -1, dtype=torch.int64)
    _words_kernel[(1,)](out, signed(draw), signed(address), 4, *key_words(seed), BLOCKS=16)
    stream = Stream(seed, Purpose.ATTACK)
    assert np.array_equal(out.numpy(), words_numpy(stream, [address], draw, 1, 16)[0, 0])


# Vectors whose last block is cut; maps in tiles of one and several rows; channels that are no power
# of two or more than a tile; pixels that are no multiple of 4, so that blocks cross channels.
@pytest.mark.parametrize("law", [0, 1, 2])
@pytest.mark.parametrize(
    ("channels", "pixels"), [(1, 1), (1, 10), (1, 262), (3, 16), (16, 16), (65, 4), (4, 9), (5, 1)]
)
def test_noise_is_the_definitions(law, channels, pixels):
    center = random(2, channels * pixels)
    address, draws = torch.tensor([3, 2**32 - 2]), draws_of(31, 2, law=law, first_draw=2**31 - 2)
    got = kernel_noise(center, address, draws, 128, channels=channels)
    want = definition(center, address, draws, channels)
    assert (got[:62] - want).abs().max() <= NOISE_ERROR
    assert torch.isfinite(got).all()  # padding is computed too


# A program takes its draws in steps: examples that change within a step, between two, and not at
# all; every draw an example of its own; padding behind the last; a program all of padding.
@pytest.mark.parametrize(
    ("n", "examples", "rows", "steps"),
    [(1, 40, 16, 4), (7, 6, 16, 4), (8, 7, 8, 8), (9, 5, 32, 2), (64, 1, 16, 4)],
)
@pytest.mark.parametrize(
    ("channels", "pixels", "tile"),
    [(1, 10, (1, 4)), (3, 8, (4, 2)), (4, 9, (1, 16)), (20, 12, (32, 4))],
)
def test_steps_find_their_examples(n, examples, channels, pixels, tile, rows, steps):
    center, address = random(examples, channels * pixels), torch.arange(examples) * 3
    draws = draws_of(n, examples, first_draw=5)
    config = noise.NoiseConfig(rows, *tile, warps=4, steps=steps)
    got = kernel_noise(center, address, draws, 64, channels=channels, config=config)
    want = definition(center, address, draws, channels)[:64]
    assert (got[: len(want)] - want).abs().max() <= NOISE_ERROR
    assert torch.isfinite(got).all()


def test_a_tile_larger_than_the_map_writes_nothing_else():
    center, draws = random(1, 20 * 12), draws_of(8, 1)
    kept = torch.full((10, 12, 20), 7.0)
    config = noise.NoiseConfig(8, 64, 8, steps=4)
    noise.noisy(center, torch.tensor([2]), draws, kept[1:9], channels=20, config=config)
    assert (kept[0] == 7).all()
    assert (kept[9] == 7).all()
    got = kept[1:9].transpose(1, 2).double()
    assert (got - definition(center, torch.tensor([2]), draws, 20)).abs().max() <= NOISE_ERROR


def test_default_tiles_divide_every_launch_and_pad_little():
    for channels, pixels in itertools.product(
        (1, 3, 8, 16, 24, 32, 65, 320), (1, 4, 49, 196, 1024)
    ):
        config = noise.default_config(channels, channels * pixels)
        assert 128 % config.rows == config.rows % config.steps == 0
    assert noise.default_config(16, 16 * 1024).channels == 16
    assert noise.default_config(48, 48 * 64).channels == 16
    vector = noise.default_config(1, 784)
    assert 784 <= -(-196 // vector.quads) * 4 * vector.quads <= 1.08 * 784


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65])
def test_a_row_depends_on_nothing_but_its_draw(n):
    """Launches of other sizes and tiles, and other splits of the draws, give the same bits."""
    center, address = random(3, 24), torch.tensor([1, 0, 9])
    draws = draws_of(n, 3, first_draw=5)
    total = 128 * -(-3 * n // 128)
    whole = kernel_noise(center, address, draws, total)
    for tile in (4, 64):
        config = noise.NoiseConfig(rows=tile, channels=1, quads=8)
        first = 128 * (n // 128)
        part = kernel_noise(center, address, draws._replace(first_row=first), 128, config=config)
        assert torch.equal(part, whole[first : first + 128])
    if n > 1:
        later = draws._replace(first_draw=5 + n // 2, n=n - n // 2)
        rest = kernel_noise(center[1:2], address[1:2], later._replace(examples=1), 512)
        assert torch.equal(rest[: n - n // 2], whole[n + n // 2 : 2 * n])


def test_shared_addresses_share_draws():
    center, address = random(2, 12), torch.full((2,), SHARED_EXAMPLE)
    draws = draws_of(64, 2)
    got = kernel_noise(torch.zeros_like(center), address, draws, 128)
    assert torch.equal(got[:64], got[64:])
    got = kernel_noise(center, address, draws, 128)
    assert (got - definition(center, address, draws)).abs().max() <= NOISE_ERROR


@pytest.mark.parametrize("slope", [0.0, 0.25, 1.0])
@pytest.mark.parametrize(("channels", "pixels"), [(3, 8), (5, 3), (1, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_affine_activation_and_cast(slope, channels, pixels, dtype):
    center, address, draws = random(2, channels * pixels), torch.tensor([3, 4]), draws_of(64, 2)
    scale, shift = random(channels, seed=2), random(channels, seed=3)
    got = kernel_noise(
        center, address, draws, 128, channels=channels, dtype=dtype, scale=scale, shift=shift,
        slope=slope,
    )  # fmt: skip
    x = definition(center, address, draws, channels)
    x = x * scale.double()[:, None] + shift.double()[:, None]
    want = torch.where(x > 0, x, x * slope)
    ulp = {torch.float32: 1e-6, torch.bfloat16: BFLOAT_ULP, torch.float16: 2.0**-10}[dtype]
    assert ((got - want).abs() <= ulp * want.abs() + 1e-4).all()


def test_relu_keeps_what_is_not_a_number():
    center = random(1, 8)
    center[0, 3] = torch.nan
    got = kernel_noise(center, torch.tensor([0]), draws_of(128, 1), 128, slope=0.0)
    assert torch.isnan(got[:, 0, 3]).all()
    assert torch.isfinite(got[:, 0, :3]).all()


def reference_table(outputs, draws, scores):
    """The reduction of every example's rows among [first_row, first_row + len(outputs))."""
    classes = outputs.shape[1]
    reduction = Votes(classes) if scores == "votes" else SoftmaxSums(classes)
    table = torch.zeros(draws.examples, heads.table_width(classes, scores), dtype=torch.int64)
    example = (torch.arange(len(outputs)) + draws.first_row) // draws.n
    for b in range(draws.examples):
        if (example == b).any():
            table[b] = reduction.reduce(outputs[example == b])
    return table


def empty_table(draws, classes, scores="votes"):
    return torch.zeros(draws.examples, heads.table_width(classes, scores), dtype=torch.int64)


@pytest.mark.parametrize("scores", heads.SCORES)
@pytest.mark.parametrize("classes", [1, 2, 10, 15, 16, 300])
@pytest.mark.parametrize(
    ("examples", "n", "first_row"),
    [(3, 1, 0), (3, 63, 0), (2, 64, 0), (2, 65, 128), (5, 40, 100), (2, 1000, 950), (2, 5, 10)],
)
def test_count_is_the_references(scores, classes, examples, n, first_row):
    """Tables exact: rows that span examples, ties, lost rows, padding, launches behind the end."""
    logits = random(128, classes)
    logits[::7] = logits[::7].round()  # ties
    logits[1] = 0.0
    logits[3, 0], logits[9, -1], logits[11, 0] = torch.nan, torch.inf, -torch.inf
    draws = draws_of(n, examples, first_row=first_row)
    table = empty_table(draws, classes, scores)
    heads.count(logits, draws, table, scores=scores)
    want = reference_table(logits, draws, scores)
    assert torch.equal(table[:, : classes + 1], want[:, : classes + 1])
    # NumPy's exponential may differ from torch's in the last place: a score may floor otherwise.
    off = (table - want).abs()
    assert off[:, classes + 1 : 2 * classes + 1].sum() <= 2
    assert off[:, 2 * classes + 1 :].sum() <= 2 * 2**21
    if scores == "softmax":
        finite = table[:, :classes].sum(dim=1)
        assert (table[:, classes + 1 : 2 * classes + 1].sum(dim=1) <= finite * 2**20).all()


def test_counts_add_up_over_launches():
    logits, draws = random(384, 4), draws_of(123, 3)
    whole, parts = empty_table(draws, 4), empty_table(draws, 4)
    heads.count(logits, draws, whole)
    for first in (0, 128, 256):
        heads.count(logits[first : first + 128], draws._replace(first_row=first), parts)
    assert torch.equal(whole, parts)
    assert whole.sum() == 369


def separated(outputs, margin):
    """Whether the two largest outputs of every row are further apart than rounding could move."""
    if outputs.shape[1] == 1:
        return torch.ones(len(outputs), dtype=torch.bool)
    top = outputs.topk(2, dim=1).values
    return ~((top[:, 0] - top[:, 1]) <= margin * outputs.abs().amax(dim=1))


def assert_votes(table, outputs, draws, margin):
    """Equal tables but for the votes of draws inside the margin, which are few."""
    near = int((~separated(outputs[: draws.n * draws.examples], margin)).sum())
    assert near <= 0.1 * len(outputs)
    want = reference_table(outputs, draws, "votes")
    assert torch.equal(table[:, -1], want[:, -1])
    assert torch.equal(table.sum(dim=1), want.sum(dim=1))
    assert (table - want).abs().sum() <= 2 * near


MARGINS = {torch.float32: 5e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}
each_dtype = pytest.mark.parametrize("dtype", MARGINS, ids=str)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy's, of infinities
@each_dtype
@pytest.mark.parametrize(("pixels", "channels", "classes"), [(1, 20, 3), (9, 70, 10), (4, 32, 40)])
def test_pool_dense_count(dtype, pixels, channels, classes):
    x, weight = random(128, pixels, channels, dtype=dtype), random(classes, channels, dtype=dtype)
    bias, draws = random(classes, seed=3), draws_of(61, 2)
    x[5, 0, 0], x[7, 0, 1] = torch.nan, torch.inf
    table = empty_table(draws, classes)
    heads.pool_dense_count(x, weight, bias, draws, table)
    outputs = x.double().mean(dim=1) @ weight.double().T + bias.double()
    assert_votes(table, outputs, draws, MARGINS[dtype])
    assert table[0, -1] == 2


@each_dtype
@pytest.mark.parametrize(("inputs", "hidden", "classes"), [(20, 24, 3), (64, 300, 10), (7, 16, 40)])
def test_dense_dense_count(dtype, inputs, hidden, classes):
    x = random(128, inputs, dtype=dtype)
    w1 = random(hidden, inputs, dtype=dtype, scale=inputs**-0.5, seed=2)
    w2 = random(classes, hidden, dtype=dtype, scale=hidden**-0.5, seed=3)
    b1, b2, draws = random(hidden, seed=4), random(classes, seed=5), draws_of(61, 2)
    x[5, 0] = torch.nan
    table = empty_table(draws, classes)
    heads.dense_dense_count(x, w1, b1, w2, b2, draws, table, slope=0.1)
    units = x.double() @ w1.double().T + b1.double()
    units = torch.where(units > 0, units, units * 0.1)
    outputs = units @ w2.double().T + b2.double()
    assert_votes(table, outputs, draws, MARGINS[dtype])
    assert table[0, -1] == 1


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy's, of infinities
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("hidden", [24, 32])
def test_padding_loses_no_draw_that_overflows_below(hidden):
    """-inf before a ReLU is 0 behind it, whether the layer fills its tile or not."""
    x = random(128, 20, dtype=torch.float16)
    x[5, 0] = torch.inf
    w1 = random(hidden, 20, dtype=torch.float16)
    w1[:, 0] = -w1[:, 0].abs() - 0.1
    w2, b2 = random(3, hidden, dtype=torch.float16), torch.tensor([0.0, 1.0, 2.0])
    draws = draws_of(61, 2)
    table = empty_table(draws, 3)
    heads.dense_dense_count(x, w1, random(hidden), w2, b2, draws, table)
    assert table[:, -1].sum() == 0

    center, address = torch.ones(1, 5), torch.tensor([3])
    draws = draws_of(128, 1, scale=0.01)
    weights = [
        (torch.full((hidden, 5), 6e4), torch.zeros(hidden)),  # infinite in 16 bits
        (torch.full((hidden, hidden), -1.0), torch.zeros(hidden)),
        (torch.ones(3, hidden), b2),
    ]
    weights = [(w.to(torch.float16), b) for w, b in weights]
    table = empty_table(draws, 3)
    mlp.mlp_count(
        center, address, draws, weights, table, rows=128, slopes=[0.0, 0.0], dtype=torch.float16
    )
    assert table.tolist() == [[0, 0, 128, 0]]


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # NumPy's
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_noise_of_padding_loses_no_draw():
    """Five coordinates fill no tile; the noise of the padding may be too large for 16 bits."""
    draws = draws_of(128, 1, law=2, scale=1e5)
    weights = [(torch.zeros(16, 5), torch.zeros(16)), (torch.zeros(2, 16), torch.ones(2))]
    weights = [(w.to(torch.float16), b) for w, b in weights]
    table = empty_table(draws, 2)
    mlp.mlp_count(
        torch.zeros(1, 5), torch.tensor([3]), draws, weights, table, rows=128, slopes=[0.0],
        dtype=torch.float16,
    )  # fmt: skip
    fitting = (definition(torch.zeros(1, 5), torch.tensor([3]), draws).abs() < 65504).all(
        dim=(1, 2)
    )
    assert 0 < fitting.sum() < 128
    assert table[0].tolist() == [int(fitting.sum()), 0, 128 - int(fitting.sum())]


@each_dtype
@pytest.mark.parametrize(
    ("law", "widths"),
    [(0, (20, 24, 3)), (0, (37, 20, 70, 10)), (1, (16, 33, 5)), (2, (5, 8, 2))],
)
def test_mlp_count(dtype, law, widths):
    center, address = random(3, widths[0]), torch.tensor([3, 0, 2**32 - 2])
    draws = draws_of(65, 3, law=law, scale=0.5, first_draw=2**32 - 65)
    weights = [
        (random(b, a, dtype=dtype, scale=a**-0.5, seed=b), random(b, seed=a, scale=0.1))
        for a, b in pairwise(widths)
    ]
    slopes = [0.0, 0.25][: len(widths) - 2]
    table = empty_table(draws, widths[-1])
    mlp.mlp_count(center, address, draws, weights, table, rows=256, slopes=slopes, dtype=dtype)
    value = definition(center, address, draws)[:, 0]
    for i, (weight, bias) in enumerate(weights):
        value = value @ weight.double().T + bias.double()
        if i < len(slopes):
            value = torch.where(value > 0, value, value * slopes[i])
    margin = max(MARGINS[dtype], 1e-4)  # the noise itself errs by up to 1e-5
    assert_votes(table, value, draws, margin)
    halves = empty_table(draws, widths[-1])
    for first in (0, 128):
        mlp.mlp_count(
            center, address, draws._replace(first_row=first), weights, halves, rows=128,
            slopes=slopes, dtype=dtype,
        )  # fmt: skip
    assert torch.equal(halves, table)


# Maps that no tile divides, channels that are no power of two, strides, one-sided padding.
CONVOLUTIONS = [
    ((3, 6, 5, 3), (5, 3, 3), (1, 1), ((1, 1), (1, 1)), True),
    ((2, 7, 7, 16), (32, 3, 3), (2, 2), ((1, 1), (1, 1)), False),
    ((4, 4, 4, 20), (70, 1, 1), (1, 1), ((0, 0), (0, 0)), True),
    ((2, 9, 8, 1), (4, 5, 2), (2, 1), ((2, 1), (0, 2)), False),
    ((65, 1, 1, 70), (3, 1, 1), (1, 1), ((0, 0), (0, 0)), False),
]


@each_dtype
@pytest.mark.parametrize(("maps", "kernel", "stride", "padding", "with_residual"), CONVOLUTIONS)
def test_convolve(dtype, maps, kernel, stride, padding, with_residual):
    x = random(*maps, dtype=dtype)
    weight = random(*kernel, maps[3], dtype=dtype, scale=(kernel[1] * kernel[2] * maps[3]) ** -0.5)
    bias = random(kernel[0], seed=2)
    (top, bottom), (left, right) = padding
    padded = torch.nn.functional.pad(x.double(), (0, 0, left, right, top, bottom))
    want = torch.nn.functional.conv2d(
        padded.movedim(3, 1), weight.double().movedim(3, 1), bias.double(), stride
    ).movedim(1, 3)
    residual = random(*want.shape, dtype=dtype, seed=3) if with_residual else None
    want = want + (residual.double() if with_residual else 0.0)
    want = torch.where(want > 0, want, want * 0.1)
    options = {"stride": stride, "padding": padding, "slope": 0.1}
    out = torch.full(want.shape, torch.nan, dtype=dtype)
    convolution.convolve(x, weight, bias, residual, out, **options)
    ulp = {torch.float32: 1e-6, torch.bfloat16: BFLOAT_ULP, torch.float16: 2.0**-10}[dtype]
    assert ((out.double() - want).abs() <= ulp * want.abs() + 2e-6).all()
    # A row's result is its own: the last row alone gives the same bits, unless NumPy's product
    # of another shape sums in another order.
    last = torch.full((1, *want.shape[1:]), torch.nan, dtype=dtype)
    alone = residual[-1:].contiguous() if with_residual else None
    convolution.convolve(x[-1:].contiguous(), weight, bias, alone, last, **options)
    assert torch.allclose(last.double(), out[-1:].double(), rtol=ulp, atol=2e-6)


def test_convolve_refuses():
    x, weight, bias, out = random(2, 4, 4, 3), random(5, 3, 3, 3), random(5), random(2, 2, 2, 5)
    convolution.convolve(x, weight, bias, None, out)
    with pytest.raises(InvalidArgument, match="out"):
        convolution.convolve(x, weight, bias, None, out, padding=((1, 1), (1, 1)))
    with pytest.raises(InvalidArgument, match="stride"):
        convolution.convolve(x, weight, bias, None, out, stride=(0, 1))
    with pytest.raises(InvalidArgument, match="does not fit"):
        convolution.convolve(x, random(5, 5, 3, 3), bias, None, out)
    with pytest.raises(InvalidArgument, match="weight"):
        convolution.convolve(x, random(5, 3, 3, 2), bias, None, out)
    with pytest.raises(InvalidArgument, match="contiguous"):
        convolution.convolve(x.transpose(1, 2), weight, bias, None, out)


def test_places_stay_exact_beyond_32_bits():
    at = place(draws_of(2**32 - 1, 5, first_row=3 * 2**32), 128)
    assert (at.example, at.rest, at.valid, at.wide) == (3, 3, 128, True)
    behind = place(draws_of(10, 2, first_row=256), 128)
    assert (behind.example, behind.valid, behind.wide) == (1, 0, False)


def test_rows_beyond_31_bits_find_their_draws():
    center, address = random(2, 8), torch.tensor([3, 4])
    draws = draws_of(2**32 - 1, 2, first_row=2**32 - 65)
    got = kernel_noise(center, address, draws, 128)
    last = draws._replace(examples=1, first_draw=2**32 - 65, n=64, first_row=0)
    assert torch.equal(got[:64], kernel_noise(center[:1], address[:1], last, 128)[:64])
    first = draws._replace(examples=1, n=64, first_row=0)
    assert torch.equal(got[64:], kernel_noise(center[1:], address[1:], first, 128)[:64])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": torch.int32}, "out"),
        ({"rows": 127}, "multiple"),
        ({"draws": draws_of(64, 3)}, "examples"),
        ({"draws": draws_of(0, 2)}, "n"),
        ({"draws": draws_of(64, 2, law=3)}, "law"),
        ({"config": noise.NoiseConfig(128, 4, 4)}, "one line"),
        ({"config": noise.NoiseConfig(128, 1, 4, steps=3)}, "steps"),
        ({"scale": torch.ones(1)}, "come together"),
        ({"scale": torch.ones(2), "shift": torch.ones(2)}, "scale"),
    ],
)
def test_noise_refuses(change, message):
    options = {"rows": 128, "draws": draws_of(64, 2), **change}
    rows, draws, dtype = options.pop("rows"), options.pop("draws"), options.pop("dtype", None)
    out = torch.zeros(rows, 8, dtype=dtype or torch.float32)
    with pytest.raises(InvalidArgument, match=message):
        noise.noisy(random(2, 8), torch.tensor([0, 1]), draws, out, channels=1, **options)


def test_noise_refuses_what_its_indices_do_not_hold():
    """Before anything is launched: shapes alone, on the meta device."""
    draws = draws_of(128, 1)

    def launch(coordinates, config=None):
        center, out = (torch.empty(k, coordinates, device="meta") for k in (1, 128))
        address = torch.empty(1, dtype=torch.int64, device="meta")
        noise.noisy(center, address, draws, out, channels=1, config=config)

    with pytest.raises(InvalidArgument, match="2\\^30 coordinates"):
        launch(2**31 - 5)
    with pytest.raises(InvalidArgument, match="tiles"):  # a grid's second axis ends at 65,535
        launch(2**24, noise.NoiseConfig(128, 1, 16))


def test_heads_refuse():
    draws, logits = draws_of(64, 2), random(128, 4)
    with pytest.raises(InvalidArgument, match="scores"):
        heads.count(logits, draws, empty_table(draws, 4), scores="soft")
    with pytest.raises(InvalidArgument, match="table"):
        heads.count(logits, draws, empty_table(draws, 5))
    with pytest.raises(InvalidArgument, match="contiguous"):
        heads.count(random(4, 128).T, draws, empty_table(draws, 4))
    with pytest.raises(InvalidArgument, match="classes"):
        heads.pool_dense_count(
            random(128, 1, 4), random(128, 4), random(128), draws, empty_table(draws, 128)
        )
    with pytest.raises(InvalidArgument, match="hidden layers"):
        mlp.mlp_count(
            random(2, 4), torch.tensor([0, 1]), draws, [(random(4, 4), random(4))],
            empty_table(draws, 4), rows=128, slopes=[],
        )  # fmt: skip
    with pytest.raises(InvalidArgument, match="multiple"):
        heads.count(random(100, 4), draws, empty_table(draws, 4))


def test_weights_beyond_31_bits_are_refused():
    inputs, draws = 2**24, draws_of(64, 1)

    def meta(*shape, dtype=torch.float32):
        return torch.empty(*shape, dtype=dtype, device="meta")

    table = meta(1, 3, dtype=torch.int64)
    first, last = (meta(128, inputs), meta(128)), (meta(2, 128), meta(2))
    center, address = meta(1, inputs), meta(1, dtype=torch.int64)
    with pytest.raises(InvalidArgument, match="2\\^31 elements"):
        mlp.mlp_count(center, address, draws, [first, last], table, rows=128, slopes=[0.0])
    with pytest.raises(InvalidArgument, match="2\\^31 elements"):
        heads.dense_dense_count(meta(128, inputs), *first, *last, draws, table)
    with pytest.raises(InvalidArgument, match="2\\^31 elements"):
        heads.pool_dense_count(meta(128, inputs, 128), meta(2, 128), meta(2), draws, table)
