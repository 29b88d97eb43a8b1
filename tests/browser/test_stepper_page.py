"""GenerationStepper's exported page walks along visited steps; with a kernel it goes further."""

import pytest
from pages import answered, test_both_themes, test_nothing_overflows, value  # noqa: F401

import qwenkit as qk
from qwenkit.widgets.stepper import GenerationStepper

pytestmark = pytest.mark.browser


@pytest.fixture
def widget(toy):
    """Return a stepper that went three steps on, back to the first, and another way."""
    made = GenerationStepper(*toy, "def add(a, b):\n    return ", max_new_tokens=12)
    view = made.view
    for back, rank in ((0, 0), (1, 0), (2, 0), (1, 2), (2, 0)):
        made.choose(at=back)
        made.choose(path=[*view.path[:back], view.choices()[rank][0]], at=back + 1)
    return made


def check(page, widget):
    """Compare what is offered, and the cache, with the view-model."""
    widget.choose(path=value(page, "path"), at=value(page, "at"))
    view = widget.view
    assert value(page, "offers") == [list(choice) for choice in view.choices()]
    assert value(page, "cached") == view.cache.length
    used = f"{view.cache.length * widget.data['token_bytes']:,} of {view.cache.nbytes:,} bytes"
    assert used in page.locator(".qk").inner_text()


def refuses(button):
    """Tell whether a button says that it cannot be used now; it keeps the focus all the same."""
    return button.get_attribute("aria-disabled") == "true"


def test_back_and_forward_walk_along_the_path(page, widget):
    check(page, widget)
    end = value(page, "at")
    text = page.get_by_role("listbox")
    text.press("ArrowLeft")
    assert value(page, "at") == end - 1
    check(page, widget)
    page.get_by_role("button", name="To the prompt").click()
    assert value(page, "at") == 0
    check(page, widget)
    page.get_by_role("button", name="Forward again").press("Enter")
    assert value(page, "at") == 1
    assert len(value(page, "path")) == end  # what lies ahead is not forgotten
    check(page, widget)
    text.press("End")
    assert value(page, "at") == end
    assert refuses(page.get_by_role("button", name="Forward again"))


def test_another_branch_that_was_visited_can_be_walked_without_a_kernel(page, widget):
    page.get_by_role("button", name="To the prompt").click()
    page.keyboard.press("1")
    other = value(page, "path")[1]
    page.keyboard.press("1")  # not the one that the path went on with
    assert value(page, "path")[1] != other
    assert len(value(page, "path")) == 2
    check(page, widget)
    row = page.get_by_role("table").get_by_role("button").all()
    assert [one.get_attribute("aria-pressed") for one in row] == ["false"] * 8


def test_a_page_without_a_kernel_holds_the_next_steps(page, widget):
    offers = page.get_by_role("table").get_by_role("button")
    assert not any(refuses(one) for one in offers.all())
    start = value(page, "at")
    page.get_by_role("button", name="Add 10").click()
    page.wait_for_function(f"() => document.querySelector('.qk').qk.at === {start + 9}")
    check(page, widget)
    page.wait_for_timeout(200)  # max_new_tokens ends the run
    page.get_by_role("listbox").press("Home")
    page.get_by_role("button", name="Forward again").click()
    for _ in range(start - 1):
        page.keyboard.press("Enter")
    page.keyboard.press("7")
    for _ in range(2):
        page.get_by_role("button", name="Add the most likely").click()
        check(page, widget)
    assert all(refuses(one) for one in offers.all())
    assert "does not hold what follows" in page.locator(".qk").inner_text()
    assert page.get_by_text("Click one").is_hidden()
    before = value(page, "path")
    page.keyboard.press("2")
    assert value(page, "path") == before


@pytest.fixture
def only_visited(widget, monkeypatch):
    """Let the page hold what a notebook's holds: no steps that nobody took."""
    monkeypatch.setattr(widget.view, "ahead", lambda: None)


@pytest.mark.usefixtures("only_visited")
def test_a_new_token_is_shown_once_the_kernel_has_answered(widget, shown):
    with shown(answered) as page:
        page.get_by_role("table").get_by_role("button").nth(3).click()
        state = page.evaluate("kernel.saved.at(-1)")
        assert state["path"][-1] == widget.view.choices()[3][0]
        assert "The kernel computes" in page.locator(".qk").inner_text()
        assert value(page, "offers") is None  # nothing of another step is shown
        widget.choose(**state)
        page.evaluate("(data) => kernel.set('data', data)", widget.data)
        check(page, widget)
        names = widget.view.tokenizer.token_strings(widget.view.prompt + widget.view.path)
        assert page.get_by_role("option").all_inner_texts() == names


@pytest.mark.usefixtures("only_visited")
def test_a_burst_adds_the_most_likely_one_after_another(toy, widget, shown):
    with shown(answered) as page:
        page.get_by_role("button", name="To the prompt").click()
        page.get_by_role("button", name="Add 10").click()
        waits = "(shown) => !shown.offers || shown.at === 10"
        while value(page, "at") < 10 or value(page, "offers") is None:
            page.wait_for_function(f"() => ({waits})(document.querySelector('.qk').qk)")
            widget.choose(**page.evaluate("kernel.saved.at(-1)"))
            page.evaluate("(data) => kernel.set('data', data)", widget.data)
        page.wait_for_timeout(200)
        assert value(page, "at") == 10  # and not one more
    model, tokenizer = toy
    ids = tokenizer("def add(a, b):\n    return ")
    steps = qk.generate(model, ids, max_new_tokens=10, stop_ids=())
    assert widget.view.path == [step.token_id for step in steps]
