"""A widget that runs a model takes another prompt, by code and from the page."""

import json

import pytest

import qwenkit as qk
from qwenkit.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPT, OTHER = "def add(a, b):\n    return a +", "class Box:\n    w = 1\n    w = "
MAKERS = {
    "AttentionExplorer": lambda toy, prompt: qk.widgets.AttentionExplorer(*toy, prompt),
    "SamplingExplorer": lambda toy, prompt: qk.widgets.SamplingExplorer(*toy, prompt),
    "GenerationStepper": lambda toy, prompt: qk.widgets.GenerationStepper(*toy, prompt, 6),
    "LayerInspector": lambda toy, prompt: qk.widgets.LayerInspector(*toy, prompt, "x = 1\n"),
}
KEPT = {
    "AttentionExplorer": {"layer": 1, "head": 2, "arcs": "is attended to by", "faint": True},
    "SamplingExplorer": {"temperature": 0.5, "top_k": 7, "seed": 3, "draws": 9},
    "GenerationStepper": {},
    "LayerInspector": {"layer": 1, "head": 2, "other_token": 0, "off": [1, 2]},
}


@pytest.fixture(params=MAKERS)
def name(request):
    return request.param


@pytest.fixture
def widget(name, toy):
    return MAKERS[name](toy, PROMPT)


@pytest.fixture
def ask(widget, monkeypatch):
    """Give a function that sends what the page sends, and returns what the kernel answers."""

    def send(**message):
        answers = []
        monkeypatch.setattr(widget, "send", answers.append)
        widget._handle_custom_msg({"ask": "q1", **message}, [])
        return answers

    return send


def exported(widget):
    """Return all that a page gets, in a form that can be compared."""
    return json.dumps(widget.exported(), default=bytes.hex)


def test_a_new_prompt_gives_what_a_new_widget_gives(name, toy, widget):
    widget.choose(prompt=OTHER)
    assert exported(widget) == exported(MAKERS[name](toy, OTHER))
    assert widget.prompt == OTHER
    widget.choose(prompt=PROMPT)
    assert exported(widget) == exported(MAKERS[name](toy, PROMPT))


def test_the_choice_that_does_not_belong_to_a_text_stays(name, toy, widget):
    widget.choose(**KEPT[name])
    widget.choose(prompt=OTHER)
    fresh = MAKERS[name](toy, OTHER)
    fresh.choose(**KEPT[name])
    assert exported(widget) == exported(fresh)
    assert {one: widget.state[one] for one in KEPT[name]} == KEPT[name]


def test_prompt_and_choice_change_together_or_not_at_all(widget):
    before = exported(widget)
    for prompt, state in (("", {}), (3, {}), (OTHER, {"nothing": 1}), ("", {"layer": 0})):
        with pytest.raises(InputError):
            widget.choose(prompt=prompt, **state)
        assert exported(widget) == before
        assert widget.prompt == PROMPT


def test_the_page_enters_a_prompt(name, toy, widget, ask):
    assert ask(prompt=OTHER) == [{"heard": "q1"}, {"done": "q1", "error": ""}]
    assert exported(widget) == exported(MAKERS[name](toy, OTHER))


def test_a_wrong_prompt_is_answered_with_the_message(name, widget, ask):
    before = exported(widget)
    heard, done = ask(prompt="")
    assert heard == {"heard": "q1"}
    assert done == {"done": "q1", "error": "prompt is ''; it must be a text of at least one token"}
    if name == "LayerInspector":
        assert "takes at most 512" in ask(prompt="x = 1\n" * 200)[1]["error"]
    assert exported(widget) == before


def test_another_error_is_told_with_its_type_and_logged(widget, ask, monkeypatch, caplog):
    def fails(*_, **__):
        raise RuntimeError("no memory")

    monkeypatch.setattr(type(widget), "read", fails)
    assert ask(prompt=OTHER)[1] == {"done": "q1", "error": "RuntimeError: no memory"}
    assert "no memory" in caplog.text


def test_a_question_without_a_prompt_is_answered_at_once(widget, ask):
    before = exported(widget)
    assert ask() == [{"heard": "q1"}]
    assert exported(widget) == before


def test_the_prompt_is_changed_by_choose_alone(widget):
    with pytest.raises(Exception, match="read-only"):
        widget.prompt = OTHER
    assert widget.prompt == PROMPT


def test_what_the_kernel_refuses_in_a_choice_is_told(toy, monkeypatch):
    widget = MAKERS["LayerInspector"](toy, PROMPT)
    answers = []
    monkeypatch.setattr(widget, "send", answers.append)
    with pytest.raises(InputError):
        widget.state = {**widget.state, "off": [9, 9]}
    rule = "it must be [layer, head] from [0, 0] to [1, 3], or None"
    assert answers == [{"error": f"off is [9, 9]; {rule}"}]


def test_odd_prompts_reach_the_page_and_what_is_not_unicode_is_refused(widget):
    for prompt in ("\x00\r\n\t", "<script>", "漢字🙂"):
        widget.choose(prompt=prompt)
        assert widget.get_state("prompt") == {"prompt": prompt}
    with pytest.raises(qk.errors.TokenizerError, match="unpaired surrogate"):
        widget.choose(prompt="\ud800 é")
    assert widget.prompt == "漢字🙂"
