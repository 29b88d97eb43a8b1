"""The training loss, against its formula written out and against transformers."""

import math

import pytest
import torch
from reference import ids, pair

from qwenkit.errors import InputError
from qwenkit.train import IGNORE, bits_per_byte, next_token_loss, perplexity

B, T, V = 3, 7, 11


@pytest.fixture
def logits():
    return 3.0 * torch.randn(B, T, V, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels():
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(1))


def by_hand(logits, labels, ignore_index=IGNORE, label_smoothing=0.0, reduction="mean"):
    """The formula, one position after the other."""
    losses = []
    for row, label in zip(logits.double().flatten(0, 1), labels.flatten().tolist(), strict=True):
        if label != ignore_index:
            surprise = row.exp().sum().log() - row  # -log p of each token
            even = surprise.mean()
            losses.append((1 - label_smoothing) * surprise[label] + label_smoothing * even)
    total = torch.stack(losses).sum()
    return total if reduction == "sum" else total / len(losses)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("ignored", [0, 1, B * T - 1])
def test_the_loss_equals_the_formula(logits, labels, ignored, smoothing, reduction):
    labels.view(-1)[torch.randperm(B * T)[:ignored]] = IGNORE
    loss = next_token_loss(logits, labels, label_smoothing=smoothing, reduction=reduction)
    want = by_hand(logits, labels, label_smoothing=smoothing, reduction=reduction)
    torch.testing.assert_close(loss.double(), want, atol=1e-5, rtol=1e-5)
    assert loss.shape == ()


@pytest.mark.parametrize("smoothing", [0.0, 0.2, 0.3])
def test_ignored_positions_change_nothing_and_any_index_may_mean_ignored(logits, labels, smoothing):
    labels[0] = 0
    options = {"ignore_index": 0, "label_smoothing": smoothing}
    want = by_hand(logits, labels, **options)
    loss = next_token_loss(logits, labels, **options)
    torch.testing.assert_close(loss.double(), want, atol=1e-5, rtol=1e-5)
    labels[1:] = IGNORE
    alone = next_token_loss(logits[:1], labels[:1], label_smoothing=smoothing)
    assert next_token_loss(logits, labels, label_smoothing=smoothing) == alone
    logits[1:] *= 100
    assert next_token_loss(logits, labels, label_smoothing=smoothing) == alone


def test_a_model_that_knows_nothing_is_unsure_among_all_tokens_and_large_logits_are_finite(labels):
    loss = next_token_loss(torch.zeros(B, T, V), labels)
    assert loss.item() == pytest.approx(math.log(V))
    assert perplexity(loss.item()) == pytest.approx(V)
    logits = torch.zeros(1, 2, V)
    logits[..., 3] = 1e4
    right, wrong = torch.tensor([[3, 3]]), torch.tensor([[4, 4]])
    assert next_token_loss(logits, right) == 0
    assert next_token_loss(logits, wrong) == 1e4
    assert next_token_loss(-logits, right) == pytest.approx(1e4 + math.log(V - 1))
    assert next_token_loss(logits, wrong, label_smoothing=0.5).isfinite()
    for smoothing in (0.0, 0.5):  # a vocabulary of one is never wrong
        assert next_token_loss(logits[..., :1], right * 0, label_smoothing=smoothing) == 0


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_labels_may_be_of_any_integer_dtype_and_logits_are_read_in_float32(logits, labels, dtype):
    assert next_token_loss(logits, labels.to(dtype)) == next_token_loss(logits, labels)
    loss = next_token_loss(logits.bfloat16(), labels)
    assert loss.dtype == torch.float32
    assert loss == next_token_loss(logits.bfloat16().float(), labels)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_gradient_is_the_probability_minus_the_target(logits, labels, smoothing):
    labels[0, 2:5] = IGNORE
    logits.requires_grad_(True)
    next_token_loss(logits, labels, label_smoothing=smoothing).backward()
    counted = labels != IGNORE
    target = torch.nn.functional.one_hot(labels.clamp(min=0), V) * (1 - smoothing) + smoothing / V
    want = (logits.softmax(-1) - target)[counted].detach() / counted.sum()
    torch.testing.assert_close(logits.grad[counted], want, atol=1e-6, rtol=1e-5)
    assert (logits.grad[~counted] == 0).all()
    assert (logits.grad[counted] != 0).any(-1).all()


