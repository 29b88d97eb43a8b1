"""GenerationStepper: going back and choosing another token gives what a fresh run gives."""

import pytest
import torch

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.widgets.stepper import GenerationStepper

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPT = "def add(a, b):\n    return "


@pytest.fixture
def widget(toy):
    return GenerationStepper(*toy, PROMPT, max_new_tokens=6)


def step(widget, *ranks):
    """Take alternatives, one after another, as the page does."""
    for rank in ranks:
        path, token = widget.view.path[: widget.view.at], widget.view.choices()[rank][0]
        widget.state = {"path": [*path, token], "at": len(path) + 1}


def held(cache):
    """Return the keys and values that the cache holds, (2 · layers, KV, length, D)."""
    return torch.stack([part[0, :, : cache.length] for part in (*cache.keys, *cache.values)])


def test_the_most_likely_each_time_is_greedy_generation(toy, widget):
    model, tokenizer = toy
    for expected in qk.generate(model, tokenizer(PROMPT), max_new_tokens=6, stop_ids=()):
        choices = widget.view.choices()
        assert choices[0][0] == expected.token_id
        offered = [token for token, *_ in choices]
        assert offered == expected.probs.topk(8).indices.tolist()
        assert [one for *_, one in choices] == expected.probs[offered].tolist()
        assert [name for _, name, _ in choices] == tokenizer.token_strings(offered)
        step(widget, 0)
    assert widget.view.at == 6


def test_going_back_and_choosing_another_is_a_fresh_run_bit_for_bit(toy, widget):
    step(widget, 0, 0, 2, 1)
    widget.choose(at=1)
    step(widget, 3, 0, 1)
    fresh = GenerationStepper(*toy, PROMPT, max_new_tokens=6)
    fresh.choose(path=widget.view.path, at=4)
    for step_number in range(5):
        prefix = tuple(fresh.view.path[:step_number])
        assert widget.view.visited[prefix] == fresh.view.visited[prefix]
    assert torch.equal(held(widget.view.cache), held(fresh.view.cache))


def test_another_order_of_visits_changes_no_number(toy, widget):
    step(widget, 1, 1)
    first = widget.view.choices()
    widget.choose(at=0)
    step(widget, 2)
    widget.choose(path=[], at=0)
    step(widget, 1, 1)
    assert widget.view.choices() == first
    model, tokenizer = toy
    ids = torch.cat([tokenizer(PROMPT), torch.tensor([widget.view.path])], dim=1)
    probs = model(ids)[0, -1, : model.num_tokens].softmax(-1)  # at once, without a cache
    assert [one for *_, one in first] == pytest.approx(probs.topk(8).values.tolist(), rel=1e-4)


def test_the_cache_holds_the_text_as_it_is_now_also_after_a_wrong_token(widget):
    view, prompt, cache = widget.view, len(widget.view.prompt), widget.view.cache
    assert cache.length == prompt
    step(widget, 0, 0, 0)
    assert cache.length == prompt + 3
    widget.choose(at=1)
    assert cache.length == prompt + 1
    assert len(view.path) == 3  # what a step back has left is remembered
    widget.choose(at=3)
    assert cache.length == prompt + 3
    assert widget.data["token_bytes"] * cache.max_length == cache.nbytes
    widget.choose(at=1)
    good, kept = view.choices()[0][0], held(cache).clone()
    with pytest.raises(InputError, match="token 2 of the path is -5"):
        widget.choose(path=[view.path[0], good, -5], at=3)
    assert torch.equal(held(cache), kept)


def test_a_stop_token_stops_generation_and_padding_rows_are_never_offered(toy, widget, monkeypatch):
    stop = widget.view.choices()[2][0]
    monkeypatch.setattr(toy[0], "stop_ids", (stop,))
    step(widget, 2)
    assert widget.view.choices() == []
    assert widget.view.cache.length == len(widget.view.prompt)  # nothing comes after it
    with pytest.raises(InputError, match="none: the text has ended"):
        widget.choose(path=[stop, 0], at=1)
    widget.choose(at=0)
    step(widget, 0)
    assert widget.view.choices()
    monkeypatch.setattr(toy[0], "stop_ids", ())  # the tokenizer's own eos ends a text, too
    assert widget.view.data()["stop_ids"] == [toy[1].eos_id]
    monkeypatch.setattr(toy[0], "num_tokens", 9)
    widget = GenerationStepper(*toy, PROMPT)
    assert {token for token, *_ in widget.view.choices()} < set(range(9))


def test_the_page_holds_every_step_that_was_visited(widget):
    step(widget, 0, 0)
    widget.choose(at=0)
    step(widget, 1)
    first, second = (widget.view.visited[()][rank][0] for rank in (0, 1))
    known = {key.split(",")[0] for key in widget.data["visited"]}
    assert known == {"", str(first), str(second)}
    assert len(widget.data["visited"]) == 4


def test_the_alt_text_and_the_picture_say_how_far_the_text_is(widget):
    step(widget, 0)
    alt, prompt = widget.view.alt(), len(widget.view.prompt)
    assert alt.startswith(f"1 token after a prompt of {prompt}: ")
    assert f"{widget.view.choices()[0][2]:.0%}" in alt
    size = (prompt + 1) * 2 * 2 * 2 * 16 * 4  # keys and values, layers, kv heads, D, bytes
    assert f"holds {prompt + 1} of {prompt + 6} tokens in each of 2 layers, {size:,} bytes" in alt
    widths = [bar.get_width() for bar in widget.snapshot().axes[0].patches]
    assert widths == pytest.approx([one for *_, one in widget.view.choices()])
