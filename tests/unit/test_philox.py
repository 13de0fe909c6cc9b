"""The random words: published known answers, and the same words in NumPy, torch and C++."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixeldp_fast.errors import InvalidArgument
from pixeldp_fast.noise.philox import philox, words_numpy, words_torch
from pixeldp_fast.noise.sampling import native_module
from pixeldp_fast.noise.stream import Purpose, Stream, checked_index, checked_seed, new_seed

# Random123 1.14, kat_vectors, philox4x32 with 10 rounds: counter, key, words.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
WORD = st.integers(0, 2**32 - 1)


def as_numpy(counter):
    return tuple(np.array([c], dtype=np.uint64) for c in counter)


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_known_answers(counter, key, words):
    assert tuple(int(w[0]) for w in philox(as_numpy(counter), key)) == words


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_known_answers_of_the_compiled_module(native, counter, key, words):
    assert tuple(native.philox(list(counter), list(key))) == words


@given(st.tuples(WORD, WORD, WORD, WORD), st.tuples(WORD, WORD))
def test_torch_equals_numpy(counter, key):
    torch = pytest.importorskip("torch")
    ours = philox(tuple(torch.tensor([c]) for c in counter), key)
    assert [int(w) for w in ours] == [int(w[0]) for w in philox(as_numpy(counter), key)]


@given(st.integers(0, 2**64 - 1), WORD, WORD, st.sampled_from(list(Purpose)))
def test_compiled_words_equal_numpy(seed, draw, block, purpose):
    module = native_module()
    if module is None:
        pytest.skip("the compiled module is not installed")
    stream = Stream(seed, purpose)
    example = 77
    counter = (block, draw, example, int(purpose))
    expected = [int(w[0]) for w in philox(as_numpy(counter), stream.key)]
    assert list(module.philox(list(counter), list(stream.key))) == expected


def test_the_map_from_addresses_to_counters():
    stream = Stream(2**63 + 5, Purpose.PREDICTION)
    words = words_numpy(stream, [9, 4], 100, 3, 2)
    assert words.shape == (2, 3, 8)
    one = philox(as_numpy((1, 101, 4, 2)), (5, 2**31))
    assert words[1, 1, 4:].tolist() == [int(w[0]) for w in one]
    assert (words_torch(stream, [9, 4], 100, 3, 2, "cpu").numpy() == words).all()


def test_any_split_gives_the_same_words():
    stream = Stream(1, Purpose.SELECTION)
    whole = words_numpy(stream, [3, 5, 8], 0, 10, 3)
    parts = [words_numpy(stream, [3, 5, 8], first, n, 3) for first, n in ((0, 1), (1, 6), (7, 3))]
    assert (np.concatenate(parts, axis=1) == whole).all()
    assert (words_numpy(stream, [8], 0, 10, 3)[0] == whole[2]).all()


def test_purposes_examples_and_draws_never_coincide():
    base = words_numpy(Stream(1, Purpose.SELECTION), [0], 0, 50, 1).reshape(50, 4)
    other = [
        words_numpy(Stream(1, Purpose.ESTIMATION), [0], 0, 50, 1),
        words_numpy(Stream(1, Purpose.SELECTION), [1], 0, 50, 1),
        words_numpy(Stream(1, Purpose.SELECTION), [0], 50, 50, 1),
        words_numpy(Stream(2, Purpose.SELECTION), [0], 0, 50, 1),
    ]
    rows = {tuple(r) for r in base.tolist()}
    for words in other:
        assert rows.isdisjoint(tuple(r) for r in words.reshape(50, 4).tolist())


def test_seeds_are_checked():
    assert checked_seed(np.int64(7)) == 7
    assert 0 <= new_seed() < 2**64
    for bad in (-1, 2**64, 0.5, "7", None):
        with pytest.raises(InvalidArgument, match="seed"):
            checked_seed(bad)


def test_addresses_are_checked():
    assert checked_index(5).tolist() == [5]
    assert checked_index([]).tolist() == []
    for bad in ([-1], [2**32 - 1], [0.5], [[1]], ["a"]):
        with pytest.raises(InvalidArgument, match="index"):
            checked_index(bad)
    with pytest.raises(InvalidArgument, match=r"2\^32"):
        words_numpy(Stream(0, Purpose.ATTACK), [0], 2**32 - 1, 2, 1)


def test_purposes_by_name():
    assert Purpose.parse("selection") is Purpose.SELECTION
    assert Purpose.parse(4) is Purpose.ATTACK
    with pytest.raises(InvalidArgument, match="'estimation'"):
        Purpose.parse("guess")
