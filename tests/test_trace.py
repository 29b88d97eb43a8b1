"""Trace: what is recorded, what an edit changes, and what is refused."""

import re

import pytest
import torch
import torch.nn.functional as F
from reference import LAYERS, ids, tiny

from qwenkit.errors import TraceError
from qwenkit.model import KVCache, causal_mask, repeat_kv
from qwenkit.trace import POINTS, Trace, tap

# every letter of the table is a different number, so that no two shapes are mistaken
SIZES = {"B": 3, "T": 5, "S": 7, "C": 20, "H": 4, "KV": 2, "D": 6, "F": 28, "V": 61}
SHAPES = {"hidden_size": 20, "head_dim": 6, "intermediate_size": 28}
IN_LAYER = [point.name for point in POINTS if point.in_layer]
EAGER = {"attn.scores", "attn.pattern"}


def run(trace=None, tokens=None, **overrides):
    model = tiny(**overrides)
    tokens = ids(2, 6) if tokens is None else tokens
    return model, tokens, model(tokens, trace=trace)


def traced(**settings):
    """Return a trace of one forward pass."""
    trace = Trace(**settings)
    run(trace)
    return trace


# --- recording ---


def test_every_point_is_recorded_with_the_shape_of_the_table():
    model, tokens = tiny(**SHAPES), ids(3, 7)
    cache = KVCache(model.config, batch_size=3, max_length=7)
    model(tokens[:, :2], cache=cache)
    trace = Trace()
    logits = model(tokens[:, 2:], cache=cache, trace=trace)
    expected = {}
    for point in POINTS:
        layers = [f"layers.{i}." for i in range(LAYERS)] if point.in_layer else [""]
        shape = tuple(SIZES[letter] for letter in point.shape.split())
        expected |= {layer + point.name: shape for layer in layers}
    assert {name: tuple(trace[name].shape) for name in trace} == expected
    assert len(trace) == len(expected)
    assert torch.equal(trace["logits"], logits)


def test_values_fit_together():
    """Each point follows from the ones before it, by the formula of its meaning."""
    trace = Trace()
    model, tokens, _ = run(trace)
    assert torch.equal(trace["embed"], model.model.embed_tokens.weight[tokens])
    assert torch.equal(trace["layers.0.resid_pre"], trace["embed"])
    for i, layer in enumerate(model.model.layers):
        at = {name: trace[f"layers.{i}.{name}"] for name in IN_LAYER}
        k, v = (repeat_kv(at[name], 2) for name in ("attn.k_rot", "attn.v"))
        masked = at["attn.scores"].masked_fill(~causal_mask(6), float("-inf"))
        wanted = {
            "attn_norm": layer.input_layernorm(at["resid_pre"]),
            "attn.scores": at["attn.q_rot"] @ k.mT / 8**0.5,
            "attn.pattern": masked.softmax(-1),
            "attn.z": at["attn.pattern"] @ v,
            "resid_mid": at["resid_pre"] + at["attn.out"],
            "mlp_norm": layer.post_attention_layernorm(at["resid_mid"]),
            "mlp.gate": at["mlp_norm"] @ layer.mlp.gate_proj.weight.T,
            "mlp.up": at["mlp_norm"] @ layer.mlp.up_proj.weight.T,
            "mlp.act": F.silu(at["mlp.gate"]) * at["mlp.up"],
            "mlp.out": at["mlp.act"] @ layer.mlp.down_proj.weight.T,
            "resid_post": at["resid_mid"] + at["mlp.out"],
        }
        for name, want in wanted.items():
            torch.testing.assert_close(at[name], want, rtol=1e-4, atol=1e-5, msg=name)
        for name in ("q", "k"):  # RoPE leaves position 0 as it is, and rotates the later ones
            before, after = at[f"attn.{name}"], at[f"attn.{name}_rot"]
            torch.testing.assert_close(after[:, :, 0], before[:, :, 0])
            torch.testing.assert_close(after.norm(dim=-1), before.norm(dim=-1))
            assert (after[:, :, 1:] - before[:, :, 1:]).abs().max() > 0.1
        torch.testing.assert_close(at["attn.pattern"].sum(-1), torch.ones(2, 4, 6))
        assert at["attn.pattern"].triu(1).abs().max() == 0
    last = trace[f"layers.{LAYERS - 1}.resid_post"]
    torch.testing.assert_close(trace["final_norm"], model.model.norm(last))


