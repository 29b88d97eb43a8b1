"""The logit lens and direct attribution: their ends are the model's own logits."""

import pytest
import torch
from reference import pair

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.interpret import attribute_logit, logit_lens
from qwenkit.pretrained import EMBEDDED
from qwenkit.trace import Trace

IDS = torch.randint(0, 61, (1, 11), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def model(request):
    return pair(tie_word_embeddings=request.param)[1].requires_grad_(False)


@pytest.fixture(scope="module")
def coder():
    return qk.load_pretrained(EMBEDDED, device="cpu", dtype="float32")


def test_the_lens_ends_at_the_models_logits_and_begins_at_the_embedding(model):
    lens = logit_lens(model, IDS, 4)
    logits = model(IDS)[0, 4]
    assert lens.shape == (4, len(logits))
    torch.testing.assert_close(lens[-1], logits, rtol=1e-5, atol=1e-5)
    alone = model.model.embed_tokens(IDS[:, 4:5])
    torch.testing.assert_close(lens[0], model.head(model.model.norm(alone))[0, 0])


def test_in_between_it_is_the_model_with_its_later_layers_taken_out(model):
    nothing = {
        name: torch.zeros_like
        for i in (1, 2)
        for name in (f"layers.{i}.attn.out", f"layers.{i}.mlp.out")
    }
    want = model(IDS, trace=Trace(keep=(), edits=nothing))[0, -1]
    torch.testing.assert_close(logit_lens(model, IDS)[1], want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("position", [-1, 0, 5])
@pytest.mark.parametrize("token", [None, 0, 60])
def test_what_the_parts_add_sums_to_the_logit(model, token, position):
    found = attribute_logit(model, IDS, token, position)
    logits = model(IDS)[0, position]
    assert found.token == (int(logits.argmax()) if token is None else token)
    assert found.position == position % 11
    assert found.heads.shape == (3, 4)
    assert found.mlps.shape == (3,)
    assert found.total == pytest.approx(float(logits[found.token]), abs=1e-4)


def test_a_part_adds_what_its_removal_takes_away_when_the_norm_is_held(model):
    found = attribute_logit(model, IDS, 7)
    trace = Trace(keep=("attn.z", "layers.2.resid_post"))
    model(IDS, trace=trace)
    last = trace["layers.2.resid_post"][0, -1]
    z = trace["layers.1.attn.z"].clone()
    weight = model.model.layers[1].self_attn.o_proj.weight
    head = weight[:, 2 * z.shape[-1] : 3 * z.shape[-1]] @ z[0, 2, -1]  # what head 2 adds
    divisor = (last.pow(2).mean() + model.model.norm.eps).sqrt()
    row = model.model.embed_tokens.weight if model.lm_head is None else model.lm_head.weight
    by_hand = (head / divisor * model.model.norm.weight) @ row[7]
    assert float(found.heads[1, 2]) == pytest.approx(float(by_hand), abs=1e-5)


def test_on_the_embedded_model_too(coder):
    model, tokenizer = coder
    ids = tokenizer("def area(width, height):\n    return width *")
    found = attribute_logit(model, ids)
    assert found.total == pytest.approx(float(model(ids)[0, -1].max()), abs=1e-4)
    lens = logit_lens(model, ids)
    torch.testing.assert_close(lens[-1], model(ids)[0, -1], rtol=1e-4, atol=1e-4)


def test_a_quantized_model_has_parts_as_well(coder):
    model, tokenizer = qk.load_pretrained(EMBEDDED, device="cpu", dtype="int8")
    ids = tokenizer("import os\n")
    found = attribute_logit(model, ids)
    assert found.total == pytest.approx(float(model(ids)[0, -1].max()), rel=0.03)


BAD = {
    "two texts": (lambda m, f: f(m, IDS.repeat(2, 1)), "it must be one text"),
    "no batch": (lambda m, f: f(m, IDS[0]), "it must be one text"),
    "too far": (lambda m, f: f(m, IDS, position=11), "position is 11; the text has 11 tokens"),
    "too far back": (lambda m, f: f(m, IDS, position=-12), "position is -12"),
}


@pytest.mark.parametrize("function", [logit_lens, attribute_logit])
@pytest.mark.parametrize("case", BAD)
def test_what_is_not_there_is_refused(model, function, case):
    call, words = BAD[case]
    with pytest.raises(InputError, match=words):
        call(model, function)


@pytest.mark.parametrize("token", [-1, 10_000])
def test_a_token_that_is_none_is_refused(model, token):
    with pytest.raises(InputError, match=f"token is {token}; it must be an id from 0 to"):
        attribute_logit(model, IDS, token)
