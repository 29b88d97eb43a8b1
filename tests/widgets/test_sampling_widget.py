"""SamplingExplorer: its numbers are those of `Sampling`, and of sums done by hand."""

import zlib

import numpy as np
import pytest
import torch

from qwenkit.generate.sampling import Sampling
from qwenkit.widgets.sampling import SamplingExplorer, SamplingView, _entropy, _random_numbers

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPT = "def add(a, b):\n    return a +"


@pytest.fixture
def widget(toy):
    return SamplingExplorer(*toy, PROMPT)


@pytest.fixture
def by_hand():
    """Return four tokens of probability 0.5, 0.3, 0.15 and 0.05."""
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    return SamplingView(logits, torch.tensor([7, 3, 9, 1]), ["a", "b", "c", "d"], ["x"])


def test_the_distribution_is_the_models_own_without_padding_rows(toy, widget):
    (model, tokenizer), view = toy, widget.view
    logits = model(tokenizer(PROMPT))[0, -1, : model.num_tokens]
    probs = logits.softmax(-1)
    assert torch.allclose(view.before(), probs.sort(descending=True).values, atol=1e-7)
    assert torch.equal(probs[view.ids], probs.sort(descending=True).values)
    assert view.names == tokenizer.token_strings(view.ids[:256])
    sent = np.frombuffer(zlib.decompress(widget.data["logits"]), "<f4")
    assert np.array_equal(sent, view.logits.numpy())
    assert widget.data["prompt"] == tokenizer.token_strings(tokenizer(PROMPT))
    # with settings it is what generate would draw from
    state = {"temperature": 0.8, "top_k": 50, "top_p": 0.9, "min_p": 0.05}
    widget.choose(**state)
    probs = Sampling(**state).probabilities(logits, torch.tensor([]))
    assert torch.allclose(view.after(), probs[view.ids], atol=1e-6)
    assert view.kept()[0] == int((probs > 0).sum())


@pytest.mark.parametrize(("state", "after", "cuts"), [
    ({}, [0.5, 0.3, 0.15, 0.05], {}),
    ({"top_k": 3}, [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0], {"top_k": (1, 0.05)}),
    ({"top_p": 0.7}, [0.625, 0.375, 0, 0], {"top_p": (2, 0.2)}),
    ({"min_p": 0.2}, [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0], {"min_p": (1, 0.05)}),
    # of the three kept 0.5 / 0.95 = 53 % and 84 %: two reach 80 %, and 0.3 < 0.7 × 0.5
    ({"top_k": 3, "top_p": 0.8, "min_p": 0.7}, [1, 0, 0, 0],
     {"top_k": (1, 0.05), "top_p": (1, 0.15), "min_p": (1, 0.3)}),
    # the roots of the probabilities, 0.707 0.548 0.387 0.224, sum to 1.866
    ({"temperature": 2, "top_k": 2}, [0.5635, 0.4365, 0, 0], {"top_k": (2, 0.3274)}),
    ({"temperature": 0, "top_k": 2}, [1, 0, 0, 0], {}),
])  # fmt: skip
def test_what_is_kept_and_cut_is_what_one_works_out_by_hand(by_hand, state, after, cuts):
    by_hand.choose(**state)
    assert by_hand.after().tolist() == pytest.approx(after, abs=1e-4)
    assert by_hand.cuts().keys() == cuts.keys()
    for name, (count, cut) in cuts.items():
        assert by_hand.cuts()[name] == (count, pytest.approx(cut, abs=1e-4))
    count, kept = by_hand.kept()
    assert count == sum(value > 0 for value in after)
    assert kept == pytest.approx(1 - sum(cut for _, cut in cuts.values()), abs=1e-4)


@pytest.mark.parametrize(("seed", "numbers"), [
    (0, [1144304738, 1416247, 958946056]), (1, [2693262067, 11749833, 2265367787]),
    (4294967295, [3850105811, 813802916, 3073704848]),
])  # fmt: skip
def test_the_random_numbers_are_those_of_mulberry32_in_javascript(seed, numbers):
    assert [number * 2**32 for number in _random_numbers(seed, 3)] == numbers


def test_draws_follow_the_distribution_and_repeat_with_the_seed(by_hand):
    by_hand.choose(top_k=3, draws=5000, seed=5)
    drawn = by_hand.drawn()
    counts = np.bincount(drawn, minlength=4)
    assert counts[3] == 0
    assert counts[:3] / 5000 == pytest.approx([0.526, 0.316, 0.158], abs=0.03)
    assert by_hand.drawn() == drawn
    by_hand.choose(seed=6)
    assert by_hand.drawn() != drawn
    by_hand.choose(temperature=0)
    assert set(by_hand.drawn()) == {0}
    # a number falls to the token whose interval it is in
    by_hand.choose(temperature=1, top_k=0, seed=0, draws=200)
    borders = np.array([0.5, 0.8, 0.95, 1.0])
    expected = [int((borders <= number).sum()) for number in _random_numbers(0, 200)]
    assert by_hand.drawn() == expected


def test_the_alt_text_and_the_picture_say_what_is_kept(by_hand, widget):
    by_hand.choose(top_p=0.7, draws=100)
    assert by_hand.title() == "temperature 1, top-p 0.7: 2 of 4 tokens kept (80.0%)"
    alt = by_hand.alt()
    assert "a 50% → 62%, b 30% → 38%, c 15% → 0%" in alt
    assert "entropy 1.14 → 0.66 nats" in alt
    assert f"of 100 drawn, {by_hand.drawn().count(0)} are a" in alt
    widths = [bar.get_width() for bar in widget.snapshot().axes[0].patches]
    assert widths[:16] == pytest.approx(widget.view.before()[:16].tolist())
    assert _entropy(torch.tensor([0.25] * 4)) == pytest.approx(np.log(4))
    assert _entropy(torch.tensor([1.0, 0.0])) == 0
