"""The decoder layer: what is normalized, and what is added to what."""

import torch
from reference import tiny

from qwenkit.model import RotaryEmbedding


def parts():
    model = tiny()
    rope = RotaryEmbedding(model.config)(torch.arange(5)[None].expand(2, -1))
    return model.model.layers[1], torch.randn(2, 5, 32), rope


def test_norm_attention_add_norm_mlp_add():
    layer, x, rope = parts()
    middle = x + layer.self_attn(layer.input_layernorm(x), rope, None)
    want = middle + layer.mlp(layer.post_attention_layernorm(middle))
    got = layer(x, rope, None)
    torch.testing.assert_close(got, want)
    # weights are not trivial: with the norms exchanged another result would come
    first, second = layer.input_layernorm, layer.post_attention_layernorm
    layer.input_layernorm, layer.post_attention_layernorm = second, first
    assert (layer(x, rope, None) - want).abs().max() > 1e-2


def test_a_layer_that_adds_nothing_is_the_identity():
    layer, x, rope = parts()
    layer.self_attn.o_proj.weight.zero_()
    layer.mlp.down_proj.weight.zero_()
    assert torch.equal(layer(x, rope, None), x)
