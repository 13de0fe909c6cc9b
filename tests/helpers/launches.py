"""Read the compiled code of the shipped kernels' default launches and print it as JSON.

    python -m tests.helpers.launches

To be run without TRITON_INTERPRET. Shapes are those of the benchmarks' networks.
"""

import json
from collections import Counter
from itertools import pairwise

import torch

from pixeldp_fast.backends.triton import convolution, heads, mlp, noise
from pixeldp_fast.backends.triton.draws import Draws
from tests.helpers.cubins import compiled, reading, recorded

ROWS, EXAMPLES, N = 4096, 4, 1000
BF16, FP32 = torch.bfloat16, torch.float32


def meta(*shape, dtype=FP32):
    return torch.empty(*shape, dtype=dtype, device="meta")


def draws(law=0):
    return Draws(law, 0.5, 7, 1, 0, N, EXAMPLES, 0)


def table(classes, scores):
    return meta(EXAMPLES, heads.table_width(classes, scores), dtype=torch.int64)


def noise_launch(channels, pixels, *, law=0, affine=False, dtype=BF16):
    scale = meta(channels) if affine else None
    noise.noisy(
        meta(EXAMPLES, channels * pixels),
        meta(EXAMPLES, dtype=torch.int64),
        draws(law),
        meta(ROWS, pixels, channels, dtype=dtype),
        channels=channels,
        scale=scale,
        shift=scale,
        slope=0.0,
    )


def count_launch(classes, scores):
    heads.count(meta(ROWS, classes), draws(), table(classes, scores), scores=scores)


def pool_launch(pixels, channels, classes, scores, dtype):
    x, weight = meta(ROWS, pixels, channels, dtype=dtype), meta(classes, channels, dtype=dtype)
    heads.pool_dense_count(x, weight, meta(classes), draws(), table(classes, scores), scores=scores)


def dense_launch(inputs, hidden, classes, scores, dtype):
    heads.dense_dense_count(
        meta(ROWS, inputs, dtype=dtype),
        meta(hidden, inputs, dtype=dtype),
        meta(hidden),
        meta(classes, hidden, dtype=dtype),
        meta(classes),
        draws(),
        table(classes, scores),
        scores=scores,
    )


def mlp_launch(widths, scores, dtype):
    weights = [(meta(b, a, dtype=dtype), meta(b)) for a, b in pairwise(widths)]
    mlp.mlp_count(
        meta(EXAMPLES, widths[0]),
        meta(EXAMPLES, dtype=torch.int64),
        draws(),
        weights,
        table(widths[-1], scores),
        rows=ROWS,
        slopes=[0.0] * (len(weights) - 1),
        scores=scores,
        dtype=dtype,
    )


def convolution_launch(channels, outputs, side, kernel, stride, dtype, residual=True):
    pad, out_side = kernel // 2, (side - kernel % 2) // stride + kernel % 2
    out = meta(128, out_side, out_side, outputs, dtype=dtype)
    convolution.convolve(
        meta(128, side, side, channels, dtype=dtype),
        meta(outputs, kernel, kernel, channels, dtype=dtype),
        meta(outputs),
        out if residual else None,
        out,
        stride=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        slope=0.0,
    )


