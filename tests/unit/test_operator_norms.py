"""Operator norms against dense matrices: never below the truth, and not far above it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.plan import operator_norms, spectral
from pixeldp_fast.plan.operator_norms import convolution_norms, dense_norms
from pixeldp_fast.types import Norm

ONE, TWO, INF = Norm.ONE, Norm.TWO, Norm.INF
VALUES = Path(__file__).parents[1] / "reference_values" / "theory.json"
CASES = json.loads(VALUES.read_text())["conv_operator_norms_dense"]


def conv_matrix(kernel, size, *, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    """The matrix [D, d] of a convolution, column by column."""
    kernel = torch.as_tensor(np.asarray(kernel, dtype=np.float64))
    d = kernel.shape[1] * groups * math.prod(size)
    basis = torch.eye(d, dtype=torch.float64).reshape(d, -1, *size)
    columns = torch.nn.functional.conv2d(basis, kernel, None, stride, padding, dilation, groups)
    return columns.reshape(d, -1).numpy().T


def true_norms(matrix):
    return {
        (ONE, ONE): np.abs(matrix).sum(0).max(),
        (ONE, TWO): np.sqrt((matrix**2).sum(0).max()),
        (TWO, TWO): np.linalg.norm(matrix, 2),
        (INF, INF): np.abs(matrix).sum(1).max(),
    }


def violations(bounds, matrix):
    """The pairs of norms whose bound is below the matrix's own norm."""
    return [pair for pair, norm in true_norms(matrix).items() if bounds[pair] < norm]


def arguments_of(case):
    stride, padding = (case["stride"],) * 2, (case["padding"],) * 2
    return case["weight"], tuple(case["input_shape"][1:]), stride, padding


@pytest.mark.parametrize("case", CASES, ids=lambda c: str(np.shape(c["weight"])))
def test_reference_values(case):
    kernel, size, stride, padding = arguments_of(case)
    bounds = convolution_norms(kernel, size, stride=stride)
    for pair, name in {(ONE, ONE): "norm_1_1", (ONE, TWO): "norm_1_2"}.items():
        assert case[name] <= bounds[pair] <= case[name] * (1 + 1e-9)
    assert bounds[TWO, TWO] >= case["norm_2_2"]
    assert bounds[TWO, TWO] == pytest.approx(case["torus_2_2"], rel=1e-9)
    assert not violations(bounds, conv_matrix(kernel, size, stride=stride, padding=padding))


@st.composite
def convolutions(draw):
    """A kernel, its input size and its layout, with at least one output."""
    groups = draw(st.integers(1, 3))
    pairs = {
        "stride": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "padding": draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
        "dilation": draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
    }
    taps = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    for n, k, p, e in zip(size, taps, pairs["padding"], pairs["dilation"], strict=True):
        assume(n + 2 * p >= (k - 1) * e + 1)
    shape = (draw(st.integers(1, 3)) * groups, draw(st.integers(1, 2)), *taps)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kernel = {
        "normal": lambda: rng.normal(size=shape),
        "ones": lambda: np.ones(shape),
        "sparse": lambda: rng.normal(size=shape) * (rng.random(shape) < 0.3),
        "spread": lambda: rng.normal(size=shape) * 10.0 ** rng.uniform(-12, 0, shape),
        "huge": lambda: rng.normal(size=shape) * 1e150,
        "tiny": lambda: rng.normal(size=shape) * 1e-150,
    }[draw(st.sampled_from(["normal", "ones", "sparse", "spread", "huge", "tiny"]))]()
    return kernel, size, {**pairs, "groups": groups}


def bounds_of(kernel, size, layout):
    rest = {name: value for name, value in layout.items() if name != "padding"}
    return convolution_norms(kernel, size, **rest)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(convolutions())
def test_never_below_the_dense_matrix(convolution):
    kernel, size, layout = convolution
    bounds = bounds_of(kernel, size, layout)
    unit = np.abs(kernel).max() or 1.0  # squares of huge and tiny entries leave float64
    scaled = {pair: bound / unit for pair, bound in bounds.items()}
    assert not violations(scaled, conv_matrix(kernel / unit, size, **layout))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(convolutions())
