"""Head scores, logit lens and attribution: worked out by hand, and ending at the model's logits."""

import math
from itertools import product

import pytest
import torch
from reference import pair

import qwenkit as qk
from qwenkit import interpret
from qwenkit.errors import InputError
from qwenkit.pretrained import EMBEDDED
from qwenkit.trace import Trace

IDS = torch.randint(0, 61, (2, 11), generator=torch.Generator().manual_seed(1))
ONE = IDS[:1]


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def either(request):
    return pair(tie_word_embeddings=request.param)[1].requires_grad_(False)


@pytest.fixture(scope="module")
def model():
    return pair()[1].requires_grad_(False)


def patterns(model, ids):
    model(ids, trace=(trace := Trace(keep=("attn.pattern",))))
    return [trace[f"layers.{layer}.attn.pattern"] for layer in range(3)]


# head scores
@pytest.mark.parametrize(("scores", "back"), [
    (interpret.previous_token_scores, 1), (interpret.sink_scores, None),
])  # fmt: skip
def test_scores_are_the_mean_weight_on_the_previous_or_the_first_token(model, scores, back):
    found, expected = scores(model, IDS), patterns(model, IDS)
    assert found.shape == (3, 4)
    for layer, head in product(range(3), range(4)):
        weights = [float(expected[layer][b, head, t, t - back if back else 0])
                   for b in range(2) for t in range(1, 11)]  # fmt: skip
        assert float(found[layer, head]) == pytest.approx(sum(weights) / 20, abs=1e-6)


@pytest.mark.parametrize(("scores", "seen"), [
    # The query at position 5 is the second A; the B after the first A is at 1, and so on.
    (interpret.induction_scores, {5: 1, 6: 2, 7: 3, 8: 4, 9: 5}),
    (interpret.duplicate_token_scores, {5: 0, 6: 1, 7: 2, 8: 3, 9: 4}),
])  # fmt: skip
def test_scores_of_repetition_look_at_or_after_the_first_occurrence(model, scores, seen):
    ids = interpret.repeated_tokens(model, length=5, batch_size=2, seed=3)
    assert torch.equal(ids[:, :5], ids[:, 5:])
    pattern = patterns(model, ids)[2]
    by_hand = sum(float(pattern[b, 1, q, k]) for b in range(2) for q, k in seen.items()) / 10
    found = scores(model, length=5, batch_size=2, seed=3)
    assert float(found[2, 1]) == pytest.approx(by_hand, abs=1e-6)


def test_a_head_that_only_looks_back_one_token_has_the_score_one(model, monkeypatch):
    shift = torch.zeros(10, 10)
    shift[0, 0] = 1
    shift[torch.arange(1, 10), torch.arange(9)] = 1

    class Fixed(Trace):
        def __getitem__(self, name):
            return shift.expand(1, 4, 10, 10)

    monkeypatch.setattr("qwenkit.interpret._heads.Trace", Fixed)
    ids = torch.ones(1, 10).long()
    assert torch.equal(interpret.previous_token_scores(model, ids), torch.ones(3, 4))
    assert torch.equal(interpret.attention_entropy(model, ids), torch.zeros(3, 4))
    shift.fill_(0.25)[:, 4:] = 0  # evenly on four tokens
    assert interpret.attention_entropy(model, ids).numpy() == pytest.approx(math.log(4))


def test_repeated_tokens_hold_no_special_token_and_follow_the_seed(model, monkeypatch):
    monkeypatch.setattr(model, "stop_ids", (20, 30))
    ids = interpret.repeated_tokens(model, length=50, batch_size=20, seed=0)
    assert ids.shape == (20, 100)
    assert int(ids.max()) == 19
    assert torch.equal(ids[:, :50], ids[:, 50:])
    assert not torch.equal(ids, interpret.repeated_tokens(model, length=50, batch_size=20, seed=1))


