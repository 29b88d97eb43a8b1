"""Every widget's page: widths, themes, contrast, and choices that a late answer must not undo."""

import pytest
from pages import FAINT, answered, opened, overflowing
from widget_cases import CASES, PROMPT

import qwenkit as qk

pytestmark = pytest.mark.browser
# Two frames after a change of the width: the observers have run, and what they draw is drawn.
SETTLED = """() => new Promise((resolve) => requestAnimationFrame(() =>
  requestAnimationFrame(() => setTimeout(resolve, 60))))"""
# What is cut off sideways in a box that does not scroll, except what ends in "…".
CLIPPED = """() => [...document.querySelectorAll(".qk *")].filter((one) => {
  const style = getComputedStyle(one);
  const cuts = ["hidden", "clip"].includes(style.overflowX) && style.textOverflow !== "ellipsis";
  const { clientWidth: width } = one;
  return cuts && !one.closest(".qk-live") && width && one.scrollWidth > width + 1;
}).map((one) => `${one.className} ${one.scrollWidth} > ${one.clientWidth}`)"""


@pytest.fixture(params=CASES)
def made(request, toy):
    """Give a widget at its start, and its case."""
    case = CASES[request.param]
    names = {"qk": qk, "model": toy[0], "tokenizer": toy[1], "PROMPT": PROMPT}
    exec(f"widget = {case.make}\n{case.prepare}", names)
    names["widget"].choose(**case.start)
    return names["widget"], case


def at_every_width(page):
    """Give widths and themes one after another, and back: nothing may keep its size."""
    for width in (360, 390, 640, 1280, 1600, 390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.evaluate(SETTLED)
            yield width, scheme


def test_nothing_overflows(made, browser, tmp_path):
    widget, _ = made
    with opened(browser, widget.to_html(tmp_path / "page.html")) as page:
        for shown in at_every_width(page):
            assert overflowing(page) == 0, shown
            assert page.evaluate(CLIPPED) == [], shown


def test_all_text_is_legible(made, browser, tmp_path):
    widget, _ = made
    with opened(browser, widget.to_html(tmp_path / "page.html")) as page:
        for shown in at_every_width(page):
            assert page.evaluate(FAINT) == [], shown


def test_a_late_answer_does_not_undo_a_newer_choice(made, browser, tmp_path):
    widget, case = made
    with answered(browser, widget.to_html(tmp_path / "page.html")) as page:
        page.locator(case.keys).first.focus()
        page.keyboard.press(case.key)
        page.evaluate("() => { window.old = kernel.get('state'); }")
        page.keyboard.press(case.key)
        page.keyboard.press(case.key)
        newest = page.evaluate("kernel.get('state')")
        assert newest != page.evaluate("old")
        page.evaluate("() => kernel.set('state', old)")  # the answer to the first press
        assert page.evaluate("kernel.get('state')") == newest
        drawn = (
            f"() => {{ const qk = document.querySelector('.qk').qk; return ({case.drawn}).state; }}"
        )
        shown = page.evaluate(drawn)
        assert {name: newest[name] for name in shown} == shown
        page.keyboard.press(case.key)  # and the next choice begins where the reader is
        page.wait_for_timeout(300)  # until the last one is sent, too
        last, saved = page.evaluate("[kernel.get('state'), kernel.saved.at(-1)]")
        assert last["turn"] == newest["turn"] + 1
        assert saved == {name: one for name, one in last.items() if name != "turn"}
        # the kernel's own choice, made when it has heard the last one
        page.evaluate("(turn) => kernel.set('state', { ...old, turn })", last["turn"])
        assert page.evaluate("kernel.get('state')") == page.evaluate("old") | {"turn": last["turn"]}
