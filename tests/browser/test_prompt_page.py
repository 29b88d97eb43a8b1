"""The prompt box: it asks the kernel, shows what it answers, and says when it does not answer."""

import json

import pytest
from pages import answered, overflowing, relay, value

from qwenkit import widgets

pytestmark = pytest.mark.browser
PROMPT, OTHER = "def add(a, b):\n    return a + b\n", "class Box:\n    w = 1\n"
QK = "document.querySelector('.qk').qk"
# What a widget draws, as JavaScript of its `qk`; and the same by its view-model.
DRAWN = {
    "AttentionExplorer": (
        "{triangle: [...qk.triangle], title: qk.title}",
        lambda view: {
            "triangle": view.patterns.weights[view.layer, view.head].tolist(),
            "title": view.title(),
        },
    ),
    "SamplingExplorer": ("{after: [...qk.after]}", lambda view: {"after": view.after().tolist()}),
    "GenerationStepper": (
        "{offers: qk.offers, tokens: qk.tokens}",
        lambda view: {
            "offers": [list(one) for one in view.choices()],
            "tokens": view.tokenizer.token_strings(view.prompt),
        },
    ),
    "LayerInspector": (
        "{norms: qk.norms, token: qk.state.token}",
        lambda view: {"norms": view.norms().tolist(), "token": view.token},
    ),
}


@pytest.fixture(params=DRAWN)
def name(request):
    return request.param


@pytest.fixture
def widget(name, toy):
    return getattr(widgets, name)(*toy, PROMPT)


def box(page):
    return page.get_by_role("textbox", name="Prompt")


def shows(page, name, widget):
    """Tell whether the page draws what the view-model holds."""
    expression, wanted = DRAWN[name]
    drawn = page.evaluate(f"(qk) => ({expression})", page.evaluate_handle(QK))
    for key, one in json.loads(json.dumps(wanted(widget.view))).items():
        assert drawn[key] == (pytest.approx(one, abs=1e-6) if key == "after" else one), key


def test_a_prompt_is_asked_for_and_its_answer_drawn(name, widget, shown, monkeypatch):
    with shown(answered) as page:
        assert box(page).input_value() == PROMPT
        shows(page, name, widget)
        for text in (OTHER, "x = 1", PROMPT):
            box(page).fill(text)
            drawn = page.locator(".qk").get_attribute("data-drawn")
            box(page).press("Enter")
            assert page.evaluate("kernel.asked.at(-1).prompt") == text
            assert page.get_by_text("The kernel computes …").count() == 1
            assert page.locator(".qk-body").evaluate("(body) => body.inert")
            relay(page, widget, monkeypatch)
            page.wait_for_function(
                "(drawn) => document.querySelector('.qk').dataset.drawn !== drawn", arg=drawn
            )
            assert widget.prompt == text
            shows(page, name, widget)
            assert page.get_by_text("The kernel computes …").count() == 0
            assert not page.locator(".qk-body").evaluate("(body) => body.inert")
            assert box(page).evaluate("(box) => box === document.activeElement")
            assert page.locator(".qk .qk-stage").count() == 1


def test_an_error_is_shown_next_to_the_box_and_goes_away(name, widget, shown, monkeypatch):
    with shown(answered) as page:
        box(page).fill("")
        page.get_by_role("button", name="Run").click()
        relay(page, widget, monkeypatch)
        words = "prompt is ''; it must be a text of at least one token"
        assert page.locator(".qk-ask [role=status]").inner_text() == words
        shows(page, name, widget)
        box(page).fill(OTHER)
        box(page).press("Enter")
        assert page.get_by_text(words).count() == 0
        relay(page, widget, monkeypatch)
        assert page.locator(".qk-ask [role=status]").inner_text() == ""


def test_a_silent_kernel_is_noticed_within_five_seconds(name, widget, shown, monkeypatch):
    with shown(answered) as page:
        page.clock.install()
        box(page).fill(OTHER)
        box(page).press("Enter")
        page.clock.run_for(4000)
        assert page.get_by_text("The kernel computes …").count() == 1
        page.clock.run_for(1000)
        assert "The kernel does not answer" in page.locator(".qk-ask").inner_text()
        assert not page.locator(".qk-body").evaluate("(body) => body.inert")
        relay(page, widget, monkeypatch)  # it was only busy
        assert "The kernel does not answer" not in page.locator(".qk-ask").inner_text()
        box(page).press("Enter")  # it can be asked again
        page.evaluate("kernel.emit('msg:custom', { heard: kernel.asked.at(-1).ask })")
        page.clock.run_for(20_000)  # it computes for long, and has said so
        assert page.get_by_text("The kernel computes …").count() == 1


def test_typing_stays_in_the_box(name, widget, shown):
    with shown(answered) as page:
        before = value(page, "state") if name != "GenerationStepper" else value(page, "path")
        box(page).fill("")
        box(page).press_sequentially("a1 2")
        box(page).press("Shift+Enter")
        box(page).press("ArrowLeft")
        assert box(page).input_value() == "a1 2\n"
        assert page.evaluate("kernel.asked") == []
        after = value(page, "state") if name != "GenerationStepper" else value(page, "path")
        assert after == before


@pytest.mark.parametrize("width", [390, 1280])
def test_the_box_fits(name, widget, shown, width):
    with shown(answered, width=width) as page:
        box(page).fill("a long line " * 40 + "\n\n\n")
        wide = page.locator(".qk-ask").evaluate("(box) => box.scrollWidth - box.clientWidth")
        assert wide <= 0
        if width > 390:
            assert overflowing(page) == 0


def test_a_page_without_a_kernel_has_no_box(widget, shown):
    with shown() as page:
        assert page.get_by_role("textbox", name="Prompt").count() == 0
        assert page.get_by_role("button", name="Run").count() == 0


@pytest.fixture
def asking(toy, browser, tmp_path):
    """A page that just asked for a prompt, whose clock stands still."""
    path = widgets.SamplingExplorer(*toy, PROMPT).to_html(tmp_path / "page.html")
    with answered(browser, path) as page:
        page.clock.install()
        box(page).press("Enter")
        yield page


STATUS = ".qk-ask [role=status]"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("busy", "The kernel does not answer yet: it is busy with something else."),
        ("idle", "The kernel does not answer: run this cell again."),
    ],
)
def test_what_is_said_of_a_silent_kernel_depends_on_its_status(asking, status, words):
    asking.evaluate("(status) => { kernel.widget_manager = { kernel: { status } }; }", status)
    asking.clock.run_for(4000)
    assert asking.locator(STATUS).inner_text() == "The kernel computes …"
    asking.clock.run_for(1000)
    assert asking.locator(STATUS).inner_text() == words


GONE = {
    "dead": "kernel.widget_manager = { kernel: { status: 'dead' } }",
    "shut down": "kernel.widget_manager = { kernel: null }",
    "restarted": "kernel.send = () => { throw new Error('Cannot send'); }",
    "marked": "document.querySelector('#widget').classList.add('jupyter-widgets-disconnected')",
}


@pytest.mark.parametrize("how", GONE)
def test_a_kernel_that_goes_while_it_computes_is_noticed(asking, how):
    asking.evaluate("kernel.emit('msg:custom', { heard: kernel.asked.at(-1).ask })")
    asking.clock.run_for(30_000)
    assert asking.locator(STATUS).inner_text() == "The kernel computes …"
    asking.evaluate(f"() => {{ {GONE[how]}; }}")
    asking.clock.run_for(2500)
    words = "The kernel does not answer: run this cell again."
    assert asking.locator(STATUS).inner_text() == words
