"""What exercise 04.4 promises: converted queries and keys have the scores of the original ones."""

import torch

from qwenkit import QwenConfig
from qwenkit.checks._rope_pairs import by_halves
from qwenkit.model import RotaryEmbedding, apply_rope


def test_the_converted_tensors_have_the_same_scores():
    heads, head_dim = 3, 8
    config = QwenConfig(10, heads * head_dim, 4, 1, heads, heads, rope_theta=100.0)
    cos, sin = RotaryEmbedding(config)(torch.arange(5)[None])
    x = torch.randn(5, 12)
    weights = [torch.randn(heads * head_dim, 12) for _ in "qk"]
    biases = [torch.randn(heads * head_dim) for _ in "qk"]

    def split(weight, bias):
        return (x @ weight.T + bias).view(1, 5, heads, head_dim).transpose(1, 2)

    def neighbors(one):
        half = head_dim // 2
        c, s = cos[:, None, :, :half], sin[:, None, :, :half]
        a, b = one[..., ::2], one[..., 1::2]
        return torch.stack([a * c - b * s, b * c + a * s], dim=-1).flatten(-2)

    q, k = (neighbors(split(w, b)) for w, b in zip(weights, biases, strict=True))
    new_q, new_k = (
        apply_rope(split(by_halves(w, head_dim), by_halves(b, head_dim)), cos, sin)
        for w, b in zip(weights, biases, strict=True)
    )
    torch.testing.assert_close(new_q @ new_k.mT, q @ k.mT, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(apply_rope(split(weights[0], biases[0]), cos, sin), new_q, atol=0.1)
