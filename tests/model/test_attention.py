"""Attention: the grouping of heads, the scale, the eager and the fused path."""

import math

import jaxtyping
import pytest
import torch
from reference import ids, tiny

from qwenkit.model import attention_mask, causal_mask, eager_attention, fused_attention, repeat_kv
from qwenkit.trace import Trace

PATHS = [eager_attention, fused_attention]


def qkv(queries, keys, heads=4, kv_heads=2, batch=2, dtype=torch.float32):
    q = torch.randn(batch, heads, queries, 8, dtype=dtype)
    k, v = torch.randn(2, batch, kv_heads, keys, 8, dtype=dtype)
    return q, k, v


def test_kv_heads_are_repeated_consecutively():
    x = torch.tensor([10.0, 20.0]).view(1, 2, 1, 1)
    assert repeat_kv(x, 3).flatten().tolist() == [10, 10, 10, 20, 20, 20]  # never 10, 20, 10, …
    assert repeat_kv(x, 1).flatten().tolist() == [10, 20]
    with pytest.raises(jaxtyping.TypeCheckError):  # shapes are checked in tests
        repeat_kv(torch.zeros(2, 3, 4), 2)


@pytest.mark.parametrize("attend", PATHS)
@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 3), (6, 2), (4, 1), (3, 3)])
def test_head_h_reads_kv_head_h_over_groups(attend, queries, heads, kv_heads):
    q, k, v = qkv(queries, 5, heads, kv_heads)
    v = torch.arange(kv_heads).float().view(1, -1, 1, 1).expand(v.shape)  # each its own value
    z = attend(q, k, v)
    for head in range(heads):
        want = torch.full_like(z[:, head], head // (heads // kv_heads))
        torch.testing.assert_close(z[:, head], want)


@pytest.mark.parametrize("attend", PATHS)
def test_by_hand(attend):
    """D is 4, so scores are halved: the second query scores 0 and ln 3: weights 1:3."""
    q = torch.tensor([[5.0, 5, 5, 5], [2 * math.log(3), 0, 0, 0]]).view(1, 1, 2, 4)
    k = torch.tensor([[0.0, 1, 0, 0], [1.0, 0, 0, 0]]).view(1, 1, 2, 4)
    v = torch.tensor([[4.0, 0, 0, 0], [0.0, 8, 0, 0]]).view(1, 1, 2, 4)
    want = torch.tensor([[4.0, 0, 0, 0], [1.0, 6, 0, 0]]).view(1, 1, 2, 4)
    torch.testing.assert_close(attend(q, k, v), want)


def plainly(q, k, v, allowed):
    """Attention once more, one position after another; `allowed` is (B, T, S)."""
    z = torch.zeros_like(q)
    for b, h, t in torch.cartesian_prod(*map(torch.arange, q.shape[:3])).tolist():
        seen = allowed[b, t].nonzero().flatten()
        kv = h * k.shape[1] // q.shape[1]
        weights = (k[b, kv, seen] @ q[b, h, t] / math.sqrt(q.shape[-1])).exp()
        z[b, h, t] = (weights / weights.sum()) @ v[b, kv, seen]
    return z


@pytest.mark.parametrize("attend", PATHS)
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (5, 5), (1, 6), (3, 7)])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("kind", ["causal", "padding", "window"])
def test_both_paths_equal_plain_loops(attend, queries, keys, kv_heads, kind):
    q, k, v = qkv(queries, keys, kv_heads=kv_heads)
    past, real = keys - queries, torch.arange(keys) >= torch.tensor([keys - 1, 0])[:, None]
    more = {"causal": {}, "padding": {"real": real}, "window": {"window": 2}}
    mask = attention_mask(queries, past, **more[kind])
    seen = causal_mask(queries, past) if mask is None else mask[:, 0]
    z = attend(q, k, v, mask)
    torch.testing.assert_close(z, plainly(q, k, v, seen.expand(2, queries, keys)))


@pytest.mark.parametrize("attend", PATHS)
def test_a_chunk_after_a_cache_reads_all_of_it(attend):
    q, k, v = qkv(6, 6)
    torch.testing.assert_close(attend(q[:, :, 4:], k, v), attend(q, k, v)[:, :, 4:])


def test_softmax_is_taken_in_float32():
    q, k, v = qkv(16, 16, dtype=torch.bfloat16)
    trace = Trace(keep=("attn.scores", "attn.pattern"))
    eager_attention(q, k, v, trace=trace.at_layer(0))
    scores = trace["layers.0.attn.scores"].float().masked_fill(~causal_mask(16), -math.inf)
    pattern = trace["layers.0.attn.pattern"]
    assert pattern.dtype == torch.bfloat16
    assert torch.equal(pattern, scores.softmax(-1).bfloat16())


def test_q_k_and_v_have_biases_which_are_added_and_o_does_not_and_heads_are_joined_in_order():
    model, trace = tiny(), Trace()
    model(ids(2, 3), trace=trace)
    attention, x = model.model.layers[1].self_attn, trace["layers.1.attn_norm"]
    joined = {name: trace[f"layers.1.attn.{name}"].transpose(1, 2).flatten(2) for name in "qkvz"}
    for name in "qkv":
        projection = getattr(attention, f"{name}_proj")
        assert projection.bias.abs().min() > 0
        torch.testing.assert_close(joined[name], x @ projection.weight.T + projection.bias)
    assert attention.o_proj.bias is None
    torch.testing.assert_close(trace["layers.1.attn.out"], joined["z"] @ attention.o_proj.weight.T)
