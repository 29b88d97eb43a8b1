"""GQAExplorer's exported page: what is drawn, keys, the mouse, and heads that must divide."""

import pytest
from pages import overflowing, test_both_themes, value  # noqa: F401

from qwenkit.widgets.gqa import PRESETS, GQAExplorer, divisors

pytestmark = pytest.mark.browser


@pytest.fixture
def widget():
    return GQAExplorer()


def agrees(page, widget):
    """Compare what is drawn with what the view-model says of the same state."""
    view = widget.view
    view.choose(**value(page, "state"))
    assert value(page, "lines") == [[i, kv] for i, kv in enumerate(view.matrix().argmax(axis=1))]
    kept = view.compared()
    assert value(page, "bytes.kept") == kept
    token = {name: view.token_bytes(one) for name, one in kept.items()}
    assert value(page, "bytes.token") == token
    assert value(page, "bytes.whole") == {name: one * view.tokens for name, one in token.items()}
    assert value(page, "preset") == view.preset()
    return view


def test_it_draws_what_the_view_model_says_and_lines_end_at_the_middle_of_their_boxes(page, widget):
    view = agrees(page, widget)
    lines = page.locator(".qk-gqa-heads line")
    assert lines.count() == view.heads
    thick = page.locator(".qk-gqa-heads line[stroke-width='5']")
    assert thick.get_attribute("data-head") == "0"
    row = page.get_by_role("row", name="chosen (GQA): 2 kv heads")
    assert row.locator(".qk-number").all_inner_texts() == ["12,288 bytes per token", "403 MB"]
    assert page.get_by_role("row").count() == 3
    assert "2 (a key and a value) × 24 layers × 2 kv heads × 64 values × 2 bytes = 12,288" in (
        page.locator(".qk-gqa-sum").inner_text()
    )
    ends = page.locator(".qk-gqa-heads line").evaluate_all(
        "all => all.map((line) => [line.x2.baseVal.value, Number(line.dataset.kv)])"
    )
    boxes = page.locator(".qk-gqa-heads rect").evaluate_all(
        "all => all.map((box) => box.x.baseVal.value + box.width.baseVal.value / 2)"
    )
    kv_boxes = boxes[widget.view.heads :]
    assert [kv_boxes[kv] for _, kv in ends] == pytest.approx([end for end, _ in ends], abs=0.01)
    page.set_viewport_size({"width": 390, "height": 900})  # the bar goes below, it stays a row
    wide = "() => [...document.querySelectorAll('.qk-bar')].every((bar) => bar.clientWidth > 200)"
    page.wait_for_function(wide, timeout=10_000)  # the rows are drawn again for the new width
    assert page.get_by_role("row").count() == 3


def test_every_preset_shows_its_numbers(page, widget):
    for name, (shape, tokens) in PRESETS.items():
        page.get_by_label("Model").select_option(name)
        state = value(page, "state")
        assert (*[state[key] for key in ("heads", "kv_heads", "head_dim", "layers")],) == shape
        assert state["tokens"] == tokens
        agrees(page, widget)


def test_arrow_keys_and_clicks_mark_a_query_head(page, widget):
    picture = page.get_by_role("application")
    picture.press("End")
    assert value(page, "state.head") == 13
    picture.press("ArrowLeft")
    assert value(page, "state.head") == 12
    page.wait_for_function(
        "() => document.querySelector('.qk-live').textContent"
        ".startsWith('Query head 12 uses kv head 1, as do all from 7 to 13.')"
    )
    box = page.locator(".qk-gqa-heads svg").bounding_box()
    page.mouse.click(box["x"] + 2.5 / 14 * box["width"], box["y"] + 40)
    assert value(page, "state.head") == 2
    thick = page.locator(".qk-gqa-heads line[stroke-width='5']")
    assert thick.get_attribute("data-head") == "2"
    agrees(page, widget)


def test_only_kv_heads_that_divide_are_offered(page, widget):
    heads = page.get_by_role("slider", name="Query heads")
    kv = page.get_by_label("kv heads", exact=True)
    for _ in range(4):
        heads.press("ArrowLeft")
        offered = kv.locator("option").all_inner_texts()
        assert offered == [str(part) for part in divisors(value(page, "state.heads"))]
        agrees(page, widget)
    assert value(page, "state.heads") == 10
    kv.select_option("5")
    assert agrees(page, widget).group() == [0, 1]
    heads.press("ArrowRight")  # 11 is prime: the largest divisor up to 5 is 1
    assert value(page, "state.kv_heads") == 1
    kv.select_option("11")
    assert "own" in page.locator(".qk-gqa-sum").inner_text()
    agrees(page, widget)


def test_the_other_numbers_change_the_bytes(page, widget):
    tokens = page.get_by_label("Tokens")
    before = value(page, "bytes.whole.chosen")
    tokens.press("ArrowLeft")
    assert value(page, "bytes.whole.chosen") == before / 2
    assert tokens.get_attribute("aria-valuetext") == "16,384"
    page.get_by_label("Data type").select_option("4")
    assert value(page, "bytes.whole.chosen") == before
    page.get_by_label("Layers").press("End")
    assert value(page, "state.layers") == 128
    page.get_by_label("Head dimension").press("ArrowRight")
    assert value(page, "state.head_dim") == 66
    view = agrees(page, widget)
    assert view.preset() == page.get_by_label("Model").input_value()


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("heads", [1, 14, 64])
def test_nothing_overflows_and_no_name_is_wider_than_its_box(shown, width, heads):
    with shown(width=width, heads=heads, kv_heads=heads, head=heads - 1) as page:
        assert overflowing(page) == 0
        slack = page.locator(".qk-gqa-name").evaluate_all(
            "all => all.map((name) => name.previousSibling.getBBox().width - name.getBBox().width)"
        )
        assert min(slack, default=0) >= 0
        assert page.locator(".qk-gqa-heads text").evaluate_all(
            """(names) => {
              const all = names[0].closest("svg").getBoundingClientRect();
              const own = names.map((name) => name.getBoundingClientRect());
              return own.every((one) => one.left >= all.left && one.right <= all.right + 0.5);
            }"""
        )
