"""Ctrl-C at any line: whatever was going on, the same call is right afterwards."""

import pytest
import torch
from fixtures_toy import toy_of
from interruptions import interrupted
from reference import ids

import qwenkit as qk

pytestmark = pytest.mark.usefixtures("one_thread")
TOKENS = ids(1, 7) % 50


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return qk.load_pretrained(toy_of(tmp_path_factory, tied=False), device="cpu", dtype="float32")


class Forward:
    """A forward pass with a cache that holds some tokens, and with a trace."""

    def __init__(self, model, tokenizer):
        self.model, self.trace = model, qk.Trace(keep=("resid_post",))
        self.cache = qk.KVCache(model.config, 1, 16)
        with torch.no_grad():
            model(TOKENS, cache=self.cache)

    def act(self):
        with torch.no_grad():
            self.logits = self.model(TOKENS[:, :2], cache=self.cache, trace=self.trace)

    def result(self):
        return self.logits, self.cache.length, self.trace["layers.1.resid_post"]


class Reorder(Forward):
    """A cache whose rows change places: all layers, or none."""

    def __init__(self, model, tokenizer):
        self.cache = qk.KVCache(model.config, 2, 9)
        with torch.no_grad():
            model(torch.cat([TOKENS, TOKENS.flip(1)]), cache=self.cache)
        self.turned, self.rows = [keys.flip(0) for keys in self.cache.keys], 2

    def act(self):
        if not torch.equal(self.cache.keys[0], self.turned[0]):
            self.cache.reorder([1, 0])

    def result(self):
        return *self.cache.keys, *self.cache.values


class Generate:
    """All ways to generate, one after another."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer

    def act(self):
        texts = qk.complete_batch(self.model, self.tokenizer, ["a = 1", "b"], max_new_tokens=3)
        beams = qk.beam_search(self.model, TOKENS, num_beams=2, max_new_tokens=3)
        self.found = texts, beams

    def result(self):
        return self.found


class Talk:
    """The second exchange of a conversation."""

    def __init__(self, model, tokenizer):
        self.talk = qk.Conversation(model, tokenizer)
        self.talk.say("x", max_new_tokens=3)

    def act(self):
        if len(self.talk.messages) > 2:  # only the answer was lost
            self.talk.undo()
        self.talk.say("and y", max_new_tokens=3)

    def result(self):
        keys = (one[:, :, : self.talk.cache.length] for one in self.talk.cache.keys)
        return self.talk.messages, self.talk.ids, *keys


class Widget:
    """A widget in which something is chosen."""

    def act(self):
        self.widget.choose(**self.chosen)

    def result(self):
        view = self.widget.view
        return view.state(), self.widget.state, view.alt(), self.widget.exported()


class Stepper(Widget):
    """Two tokens more, the second not the most likely."""

    def __init__(self, model, tokenizer):
        self.widget = qk.widgets.GenerationStepper(model, tokenizer, "def add", max_new_tokens=4)
        first = self.widget.view.choices()[0][0]
        self.widget.choose(path=[first], at=1)
        self.chosen = {"path": [first, self.widget.view.choices()[1][0]], "at": 2}

    def result(self):
        assert self.widget.view.cache.length == self.widget.view.cached()
        return super().result()


class Layer(Widget):
    """A head switched off."""

    chosen = {"off": [1, 0], "token": 1, "layer": 1}  # noqa: RUF012

    def __init__(self, model, tokenizer):
        self.widget = qk.widgets.LayerInspector(model, tokenizer, "def add")


def same(one, other):
    """Compare tensors to the last bit, and everything else."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize(("kind", "step"), [
    (Forward, 17), (Reorder, 1), (Generate, 211), (Talk, 67), (Stepper, 43), (Layer, 71),
])  # fmt: skip
def test_after_ctrl_c_the_same_call_is_right(toy, kind, step):
    (case := kind(*toy)).act()
    want = case.result()
    at = 1
    while interrupted((case := kind(*toy)).act, at):
        case.act()
        assert same(case.result(), want), f"differs after an interruption at line {at}"
        at += step
    assert at > 3 * step
