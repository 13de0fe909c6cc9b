"""The pieces that the Triton kernels share: random words, laws, row addresses, products, counts.

Nothing here has run on a device. On one, logarithm, sine, cosine and square root are the hardware's
approximations (`*.approx.ftz.f32`); Triton's interpreter, which has no inline assembly, takes the
portable branch of the same formula. So a CPU-only test checks the formula and the words, and not
the last digits that a device gives.

Fidelity
    With PTX's stated errors, at scale 1 and against `noise_definition`:
    Gaussian: the log errs by 2^-22 and the word's conversion by 2^-24, together 4.5e-7 in r^2.
    Taking that off, and then the larger of it and 2 v + v^2 (v = 1 - u, exact to 24 bits; a lower
    bound of -2 ln u), leaves at most 3e-6 in r where r is small, 5e-7 of r where it is large. Sine
    and cosine err by 2^-20.5, the angle by 3.7e-7: 7.1e-6 at r = 6.76. Below 1e-5 in all.
    Laplace: 2^-22 of -ln u, 5.3e-6 at the end of its range, 22.2; 2^-22 elsewhere. Uniform: 2^-24.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,import-untyped"

import triton
import triton.language as tl
from triton import knobs

INTERPRETED = tl.constexpr(bool(knobs.runtime.interpret))

GAUSSIAN = tl.constexpr(0)
LAPLACE = tl.constexpr(1)
UNIFORM = tl.constexpr(2)
LAWS = 3

_ROUNDS = tl.constexpr(10)
_MULTIPLIER_0 = tl.constexpr(0xD2511F53)
_MULTIPLIER_1 = tl.constexpr(0xCD9E8D57)
_KEY_STEP_0 = tl.constexpr(0x9E3779B9)
_KEY_STEP_1 = tl.constexpr(0xBB67AE85)
_LN_2 = tl.constexpr(0.6931471805599453)
_PI = tl.constexpr(3.141592653589793)
_RADIUS_BIAS = tl.constexpr(4.5e-7)  # what -2 ln u may be too large by: see Fidelity


@triton.jit
def philox(c0, c1, c2, c3, key_low, key_high):
    """Philox4x32-10: the four words of every counter, uint32; 32 by 32 bit products kept whole."""
    k0 = key_low.to(tl.uint32)
    k1 = key_high.to(tl.uint32)
    for _ in tl.static_range(_ROUNDS):
        p0 = c0.to(tl.uint64) * _MULTIPLIER_0
        p1 = c2.to(tl.uint64) * _MULTIPLIER_1
        c0 = (p1 >> 32).to(tl.uint32) ^ c1 ^ k0
        c2 = (p0 >> 32).to(tl.uint32) ^ c3 ^ k1
        c1 = p1.to(tl.uint32)
        c3 = p0.to(tl.uint32)
        k0 = k0 + _KEY_STEP_0
        k1 = k1 + _KEY_STEP_1
    return c0, c1, c2, c3


@triton.jit
def _approximate(x, INSTRUCTION: tl.constexpr):
    return tl.inline_asm_elementwise(
        INSTRUCTION + " $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )


@triton.jit
def fast_log2(x):
    """log2, float32."""
    if INTERPRETED:
        y = tl.log2(x)
    else:
        y = _approximate(x, "lg2.approx.ftz.f32")
    return y


@triton.jit
def fast_sqrt(x):
    """Square root, float32."""
    if INTERPRETED:
        y = tl.sqrt(x)
    else:
        y = _approximate(x, "sqrt.approx.ftz.f32")
    return y


@triton.jit
def fast_sin(x):
    """Sine of an angle in [-pi, pi], float32."""
    if INTERPRETED:
        y = tl.sin(x)
    else:
        y = _approximate(x, "sin.approx.ftz.f32")
    return y


@triton.jit
def fast_cos(x):
    """Cosine of an angle in [-pi, pi], float32."""
    if INTERPRETED:
        y = tl.cos(x)
    else:
        y = _approximate(x, "cos.approx.ftz.f32")
    return y


@triton.jit
def signed_unit(word):
    """(s + 1/2) 2^-31 of the word read as a signed integer s, in [-1, 1]."""
    return word.to(tl.int32, bitcast=True).to(tl.float32) * 2.0**-31 + 2.0**-32


@triton.jit
def gaussian_pair(word_radius, word_angle, scale):
    """Box-Muller: two normals from two words, times `scale`."""
    u = word_radius.to(tl.float32) * 2.0**-32 + 2.0**-33
    near = word_radius.to(tl.int32, bitcast=True).to(tl.float32) * -(2.0**-31) - 2.0**-32
    near = near * near * 0.25 + near  # 2 v + v^2 for u > 1/2, negative elsewhere
    squared = tl.maximum(fast_log2(u) * (-2.0 * _LN_2) - _RADIUS_BIAS, near)
    radius = fast_sqrt(squared) * scale
    angle = word_angle.to(tl.int32, bitcast=True).to(tl.float32) * (_PI * 2.0**-31) + (
        _PI * 2.0**-32
    )
    return radius * fast_cos(angle), radius * fast_sin(angle)


@triton.jit
def laplace(word):
    """The top bit is the sign; the other 31 are u; the size is -ln u."""
    u = (word & 0x7FFFFFFF).to(tl.float32) * 2.0**-31 + 2.0**-32
    size = fast_log2(u) * -_LN_2
    sign = word & 0x80000000
    return (size.to(tl.uint32, bitcast=True) ^ sign).to(tl.float32, bitcast=True)


@triton.jit
def noise_of(w0, w1, w2, w3, scale, LAW: tl.constexpr):
    """Four values from the four words of a block, times `scale`."""
    if LAW == GAUSSIAN:
        z0, z1 = gaussian_pair(w0, w1, scale)  # scaled once for both
        z2, z3 = gaussian_pair(w2, w3, scale)
    elif LAW == LAPLACE:
        z0, z1, z2, z3 = laplace(w0), laplace(w1), laplace(w2), laplace(w3)
        z0, z1, z2, z3 = z0 * scale, z1 * scale, z2 * scale, z3 * scale
    else:
        z0 = signed_unit(w0 ^ 0x80000000) * scale
        z1 = signed_unit(w1 ^ 0x80000000) * scale
        z2 = signed_unit(w2 ^ 0x80000000) * scale
        z3 = signed_unit(w3 ^ 0x80000000) * scale
    return z0, z1, z2, z3


@triton.jit
def interleave(z0, z1, z2, z3, LINES: tl.constexpr, QUADS: tl.constexpr):
    """[LINES, QUADS] four times, as [LINES, 4 QUADS] in the order of the coordinates."""
    pairs = tl.join(tl.join(z0, z2), tl.join(z1, z3))  # last axes: (z0, z1), (z2, z3)
    return tl.reshape(pairs, (LINES, 4 * QUADS))


@triton.jit
def locate(rest, example, first, n, WIDE: tl.constexpr):
    """Example and rest of the row `first` after row `rest` of `example`; WIDE: beyond 31 bits."""
    if WIDE:
        at = rest.to(tl.int64) + first
    else:
        at = rest + first
    return (example + at // n).to(tl.int32), at % n


@triton.jit
def locate_more(rest, example, i, n, FEW: tl.constexpr):
    """The same for the rows `i` of a tile; FEW: `n` is below the tile, which may span examples."""
    at = rest + i
    if FEW:
        examples = example + (at // n).to(tl.int32)
        draws = at % n
    else:
        examples = example + (at >= n).to(tl.int32)
        draws = tl.where(at >= n, at - n, at)
    return examples, draws


@triton.jit
def activate(x, SLOPE: tl.constexpr):
    """x where x > 0, SLOPE x elsewhere; not a number stays so."""
    if SLOPE == 0.0:
        x = tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)
    elif SLOPE != 1.0:
        x = tl.where(x > 0, x, x * SLOPE)
    return x


@triton.jit
def xdot(a, b, acc):
    """acc + a b with float32 sums; float32 operands multiply in IEEE float32.

    The interpreter would multiply the bit patterns of bfloat16; there the operands are widened.
    """
    if INTERPRETED:
        acc = tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    else:
        acc = tl.dot(a, b, acc, input_precision="ieee")
    return acc


@triton.jit
def count_rows(
    logits,  # float32 [ROWS, PADDED]; columns from CLASSES on are ignored
    examples,  # int32 [ROWS]
    counted,  # bool [ROWS]
    first_example,
    last_example,
    table,
    width,
    CLASSES: tl.constexpr,
    PADDED: tl.constexpr,
    SCORES: tl.constexpr,
):
    """Add the rows' votes, and with SCORES their softmax scores, to the examples' lines of `table`.

    A vote is the largest logit, ties to the lowest class; a row with a logit that is not finite
    votes for column CLASSES, and scores nothing. Scores are computed in float64 and floored to
    2^-20; a row's scores sum to at most 1. Integer atomics only: any order gives the same table.
    """
    column = tl.arange(0, PADDED)[None, :]
    real = column < CLASSES
    finite_each = (tl.abs(logits) < float("inf")) | (column >= CLASSES)
    finite = tl.min(finite_each.to(tl.int32), axis=1) > 0
    safe = tl.where(real & finite_each, logits, float("-inf"))
    vote = tl.where(finite, tl.argmax(safe, axis=1, tie_break_left=True), CLASSES)
    voted = vote[:, None] == column
    if SCORES:
        top = tl.max(safe, axis=1)
        usable = real & finite[:, None]
        below = tl.where(usable, logits, 0.0).to(tl.float64) - tl.where(finite, top, 0.0).to(
            tl.float64
        ).expand_dims(1)
        powers = tl.where(real, tl.exp(below), 0.0)  # of a row that is lost: 1 each, not used
        total = tl.sum(powers, axis=1)
        # Two Newton steps from float32 are float64's reciprocal to an ulp or two; its division is a
        # subroutine with a stack. Powers of two stay exact.
        inverse = (1.0 / total.to(tl.float32)).to(tl.float64)
        inverse = inverse * (2.0 - total * inverse)
        inverse = inverse * (2.0 - total * inverse)
        score = tl.where(usable, powers * (inverse * 1048576.0)[:, None], 0.0).to(tl.int64)
    line = table + first_example.to(tl.int64) * width + column  # [1, PADDED]
    example = first_example
    while example <= last_example:  # a range of tensors fails in Triton 3.6's interpreter
        mine = counted & (examples == example)
        votes = tl.sum((voted & mine[:, None]).to(tl.int32), axis=0)[None, :]
        tl.atomic_add(line, votes.to(tl.int64), mask=votes > 0, sem="relaxed")
        if SCORES:
            kept = tl.where(mine[:, None], score, 0)
            sums = tl.sum(kept, axis=0)[None, :]
            squares = tl.sum(kept * kept, axis=0)[None, :]
            tl.atomic_add(line + CLASSES + 1, sums, mask=sums > 0, sem="relaxed")
            tl.atomic_add(line + 2 * CLASSES + 1, squares, mask=squares > 0, sem="relaxed")
        line += width
        example += 1
