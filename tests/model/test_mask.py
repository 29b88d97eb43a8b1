"""Masks, by hand."""

import pytest
import torch

from qwenkit.model import attention_mask, causal_mask
from qwenkit.model.mask import positions


def table(text):
    return torch.tensor([[mark == "x" for mark in row] for row in text.split()])


@pytest.mark.parametrize(("queries", "past", "window", "want"), [
    (3, 0, None, "x.. xx. xxx"), (1, 3, None, "xxxx"),
    (2, 3, None, "xxxx. xxxxx"),  # not "x.... xx...", a triangle aligned with the first key
    (4, 0, 2, "x... xx.. .xx. ..xx"), (3, 0, 1, "x.. .x. ..x"),
    (2, 3, 3, ".xxx. ..xxx"), (3, 0, 9, "x.. xx. xxx"),
])  # fmt: skip
def test_causal_mask(queries, past, window, want):
    assert torch.equal(causal_mask(queries, past, window), table(want))


REAL = torch.tensor([[False, False, True, True], [True, True, True, True]])


def test_padding_is_never_read_but_by_itself_and_no_row_is_empty():
    got = attention_mask(4, 0, real=REAL)
    assert got.shape == (2, 1, 4, 4)
    assert torch.equal(got[0, 0], table("x... .x.. ..x. ..xx"))
    assert torch.equal(got[1, 0], table("x... xx.. xxx. xxxx"))
    got = attention_mask(2, 2, real=REAL, window=2)  # with a cache and a window
    assert torch.equal(got[0, 0], table("..x. ..xx"))
    assert torch.equal(got[1, 0], table(".xx. ..xx"))
    real = torch.zeros(1, 5, dtype=torch.bool)
    assert attention_mask(5, 0, real=real).any(-1).all()
    assert attention_mask(3, 2, real=real, window=2).any(-1).all()


@pytest.mark.parametrize(
    ("queries", "past", "window", "needed"),
    [(5, 0, None, False), (2, 9, None, False), (4, 0, 4, False), (1, 3, 4, False), (1, 4, 4, True)],
)
def test_a_mask_is_made_only_where_one_is_needed(queries, past, window, needed):
    got = attention_mask(queries, past, window=window)
    assert (got is not None) is needed
    if needed:
        assert torch.equal(got[0, 0], causal_mask(queries, past, window))


def test_positions_do_not_count_padding():
    right = torch.tensor([[True, True, False, False]])
    assert positions(4, 0, REAL).tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]
    assert positions(4, 0, right)[0, :2].tolist() == [0, 1]
    assert positions(1, 3, REAL).tolist() == [[1], [3]]  # with a cache: of the new tokens alone
    assert positions(2, 3, None).tolist() == [[3, 4]]
