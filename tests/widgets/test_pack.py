"""Attention as bytes: what is lost, what is refused, and that it comes back in its place."""

import zlib

import numpy as np
import pytest

from qwenkit.errors import InputError
from qwenkit.widgets.pack import pack, square, triangle


def random_patterns(*shape, size):
    """Return softmaxed random scores below the diagonal, from flat to sharp."""
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(*shape, size, size)) * 6
    scores[..., *np.triu_indices(size, 1)] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def test_the_triangle_lies_row_by_row():
    pattern = np.array([[1, 0, 0], [0.2, 0.8, 0], [0.4, 0.6, 0]])
    assert triangle(pattern).tolist() == [255, 51, 204, 102, 153, 0]


def test_a_share_is_rounded_to_the_nearest_255th():
    shares = np.float32([0, 1 / 510 - 1e-6, 1 / 510 + 1e-6, 0.5, 1])
    diagonal = np.diag(shares)
    assert np.diag(square(triangle(diagonal))).tolist() == pytest.approx(
        [0, 0, 1 / 255, 128 / 255, 1]
    )


@pytest.mark.parametrize("size", [1, 2, 37, 256])
def test_at_most_a_510th_is_lost_and_every_value_comes_back_in_its_place(size):
    patterns = random_patterns(2, 3, size=size)
    shares = triangle(patterns)
    assert (shares.shape, shares.dtype) == ((2, 3, size * (size + 1) // 2), np.uint8)
    back = shares / 255.0
    rows, columns = np.tril_indices(size)
    assert np.abs(back - patterns[..., rows, columns].astype(np.float64)).max() <= 1 / 510
    assert np.abs(square(shares) - patterns).max() <= 1 / 510 + 1e-7  # float32's own rounding
    assert not np.triu(square(shares), 1).any()


def test_every_byte_survives_the_way_there_and_back():
    every = np.arange(256, dtype=np.uint8)[: 22 * 23 // 2]
    assert triangle(square(every)).tolist() == every.tolist()
    last = np.arange(3, 256, dtype=np.uint8)  # 253 = 22 × 23 / 2
    assert triangle(square(last)).tolist() == last.tolist()


def test_packing_is_zlib_of_the_bytes_head_after_head():
    shares = triangle(random_patterns(2, size=5))
    assert zlib.decompress(pack(shares)) == bytes(shares[0].tolist() + shares[1].tolist())
    assert zlib.decompress(pack(shares[:, ::-1])) == bytes(shares[:, ::-1].reshape(-1).tolist())


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (np.ones(3), "must be"),
        (np.ones((2, 3)), "must be"),
        (np.ones((0, 2, 2)), "must be"),
        (np.full((2, 2), 1.5), "from 1.5 to 1.5"),
        (np.diag([0.5, -0.1]), "from -0.1"),
        (np.diag([0.5, np.nan]), "shares lie between 0 and 1"),
        (np.ones((2, 2)), "reads a later one"),
    ],
)
def test_what_is_no_causal_attention_is_refused(patterns, words):
    with pytest.raises(InputError, match=words):
        triangle(patterns)
