"""RMSNorm."""

import pytest
import torch

from qwenkit.model import RMSNorm


def norm(weight, eps=1e-6, dtype=torch.float32):
    made = RMSNorm(len(weight), eps).to(dtype).requires_grad_(False)
    made.weight.copy_(torch.as_tensor(weight))
    return made


ROOT = 12.5**0.5


@pytest.mark.parametrize(("x", "weight", "eps", "want"), [
    ([3.0, 4.0], [1.0, 10.0], 0.0, [3 / ROOT, 40 / ROOT]),  # mean square 12.5
    ([5.0, 5.0, 5.0], [1.0, 1.0, 1.0], 1e-6, [1.0, 1.0, 1.0]),  # no mean is subtracted
    # mean square 1e-6, as large as eps, which is inside the root; outside: 0.999
    ([1e-3, -1e-3], [1.0, 1.0], 1e-6, [0.5**0.5, -(0.5**0.5)]),
])  # fmt: skip
def test_by_hand(x, weight, eps, want):
    torch.testing.assert_close(norm(weight, eps)(torch.tensor([x])), torch.tensor([want]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_zeros_stay_zeros_and_squares_are_taken_in_float32(dtype):
    x = torch.tensor([[0.0, 0.0], [300.0, -300.0]], dtype=dtype)  # 300² overflows float16
    want = torch.tensor([[0.0, 0.0], [1.0, -1.0]], dtype=dtype)
    assert torch.equal(norm([1.0, 1.0], dtype=dtype)(x), want)


def test_casts_back_before_the_weight():
    x = torch.randn(64, 32).bfloat16()
    weight = (1 + 0.3 * torch.randn(32)).bfloat16()
    upcast = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-6)
    got = norm(weight, dtype=torch.bfloat16)(x)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, upcast.bfloat16() * weight)
    assert not torch.equal(got, (upcast * weight.float()).bfloat16())  # the other order differs


def test_each_vector_is_normalized_alone():
    x = torch.randn(2, 3, 8)
    made = norm([1.0] * 8)
    torch.testing.assert_close(made(x)[1, 2], made(x[1, 2]))
    torch.testing.assert_close(made(100 * x), made(x), rtol=1e-4, atol=1e-4)  # scale is lost
