"""RoPE: frequencies, pairing, relative positions, precision, YaRN."""

import math

import pytest
import torch
from reference import TINY, YARN, pair, tiny
from transformers import Qwen2Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from qwenkit.config import QwenConfig
from qwenkit.errors import InputError
from qwenkit.model import KVCache, RotaryEmbedding, apply_rope, inverse_frequencies
from qwenkit.trace import Trace


def config(theta=1_000_000.0, head_dim=4, **rope):
    rope = {"rope_type": "default", "rope_theta": theta, **rope}
    raw = Qwen2Config(**{**TINY, "head_dim": head_dim, "rope_parameters": rope})
    return QwenConfig.from_dict(raw.to_dict()), raw


def rotated(x, position, theta=1_000_000.0):
    """Return x, (..., D), rotated for its position."""
    rotary = RotaryEmbedding(config(theta, x.shape[-1])[0])
    return apply_rope(x.reshape(1, 1, 1, -1), *rotary(torch.tensor([[position]]))).flatten()


@pytest.mark.parametrize(("theta", "second"), [(1_000_000.0, 1e-3), (10_000.0, 1e-2)])
def test_frequencies_follow_theta(theta, second):
    got = inverse_frequencies(config(theta)[0])
    torch.testing.assert_close(got, torch.tensor([1.0, second]))


@pytest.mark.parametrize(("x", "position", "want"), [
    ([1.0, 0, 0, 0], 1, [math.cos(1), 0, math.sin(1), 0]),  # interleaved: sin at index 1
    ([0.0, 0, 0, 1], 200, [0, -math.sin(0.2), 0, math.cos(0.2)]),  # the second pair is slow
])  # fmt: skip
def test_dimension_i_pairs_with_i_plus_half(x, position, want):
    torch.testing.assert_close(rotated(torch.tensor(x), position), torch.tensor(want))


def test_position_zero_is_the_identity_and_lengths_are_kept():
    x = torch.randn(8)
    torch.testing.assert_close(rotated(x, 0), x)
    torch.testing.assert_close(rotated(x, 77).norm(), x.norm())


def test_scores_depend_on_the_distance_alone():
    q, k = torch.randn(2, 16)
    score = rotated(q, 9) @ rotated(k, 4)
    torch.testing.assert_close(rotated(q, 109) @ rotated(k, 104), score, rtol=1e-4, atol=1e-4)
    assert abs(rotated(q, 10) @ rotated(k, 4) - score) > 1e-2
    assert abs(rotated(q, 4) @ rotated(k, 9) - score) > 1e-2  # and on its sign


def test_each_head_and_token_is_rotated_by_its_own_position():
    rotary = RotaryEmbedding(config()[0])
    x = torch.randn(2, 3, 2, 4)
    places = torch.tensor([[0, 5], [7, 2]])
    got = apply_rope(x, *rotary(places))
    for b, h, t in [(0, 0, 0), (0, 2, 1), (1, 1, 0), (1, 0, 1)]:
        torch.testing.assert_close(got[b, h, t], rotated(x[b, h, t], int(places[b, t])))


def test_angles_are_float32_in_a_bfloat16_model():
    rotary, place = tiny(dtype=torch.bfloat16, head_dim=16).model.rotary_emb, 29_999
    exact = place * 1e6 ** (-torch.arange(8, dtype=torch.float64) / 8)
    cos, sin = rotary(torch.tensor([[place]]), torch.bfloat16)
    assert cos.dtype == sin.dtype == torch.bfloat16
    # float32 angles err by 30000 × 2^-24, the result's rounding by 2^-9; bfloat16 angles by radians
    torch.testing.assert_close(cos[0, 0, :8].double(), exact.cos(), rtol=0, atol=8e-3)
    torch.testing.assert_close(sin[0, 0, 8:].double(), exact.sin(), rtol=0, atol=8e-3)
    assert rotary.frequencies(torch.device("cpu")).dtype == torch.float32


def test_bfloat16_model_rotates_queries_by_float32_angles():
    trace = Trace(keep=("attn.q", "attn.q_rot"))
    tiny(dtype=torch.bfloat16, max_position_embeddings=1024)(torch.full((1, 700), 5), trace=trace)
    q, got = (trace[f"layers.0.{name}"][0, 0, 699].float() for name in ("attn.q", "attn.q_rot"))
    torch.testing.assert_close(got, rotated(q, 699), rtol=0, atol=0.03 * q.abs().max().item())


