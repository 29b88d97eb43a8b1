"""Which dtype a block computes in: products in bfloat16, attention in float32."""

import pytest
import torch
import torch.nn.functional as F

from qwenkit.train.precision import products_in

CPU = torch.device("cpu")


@pytest.mark.parametrize("call", [
    lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    lambda q, k, v: F.scaled_dot_product_attention(query=q, key=k, value=v, is_causal=True),
    lambda q, k, v: F.scaled_dot_product_attention(
        q, k, v, torch.ones(5, 5, dtype=torch.bool).tril()
    ),
])  # fmt: skip
def test_attention_is_that_of_float32_and_other_products_are_not(call):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 8) for _ in range(3))
    want, product = call(q, k, v), (q @ k.mT).bfloat16()
    with products_in(torch.bfloat16, CPU):
        assert torch.equal(call(q, k, v), want)
        mixed = call(q, k, v.bfloat16())  # as a bfloat16 product gives it
        found = q @ k.mT
    assert (mixed.dtype, found.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(mixed, want, atol=0.02, rtol=0.02)
    torch.testing.assert_close(found, product, atol=0.05, rtol=0.05)
    assert (q @ k.mT).dtype == torch.float32  # nothing is left behind


def test_float32_changes_nothing():
    q = torch.randn(2, 3, 5, 8)
    want = q @ q.mT
    with products_in(torch.float32, CPU):
        assert torch.equal(q @ q.mT, want)
