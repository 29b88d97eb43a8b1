"""The loss of a text: each token once, in the window it should be in, in the right units."""

import math

import pytest
import torch
from fixtures_toy import small_config, toy_of
from reference import VOCAB, ids, tiny

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.model import QwenForCausalLM
from qwenkit.tokenizer.bpe import write_tokenizer
from qwenkit.train import Document, Evaluation, evaluate, token_losses

CODE = "def f(x):\n    return x ** 2\n\n\nprint(f(3))\n"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The toy checkpoint's tokenizer and model."""
    folder = toy_of(tmp_path_factory)
    return qk.Tokenizer(folder), qk.load_model(folder, dtype="float32")


class Places:
    """No model: its loss of a token tells at which place of which window the token stands.

    Of two tokens the first always comes, and it is given the less the later it stands.
    """

    device = torch.device("cpu")

    def __init__(self):
        self.batches = []

    def __call__(self, input_ids, logits_to_keep):
        self.batches.append(len(input_ids))
        places = torch.arange(input_ids.shape[1]) * torch.ones(len(input_ids), 1)  # (B, T)
        return torch.stack([torch.zeros_like(places), 10 * places + 10], dim=-1)[:, -logits_to_keep:]  # (B, T, 2)


def places(count, **sizes):
    """Return the place in its window of each of the tokens to foresee, and the batches' sizes."""
    model = Places()
    losses = token_losses(model, torch.zeros(count + 1, dtype=torch.long), **sizes)
    assert losses.shape == (count,)
    return (losses / 10 - 1).round().long().tolist(), model.batches


def window_starts(count, context, stride):
    """Windows start a stride apart until one reaches the end; that one is moved back to be full."""
    starts = [0]
    while starts[-1] + context < count:
        starts.append(starts[-1] + stride)
    return [min(start, max(count - context, 0)) for start in starts]


@pytest.mark.parametrize("context", [1, 2, 7])
@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_each_token_is_foreseen_in_the_first_window_that_holds_it(context, batch_size):
    for count in range(1, 3 * context + 2):
        for stride in range(1, context + 1):
            sizes = {"context": context, "stride": stride, "batch_size": batch_size}
            found, batches = places(count, **sizes)
            starts = window_starts(count, context, stride)
            for token, place in enumerate(found):
                first = next(start for start in starts if token < start + context)
                assert place == token - first
                assert place >= min(token, context - stride)  # what it sees is no less
            assert sum(batches) == len(starts)
            assert max(batches) <= batch_size


def test_windows_do_not_overlap_unless_asked():
    assert places(10, context=4) == ([0, 1, 2, 3, 0, 1, 2, 3, 2, 3], [3])
    assert places(10, context=4) == places(10, context=4, stride=4)
    assert places(8, context=4) == ([0, 1, 2, 3, 0, 1, 2, 3], [2])
    assert places(8, context=4, stride=1)[0] == [0, 1, 2, 3, 3, 3, 3, 3]


@pytest.mark.parametrize("context", [19, 20, 512])
def test_a_text_of_one_window_is_one_forward(context):
    model, text = tiny(), ids(1, 20)
    logits = model(text)[0]
    want = -logits.log_softmax(-1)[:-1].gather(1, text[0, 1:, None])[:, 0]
    for stride in (1, 5, None):
        got = token_losses(model, text[0], context=context, stride=stride)
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("context", "stride", "batch_size"), [(8, 8, 3), (8, 3, 1), (8, 3, 8), (8, 1, 3), (5, 4, 2)]
)
def test_windows_equal_a_forward_for_each_token(context, stride, batch_size):
    model, text = tiny(), ids(1, 22)[0]
    starts = window_starts(21, context, stride)
    want = []
    for token in range(21):
        start = next(start for start in starts if token < start + context)
        logits = model(text[None, start : token + 1])[0, -1]
        want.append(-logits.log_softmax(-1)[text[token + 1]])
    got = token_losses(model, text, context=context, stride=stride, batch_size=batch_size)
    torch.testing.assert_close(got, torch.stack(want), atol=1e-5, rtol=1e-5)


def test_no_gradients_are_kept_and_the_model_stays_in_training():
    model = tiny().requires_grad_(True).train()
    losses = token_losses(model, ids(1, 9)[0], context=4)
    assert not losses.requires_grad
    assert losses.dtype == torch.float32
    assert model.training
    assert torch.equal(losses, token_losses(model.eval(), ids(1, 9)[0], context=4))


def test_losses_of_a_bfloat16_model_are_not_rounded_to_it():
    text = ids(1, 40)[0]
    exact, rough = (token_losses(tiny(dtype=d), text) for d in (torch.float32, torch.bfloat16))
    assert rough.dtype == torch.float32
    assert rough.mean().item() == pytest.approx(exact.mean().item(), rel=0.05)
    assert not torch.equal(rough, rough.bfloat16().float())