def test_loss_and_gradients_equal_those_of_transformers():
    (theirs, ours), tokens = pair(), ids(2, 12)
    labels = tokens.clone()
    labels[0, 4:7] = IGNORE
    wanted = theirs(input_ids=tokens, labels=labels).loss
    loss = next_token_loss(ours(tokens)[:, :-1], labels[:, 1:])
    torch.testing.assert_close(loss, wanted, atol=1e-5, rtol=1e-5)
    wanted.backward()
    loss.backward()
    for name, weight in ours.named_parameters():
        want = theirs.get_parameter(name).grad
        atol = 1e-4 * want.abs().max().item()
        torch.testing.assert_close(weight.grad, want, atol=atol, rtol=1e-4, msg=name)


GOOD = torch.zeros(B, T, dtype=torch.long)


@pytest.mark.parametrize(("labels", "options", "message"), [
    (GOOD[:, 1:], {}, r"logits are \(3, 7, 11\) and labels \(3, 6\)"),
    (GOOD[1:], {}, r"labels \(2, 7\); labels must have the same batch and length"),
    (GOOD.flatten(), {}, r"labels \(21,\)"), (GOOD[:, :0], {}, r"logits are"),
    (torch.zeros(B, T, V, dtype=torch.long), {}, r"labels \(3, 7, 11\)"),
    (GOOD.float(), {}, r"labels are torch.float32; they must be token ids"),
    (GOOD.bool(), {}, r"labels are torch.bool; they must be token ids"),
    (GOOD + V, {}, r"label 11 is not a token id; labels are from 0 to 10, or -100"),
    (GOOD - 1, {}, r"label -1 is not a token id; labels are from 0 to 10"),
    (GOOD - 100, {"ignore_index": 0}, r"label -100 is not a .*or 0 where"),
    (GOOD + IGNORE, {}, r"every label is ignored; at least one must count"),
    (GOOD, {"label_smoothing": 1.0}, r"label_smoothing is 1.0; .* below 1"),
    (GOOD, {"label_smoothing": -0.1}, r"label_smoothing is -0.1"),
    (GOOD, {"label_smoothing": math.nan}, r"label_smoothing is nan"),
    (GOOD, {"reduction": "none"}, r"reduction is 'none'; it must be one of mean, sum"),
    (torch.tensor(0), {"logits": torch.zeros(V)}, "labels must have the same batch and length"),
    (torch.tensor(0), {"logits": torch.zeros(())}, "labels must have the same batch and length"),
    (GOOD[:0], {"logits": torch.zeros(0, T, V)}, "at least one must count"),
])  # fmt: skip
def test_what_makes_no_loss_is_refused(labels, options, message):
    given = {"logits": torch.zeros(B, T, V), "labels": labels, **options}
    with pytest.raises(InputError, match=message):
        next_token_loss(**given)


@pytest.mark.parametrize(("loss", "want"), [
    (0.0, 1.0), (math.log(50), 50.0), (1.0, math.e), (1e4, math.inf), (math.inf, math.inf),
    (math.nan, math.nan),
])  # fmt: skip
def test_perplexity_is_e_to_the_loss(loss, want):
    assert perplexity(loss) == pytest.approx(want, nan_ok=True)


def test_a_guess_among_all_bytes_needs_eight_bits():
    assert bits_per_byte(10 * math.log(256), 10) == pytest.approx(8.0)
    assert bits_per_byte(0.0, 1) == 0.0
    assert bits_per_byte(math.log(2), 4) == pytest.approx(0.25)
    for count in (0, -3):
        with pytest.raises(InputError, match=f"num_bytes is {count}; it must be at least 1"):
            bits_per_byte(1.0, count)
