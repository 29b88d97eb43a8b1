"""Head scores: worked out by hand on models whose attention is known."""

import pytest
import torch
from reference import pair

from qwenkit.errors import InputError
from qwenkit.interpret import induction_scores, previous_token_scores, repeated_tokens
from qwenkit.trace import Trace


@pytest.fixture(scope="module")
def model():
    return pair()[1].requires_grad_(False)


def test_previous_token_scores_are_the_mean_below_the_diagonal(model):
    ids = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(1))
    scores = previous_token_scores(model, ids)
    trace = Trace(keep=("attn.pattern",))
    model(ids, trace=trace)
    assert scores.shape == (3, 4)
    for layer in range(3):
        pattern = trace[f"layers.{layer}.attn.pattern"]
        for head in range(4):
            by_hand = sum(float(pattern[b, head, t, t - 1]) for b in range(2) for t in range(1, 9))
            assert float(scores[layer, head]) == pytest.approx(by_hand / 16, abs=1e-6)


def test_induction_scores_look_at_the_token_after_the_first_occurrence(model):
    scores = induction_scores(model, length=5, batch_size=2, seed=3)
    ids = repeated_tokens(model, length=5, batch_size=2, seed=3)
    assert torch.equal(ids[:, :5], ids[:, 5:])
    trace = Trace(keep=("attn.pattern",))
    model(ids, trace=trace)
    pattern = trace["layers.2.attn.pattern"]
    # The query at place 5 is the second A; the B after the first A stands at place 1, and so on.
    seen = {5: 1, 6: 2, 7: 3, 8: 4, 9: 5}
    by_hand = sum(float(pattern[b, 1, q, k]) for b in range(2) for q, k in seen.items()) / 10
    assert float(scores[2, 1]) == pytest.approx(by_hand, abs=1e-6)


def test_a_head_that_only_looks_back_one_token_has_the_score_one(model, monkeypatch):
    shift = torch.zeros(10, 10)
    shift[0, 0] = 1
    shift[torch.arange(1, 10), torch.arange(9)] = 1

    class Fixed(Trace):
        def __getitem__(self, name):
            return shift.expand(1, 4, 10, 10)

    monkeypatch.setattr("qwenkit.interpret.heads.Trace", Fixed)
    assert torch.equal(previous_token_scores(model, torch.ones(1, 10).long()), torch.ones(3, 4))


def test_repeated_tokens_hold_no_special_token_and_follow_the_seed(model):
    model.stop_ids, before = (20, 30), model.stop_ids
    try:
        ids = repeated_tokens(model, length=50, batch_size=20, seed=0)
    finally:
        model.stop_ids = before
    assert ids.shape == (20, 100)
    assert int(ids.max()) == 19
    assert torch.equal(ids[:, :50], ids[:, 50:])
    again = repeated_tokens(model, length=50, batch_size=20, seed=1)
    assert not torch.equal(ids, again)


def test_too_little_text_is_refused(model):
    with pytest.raises(InputError, match="two tokens at least"):
        previous_token_scores(model, torch.ones(1, 1).long())
    with pytest.raises(InputError, match="length is 1"):
        induction_scores(model, length=1)