@pytest.mark.parametrize(("keep", "layers", "names"), [
    ("attn.q", None, ["layers.0.attn.q", "layers.1.attn.q", "layers.2.attn.q"]),
    (["attn.q"], [2], ["layers.2.attn.q"]), (["layers.1.attn.q"], None, ["layers.1.attn.q"]),
    (["layers.1.attn.q"], [0], ["layers.1.attn.q"]),
    (["embed", "attn.q"], [0], ["embed", "layers.0.attn.q"]),
    (["resid_post", "logits"], [], ["logits"]), ((), None, []),
])  # fmt: skip
def test_only_what_was_asked_is_held(keep, layers, names):
    trace = traced(keep=keep, layers=layers)
    assert list(trace) == names
    assert all(name in trace for name in names)
    assert "final_norm" not in trace
    values = {"embed": 2 * 6 * 32, "logits": 2 * 6 * 61}  # attn.q: B 2, H 4, T 6, D 8
    size = 4 * sum(values.get(name, 2 * 4 * 6 * 8) for name in names)
    assert trace.nbytes == size
    assert repr(trace) == f"Trace({len(names)} values, {size:,} bytes)"


def test_a_tensor_that_two_points_share_counts_once():
    """A layer's resid_pre is the very tensor that the layer before recorded as resid_post."""
    trace = traced(keep=("resid_pre", "resid_post"))
    assert len(trace) == 2 * LAYERS
    assert trace.nbytes == (LAYERS + 1) * 4 * 2 * 6 * 32


def test_all_points_of_one_layer():
    outside = {point.name for point in POINTS if not point.in_layer}
    assert set(traced(layers=[1])) == {f"layers.1.{name}" for name in IN_LAYER} | outside


def test_each_forward_replaces_what_was_recorded():
    trace = Trace(keep="resid_post")
    run(trace)
    run(trace, ids(1, 3, seed=9))
    assert trace["layers.0.resid_post"].shape == (1, 3, 32)
    assert len(trace) == LAYERS
    run(trace, num_hidden_layers=1)
    assert list(trace) == ["layers.0.resid_post"]  # nothing is left of the deeper model


@pytest.mark.parametrize("point", [point.name for point in POINTS])
def test_looking_changes_no_bit_and_an_edit_anywhere_reaches_the_logits(point):
    model, tokens, plain = run()
    recorded = model(tokens, trace=Trace(keep=[point]))
    same = model(tokens, trace=Trace(keep=(), edits={point: lambda x: x.clone()}))
    assert torch.equal(same, recorded)
    if point in EAGER:  # not fused then: equal but for rounding
        torch.testing.assert_close(recorded, plain, rtol=1e-5, atol=1e-5)
    else:
        assert torch.equal(recorded, plain)
    edited = model(tokens, trace=Trace(keep=(), edits={point: lambda x: x.roll(1, dims=-1)}))
    assert (edited - plain).abs().max() > 1e-3
    assert tap(None, "no such point", plain) is plain  # without a trace


# --- editing ---


def test_an_edit_that_writes_in_place_changes_no_other_point():
    """As above: without a copy, layer 0's resid_post would change after it was recorded."""

    def wipe(x):
        x[:, 0] = 0
        return x

    plain = traced(keep="resid_post")
    edited = traced(keep=("resid_pre", "resid_post"), edits={"layers.1.resid_pre": wipe})
    assert torch.equal(edited["layers.0.resid_post"], plain["layers.0.resid_post"])
    assert not edited["layers.1.resid_pre"][:, 0].any()


def test_without_attention_the_mlps_alone_write_the_residual():
    trace = Trace(keep="attn.out", edits={"attn.out": torch.zeros_like})
    model, tokens, logits = run(trace)
    x = model.model.embed_tokens.weight[tokens]
    for layer in model.model.layers:
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    torch.testing.assert_close(logits, model.model.norm(x) @ model.lm_head.weight.T)
    assert trace["layers.0.attn.out"].abs().max() == 0  # the edited value is recorded


def test_an_edit_of_one_layer_leaves_earlier_layers():
    plain, edited = traced(), traced(edits={"layers.1.mlp.out": torch.zeros_like})
    for name in ("layers.0.resid_post", "layers.1.resid_mid"):
        assert torch.equal(edited[name], plain[name])
    assert torch.equal(edited["layers.1.resid_post"], edited["layers.1.resid_mid"])
    assert not torch.equal(edited["layers.2.resid_post"], plain["layers.2.resid_post"])
    assert edited["layers.2.mlp.out"].abs().max() > 0
    edits = {"mlp.out": torch.zeros_like, "layers.1.mlp.out": torch.ones_like}
    trace = traced(keep="mlp.out", edits=edits)  # a full name overrides a short one
    assert [trace[f"layers.{i}.mlp.out"].unique().item() for i in range(LAYERS)] == [0, 1, 0]


