"""LayerInspector's exported page, and what it does where a kernel answers."""

import numpy as np
import pytest
from pages import answered, overflowing, value

from qwenkit.widgets.layer import LayerInspector

pytestmark = pytest.mark.browser
PROMPT = "def add(a, b):\n\treturn 'Größe 🙂'\n"


@pytest.fixture
def widget(toy):
    made = LayerInspector(*toy, PROMPT, "def sub(a):\n    return a\n")
    made.choose(token=4, other_token=2)
    return made


def check(page, widget):
    """Compare everything that is drawn with the view-model."""
    state = value(page, "state")
    widget.view.choose(**state)
    view, shown = widget.view, page.evaluate("document.querySelector('.qk').qk")
    assert shown["row"] == pytest.approx(view.matrix()[state["token"], : state["token"] + 1])
    for name, vectors in (("query", view.query()), ("key", view.key())):
        for when, vector in zip(("before", "after"), vectors, strict=True):
            near = 2 * float(np.abs(vector).max()) / 2**15 + 1e-4
            assert shown[name][when] == pytest.approx(vector.tolist(), abs=near)
    assert shown["kv"] == view.kv_head()
    assert [unit for unit, _ in shown["units"]] == [unit for unit, _ in view.units()]
    assert [act for _, act in shown["units"]] == pytest.approx([act for _, act in view.units()])
    assert shown["norms"] == pytest.approx(view.norms().tolist())
    assert shown["lens"] == [[list(pair) for pair in row] for row in view.lens()]
    assert page.locator(".qk-layer-title").inner_text() == view.title()


def test_every_panel_follows_layer_head_and_token(page, widget):
    check(page, widget)
    page.get_by_label("Layer", exact=True).press("ArrowRight")
    page.get_by_label("Head", exact=True).press("End")
    text = page.get_by_role("listbox", name="The text", exact=False).first
    text.press("ArrowRight")
    state = value(page, "state")
    assert [state["layer"], state["head"], state["token"]] == [1, 3, 5]
    check(page, widget)
    text.press("End")
    assert value(page, "state.token") == len(widget.data["tokens"]) - 1
    check(page, widget)
    text.press("Home")
    check(page, widget)


def test_the_mouse_chooses_tokens_heads_and_layers(page, widget):
    page.get_by_role("option").nth(6).click()
    assert value(page, "state.token") == 6
    page.get_by_role("button", name="head 2", exact=True).click()
    page.get_by_role("button", name="layer 1", exact=True).click()
    assert value(page, "state.head") == 2
    assert value(page, "state.layer") == 1
    check(page, widget)
    canvas = page.get_by_role("application", name="A row for each query")
    low = canvas.bounding_box()["height"] - 6
    canvas.click(position={"x": 90, "y": low})
    assert value(page, "state.token") == len(widget.data["tokens"]) - 1
    check(page, widget)


def test_hovering_tells_the_attention_weight(page, widget):
    canvas = page.get_by_role("application", name="A row for each query")
    canvas.press("End")
    last = value(page, "state.token")
    bounds = canvas.bounding_box()
    page.mouse.move(bounds["x"] + 66, bounds["y"] + bounds["height"] - 5)  # the last row's first
    weight = round(100 * float(widget.view.patterns.matrix(0, 0)[last, 0]))
    words = page.locator(".qk-tip:visible").inner_text()
    assert words.startswith(f"{widget.data['tokens'][last]} ({last}) attends to")
    assert words.endswith(f"{weight}%" if weight else "<1%")


def test_the_other_text_has_its_own_token(page, widget):
    page.get_by_role("listbox", name="The other text", exact=False).press("ArrowLeft")
    state = value(page, "state")
    assert (state["other_token"], state["token"]) == (1, 4)
    check(page, widget)


def test_a_page_without_a_kernel_has_no_switch(page, widget):
    assert page.get_by_role("button", name="Switch head").count() == 0
    assert page.get_by_role("heading", name="The next token without a head").count() == 0
    assert "kernel" not in page.locator(".qk").inner_text()


def test_a_page_made_with_a_head_off_shows_what_changed(widget, shown):
    with shown(layer=1, head=1, off=[1, 1]) as page:
        table = page.get_by_role("table", name="Next token:")
        name = table.get_by_role("rowheader").first.inner_text()
        assert name.strip() == widget.without["rows"][4][0][0].strip()
        page.get_by_role("button", name="Largest change").click()
        assert value(page, "state.token") == int(np.argmax(widget.without["moved"]))


def test_a_late_answer_for_another_head_is_not_shown(widget, shown):
    with shown(answered, head=1) as page:
        page.get_by_role("button", name="Switch head 1 of layer 0 off").click()
        page.wait_for_function("() => kernel.saved.length")
        assert page.evaluate("kernel.saved.at(-1).off") == [0, 1]
        assert "The kernel computes" in page.locator(".qk").inner_text()
        widget.choose(off=[1, 3])
        page.evaluate("(answer) => kernel.set('without', answer)", widget.without)
        assert value(page, "without") is None
        widget.choose(off=[0, 1])
        page.evaluate("(answer) => kernel.set('without', answer)", widget.without)
        assert value(page, "without.off") == [0, 1]
        assert page.get_by_role("table", name="Next token:").get_by_role("row").count() == 6
        page.get_by_role("button", name="Switch head 1 of layer 0 on again").click()
        assert value(page, "without") is None


def test_quick_keys_end_on_the_right_picture_and_ask_the_kernel_once(widget, shown):
    with shown(answered, token=0) as page:
        text = page.get_by_role("listbox", name="The text", exact=False).first
        took = text.evaluate(
            """(text) => {
                const start = performance.now();
                for (let i = 0; i < 9; i++)
                  text.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
                return performance.now() - start;
            }"""
        )
        assert took < 1000
        assert value(page, "state.token") == 9
        check(page, widget)
        page.wait_for_timeout(300)
        assert [state["token"] for state in page.evaluate("kernel.saved")] == [9]


def test_the_controls_stay_in_sight(page):
    page.set_viewport_size({"width": 900, "height": 700})
    page.mouse.wheel(0, 500)
    page.wait_for_function("() => window.scrollY > 100")
    assert page.get_by_label("Layer", exact=True).bounding_box()["y"] >= 0
    before = page.evaluate("window.scrollY")
    page.get_by_label("Layer", exact=True).press("ArrowRight")
    assert value(page, "state.layer") == 1
    assert page.evaluate("window.scrollY") == before


@pytest.mark.parametrize("width", [700, 1200])
def test_nothing_overflows(shown, width):
    with shown(width=width) as page:
        assert overflowing(page) == 0
        assert page.locator(".qk-panel").evaluate_all(
            "panels => panels.every((one) => one.scrollWidth <= one.clientWidth)"
        )
