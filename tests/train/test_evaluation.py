"""The loss of a text: each token once, in the window it should be in, in the right units."""

import itertools
import math

import pytest
import torch
from fixtures_toy import small_config, toy_of
from reference import VOCAB, ids, tiny

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.model import QwenForCausalLM
from qwenkit.tokenizer import write_tokenizer
from qwenkit.train import Document, Evaluation, evaluate, token_losses

CODE = "def f(x):\n    return x ** 2\n\n\nprint(f(3))\n"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The toy checkpoint's model and tokenizer."""
    return qk.load_pretrained(toy_of(tmp_path_factory), device="cpu", dtype="float32")


class Positions:
    """Not a model: its loss of a token tells at which position of its window the token is.

    The vocabulary has two tokens. The first always comes, and its probability falls with position.
    """

    device = torch.device("cpu")

    def __init__(self):
        self.batches = []

    def __call__(self, input_ids, logits_to_keep):
        self.batches.append(len(input_ids))
        at = torch.arange(input_ids.shape[1]) * torch.ones(len(input_ids), 1)  # (B, T)
        logits = torch.stack([torch.zeros_like(at), 10 * at + 10], dim=-1)  # (B, T, 2)
        return logits[:, -logits_to_keep:]


def positions(count, **sizes):
    """Return each predicted token's position in its window, and the batches' sizes."""
    model = Positions()
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
def test_each_token_is_predicted_in_the_first_window_that_holds_it(context, batch_size):
    for count in range(1, 3 * context + 2):
        for stride in range(1, context + 1):
            sizes = {"context": context, "stride": stride, "batch_size": batch_size}
            found, batches = positions(count, **sizes)
            starts = window_starts(count, context, stride)
            for token, position in enumerate(found):
                first = next(start for start in starts if token < start + context)
                assert position == token - first
                assert position >= min(token, context - stride)  # it sees at least these
            assert sum(batches) == len(starts)
            assert max(batches) <= batch_size


def test_windows_do_not_overlap_unless_asked():
    assert positions(10, context=4) == ([0, 1, 2, 3, 0, 1, 2, 3, 2, 3], [3])
    assert positions(10, context=4) == positions(10, context=4, stride=4)
    assert positions(8, context=4) == ([0, 1, 2, 3, 0, 1, 2, 3], [2])
    assert positions(8, context=4, stride=1)[0] == [0, 1, 2, 3, 3, 3, 3, 3]


@pytest.mark.parametrize(("context", "stride", "batch_size"), [
    (8, 8, 3), (8, 3, 1), (8, 3, 8), (8, 1, 3), (5, 4, 2),  # several windows, then one
    *itertools.product((19, 20, 512), (1, 5, None), (8,)),
])  # fmt: skip
def test_windows_equal_a_forward_for_each_token(context, stride, batch_size):
    model, text = tiny(), ids(1, 20)[0]
    starts, want = window_starts(19, context, stride or context), []
    for token in range(19):
        start = next(start for start in starts if token < start + context)
        logits = model(text[None, start : token + 1])[0, -1]
        want.append(-logits.log_softmax(-1)[text[token + 1]])
    got = token_losses(model, text, context=context, stride=stride, batch_size=batch_size)
    torch.testing.assert_close(got, torch.stack(want), atol=1e-5, rtol=1e-5)


def test_no_gradients_are_kept_and_losses_are_not_rounded_to_the_models_dtype():
    model, text = tiny().requires_grad_(True).train(), ids(1, 40)[0]
    losses = token_losses(model, text[:9], context=4)
    assert (losses.requires_grad, losses.dtype, model.training) == (False, torch.float32, True)
    assert torch.equal(losses, token_losses(model.eval(), text[:9], context=4))
    exact, rough = (token_losses(tiny(dtype=d), text) for d in (torch.float32, torch.bfloat16))
    assert rough.dtype == torch.float32
    assert rough.mean().item() == pytest.approx(exact.mean().item(), rel=0.05)
    assert not torch.equal(rough, rough.bfloat16().float())
    # a model of one token would prove little
    assert exact.std() > 0.5
    assert exact.mean() > 0.5 * math.log(VOCAB)