def test_spectral_bound_is_at_most_the_geometric_mean_of_the_two_others(convolution):
    """Schur's test on the torus; so (2, 2) cannot be wildly too large."""
    bounds = bounds_of(*convolution)
    geometric_mean = math.sqrt(bounds[ONE, ONE]) * math.sqrt(bounds[INF, INF])
    assert bounds[TWO, TWO] <= geometric_mean * (1 + 1e-9)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(convolutions())
def test_spectral_bound_is_the_norm_of_the_circular_layer(convolution):
    """The same number from a matrix written down from the definition, without any transform."""
    kernel, size, layout = convolution
    assume(layout["groups"] == 1)
    kernel = kernel / (np.abs(kernel).max() or 1.0)
    outputs, inputs, *taps = kernel.shape
    stride, dilation = layout["stride"], layout["dilation"]
    side = [
        -(-(n + (k - 1) * e) // s) * s
        for n, k, s, e in zip(size, taps, stride, dilation, strict=True)
    ]
    places = [n // s for n, s in zip(side, stride, strict=True)]
    circular = np.zeros((outputs, *places, inputs, *side))
    for i, j in np.ndindex(*taps):
        for a, b in np.ndindex(*places):
            y = (a * stride[0] + i * dilation[0]) % side[0]
            x = (b * stride[1] + j * dilation[1]) % side[1]
            circular[:, a, b, :, y, x] += kernel[:, :, i, j]
    expected = np.linalg.norm(circular.reshape(outputs * math.prod(places), -1), 2)
    bound = convolution_norms(kernel, size, stride=stride, dilation=dilation)[TWO, TWO]
    assert expected <= bound <= expected * (1 + 1e-9) or bound == expected == 0


def last_phase(kernel, stride):
    return np.abs(kernel)[:, :, stride[0] - 1 :: stride[0], stride[1] - 1 :: stride[1]]


FAULTS = {
    "divided by the stride once more": lambda b, k, s: b[TWO, TWO] / math.sqrt(math.prod(s)),
    "windows that share pixels forgotten": lambda b, k, s: np.linalg.norm(k.reshape(len(k), -1), 2),
    "power iteration, from below": lambda b, k, s: 0.999 * b["true"],
}
COLUMN_FAULTS = {
    "rows for columns": lambda b, k, s: b[INF, INF],
    "one phase only": lambda b, k, s: last_phase(k, s).sum((0, 2, 3)).max(),
    "mean over phases": lambda b, k, s: np.abs(k).sum((0, 2, 3)).max() / math.prod(s),
}
PLANTED = [((TWO, TWO), f) for f in FAULTS.values()] + [
    ((ONE, ONE), f) for f in COLUMN_FAULTS.values()
]


@pytest.mark.parametrize(("pair", "fault"), PLANTED, ids=[*FAULTS, *COLUMN_FAULTS])
def test_checker_catches_planted_faults(pair, fault):
    caught = set()
    for case in CASES:
        kernel, size, stride, padding = arguments_of(case)
        matrix = conv_matrix(kernel, size, stride=stride, padding=padding)
        bounds = convolution_norms(kernel, size, stride=stride)
        known = {**bounds, "true": np.linalg.norm(matrix, 2)}
        faulty = {**bounds, pair: fault(known, np.asarray(kernel), stride)}
        caught.update(violations(faulty, matrix))
    assert caught == {pair}


def test_faulty_torus_is_caught(monkeypatch):
    """A torus without room for the taps lets the border wrap round, and is below the truth."""
    kernel, size = np.array([[[[1.0, 0.0, -1.0]]]]), (1, 4)
    matrix = conv_matrix(kernel, size, padding=(0, 2))
    honest = convolution_norms(kernel, size)
    assert not violations(honest, matrix)
    phases = operator_norms._phases

    def without_reach(taps, stride, dilation):
        offsets, by_phase = phases(taps, stride, dilation)
        return np.append(offsets[:-1] * 0, 0), by_phase

    monkeypatch.setattr(operator_norms, "_phases", without_reach)
    assert violations(convolution_norms(kernel, size), matrix) == [(TWO, TWO)]


def test_bounds_do_not_depend_on_chunks(monkeypatch):
    kernel = np.random.default_rng(5).normal(size=(4, 3, 3, 3))
    whole = convolution_norms(kernel, (11, 8), stride=(2, 1))
    monkeypatch.setattr(operator_norms, "CHUNK", 1)
    pieces = convolution_norms(kernel, (11, 8), stride=(2, 1))
    assert pieces == pytest.approx(whole, rel=1e-10)


def test_a_wrong_eigenvalue_solver_cannot_lower_the_bound(monkeypatch):
    matrix = np.random.default_rng(6).normal(size=(20, 30))
    monkeypatch.setattr(spectral.np.linalg, "eigvalsh", lambda gram: np.zeros(gram.shape[:2]))
    assert dense_norms(matrix)[TWO, TWO] >= np.linalg.svd(matrix)[1].max()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1.0, 1e150, 1e-150]),
)
def test_dense_norms_are_tight_upper_bounds(rows, columns, seed, unit):
    matrix = np.random.default_rng(seed).normal(size=(rows, columns))
    bounds = dense_norms(matrix * unit)
    for pair, norm in true_norms(matrix).items():
        assert norm <= bounds[pair] / unit <= norm * (1 + 1e-9)