BAD = {
    "one token": (torch.zeros(1, dtype=torch.long), {}, r"ids are \(1,\); one text of at least"),
    "no token": (torch.zeros(0, dtype=torch.long), {}, r"ids are \(0,\)"),
    "a batch": (torch.zeros(1, 5, dtype=torch.long), {}, r"ids are \(1, 5\); one text"),
    "stride 0": (torch.zeros(5), {"stride": 0}, "stride is 0; it must be from 1 to the context"),
    "stride below 0": (torch.zeros(5), {"stride": -1}, "stride is -1"),
    "a wide stride": (torch.zeros(5), {"context": 4, "stride": 5}, "stride is 5; .*context of 4"),
    "context 0": (torch.zeros(5), {"context": 0}, "to the context of 0"),
    "batch 0": (torch.zeros(5), {"batch_size": 0}, "batch_size is 0; it must be at least 1"),
    "batch below 0": (torch.zeros(5), {"batch_size": -8}, "batch_size is -8"),
}


@pytest.mark.parametrize(("text", "sizes", "message"), BAD.values(), ids=BAD)
def test_what_makes_no_windows_is_refused(text, sizes, message):
    with pytest.raises(InputError, match=message):
        token_losses(Places(), text, **sizes)


# --- documents ---


def test_documents_are_foreseen_from_their_very_first_token(toy):
    tokenizer, model = toy
    (found,) = evaluate(model, tokenizer, [Document("a.py", CODE)]).values()
    text = torch.tensor([[tokenizer.special["<|endoftext|>"], *tokenizer.encode(CODE)]])
    with torch.no_grad():
        shares = model(text)[0].softmax(-1)
    nats = [-math.log(shares[place, token]) for place, token in enumerate(text[0, 1:])]
    assert found.nats == pytest.approx(sum(nats), rel=1e-5)
    assert found.num_tokens == len(nats) == len(tokenizer.encode(CODE))
    assert found.num_bytes == len(CODE)
    assert found.loss == pytest.approx(sum(nats) / len(nats), rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-4)
    assert found.bits_per_byte == pytest.approx(sum(nats) / math.log(2) / len(CODE), rel=1e-5)


def test_documents_do_not_see_one_another(toy):
    tokenizer, model = toy
    documents = [Document("b", CODE), Document("a", "x = 1\n" * 30), Document("c", "é")]
    sizes = {"context": 16, "stride": 4, "batch_size": 3}
    found = evaluate(model, tokenizer, documents, **sizes)
    assert list(found) == ["b", "a", "c"]
    for document in documents:
        alone = evaluate(model, tokenizer, [document], **sizes)
        assert alone == {document.name: found[document.name]}
    assert evaluate(model, tokenizer, []) == {}


def test_a_model_that_knows_nothing_needs_the_same_for_every_token(tmp_path):
    tokenizer = write_tokenizer(tmp_path, [])  # a token a byte
    model = QwenForCausalLM(small_config(vocab_size=tokenizer.num_tokens))
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    found = evaluate(model, tokenizer, [Document("a", "é🙂x\n" * 20)], context=7)["a"]
    assert found.num_bytes == found.num_tokens == 20 * (2 + 4 + 1 + 1)
    assert found.perplexity == pytest.approx(tokenizer.num_tokens)
    assert found.bits_per_byte == pytest.approx(math.log2(tokenizer.num_tokens))


def test_bytes_are_those_of_the_text_as_it_came(toy):
    """The tokenizer sees it in NFC, so both give the same tokens and the same nats."""
    tokenizer, model = toy
    composed, apart = (Document(text, text) for text in ("é", "e\u0301"))
    found = evaluate(model, tokenizer, [composed, apart])
    assert (found["é"].num_bytes, found["e\u0301"].num_bytes) == (2, 3)
    assert found["é"].nats == found["e\u0301"].nats
    assert found["é"].num_tokens == found["e\u0301"].num_tokens


def test_special_tokens_in_a_document_are_letters(toy):
    tokenizer, model = toy
    text = "<|endoftext|>"
    found = evaluate(model, tokenizer, [Document("a", text)])["a"]
    assert found.num_tokens == len(tokenizer.encode(text, special=False)) > 1
    assert len(tokenizer.encode(text)) == 1  # the switch does not stick


def test_documents_that_cannot_be_evaluated_are_named(toy):
    tokenizer, model = toy
    with pytest.raises(InputError, match="nothing is in the document 'empty'; leave one out"):
        evaluate(model, tokenizer, [Document("a", "a"), Document("empty", "")])
    with pytest.raises(InputError, match="two documents are called 'a'; leave one out"):
        evaluate(model, tokenizer, [Document("a", "a"), Document("a", "b")])


def test_evaluations_add_up():
    one, other = Evaluation(10.0, 4, 20), Evaluation(5.0, 1, 2)
    both = one + other
    assert both == other + one == Evaluation(15.0, 5, 22)
    assert both.loss == 3.0
    assert both.perplexity == pytest.approx(math.e**3)
    assert both.bits_per_byte == pytest.approx(15 / math.log(2) / 22)


def test_a_hopeless_model_has_an_infinite_perplexity():
    assert Evaluation(1e6, 10, 10).perplexity == math.inf


def test_the_reference_is_no_model_of_one_token():
    """Or the comparisons above would prove little."""
    losses = token_losses(tiny(), ids(1, 50)[0])
    assert losses.std() > 0.5
    assert losses.mean() > 0.5 * math.log(VOCAB)
