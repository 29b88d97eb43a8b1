"""The whole model: parity with transformers, causality, padding, gradients, errors."""

import jaxtyping
import pytest
import torch
from reference import LAYERS, VARIANTS, VOCAB, ids, left_padding, pair, relative_error, tiny

from qwenkit.errors import InputError
from qwenkit.fast.linear import has_bfloat16_products
from qwenkit.model import KVCache, QwenForCausalLM
from qwenkit.trace import Trace

PADDINGS = {"unpadded": None, "left-padded": [11, 4, 7]}


@torch.no_grad()
def run_theirs(model, tokens, mask):
    """Run transformers' model with the positions that generate() would give it."""
    place = None if mask is None else (mask.cumsum(-1) - 1).clamp(min=0)
    inside = {"output_hidden_states": True, "output_attentions": True}
    more = inside if model.config._attn_implementation == "eager" else {}
    return model(tokens, attention_mask=mask, position_ids=place, use_cache=False, **more)


@pytest.mark.parametrize("padding", PADDINGS.values(), ids=PADDINGS)
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_equals_transformers_inside_and_out(variant, padding):
    theirs, ours = pair(**variant)
    tokens = ids(3, 11)
    mask = None if padding is None else left_padding(padding, 11)
    real = torch.ones(3, 11, dtype=torch.bool) if mask is None else mask.bool()
    want = run_theirs(theirs, tokens, mask)
    trace = Trace(keep=("resid_pre", "attn.pattern", "final_norm"))
    with torch.no_grad():
        for path in (None, trace):  # fused, then eager
            logits = ours(tokens, attention_mask=mask, trace=path)
            assert relative_error(logits[real], want.logits[real]) < 1e-5
    got = [trace[f"layers.{i}.resid_pre"] for i in range(LAYERS)] + [trace["final_norm"]]
    assert len(want.hidden_states) == len(got)
    for mine, reference in zip(got, want.hidden_states, strict=True):
        assert relative_error(mine[real], reference[real]) < 1e-5
    for i, reference in enumerate(want.attentions):
        mine = trace[f"layers.{i}.attn.pattern"].transpose(1, 2)[real]  # (real rows, H, S)
        assert relative_error(mine, reference.transpose(1, 2)[real]) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_in_bfloat16_no_further_from_transformers_than_it_is_from_itself(variant):
    eager, ours = pair(**variant, dtype=torch.bfloat16)
    sdpa, _ = pair(**variant, dtype=torch.bfloat16, attention="sdpa")
    exact, _ = pair(**variant)
    tokens = ids(16, 24)
    theirs = run_theirs(sdpa, tokens, None).logits.float()
    stepwise = run_theirs(eager, tokens, None).logits.float()
    truth = run_theirs(exact, tokens, None).logits
    logits = ours(tokens).detach()
    assert logits.dtype == torch.bfloat16
    if has_bfloat16_products():  # elsewhere ours multiplies in float32: they round differently
        assert (logits.float() - theirs).abs().max() <= (stepwise - theirs).abs().max()
    assert (logits.float() - truth).abs().mean() <= 1.03 * (stepwise - truth).abs().mean()


@pytest.mark.parametrize("tied", [False, True])
def test_tensors_are_those_of_the_config_and_a_tied_head_is_the_embedding(tied):
    model = tiny(tie_word_embeddings=tied)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes == model.config.tensor_shapes()
    assert ("lm_head.weight" in shapes) is not tied
    trace = Trace(keep="final_norm")
    logits = model(ids(1, 5), trace=trace)
    head = model.model.embed_tokens if tied else model.lm_head
    torch.testing.assert_close(logits, trace["final_norm"] @ head.weight.T)


@pytest.mark.parametrize("variant", ["gqa", "yarn", "sliding"])
def test_no_token_sees_the_future(variant):
    model = tiny(**VARIANTS[variant])
    tokens = ids(1, 12)
    for changed in (0, 1, 6, 11):
        other = tokens.clone()
        other[0, changed] = (other[0, changed] + 1) % VOCAB
        before, after = model(tokens)[0], model(other)[0]
        torch.testing.assert_close(after[:changed], before[:changed], rtol=0, atol=1e-6)
        assert (after[changed] - before[changed]).abs().max() > 1e-2
        if changed == 0:  # the past is seen: it reaches the last token within the layers' windows
            assert (after[-1] - before[-1]).abs().max() > 1e-3
    # to the last token the same set, in another order: order matters
    one, other = (model(torch.tensor([[*two, 11, 20]]))[0, -1] for two in ((3, 7), (7, 3)))
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("keep", ["left", "right"])
@pytest.mark.parametrize("variant", ["gqa", "yarn", "sliding"])
@pytest.mark.parametrize("trace", [None, "eager"])
def test_padding_changes_nothing_and_is_never_nan(variant, keep, trace):
    model = tiny(**VARIANTS[variant])
    tokens, lengths = ids(3, 9), [9, 1, 5]
    mask = left_padding(lengths, 9)
    mask = mask if keep == "left" else mask.flip(-1)
    trace = trace and Trace(keep="attn.pattern")
    logits = model(tokens, attention_mask=mask, trace=trace)
    assert logits.isfinite().all()
    for row in range(3):
        alone = model(tokens[row : row + 1, mask[row].bool()])[0]
        torch.testing.assert_close(logits[row, mask[row].bool()], alone, rtol=1e-5, atol=1e-5)
    other = torch.where(mask.bool(), tokens, (tokens + 5) % VOCAB)  # other tokens as padding
    again = model(other, attention_mask=mask)
    real = mask.bool()
    torch.testing.assert_close(again[real], logits[real], rtol=1e-5, atol=1e-5)


