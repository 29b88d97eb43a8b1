"""Nobody waits before silence: a line or a bar for what takes over a second, and nothing before."""

import inspect
import io
import time
from types import SimpleNamespace

import pytest
import sound_calls
from forked import python_forked

import qwenkit as qk
from qwenkit import progress
from qwenkit.fast import kernels


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(params=[io.StringIO, Terminal], ids=["pipe", "terminal"])
def said(request, monkeypatch):
    """Return stderr, of each kind, with a delay of a tenth of a second."""
    monkeypatch.delenv("QWENKIT_QUIET")
    monkeypatch.setattr(progress, "DELAY", 0.1)
    stderr = request.param()
    # pytest sets sys.stderr again after this
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stderr, modules={}))
    return stderr


def test_a_stage_says_a_line_only_when_it_takes_long(said):
    with progress.stage("Reading"):
        pass
    time.sleep(0.15)
    assert said.getvalue() == ""
    with progress.stage("Training"):
        time.sleep(0.2)
        assert said.getvalue() == "Training ...\n"
    with pytest.raises(ZeroDivisionError), progress.stage("Failing"):
        raise ZeroDivisionError
    time.sleep(0.15)
    assert said.getvalue() == "Training ...\n"


def test_a_bar_counts_in_a_terminal_and_is_a_line_elsewhere(said):
    with progress.bar("Loading", 3000, "B") as advance:
        advance(1500)
        time.sleep(0.25)
        advance(1500)
    shown = said.getvalue()
    assert "Loading" in shown
    assert ("3.00k/3.00k" in shown) == said.isatty()
    assert (shown == "Loading ...\n") == (not said.isatty())


def test_quiet_says_nothing(said, monkeypatch):
    monkeypatch.setenv("QWENKIT_QUIET", "1")
    with progress.stage("Training"), progress.bar("Loading", 2) as advance:
        time.sleep(0.15)
        advance(2)
    assert said.getvalue() == ""


SLOW = """
import os, sys
del os.environ["QWENKIT_QUIET"]
from qwenkit import progress
progress.DELAY = 0.0
import numpy as np
from qwenkit.fast import kernels
heads, angles = np.ones((1, 4), np.float32), np.ones(4, np.float32)
arrays = heads, angles, angles, heads.copy()
kernels.rotate(*arrays)
print("again", file=sys.stderr)
kernels.rotate(*arrays)
"""


def test_compiling_is_said_once_and_what_is_compiled_already_is_not(tmp_path):
    first, second = (
        python_forked(SLOW, NUMBA_CACHE_DIR=str(tmp_path))
        for _ in range(2)  # at first empty
    )
    assert first.stderr == "Compiling the kernels, once per dtype on this machine ...\nagain\n"
    assert second.stderr == "again\n"


class At:
    """A timer that does not wait."""

    def __init__(self, delay, function, arguments, named):
        self.start = lambda: function(*arguments, **named)
        self.cancel = int


@pytest.mark.parametrize("said", [io.StringIO], indirect=True)
def test_kernels_compiled_in_a_row_are_said_once(said, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "threading", SimpleNamespace(Timer=At))
    announced = kernels._Announced()
    for change in (announced.on_start, announced.on_start, announced.on_end, announced.on_end) * 2:
        change(None)
    assert said.getvalue().count("Compiling") == 1
    monkeypatch.setattr(kernels, "SOON", 0.0)
    announced.on_start(None)
    announced.on_end(None)
    assert said.getvalue().count("Compiling") == 2


@pytest.mark.parametrize(("name", "words"), [
    ("complete", "Generating"), ("complete_batch", "Generating"), ("generate_batch", "Generating"),
    ("beam_search", "Searching"), ("log_probabilities", "Scoring the text"),
    ("logit_lens", "Running the model"), ("attention_entropy", "Running the model"),
    ("attribute_logit", "Running the model"), ("mean_outputs", "Running the model"),
    ("divergences", "Running the model"), ("head_effects", "Ablating heads"),
    ("AttentionExplorer", "Running the model"), ("LayerInspector", "Running the model"),
    ("SamplingExplorer", "Running the model"), ("GenerationStepper", "Running the model"),
    ("as_page", "Drawing the picture"), ("save", "Saving the model"), ("say", "Generating"),
    ("merge", "Merging LoRA"), ("encode", "Tokenizing the text"), ("ask", "Counting the values"),
])  # fmt: skip
@pytest.mark.parametrize("said", [io.StringIO], indirect=True)
def test_whatever_can_take_long_says_what_it_does(toy, said, monkeypatch, tmp_path, name, words):
    model, tokenizer = qk.load_pretrained(toy)
    browser, at = qk.widgets.CheckpointBrowser(toy), "model.norm.weight"
    others = {
        "as_page": lambda: browser.to_html(tmp_path / "page.html"),
        "save": lambda: qk.save_pretrained(model, tmp_path / "new"),
        "say": lambda: qk.Conversation(model, tokenizer).say("hi", max_new_tokens=2),
        "merge": lambda: qk.merge_lora(model),
        "encode": lambda: tokenizer.encode("a b " * 9),
        "ask": lambda: browser.choose(asked=[at], selected=at),
    }
    monkeypatch.setattr("qwenkit.tokenizer._tokenizer.LONG", 20)
    if name == "merge":
        qk.add_lora(model, rank=1)
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "threading", SimpleNamespace(Timer=At))
    tables = sound_calls.generations(model, tokenizer), sound_calls.insights(model)
    calls = {key: value for table in tables for key, value in table.items()}
    calls |= sound_calls.widgets(model, tokenizer)
    space = next((s for s in (qk, qk.interpret, qk.widgets) if hasattr(s, name)), None)
    others[name]() if name in others else getattr(space, name)(**calls[name])
    assert words in said.getvalue()


def test_text_is_printed_as_it_comes_and_returned_too(toy, capsys, monkeypatch):
    model, tokenizer = qk.load_pretrained(toy)
    text = qk.complete(model, tokenizer, "def f", max_new_tokens=8)
    assert capsys.readouterr().out == ""
    assert qk.complete(model, tokenizer, "def f", max_new_tokens=8, stream=True) == text
    assert capsys.readouterr().out == f"{text}\n"
    steps = inspect.unwrap(qk.generate).__globals__
    seen = []

    def watched(*arguments, original=steps["next_logits"], **options):
        seen.append(capsys.readouterr().out)
        return original(*arguments, **options)

    monkeypatch.setitem(steps, "next_logits", watched)
    qk.complete(model, tokenizer, "def f", max_new_tokens=8, stream=True)
    assert sum(map(bool, seen)) > 1  # before the last token was computed
    chat = qk.Conversation(model, tokenizer)
    monkeypatch.undo()
    capsys.readouterr()
    reply = chat.say("hello", max_new_tokens=6, stream=True)
    assert capsys.readouterr().out == f"{reply}\n"
    assert chat.messages[-1] == {"role": "assistant", "content": reply}
