"""RMSNorm."""

import pytest
import torch

from qwenkit.model import RMSNorm


def norm(weight, eps=1e-6, dtype=torch.float32):
    made = RMSNorm(len(weight), eps).to(dtype).requires_grad_(False)
    made.weight.copy_(torch.as_tensor(weight))
    return made


def test_by_hand():
    x = torch.tensor([[3.0, 4.0]])  # mean square 12.5
    got = norm([1.0, 10.0], eps=0.0)(x)
    torch.testing.assert_close(got, torch.tensor([[3 / 12.5**0.5, 40 / 12.5**0.5]]))


def test_no_mean_is_subtracted():
    x = torch.tensor([[5.0, 5.0, 5.0]])
    torch.testing.assert_close(norm([1.0, 1.0, 1.0])(x), torch.ones(1, 3))


def test_eps_stands_inside_the_root():
    x = torch.tensor([1e-3, -1e-3])  # mean square 1e-6, as large as eps; outside: 0.999
    want = torch.tensor([0.5**0.5, -(0.5**0.5)])
    torch.testing.assert_close(norm([1.0, 1.0], eps=1e-6)(x), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zeros_stay_zeros(dtype):
    assert torch.equal(
        norm([2.0, 2.0], dtype=dtype)(torch.zeros(1, 2, dtype=dtype)),
        torch.zeros(1, 2, dtype=dtype),
    )


def test_squares_are_taken_in_float32():
    x = torch.tensor([300.0, -300.0], dtype=torch.float16)  # 300² overflows float16
    got = norm([1.0, 1.0], dtype=torch.float16)(x)
    assert torch.equal(got, torch.tensor([1.0, -1.0], dtype=torch.float16))


def test_casts_back_before_the_weight():
    x = torch.randn(64, 32).bfloat16()
    weight = (1 + 0.3 * torch.randn(32)).bfloat16()
    wide = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-6)
    got = norm(weight, dtype=torch.bfloat16)(x)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, wide.bfloat16() * weight)
    assert not torch.equal(got, (wide * weight.float()).bfloat16())  # the other order differs


def test_each_vector_is_normalised_alone():
    x = torch.randn(2, 3, 8)
    made = norm([1.0] * 8)
    torch.testing.assert_close(made(x)[1, 2], made(x[1, 2]))
    torch.testing.assert_close(made(100 * x), made(x), rtol=1e-4, atol=1e-4)  # scale is lost