def test_whatever_else_is_given_the_logits_stay_the_same():
    model, tokens = tiny(), ids(2, 4)
    want, cache = model(tokens), KVCache(model.config, batch_size=2, max_length=4)
    for keep in (1, 3, 4):
        last = model(tokens, logits_to_keep=keep)
        assert last.shape == (2, keep, VOCAB)
        torch.testing.assert_close(last, want[:, -keep:])
    assert torch.equal(model(tokens.int()), want)
    for dtype in (torch.int64, torch.bool, torch.float32):
        assert torch.equal(model(tokens, attention_mask=torch.ones(2, 4, dtype=dtype)), want)
    for arguments in ({"cache": cache}, {"trace": Trace(keep="embed")}, {"trace": Trace()}):
        logits = model(tokens, **arguments)
        assert isinstance(logits, torch.Tensor)
        assert logits.shape == want.shape == (2, 4, VOCAB)
        torch.testing.assert_close(logits, want)


@pytest.mark.parametrize("tied", [False, True])
def test_gradients_equal_those_of_transformers(tied):
    theirs, ours = pair(tie_word_embeddings=tied)
    tokens = ids(2, 7)
    for model in (theirs, ours):
        logits = model(tokens)
        logits = logits if isinstance(logits, torch.Tensor) else logits.logits
        wanted = tokens[:, 1:].flatten()
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), wanted).backward()
    wanted = dict(theirs.named_parameters())
    for name, weight in ours.named_parameters():
        gradient = wanted[name].grad
        assert weight.grad is not None, name
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_a_meta_model_gives_meta_logits():
    with torch.device("meta"):
        model = QwenForCausalLM(tiny().config)
        tokens = torch.zeros(2, 5, dtype=torch.int64)
        mask = torch.ones(2, 5, dtype=torch.int64)
    for logits in (model(tokens), model(tokens, attention_mask=mask)):
        assert logits.shape == (2, 5, VOCAB)
        assert logits.is_meta


GOOD = ids(2, 4)
BAD_INPUTS = {
    "float ids": ({"input_ids": GOOD.float()}, ["input_ids", "float32", "int64", "(B, T)"]),
    "bool ids": ({"input_ids": GOOD > 3}, ["input_ids", "bool", "int64"]),
    "a list": ({"input_ids": [[1, 2]]}, ["input_ids", "list", "int64 tensor"]),
    "1-D": ({"input_ids": GOOD[0]}, ["(4,)", "(B, T)", "torch.tensor([ids])"]),
    "3-D": ({"input_ids": GOOD[None]}, ["(1, 2, 4)", "(B, T)"]),
    "no tokens": ({"input_ids": GOOD[:, :0]}, ["(2, 0)", "T >= 1"]),
    "no sequences": ({"input_ids": GOOD[:0]}, ["(0, 4)", "B, T >= 1"]),
    "id too large": ({"input_ids": GOOD.clone().fill_(VOCAB)}, ["61", "0 and 60", "tokenizer"]),
    "negative id": ({"input_ids": torch.tensor([[1, -100]])}, ["-100", "0 and 60"]),
    "ids elsewhere": ({"input_ids": GOOD.to("meta")}, ["input_ids", "meta", "cpu", ".to("]),
    "mask too short": ({"attention_mask": torch.ones(2, 3)}, ["(2, 3)", "(2, 4)", "cached"]),
    "mask 1-D": ({"attention_mask": torch.ones(4)}, ["attention_mask", "(4,)", "(2, 4)"]),
    "mask of twos": ({"attention_mask": GOOD * 0 + 2}, ["attention_mask", "1 (real)", "0 (pad"]),
    "additive mask": ({"attention_mask": torch.full((2, 4), -1e9)}, ["attention_mask", "1 (real"]),
    "mask elsewhere": ({"attention_mask": GOOD.to("meta")}, ["attention_mask", "meta", "cpu"]),
    "mask a list": ({"attention_mask": [[1] * 4] * 2}, ["attention_mask", "list", "tensor"]),
    "negative keep": ({"logits_to_keep": -1}, ["logits_to_keep", "-1", "0"]),
}


@pytest.mark.parametrize(("arguments", "fragments"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_bad_input_is_refused_with_a_clear_error(monkeypatch, arguments, fragments):
    # as for a user: the model itself must explain what is wrong
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError) as caught:
        tiny()(**{"input_ids": GOOD, **arguments})
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_mask_must_cover_the_cached_tokens_too():
    model = tiny()
    cache = KVCache(model.config, batch_size=2, max_length=8)
    model(GOOD, cache=cache)
    with pytest.raises(InputError, match=r"\(2, 1\); it must be \(B, S\) = \(2, 5\)"):
        model(GOOD[:, :1], cache=cache, attention_mask=torch.ones(2, 1))


def test_more_tokens_than_the_model_was_made_for_warn():
    model = tiny(max_position_embeddings=6)
    model(ids(1, 6))
    with pytest.warns(UserWarning, match="7 tokens are more than the 6") as caught:
        model(ids(1, 7))
    assert len(caught) == 1