def test_an_edited_pattern_weighs_the_values():
    """Each token attends to itself alone: z is its value, repeated for the group's heads."""
    itself = {"attn.pattern": lambda pattern: torch.eye(6).expand_as(pattern)}
    trace = traced(keep=("attn.v", "attn.z"), edits=itself)
    for i in range(LAYERS):
        want = repeat_kv(trace[f"layers.{i}.attn.v"], 2)
        torch.testing.assert_close(trace[f"layers.{i}.attn.z"], want)


def test_edited_scores_are_still_masked():
    trace = traced(keep="attn.pattern", edits={"attn.scores": torch.zeros_like})
    uniform = torch.ones(6, 6).tril() / torch.arange(1, 7)[:, None]
    torch.testing.assert_close(trace["layers.2.attn.pattern"][1, 3], uniform)


def test_an_edited_key_is_what_the_cache_stores():
    model = tiny()
    cache = KVCache(model.config, max_length=4)
    trace = Trace(keep=(), edits={"layers.1.attn.k_rot": torch.zeros_like})
    model(ids(1, 4), cache=cache, trace=trace)
    assert len(trace) == 0  # edited, and not kept
    assert cache.keys[1].abs().max() == 0
    assert cache.keys[0].abs().min() > 0


def test_gradients_flow_through_a_trace():
    trace = Trace(keep="layers.0.resid_mid")
    model = tiny().requires_grad_(True)
    logits = model(ids(1, 4), trace=trace)
    (gradient,) = torch.autograd.grad(logits.sum(), trace["layers.0.resid_mid"])
    assert gradient.abs().max() > 0


# --- refusals ---


@pytest.mark.parametrize(("edit", "fragments"), [
    (lambda x: None, ["NoneType", "tensor", "(2, 6, 32)", "return"]),
    (lambda x: x[:, :1], ["shape", "(2, 1, 32)", "must keep (2, 6, 32)"]),
    (lambda x: x[:1], ["shape", "(1, 6, 32)", "must keep (2, 6, 32)"]),  # it would broadcast
    (lambda x: x.double(), ["dtype", "torch.float64", "keep torch.float32"]),
    (lambda x: x.to("meta"), ["device", "meta", "must keep cpu"]),
    (lambda x: 0.0, ["float", "must return a tensor"]),
])  # fmt: skip
def test_an_edit_that_does_not_fit_is_refused(edit, fragments):
    with pytest.raises(TraceError, match=r"the edit at layers\.1\.mlp\.out") as caught:
        run(Trace(keep=(), edits={"layers.1.mlp.out": edit}))
    assert all(fragment in str(caught.value) for fragment in fragments)


@pytest.mark.parametrize(("name", "hint"), [
    ("attn.patern", "did you mean 'attn.pattern'"), ("resid_pst", "'resid_post'"),
    ("layers.0.attn.scor", "'attn.scores'"), ("logit", "did you mean 'logits'"),
    ("layers.0.embed", "embed"),  # not in a layer
    ("layers.x.attn.q", "attn.q"), ("layers.-1.attn.q", "attn.q"),
    ("xyzzy", "the points are embed, resid_pre,"), ("", "the points are embed, resid_pre,"),
])  # fmt: skip
@pytest.mark.parametrize("use", ["keep", "edits", "read"])
def test_an_unknown_name_is_refused_with_a_near_one(name, hint, use):
    settings = {"keep": {"keep": [name]}, "edits": {"edits": {name: torch.zeros_like}}, "read": {}}
    message = re.escape(f"{name!r} is not a trace point; ") + ".*" + re.escape(hint)
    with pytest.raises(TraceError, match=message):
        Trace(**settings[use])[name]


@pytest.mark.parametrize(("number", "arguments"), [
    (3, {"keep": ["layers.3.attn.q"]}), (3, {"keep": ["attn.q"], "layers": [0, 3]}),
    (3, {"keep": (), "edits": {"layers.3.attn.q": torch.zeros_like}}),
    (-1, {"keep": ["attn.q"], "layers": [-1]}),
])  # fmt: skip
def test_a_layer_that_the_model_does_not_have_is_refused(number, arguments):
    with pytest.raises(TraceError, match=f"layer {number}; this model has layers 0 to 2"):
        run(Trace(**arguments))


def test_reading_what_is_not_there_says_why():
    trace = Trace(keep="attn.q")
    with pytest.raises(TraceError, match=r"'layers\.0\.attn\.q' is not recorded yet; run model"):
        trace["layers.0.attn.q"]
    run(trace)
    with pytest.raises(TraceError, match=r"'layers\.0\.attn\.k' was not recorded; add it to keep"):
        trace["layers.0.attn.k"]
    with pytest.raises(TraceError, match=r"exists in every layer; write 'layers\.N\.attn\.q'"):
        trace["attn.q"]
