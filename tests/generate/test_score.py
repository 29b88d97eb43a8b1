"""How likely a given text is, against transformers and against what generation says."""

import math
import statistics

import pytest
import torch
from reference import VARIANTS, ids, pair, tiny

from qwenkit.errors import InputError
from qwenkit.generate import generate, log_probabilities, score_text


@pytest.mark.parametrize("variant", ["gqa", "tied", "sliding"])
def test_log_probabilities_equal_those_of_transformers(variant):
    theirs, ours = pair(**VARIANTS[variant])
    text = ids(3, 12)
    with torch.no_grad():
        want = theirs(text).logits.log_softmax(-1)[:, :-1].gather(2, text[:, 1:, None])[..., 0]
    got = log_probabilities(ours, text)
    assert got.shape == (3, 11)
    assert got.dtype == torch.float32
    assert not got.requires_grad  # though the model's weights do require it
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        loss = theirs(text, labels=text).loss
    assert -got.mean().item() == pytest.approx(loss.item(), abs=1e-5)


def test_they_are_those_that_generation_had():
    model, prompt = tiny(), [3, 1, 4]
    steps = list(generate(model, prompt, 8, stop_ids=()))
    text = [*prompt, *(step.token_id for step in steps)]
    want = [math.log(step.probability) for step in steps]
    likely, unlikely = (log_probabilities(model, t)[0] for t in (text, [*prompt, *[60] * 8]))
    assert likely[2:].tolist() == pytest.approx(want, abs=1e-5)
    assert likely.sum() > unlikely.sum() + 5


def test_a_model_in_bfloat16_is_scored_in_float32():
    model = tiny(dtype=torch.bfloat16)
    got = log_probabilities(model, ids(1, 9))
    want = model(ids(1, 9))[:, :-1].float().log_softmax(-1)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got[0], want[0, torch.arange(8), ids(1, 9)[0, 1:]])


def test_each_token_of_a_text_with_its_score(toy):
    model, tokenizer = toy
    text = "def f(x):\n    return x"
    scores = score_text(model, tokenizer, text)
    encoded = tokenizer.encode(text)
    assert [score.token_id for score in scores] == encoded
    assert [score.token for score in scores] == tokenizer.token_strings(encoded)
    assert scores[0].log_probability is None
    got = [score.log_probability for score in scores[1:]]
    assert got == pytest.approx(log_probabilities(model, encoded)[0].tolist())
    assert all(value < 0 for value in got)
    assert scores[0][:2] == ("def", encoded[0])
    with pytest.raises(InputError, match="at least two tokens"):
        score_text(model, tokenizer, "a")


def test_tiny_coder_predicts_code_better_than_noise(coder):
    def mean(text):
        return statistics.mean(score.log_probability for score in score_text(*coder, text)[1:])

    code, noise = "def add(a, b):\n    return a + b\n", "b( +add):a\n\n de,a   rnf b ret)"
    assert mean(code) > mean(noise) + 1


@pytest.mark.parametrize(
    "wrong",
    [[], [1], [[1], [2]], torch.zeros(2, 1).long(), torch.zeros(1, 3), [[1, 2], [3]], "ab", 3,
     [1, 61], [1, -1], torch.zeros(1, 2, 3).long(), None],
)  # fmt: skip
def test_what_is_not_a_text_is_refused(wrong):
    with pytest.raises(InputError, match="input_ids"):
        log_probabilities(tiny(), wrong)
