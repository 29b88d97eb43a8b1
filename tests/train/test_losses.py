"""The training loss, against its formula written out and against transformers."""

import math

import pytest
import torch
from reference import ids, pair

from qwenkit.errors import InputError
from qwenkit.train import IGNORE, bits_per_byte, next_token_loss, perplexity

B, T, V = 3, 7, 11


def example(seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(B, T, V, generator=generator)
    return logits, torch.randint(V, (B, T), generator=generator)


def by_hand(logits, labels, ignore_index=IGNORE, label_smoothing=0.0, reduction="mean"):
    """The formula, one position after the other."""
    losses = []
    for row, label in zip(logits.double().flatten(0, 1), labels.flatten().tolist(), strict=True):
        if label == ignore_index:
            continue
        surprise = row.exp().sum().log() - row  # -log p of each token
        plain, even = surprise[label], surprise.mean()
        losses.append((1 - label_smoothing) * plain + label_smoothing * even)
    total = torch.stack(losses).sum()
    return total if reduction == "sum" else total / len(losses)


# --- values ---


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("ignored", [0, 1, B * T - 1])
def test_the_loss_equals_the_formula(ignored, smoothing, reduction):
    logits, labels = example()
    labels.view(-1)[torch.randperm(B * T)[:ignored]] = IGNORE
    loss = next_token_loss(logits, labels, label_smoothing=smoothing, reduction=reduction)
    want = by_hand(logits, labels, label_smoothing=smoothing, reduction=reduction)
    torch.testing.assert_close(loss.double(), want, atol=1e-5, rtol=1e-5)
    assert loss.shape == ()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_any_index_may_mean_ignored(smoothing):
    logits, labels = example()
    labels[0] = 0
    loss = next_token_loss(logits, labels, ignore_index=0, label_smoothing=smoothing)
    want = by_hand(logits, labels, ignore_index=0, label_smoothing=smoothing)
    torch.testing.assert_close(loss.double(), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_ignored_positions_change_nothing(smoothing):
    logits, labels = example()
    labels[1:] = IGNORE
    alone = next_token_loss(logits[:1], labels[:1], label_smoothing=smoothing)
    assert next_token_loss(logits, labels, label_smoothing=smoothing) == alone
    logits[1:] *= 100
    assert next_token_loss(logits, labels, label_smoothing=smoothing) == alone


def test_a_model_that_knows_nothing_hesitates_among_all_tokens():
    _, labels = example()
    loss = next_token_loss(torch.zeros(B, T, V), labels)
    assert loss.item() == pytest.approx(math.log(V))
    assert perplexity(loss.item()) == pytest.approx(V)


def test_bfloat16_logits_are_reckoned_in_float32():
    logits, labels = example()
    rounded = logits.bfloat16()
    loss = next_token_loss(rounded, labels)
    assert loss.dtype == torch.float32
    assert loss == next_token_loss(rounded.float(), labels)


def test_large_logits_stay_finite():
    logits = torch.zeros(1, 2, V)
    logits[..., 3] = 1e4
    right, wrong = torch.tensor([[3, 3]]), torch.tensor([[4, 4]])
    assert next_token_loss(logits, right) == 0
    assert next_token_loss(logits, wrong) == 1e4
    assert next_token_loss(-logits, right) == pytest.approx(1e4 + math.log(V - 1))
    assert next_token_loss(logits, wrong, label_smoothing=0.5).isfinite()


@pytest.mark.parametrize("smoothing", [0.0, 0.5])
def test_a_vocabulary_of_one_is_never_wrong(smoothing):
    logits, labels = torch.randn(B, T, 1), torch.zeros(B, T, dtype=torch.long)
    assert next_token_loss(logits, labels, label_smoothing=smoothing) == 0


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_labels_of_any_whole_dtype_serve(dtype):
    logits, labels = example()
    assert next_token_loss(logits, labels.to(dtype)) == next_token_loss(logits, labels)


# --- gradients ---


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_gradient_is_the_probability_less_the_target(smoothing):
    logits, labels = example()
    labels[0, 2:5] = IGNORE
    logits.requires_grad_(True)
    next_token_loss(logits, labels, label_smoothing=smoothing).backward()
    counted = labels != IGNORE
    target = torch.nn.functional.one_hot(labels.clamp(min=0), V) * (1 - smoothing) + smoothing / V
    want = (logits.softmax(-1) - target) / counted.sum()
    want[~counted] = 0
    torch.testing.assert_close(logits.grad, want.detach(), atol=1e-6, rtol=1e-5)
    assert (logits.grad[~counted] == 0).all()
    assert (logits.grad[counted] != 0).any(-1).all()


def test_loss_and_gradients_equal_those_of_transformers():
    theirs, ours = pair()
    tokens = ids(2, 12)
    labels = tokens.clone()
    labels[0, 4:7] = IGNORE
    wanted = theirs(input_ids=tokens, labels=labels).loss
    loss = next_token_loss(ours(tokens)[:, :-1], labels[:, 1:])
    torch.testing.assert_close(loss, wanted, atol=1e-5, rtol=1e-5)
    wanted.backward()
    loss.backward()
    gradients = {name: weight.grad for name, weight in theirs.named_parameters()}
    for name, weight in ours.named_parameters():
        scale = gradients[name].abs().max().item()
        torch.testing.assert_close(
            weight.grad, gradients[name], atol=1e-4 * scale, rtol=1e-4, msg=name
        )


# --- what is refused ---

GOOD = torch.zeros(B, T, dtype=torch.long)
BAD = {
    "other length": ((GOOD[:, 1:], {}), r"logits are \(3, 7, 11\) and labels \(3, 6\)"),
    "other batch": ((GOOD[1:], {}), r"labels \(2, 7\); labels must have the same batch and length"),
    "flat": ((GOOD.flatten(), {}), r"labels \(21,\)"),
    "as large as logits": ((torch.zeros(B, T, V, dtype=torch.long), {}), r"labels \(3, 7, 11\)"),
    "floats": ((GOOD.float(), {}), r"labels are torch.float32; they must be token ids"),
    "flags": ((GOOD.bool(), {}), r"labels are torch.bool; they must be token ids"),
    "too large": ((GOOD + V, {}), r"label 11 is not a token id; labels are from 0 to 10, or -100"),
    "negative": ((GOOD - 1, {}), r"label -1 is not a token id; labels are from 0 to 10"),
    "ignored elsewhere": ((GOOD - 100, {"ignore_index": 0}), r"label -100 is not a token id.*or 0 where"),
    "nothing counts": ((GOOD + IGNORE, {}), r"every label is ignored; at least one must count"),
    "nothing there": ((GOOD[:, :0], {}), r"logits are"),
    "smoothing of 1": ((GOOD, {"label_smoothing": 1.0}), r"label_smoothing is 1.0; .* below 1"),
    "smoothing below 0": ((GOOD, {"label_smoothing": -0.1}), r"label_smoothing is -0.1"),
    "smoothing of nan": ((GOOD, {"label_smoothing": math.nan}), r"label_smoothing is nan"),
    "reduction": ((GOOD, {"reduction": "none"}), r"reduction is 'none'; it must be one of mean, sum"),
}


@pytest.mark.parametrize(("given", "message"), BAD.values(), ids=BAD)
def test_what_makes_no_loss_is_refused(given, message):
    labels, options = given
    with pytest.raises(InputError, match=message):
        next_token_loss(torch.zeros(B, T, V), labels, **options)


@pytest.mark.parametrize("shape", [(), (V,)])
def test_logits_without_a_length_are_refused(shape):
    with pytest.raises(InputError, match="labels must have the same batch and length"):
        next_token_loss(torch.zeros(shape), torch.tensor(0))


def test_an_empty_batch_is_refused():
    with pytest.raises(InputError, match="at least one must count"):
        next_token_loss(torch.zeros(0, T, V), GOOD[:0])


# --- the units it is read in ---


@pytest.mark.parametrize(
    ("loss", "want"),
    [(0.0, 1.0), (math.log(50), 50.0), (1.0, math.e), (1e4, math.inf), (math.inf, math.inf)],
)
def test_perplexity_is_e_to_the_loss(loss, want):
    assert perplexity(loss) == pytest.approx(want)


def test_perplexity_of_no_number_is_no_number():
    assert math.isnan(perplexity(math.nan))


def test_a_guess_among_all_bytes_needs_eight_bits():
    assert bits_per_byte(10 * math.log(256), 10) == pytest.approx(8.0)
    assert bits_per_byte(0.0, 1) == 0.0
    assert bits_per_byte(math.log(2), 4) == pytest.approx(0.25)


@pytest.mark.parametrize("count", [0, -3])
def test_bits_need_bytes(count):
    with pytest.raises(InputError, match=f"num_bytes is {count}; .* at least 1"):
        bits_per_byte(1.0, count)