LAUNCHES = {
    "noise 784": lambda: noise_launch(1, 784),
    "noise 784 laplace": lambda: noise_launch(1, 784, law=1),
    "noise 3x32x32": lambda: noise_launch(3, 1024, affine=True),
    "noise 32x14x14": lambda: noise_launch(32, 196),
    "noise 16x32x32": lambda: noise_launch(16, 1024, affine=True, dtype=FP32),
    "noise 5x7x7": lambda: noise_launch(5, 49, law=2, dtype=FP32),
    "count 10": lambda: count_launch(10, "votes"),
    "count 1000 softmax": lambda: count_launch(1000, "softmax"),
    "pool 64x64-10 bf16": lambda: pool_launch(64, 64, 10, "votes", BF16),
    "pool 64x640-100 bf16 softmax": lambda: pool_launch(64, 640, 100, "softmax", BF16),
    "pool 64x64-10": lambda: pool_launch(64, 64, 10, "votes", FP32),
    "dense 3136-1024-10 bf16": lambda: dense_launch(3136, 1024, 10, "votes", BF16),
    "dense 784-256-100 bf16 softmax": lambda: dense_launch(784, 256, 100, "softmax", BF16),
    "dense 3136-1024-10": lambda: dense_launch(3136, 1024, 10, "votes", FP32),
    "mlp 784-256-256-10 bf16": lambda: mlp_launch((784, 256, 256, 10), "votes", BF16),
    "mlp 128-128-128-10 bf16": lambda: mlp_launch((128, 128, 128, 10), "votes", BF16),
    "conv 3-16 bf16": lambda: convolution_launch(3, 16, 32, 3, 1, BF16, False),
    "conv 16-16 bf16": lambda: convolution_launch(16, 16, 32, 3, 1, BF16),
    "conv 64-64 bf16": lambda: convolution_launch(64, 64, 8, 3, 1, BF16),
    "conv 320-640 bf16": lambda: convolution_launch(320, 640, 16, 3, 2, BF16),
    "conv 64-256 bf16": lambda: convolution_launch(64, 256, 56, 1, 1, BF16),
    "conv 16-16": lambda: convolution_launch(16, 16, 32, 3, 1, FP32),
    "conv 320-320": lambda: convolution_launch(320, 320, 16, 3, 1, FP32),
    "mlp 784-256-256-10": lambda: mlp_launch((784, 256, 256, 10), "votes", FP32),
}
PER_NORMAL = {
    "1024": (1, 1024),
    "784": (1, 784),
    "32x14x14": (32, 196),
    "16x32x32": (16, 1024),
    "3x32x32": (3, 1024),
}
VARIED = ("noise 784", "noise 3x32x32", "noise 16x32x32", "mlp 784-256-256-10 bf16")
FLOAT = ("FFMA", "FMUL", "FADD", "FMNMX", "FSEL", "F2FP", "I2FP", "MUFU")
BLACKWELL = (
    "noise 784",
    "count 10",
    "dense 3136-1024-10 bf16",
    "mlp 784-256-256-10 bf16",
    "conv 64-64 bf16",
)


def launch_of(make):
    with recorded(noise, heads, mlp, convolution) as launches:
        make()
    (launch,) = launches
    return launch


def instructions_per_normal(channels, pixels, law, capability):
    """All that a thread of the default tile executes, by the normals that it makes.

    A step's share of what is done once in a program is in it; coordinates of padding count as made.
    """
    launch = launch_of(lambda: noise_launch(channels, pixels, law=law))
    config = noise.default_config(channels, channels * pixels)
    read = reading(launch, capability)
    step = read["each_step"]
    normals = 4 * config.rows * config.channels * config.quads / (32 * config.warps * config.steps)
    return (step + (read["instructions"] - step) / config.steps) / normals


def float_operations(launch, *, few, wide):
    """How many of each float operation a launch's code has, of short calls and of long ones."""
    kernel, args, kwargs = launch
    if wide:
        named = zip(kernel.arg_names, args, strict=False)
        args = [2**32 - 1 if name == "n" else value for name, value in named]
    opcodes = reading((kernel, args, kwargs | {"FEW": few, "WIDE": wide}), 90)["opcodes"]
    # The reciprocal is of integers: what divides rows into examples.
    return Counter(o for o in opcodes if o.startswith(FLOAT) and not o.startswith("MUFU.RCP"))


if __name__ == "__main__":
    found: dict = {"code": {}, "per_normal": {}, "blackwell": {}, "float": {}}
    for name, make in LAUNCHES.items():
        launch = launch_of(make)
        for capability in (80, 90):
            read = reading(launch, capability)
            del read["opcodes"]
            found["code"][f"{name} sm_{capability}"] = read
        if name in BLACKWELL:
            found["blackwell"][name] = compiled(launch, 100).metadata.shared
    for law in (0, 1):
        for name, shape in PER_NORMAL.items():
            found["per_normal"][f"{name} law {law}"] = instructions_per_normal(*shape, law, 90)
    for name in VARIED:
        launch = launch_of(LAUNCHES[name])
        found["float"][name] = [
            float_operations(launch, few=few, wide=wide)
            for few, wide in ((False, False), (True, False), (False, True))
        ]
    print(json.dumps(found))