def test_it_holds_nothing_that_a_checkpoint_or_a_cast_could_change():
    rotary = RotaryEmbedding(config()[0])
    assert [*rotary.parameters(), *rotary.buffers()] == []
    with torch.device("meta"):
        made_on_meta = RotaryEmbedding(config()[0])
    places = torch.tensor([[0, 3]])
    for got, want in zip(made_on_meta(places), rotary(places), strict=True):
        assert torch.equal(got, want)


# --- YaRN ---


def test_yarn_keeps_fast_pairs_slows_slow_ones_and_blends_between():
    """Theta 100, D 16, context 32: pair 0 keeps its frequency, from pair 3 on all is slowed."""
    plain = inverse_frequencies(config(100.0, 16)[0])
    yarn = inverse_frequencies(config(100.0, 16, **_yarn())[0])
    slowed = torch.tensor([0, 1 / 3, 2 / 3, 1, 1, 1, 1, 1])
    torch.testing.assert_close(yarn / plain, 1 - slowed * 3 / 4)  # slowed: a quarter of it


def _yarn(**changes):
    return {name: value for name, value in {**YARN, **changes}.items() if name != "rope_theta"}


YARNS = {
    "plain": {}, "factor 1": {"factor": 1.0},
    "factor": {"factor": 8.0}, "betas": {"beta_fast": 4.0, "beta_slow": 0.5},
    "attention factor": {"attention_factor": 0.7},
    "context": {"original_max_position_embeddings": 64},
    "empty ramp": {"original_max_position_embeddings": 1},
    "mscale": {"mscale": 1.0, "mscale_all_dim": 0.5}, "one mscale": {"mscale": 0.7},
    "truncate": {"truncate": False}, "truncate null": {"truncate": None, "beta_fast": 4.0},
    "nulls": {"factor": None, "beta_fast": 0, "attention_factor": None},
    "released": {"original_max_position_embeddings": 32768, "theta": 1_000_000.0, "head_dim": 64},
}  # fmt: skip


LINEAR = {"rope_type": "linear", "factor": 3.0}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0}


@pytest.mark.filterwarnings("ignore")  # transformers remarks on unusual factors
@pytest.mark.parametrize("rope", [
    *({**_yarn(), **changes} for changes in YARNS.values()), LINEAR, DYNAMIC,
], ids=[*YARNS, "linear", "dynamic"])  # fmt: skip
def test_scaled_frequencies_equal_those_of_transformers(rope):
    ours, theirs = config(**{"theta": 100.0, "head_dim": 16, **rope})
    kind = theirs.rope_parameters["rope_type"]
    frequencies, factor = ROPE_INIT_FUNCTIONS[kind](theirs, torch.device("cpu"))
    got = inverse_frequencies(ours)
    assert got.isfinite().all()
    torch.testing.assert_close(got, frequencies)
    assert RotaryEmbedding(ours).factor == pytest.approx(factor)


@pytest.mark.parametrize(
    ("changes", "factor"),
    [(None, 1.0), ({}, 0.1 * math.log(4) + 1), ({"attention_factor": 0.5}, 0.5)],
)
def test_yarn_scales_cos_and_sin(changes, factor):
    made = config(100.0, 16, **({} if changes is None else _yarn(**changes)))[0]
    cos, sin = RotaryEmbedding(made)(torch.tensor([[0, 6]]))
    torch.testing.assert_close(cos.square() + sin.square(), torch.full((1, 2, 16), factor**2))


def test_dynamic_rope_is_plain_within_its_context_and_refused_beyond():
    theirs, model = pair(rope_parameters={**DYNAMIC, "rope_theta": 100.0})
    ids = torch.arange(129)[None] % 61
    with torch.no_grad():
        torch.testing.assert_close(
            model(ids[:, :128]), theirs(ids[:, :128]).logits, rtol=1e-4, atol=1e-4
        )
        with pytest.raises(InputError, match=r"129 tokens .* would rotate .* give fewer tokens"):
            model(ids)
        cache = KVCache(model.config, 1, 129)
        model(ids[:, :128], cache=cache)
        with pytest.raises(InputError, match="129 tokens"):
            model(ids[:, 128:], cache=cache)
    assert cache.length == 128
