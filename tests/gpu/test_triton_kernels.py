"""The Triton and CUDA kernels on an NVIDIA GPU, at full shapes, into buffers that held NaN.

What the interpreter cannot show: the approximate functions, rounding to 16 bits, tensor cores.
Inputs are fresh at every run; a failure prints the seed.
"""

import itertools
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pixeldp_fast import Gaussian, Laplace, Uniform
from pixeldp_fast.backends.cuda import compiler
from pixeldp_fast.backends.cuda import noise as cuda_noise
from pixeldp_fast.backends.reduction import SoftmaxSums, Votes
from pixeldp_fast.backends.triton.draws import Draws
from pixeldp_fast.errors import MissingCompiler
from pixeldp_fast.noise.sampling import add_noise, noise_definition, noise_source
from pixeldp_fast.noise.stream import Purpose, Stream

DEVICE = torch.device("cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]
pytest.importorskip("triton")
from pixeldp_fast.backends.triton import convolution, heads, mlp, noise  # noqa: E402

LAWS = (Gaussian, Laplace, Uniform)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ULPS = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
NOISE_ERROR = 1e-5  # at scale 1: what the launchers state
# Vectors, maps of the field's networks, and pixels that are no multiple of 4.
SHAPES = ((1, 784), (1, 128), (3, 32 * 32), (16, 32 * 32), (32, 14 * 14), (3, 224 * 224), (5, 49))
BOTH = [noise, cuda_noise]


@pytest.fixture
def seed():
    """A fresh seed, printed where a test fails."""
    value = secrets.randbits(64)
    print(f"seed {value}")
    return value


@pytest.fixture
def generator(seed):
    return torch.Generator().manual_seed(seed % 2**63)


@pytest.fixture
def with_nvcc():
    """NVIDIA's compiler, for the kernel in CUDA C++."""
    try:
        return compiler.nvcc()
    except MissingCompiler as error:
        pytest.skip(str(error))


def draws_of(seed, n, examples, law=0, scale=1.0, first_row=0):
    return Draws(law, scale, seed, int(Purpose.ESTIMATION), 7, n, examples, first_row)


def rows_of(module, center, address, draws, rows, channels, dtype=torch.float32, **options):
    """A launcher's rows as [rows, C, pixels] on the CPU, float64, with a guard behind them."""
    pixels = center.shape[1] // channels
    out = torch.full((rows + 1, pixels, channels), torch.nan, dtype=dtype, device=DEVICE)
    filled = out[:rows] if channels > 1 else out[:rows].view(rows, pixels)
    module.noisy(center, address, draws, filled, channels=channels, **options)
    assert torch.isnan(out[rows]).all()
    assert not torch.isnan(out[:rows]).any()
    return out[:rows].transpose(1, 2).double().cpu()


def exact_rows(center, address, draws, channels):
    """The definition's rows, float64 [B n, C, pixels]."""
    mechanism, stream = LAWS[draws.law](draws.scale), Stream(draws.seed, draws.purpose)
    index, size = address.cpu().numpy(), center.shape[1]
    z = noise_definition(mechanism, stream, index, draws.first_draw, draws.n, size)
    exact = center.cpu().double()[:, None] + torch.from_numpy(z)
    return exact.reshape(-1, channels, size // channels)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("law", [0, 1, 2])
@pytest.mark.parametrize(("channels", "pixels"), SHAPES)
def test_noise_is_the_definitions(seed, generator, law, channels, pixels, dtype):
    center = torch.rand(3, channels * pixels, generator=generator).to(DEVICE)
    address = torch.tensor([3, 0, 2**32 - 2], device=DEVICE)
    draws = draws_of(seed, 33, 3, law=law)
    got = rows_of(noise, center, address, draws, 128, channels, dtype)[:99]
    exact = exact_rows(center, address, draws, channels)
    allowed = NOISE_ERROR + ULPS[dtype] * exact.abs()
    assert ((got - exact).abs() <= allowed).all()


def test_noise_is_the_definitions_for_ten_million_values(seed):
    center, address = torch.zeros(1, 2**16, device=DEVICE), torch.tensor([1], device=DEVICE)
    draws = draws_of(seed, 128, 1)
    got = rows_of(noise, center, address, draws, 128, 1)
    exact = exact_rows(center, address, draws, 1)
    assert float((got - exact).abs().max()) <= NOISE_ERROR


@pytest.mark.parametrize("law", [0, 1, 2])
@pytest.mark.parametrize(("channels", "pixels"), SHAPES)
def test_the_cuda_kernel_has_the_bits_of_the_compiled_module(
    with_nvcc, native, seed, generator, law, channels, pixels
):
    mechanism = LAWS[law](0.7)
    assert noise_source(mechanism) == "native"
    center = torch.rand(2, channels * pixels, generator=generator)
    draws = draws_of(seed, 65, 2, law=law, scale=0.7)
    address = torch.tensor([9, 2], device=DEVICE)
    got = rows_of(cuda_noise, center.to(DEVICE), address, draws, 256, channels)[:130]
    stream = Stream(seed, draws.purpose)
    want = add_noise(center, mechanism, stream, [9, 2], draws.first_draw, draws.n)
    assert torch.equal(got, want.reshape(130, channels, pixels).double())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_cuda_kernel_rounds_like_torch(with_nvcc, seed, generator, dtype):
    center = torch.rand(1, 16 * 64, generator=generator).to(DEVICE)
    address, draws = torch.tensor([4], device=DEVICE), draws_of(seed, 128, 1)
    options = {
        "scale": torch.rand(16, generator=generator).to(DEVICE),
        "shift": torch.rand(16, generator=generator).to(DEVICE) - 0.5,
        "slope": 0.0,
    }
    wide = rows_of(cuda_noise, center, address, draws, 128, 16, **options)
    got = rows_of(cuda_noise, center, address, draws, 128, 16, dtype, **options)
    assert torch.equal(got, wide.to(dtype).double())


@pytest.mark.parametrize("module", BOTH, ids=["triton", "cuda"])
def test_affine_and_activation_follow_the_noise(request, module, seed, generator):
    if module is cuda_noise:
        request.getfixturevalue("with_nvcc")
    center = torch.rand(2, 16 * 256, generator=generator).to(DEVICE)
    address, draws = torch.tensor([1, 5], device=DEVICE), draws_of(seed, 64, 2)
    scale, shift = (torch.randn(16, generator=generator) for _ in range(2))
    options = {"scale": scale.to(DEVICE), "shift": shift.to(DEVICE), "slope": 0.1}
    got = rows_of(module, center, address, draws, 128, 16, **options)
    wide = exact_rows(center, address, draws, 16) * scale.double()[:, None]
    exact = torch.nn.functional.leaky_relu(wide + shift.double()[:, None], 0.1)
    allowed = NOISE_ERROR * scale.abs().double()[:, None] + 4 * ULPS[torch.float32] * (
        1 + exact.abs()
    )
    assert ((got - exact).abs() <= allowed).all()


@pytest.mark.parametrize("module", BOTH, ids=["triton", "cuda"])
@pytest.mark.parametrize("channels", [1, 3, 16])
def test_rows_do_not_depend_on_the_launch(request, module, channels, seed, generator):
    if module is cuda_noise:
        request.getfixturevalue("with_nvcc")
    center = torch.rand(3, channels * 784, generator=generator).to(DEVICE)
    address, draws = torch.tensor([1, 5, 8], device=DEVICE), draws_of(seed, 171, 3)
    whole = rows_of(module, center, address, draws, 640, channels)
    for first in (0, 128, 256, 384):
        part = draws._replace(first_row=first)
        assert torch.equal(
            rows_of(module, center, address, part, 128, channels), whole[first : first + 128]
        )
    assert torch.equal(rows_of(module, center, address, draws, 640, channels), whole)


def test_the_last_rows_of_a_large_buffer_are_right(seed):
    """Beyond 2^31 elements: an index in 32 bits would wrap."""
    free, _ = torch.cuda.mem_get_info()
    size, rows = 3 * 224 * 224, 16_384
    if free < 3 * rows * size:
        pytest.skip("less than 7 GiB of device memory are free")
    center, address = torch.zeros(1, size, device=DEVICE), torch.tensor([2], device=DEVICE)
    out = torch.empty((rows, 224, 224, 3), dtype=torch.bfloat16, device=DEVICE)
    out[-128:] = torch.nan
    draws = draws_of(seed, rows, 1)
    noise.noisy(center, address, draws, out, channels=3)
    last = draws._replace(first_draw=7 + rows - 128, n=128)
    alone = torch.full((128, 224, 224, 3), torch.nan, dtype=torch.bfloat16, device=DEVICE)
    noise.noisy(center, address, last, alone, channels=3)
    assert torch.equal(out[-128:], alone)


def margins(outputs):
    """Votes of float64 outputs, and by how much each won."""
    best = outputs.topk(2, dim=1)
    return best.indices[:, 0], best.values[:, 0] - best.values[:, 1]


def check_votes(table, outputs, allowed, n, examples):
    """Votes per example are the outputs', but for draws within the margin."""
    votes, margin = margins(outputs[: n * examples])
    for b in range(examples):
        some = slice(b * n, (b + 1) * n)
        want = torch.bincount(votes[some], minlength=outputs.shape[1])
        moved = int((table[b, :-1].cpu() - want).abs().sum() + 1) // 2
        close = int((margin[some] <= 2 * allowed).sum())
        assert int(table[b].sum()) == n
        assert int(table[b, -1]) == 0
        assert moved <= close <= n // 2, (moved, close)


@pytest.mark.parametrize("reduction", [Votes, SoftmaxSums])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_counts_of_given_logits_are_the_reductions(seed, generator, classes, dtype, reduction):
    logits = torch.randn(4096, classes, generator=generator).to(dtype).to(DEVICE)
    logits[5, 0], logits[4000, 1] = torch.nan, torch.inf
    logits[7] = 1.0  # a tie goes to the lowest class
    scores = "votes" if reduction is Votes else "softmax"
    draws = draws_of(seed, 1365, 3)
    table = torch.zeros((3, heads.table_width(classes, scores)), dtype=torch.int64, device=DEVICE)
    heads.count(logits, draws, table, scores=scores)
    for b in range(3):
        want = reduction(classes).reduce(logits[b * 1365 : (b + 1) * 1365].cpu())
        got = table[b].cpu()
        assert torch.equal(got[: classes + 1], want[: classes + 1])
        if reduction is SoftmaxSums:
            # In float32 against float64, floored: within two units of the grid per draw.
            sums, exact = (t[classes + 1 : 2 * classes + 1].double() for t in (got, want))
            assert ((sums - exact).abs() <= 2 * 1365).all()
            assert int(got[classes + 1 : 2 * classes + 1].sum()) <= 2**20 * 1365


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("pixels", "channels", "classes"), [(64, 64, 10), (64, 640, 10), (1, 64, 100)]
)
def test_pool_and_dense_count(seed, generator, pixels, channels, classes, dtype):
    x = torch.randn(2048, pixels, channels, generator=generator).to(dtype)
    weight = (torch.randn(classes, channels, generator=generator) * channels**-0.5).to(dtype)
    bias, draws = torch.randn(classes, generator=generator) * 0.1, draws_of(seed, 1000, 2)
    table = torch.zeros((2, classes + 1), dtype=torch.int64, device=DEVICE)
    heads.pool_dense_count(x.to(DEVICE), weight.to(DEVICE), bias.to(DEVICE), draws, table)
    outputs = x.double().mean(dim=1) @ weight.double().T + bias.double()
    allowed = 2 * max(ULPS[dtype] ** 1.5, 2e-6) * float(outputs.abs().max())
    check_votes(table, outputs, allowed, 1000, 2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("inputs", "hidden"), [(3136, 1024), (784, 256)])
def test_two_dense_layers_count(seed, generator, inputs, hidden, dtype):
    x = torch.randn(1024, inputs, generator=generator).to(dtype)
    w1 = (torch.randn(hidden, inputs, generator=generator) * inputs**-0.5).to(dtype)
    w2 = (torch.randn(10, hidden, generator=generator) * hidden**-0.5).to(dtype)
    b1, b2 = (torch.randn(k, generator=generator) * 0.1 for k in (hidden, 10))
    table = torch.zeros((2, 11), dtype=torch.int64, device=DEVICE)
    on = [t.to(DEVICE) for t in (x, w1, b1, w2, b2)]
    heads.dense_dense_count(*on, draws_of(seed, 500, 2), table)
    units = torch.relu(x.double() @ w1.double().T + b1.double())
    outputs = units @ w2.double().T + b2.double()
    allowed = 4 * ULPS[dtype] * float(outputs.abs().max())
    check_votes(table, outputs, allowed, 500, 2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "widths", [(784, 256, 256, 10), (128, 128, 128, 10), (784, 128, 10)], ids=str
)
def test_whole_mlps_count(seed, generator, widths, dtype):
    center = torch.rand(2, widths[0], generator=generator).to(DEVICE)
    address, draws = torch.tensor([6, 1], device=DEVICE), draws_of(seed, 1000, 2, scale=0.5)
    weights = [
        ((torch.randn(b, a, generator=generator) * (2 / a) ** 0.5).to(dtype).to(DEVICE), bias)
        for a, b in itertools.pairwise(widths)
        for bias in [torch.zeros(b, device=DEVICE)]
    ]
    slopes = [0.0] * (len(weights) - 1)
    tables = [torch.zeros((2, 11), dtype=torch.int64, device=DEVICE) for _ in range(3)]
    for table in tables[:2]:
        mlp.mlp_count(center, address, draws, weights, table, rows=2048, slopes=slopes, dtype=dtype)
    for first in range(0, 2048, 256):
        part = draws._replace(first_row=first)
        mlp.mlp_count(
            center, address, part, weights, tables[2], rows=256, slopes=slopes, dtype=dtype
        )
    assert torch.equal(tables[0], tables[1])
    assert torch.equal(tables[0], tables[2])
    x = exact_rows(center, address, draws, 1)[:, 0]
    for i, (weight, _) in enumerate(weights):
        x = x @ weight.double().cpu().T
        x = torch.relu(x) if i + 1 < len(weights) else x
    allowed = 8 * ULPS[dtype] * float(x.abs().max()) + 1e-5
    check_votes(tables[0], x, allowed, 1000, 2)


# (side, channels, outputs, kernel, stride, padding): thin ResNets, wide ResNet, ResNet-50, CNN.
CONVOLUTIONS = (
    (32, 3, 16, 3, 1, 1),
    (32, 16, 16, 3, 1, 1),
    (16, 32, 32, 3, 1, 1),
    (8, 64, 64, 3, 1, 1),
    (32, 16, 32, 3, 2, 1),
    (32, 16, 32, 1, 2, 0),
    (16, 320, 320, 3, 1, 1),
    (8, 640, 640, 3, 1, 1),
    (14, 256, 256, 3, 1, 1),
    (56, 64, 256, 1, 1, 0),
    (14, 32, 64, 5, 2, 2),
)
ROWS = 33


@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_convolutions_are_those_of_float64(generator, shape, dtype, with_residual):
    side, channels, outputs, kernel, stride, padding = shape
    x = torch.randn(ROWS, side, side, channels, generator=generator).to(dtype)
    fan = (kernel * kernel * channels) ** -0.5
    weight = (torch.randn(outputs, kernel, kernel, channels, generator=generator) * fan).to(dtype)
    bias = torch.randn(outputs, generator=generator)
    wide = torch.nn.functional.conv2d(
        x.double().movedim(3, 1), weight.double().movedim(3, 1), bias.double(), stride, padding
    ).movedim(1, 3)
    residual = torch.randn(wide.shape, generator=generator).to(dtype) if with_residual else None
    exact = torch.relu(wide if residual is None else wide + residual.double())
    on = [t if t is None else t.to(DEVICE) for t in (x, weight, bias, residual)]
    options = {"stride": (stride, stride), "padding": ((padding, padding),) * 2, "slope": 0.0}
    out = torch.full((ROWS + 1, *wide.shape[1:]), torch.nan, dtype=dtype, device=DEVICE)
    convolution.convolve(*on, out[:ROWS], **options)
    assert torch.isnan(out[ROWS]).all()
    error = (out[:ROWS].double().cpu() - exact).abs()
    # Sums in float32 of products that are exact in 16 bits, and one rounding.
    assert (error <= ULPS[dtype] * exact.abs() + 2e-5).all()
    some = [
        on[0][-7:].contiguous(),
        *on[1:3],
        None if residual is None else on[3][-7:].contiguous(),
    ]
    last = torch.full_like(out[:7], torch.nan)
    convolution.convolve(*some, last, **options)
    assert torch.equal(last, out[ROWS - 7 : ROWS])  # a row's bits are its own


SMALL = """
import torch
from pixeldp_fast.backends.cuda import noise as cuda_noise
from pixeldp_fast.backends.triton import convolution, heads, mlp, noise
from pixeldp_fast.backends.triton.draws import Draws

device = torch.device("cuda")
modules = [noise, cuda_noise] if {with_nvcc} else [noise]
for law in range(3):
    for channels, pixels in ((1, 37), (3, 16), (5, 9)):
        center = torch.rand(2, channels * pixels, device=device)
        address = torch.tensor([1, 2], device=device)
        draws = Draws(law, 1.0, 5, 1, 0, 61, 2, 0)
        for module in modules:
            for dtype in (torch.float32, torch.bfloat16):
                out = torch.empty(128, pixels, channels, device=device, dtype=dtype)
                out = out if channels > 1 else out.view(128, pixels)
                module.noisy(center, address, draws, out, channels=channels)
table = torch.zeros(2, 11, dtype=torch.int64, device=device)
heads.count(torch.randn(128, 10, device=device), draws, table)
x, w = torch.randn(128, 9, 20, device=device), torch.randn(10, 20, device=device)
heads.pool_dense_count(x, w, torch.zeros(10, device=device), draws, table)
w1, w2 = torch.randn(70, 20, device=device), torch.randn(10, 70, device=device)
b1, b2 = torch.zeros(70, device=device), torch.zeros(10, device=device)
heads.dense_dense_count(x[:, 0].contiguous(), w1, b1, w2, b2, draws, table)
center = torch.rand(2, 20, device=device)
mlp.mlp_count(
    center, address, draws, [(w1, b1), (w2, b2)], table, rows=128, slopes=[0.0]
)
image, kernel = torch.randn(3, 9, 9, 5, device=device), torch.randn(7, 3, 3, 5, device=device)
made = torch.empty(3, 9, 9, 7, device=device)
convolution.convolve(
    image, kernel, torch.zeros(7, device=device), None, made, padding=((1, 1), (1, 1))
)
torch.cuda.synchronize()
assert int(table.sum()) == 4 * 122, table
"""


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_the_sanitizer_finds_nothing_in_small_launches(tool):
    checker = shutil.which("compute-sanitizer")
    if checker is None:
        pytest.skip("compute-sanitizer is not installed")
    try:
        compiler.nvcc()
        has_nvcc = True
    except MissingCompiler:
        has_nvcc = False
    command = [checker, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c"]
    done = subprocess.run(
        [*command, SMALL.format(with_nvcc=has_nvcc)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "ERROR SUMMARY: 0 errors" in done.stdout or "0 hazards" in done.stdout