@pytest.mark.parametrize("size", [1, 2, 64, 256])
def test_known_spectral_norms_are_enclosed(size):
    """Hadamard matrices and matrices of ones, whose norms are known without a computation."""
    hadamard = np.array([[1.0]])
    while len(hadamard) < size:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    for matrix, norm in ((hadamard, math.sqrt(size)), (np.ones((size, size)), size)):
        assert norm <= dense_norms(matrix)[TWO, TWO] <= norm * (1 + 1e-9)


def test_spectral_bound_of_a_large_matrix_stays_within_a_billionth():
    matrix = np.random.default_rng(7).normal(size=(300, 800))
    norm = np.linalg.norm(matrix, 2)
    assert norm <= dense_norms(matrix)[TWO, TWO] <= norm * (1 + 1e-9)


def test_extreme_weights():
    zero = dense_norms(np.zeros((3, 4)))
    assert set(zero.values()) == {0.0}
    assert set(convolution_norms(np.zeros((2, 1, 3, 3)), (5, 5)).values()) == {0.0}
    smallest = 5e-324
    assert min(dense_norms([[smallest]]).values()) >= smallest
    assert dense_norms(np.full((9, 9), 1.7e308))[TWO, TWO] == math.inf
    lost = np.array([[1.0, 0.0], [0.0, 1e-200]])  # the small block's squares underflow
    assert dense_norms(lost)[TWO, TWO] == pytest.approx(1.0, rel=1e-9)
    one_dead_group = np.zeros((2, 1, 3, 3))
    one_dead_group[0] = 1e-170
    one_dead_group[1, 0, 0, 0] = 1.0
    assert convolution_norms(one_dead_group, (5, 5), groups=2)[TWO, TWO] >= 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_without_a_norm_are_refused(bad):
    with pytest.raises(InvalidArgument, match="finite"):
        dense_norms([[1.0, bad]])
    with pytest.raises(InvalidArgument, match="finite"):
        convolution_norms(np.full((1, 1, 2, 2), bad), (4, 4))


def test_malformed_weights_are_refused():
    with pytest.raises(InvalidArgument, match=r"2 non-empty axes, got shape \(3,\)"):
        dense_norms([1.0, 2.0, 3.0])
    with pytest.raises(InvalidArgument, match="4 non-empty axes"):
        convolution_norms(np.ones((2, 0, 3, 3)), (4, 4))
    with pytest.raises(InvalidArgument, match="`groups` must divide 3 outputs, got 2"):
        convolution_norms(np.ones((3, 1, 3, 3)), (4, 4), groups=2)


@pytest.mark.parametrize(("taps", "stride", "shared"), [(3, 1, 3), (3, 2, 2), (2, 2, 1), (2, 5, 1)])
def test_largest_overlap_counts_windows(taps, stride, shared):
    windows = [range(start, start + taps) for start in range(0, 40, stride)]
    assert max(sum(pixel in w for w in windows) for pixel in range(20)) == shared
    assert operator_norms.largest_overlap(taps, stride) == shared