def test_too_little_text_is_refused(model):
    for scores in (interpret.previous_token_scores, interpret.sink_scores):
        with pytest.raises(InputError, match="give at least two tokens"):
            scores(model, torch.ones(1, 1).long())
    with pytest.raises(InputError, match="length is 1"):
        interpret.induction_scores(model, length=1)


# logit lens and attribution
def test_the_lens_ends_at_the_models_logits_and_begins_at_the_embedding(either):
    lens, logits = interpret.logit_lens(either, ONE, 4), either(ONE)[0, 4]
    assert lens.shape == (4, len(logits))
    torch.testing.assert_close(lens[-1], logits, rtol=1e-5, atol=1e-5)
    alone = either.model.embed_tokens(ONE[:, 4:5])
    torch.testing.assert_close(lens[0], either.head(either.model.norm(alone))[0, 0])
    # in between it is the model without its later layers
    points = [f"layers.{i}.{part}.out" for i in (1, 2) for part in ("attn", "mlp")]
    trace = Trace(keep=(), edits=dict.fromkeys(points, torch.zeros_like))
    want = either(ONE, trace=trace)[0, -1]
    torch.testing.assert_close(interpret.logit_lens(either, ONE)[1], want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("position", [-1, 0, 5])
@pytest.mark.parametrize("token", [None, 0, 60])
def test_what_the_parts_add_sums_to_the_logit(either, token, position):
    found = interpret.attribute_logit(either, ONE, token, position)
    logits = either(ONE)[0, position]
    assert found.token == (int(logits.argmax()) if token is None else token)
    assert found.position == position % 11
    assert found.heads.shape == (3, 4)
    assert found.mlps.shape == (3,)
    assert found.total == pytest.approx(float(logits[found.token]), abs=1e-4)


def test_a_part_adds_what_its_removal_takes_away_when_the_norm_is_held(either):
    found = interpret.attribute_logit(either, ONE, 7)
    trace = Trace(keep=("attn.z", "layers.2.resid_post"))
    either(ONE, trace=trace)
    last = trace["layers.2.resid_post"][0, -1]
    z = trace["layers.1.attn.z"].clone()
    weight = either.model.layers[1].self_attn.o_proj.weight
    head = weight[:, 2 * z.shape[-1] : 3 * z.shape[-1]] @ z[0, 2, -1]  # what head 2 adds
    divisor = (last.pow(2).mean() + either.model.norm.eps).sqrt()
    row = either.model.embed_tokens.weight if either.lm_head is None else either.lm_head.weight
    by_hand = (head / divisor * either.model.norm.weight) @ row[7]
    assert float(found.heads[1, 2]) == pytest.approx(float(by_hand), abs=1e-5)


@pytest.mark.parametrize(("dtype", "near"), [("float32", {"abs": 1e-4}), ("int8", {"rel": 0.03})])
def test_on_the_embedded_model_too(dtype, near):
    model, tokenizer = qk.load_pretrained(EMBEDDED, device="cpu", dtype=dtype)
    for text in ("def area(width, height):\n    return width *", "import os\n"):
        ids = tokenizer(text)
        logits = model(ids)[0, -1]
        total = interpret.attribute_logit(model, ids).total
        assert total == pytest.approx(float(logits.max()), **near)
        if dtype == "float32":
            last = interpret.logit_lens(model, ids)[-1]
            torch.testing.assert_close(last, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("ids", "settings", "words"), [
    (IDS, {}, "it must be one text"), (ONE[0], {}, "it must be one text"),
    (ONE, {"position": 11}, "position is 11; the text has 11 tokens"),
    (ONE, {"position": -12}, "position is -12"),
    (ONE, {"token": -1}, "token is -1; it must be an id from 0 to"),
    (ONE, {"token": 10_000}, "token is 10000; it must be an id from 0 to"),
])  # fmt: skip
def test_what_is_not_there_is_refused(either, ids, settings, words):
    with pytest.raises(InputError, match=words):
        interpret.attribute_logit(either, ids, **settings)
    if "token" not in settings:
        with pytest.raises(InputError, match=words):
            interpret.logit_lens(either, ids, **settings)