@pytest.mark.parametrize(("shape", "sizes", "message"), [
    ((1,), {}, r"ids are \(1,\); one text of at least"), ((0,), {}, r"ids are \(0,\)"),
    ((1, 5), {}, r"ids are \(1, 5\); one text"), ((5,), {"stride": -1}, "stride is -1"),
    ((5,), {"stride": 0}, "stride is 0; it must be from 1 to the context"),
    ((5,), {"context": 4, "stride": 5}, "stride is 5; .*context of 4"),
    ((5,), {"context": 0}, "to the context of 0"), ((5,), {"batch_size": -8}, "batch_size is -8"),
    ((5,), {"batch_size": 0}, "batch_size is 0; it must be at least 1"),
], ids=str)  # fmt: skip
def test_what_makes_no_windows_is_refused(shape, sizes, message):
    with pytest.raises(InputError, match=message):
        token_losses(Positions(), torch.zeros(shape, dtype=torch.long), **sizes)


def test_documents_are_predicted_from_their_first_token_and_evaluations_add_up(toy):
    model, tokenizer = toy
    (found,) = evaluate(model, tokenizer, [Document("a.py", CODE)]).values()
    tokens = tokenizer.encode(CODE)
    text = torch.tensor([[tokenizer.special["<|endoftext|>"], *tokens]])
    with torch.no_grad():
        log = model(text)[0].log_softmax(-1)
    nats = -sum(log[place, token].item() for place, token in enumerate(tokens))
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert (found.num_tokens, found.num_bytes) == (len(tokens), len(CODE))
    assert found.loss == pytest.approx(nats / len(tokens), rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(nats / len(tokens)), rel=1e-4)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / len(CODE), rel=1e-5)
    one, other = Evaluation(10.0, 4, 20), Evaluation(5.0, 1, 2)
    both = one + other
    assert both == other + one == Evaluation(15.0, 5, 22)
    found = both.loss, both.perplexity, both.bits_per_byte
    assert found == pytest.approx((3.0, math.e**3, 15 / math.log(2) / 22))
    assert Evaluation(1e6, 10, 10).perplexity == math.inf


def test_documents_do_not_see_one_another_and_those_that_cannot_be_evaluated_are_named(toy):
    documents = [Document("b", CODE), Document("a", "x = 1\n" * 30), Document("c", "é")]
    sizes = {"context": 16, "stride": 4, "batch_size": 3}
    found = evaluate(*toy, documents, **sizes)
    assert list(found) == ["b", "a", "c"]
    for one in documents:
        assert evaluate(*toy, [one], **sizes) == {one.name: found[one.name]}
    assert evaluate(*toy, []) == {}
    with pytest.raises(InputError, match="nothing is in the document 'empty'; leave one out"):
        evaluate(*toy, [Document("a", "a"), Document("empty", "")])
    with pytest.raises(InputError, match="two documents are called 'a'; leave one out"):
        evaluate(*toy, [Document("a", "a"), Document("a", "b")])


def test_a_model_that_knows_nothing_needs_the_same_for_every_token(tmp_path):
    tokenizer = write_tokenizer(tmp_path, [])  # one token per byte
    model = QwenForCausalLM(small_config(vocab_size=tokenizer.num_tokens))
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    found = evaluate(model, tokenizer, [Document("a", "é🙂x\n" * 20)], context=7)["a"]
    assert found.num_bytes == found.num_tokens == 20 * (2 + 4 + 1 + 1)
    assert found.perplexity == pytest.approx(tokenizer.num_tokens)
    assert found.bits_per_byte == pytest.approx(math.log2(tokenizer.num_tokens))


def test_special_tokens_are_plain_text_and_bytes_those_of_the_text_as_given(toy):
    """The tokenizer sees it in NFC, so both spellings give the same tokens and the same nats."""
    composed, decomposed, special = "é", "e\u0301", "<|endoftext|>"
    found = evaluate(*toy, [Document(text, text) for text in (composed, decomposed, special)])
    assert found[special].num_tokens == len(toy[1].encode(special, special=False)) > 1
    assert len(toy[1].encode(special)) == 1  # the switch does not stick
    one, other = found[composed], found[decomposed]
    assert (one.num_bytes, other.num_bytes) == (2, 3)
    assert (one.nats, one.num_tokens) == (other.nats, other.num_tokens)
