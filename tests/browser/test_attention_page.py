"""AttentionExplorer's exported page: what it draws, and what keys and clicks choose."""

import numpy as np
import pytest
from pages import FAINT, color, has_parts, opened, overflowing, pixel, value

from qwenkit.widgets.attention import AttentionExplorer, AttentionView

pytestmark = pytest.mark.browser
PROMPT = "def add(a, b):\n    return a + b\n\nprint(add(1, 2), 'é漢')\n"
MASKED = [0xD4, 0xD7, 0xDC]  # --qk-line of style.css
GRID, MAP, TEXT = ".qk-attention-grid", ".qk-attention-map", ".qk-attention-text"


@pytest.fixture(scope="module")
def widget(toy):
    made = AttentionExplorer(*toy, PROMPT)
    made.choose(layer=0, head=1, token=12)
    return made


def right(page, widget, **expected):
    """Tell whether what is chosen is as expected, and everything drawn belongs to it."""
    state = value(page, "state")
    assert {name: state[name] for name in expected} == expected
    view = AttentionView(widget.view.patterns, **state)
    weights = widget.view.patterns.weights[state["layer"], state["head"]]
    assert page.evaluate("() => [...document.querySelector('.qk').qk.triangle]") == weights.tolist()
    assert value(page, "arcs") == np.rint(view.arc_weights() * 255).astype(int).tolist()
    assert page.locator(".qk-attention-title").inner_text() == view.title()
    chosen = page.locator(f'{TEXT} [aria-selected="true"]')
    assert chosen.get_attribute("data-position") == str(state["token"])
    assert page.locator(TEXT).get_attribute("aria-activedescendant") == chosen.get_attribute("id")


def at(page, where, row, column):
    """Return where the page draws a cell of the map or a tile of the grid: x and y."""
    return dict(zip("xy", value(page, f"middle.{where}({row}, {column})"), strict=True))


def test_each_pixel_of_the_map_has_the_color_of_its_weight(page, widget):
    right(page, widget, layer=0, head=1, token=12, arcs="attends to", faint=False)
    matrix = np.rint(widget.view.patterns.matrix(0, 1) * 255)
    for row, column in [(0, 0), (5, 0), (12, 12), (20, 3), (len(matrix) - 1, 7)]:
        shade = color("viridis", matrix[row, column])
        assert pixel(page, MAP, **at(page, "map", row, column)) == shade
    assert pixel(page, MAP, **at(page, "map", 3, 9)) == pytest.approx(MASKED, abs=2)
    page.get_by_label("bring out small weights").check()
    right(page, widget, faint=True)
    for row, column in [(0, 0), (20, 3)]:
        shade = color("viridis", np.rint(np.sqrt(255 * matrix[row, column])))
        assert pixel(page, MAP, **at(page, "map", row, column)) == shade


def test_each_tile_of_the_grid_shows_its_own_head(page, widget):
    patterns = widget.view.patterns
    size, small = len(patterns.labels), min(len(patterns.labels), 56)
    for layer, head in [(0, 0), (0, 3), (1, 0), (1, 2)]:
        matrix = np.rint(patterns.matrix(layer, head) * 255)
        center = int((small / 2) * size / small)  # the row and column under the tile's middle
        block = matrix[center - 1 : center + 2, center - 1 : center + 2]
        shades = [MASKED, *(color("viridis", weight) for weight in block.flat)]
        found = pixel(page, GRID, **at(page, "grid", layer, head))
        assert any(found == pytest.approx(shade, abs=2) for shade in shades)


def test_keys_on_the_grid_walk_over_heads_and_layers(page, widget):
    for key, layer, head in [
        ("ArrowRight", 0, 2), ("ArrowDown", 1, 2), ("ArrowDown", 1, 2), ("End", 1, 3),
        ("ArrowRight", 1, 3), ("ArrowUp", 0, 3), ("Home", 0, 0), ("ArrowLeft", 0, 0),
        ("PageDown", 1, 0), ("PageUp", 0, 0),
    ]:  # fmt: skip
        page.locator(GRID).press(key)
        right(page, widget, layer=layer, head=head, token=12)


@pytest.mark.parametrize("selector", [MAP, TEXT])
def test_keys_on_the_map_and_on_the_text_walk_over_tokens(page, widget, selector):
    last = len(widget.view.patterns.labels) - 1
    for key, token in [
        ("ArrowRight", 13), ("ArrowUp", 12), ("ArrowDown", 13), ("ArrowLeft", 12), ("PageUp", 2),
        ("PageUp", 0), ("ArrowLeft", 0), ("PageDown", 10), ("End", last), ("ArrowDown", last),
        ("Home", 0),
    ]:  # fmt: skip
        page.locator(selector).press(key)
        right(page, widget, layer=0, head=1, token=token)


def test_clicks_choose_a_head_a_token_of_the_map_and_one_of_the_text(page, widget):
    page.locator(GRID).click(position=at(page, "grid", 1, 2))
    right(page, widget, layer=1, head=2, token=12)
    page.locator(MAP).click(position=at(page, "map", 7, 3))
    right(page, widget, token=7)
    page.get_by_label("Arcs").select_option("which tokens attend to it")
    right(page, widget, arcs="is attended to by")
    page.locator(MAP).click(position=at(page, "map", 7, 3))  # now the column counts
    right(page, widget, token=3)
    page.locator(f'{TEXT} [data-position="9"]').click()
    right(page, widget, token=9)


def test_arcs_go_to_every_token_with_two_percent_and_are_as_wide_as_the_weight(page, widget):
    for words in ("what the token attends to", "which tokens attend to it"):
        page.get_by_label("Arcs").select_option(words)
        view = AttentionView(widget.view.patterns, **value(page, "state"))
        weights = view.arc_weights()
        drawn = page.locator(f"{TEXT} path").evaluate_all(
            "all => all.map(one => [Number(one.dataset.to), one.getAttribute('stroke-width')])"
        )
        expected = [i for i, one in enumerate(weights) if one >= 0.02 and i != view.token]
        assert [position for position, _ in drawn] == expected
        assert expected
        for position, width in drawn:
            assert float(width) == pytest.approx(1 + 5 * weights[position])


def test_the_buttons_go_to_the_strongest_heads_and_to_a_token_that_shows_them(page, widget):
    page.get_by_label("Arcs").select_option("which tokens attend to it")
    for head_type in ("previous-token head", "first-token head", "induction head"):
        page.get_by_role("button", name=head_type).click()
        layer, head = widget.view.patterns.strongest(head_type)
        token = widget.view.patterns.example(head_type, layer, head)
        right(page, widget, layer=layer, head=head, token=token, arcs="attends to")


def test_arcs_are_behind_the_words_and_end_with_the_text(page):
    for width in (1280, 390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(100)
        assert page.locator(TEXT).evaluate(
            """(list) => {
              const last = [...list.querySelectorAll(".qk-token")].at(-1);
              return list.firstElementChild.getBoundingClientRect().height
                === last.offsetTop + last.offsetHeight;
            }"""
        )
    shown = page.locator(f"{TEXT} .qk-token").evaluate_all(
        """all => all.map((one) => getComputedStyle(one))
          .map((style) => [style.position, style.backgroundColor])"""
    )
    assert {position for position, _ in shown} == {"relative"}
    assert not any("/" in behind or "rgba" in behind for _, behind in shown)  # none is transparent


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_are_legible_on_any_shade(page, widget, scheme):
    page.emulate_media(color_scheme=scheme)
    page.get_by_label("bring out small weights").check()
    for layer, head in np.ndindex(2, 4):
        page.locator(GRID).click(position=at(page, "grid", layer, head))
        assert page.evaluate(FAINT) == []


def test_a_part_of_a_long_text_can_be_enlarged(toy, browser, tmp_path):
    made = AttentionExplorer(*toy, "\n".join(f"x{i} = {i}" for i in range(60)))
    with opened(browser, made.to_html(tmp_path / "page.html"), width=390) as page:
        right(page, made)
        row, key = (
            value(page, "state.token"),
            int(made.view.matrix()[made.view.token, 1:].argmax()) + 1,
        )
        top = round(255 * made.view.brightest())
        for part in ("0", "32"):
            page.get_by_label("Map").select_option(part)
            assert overflowing(page) == 0
            cell = value(page, "middle.map(1, 1)")[0] - value(page, "middle.map(0, 0)")[0]
            assert (cell > 4) == (part == "32")
            shade = color(
                "viridis", np.rint(min(1, made.view.matrix()[row, key] * 255 / top) * 255)
            )
            if part == "32":
                assert pixel(page, MAP, **at(page, "map", row, key)) == shade
        assert page.get_by_text(f"{100 * top / 255:.0f}% and more").count() == 1


def test_hover_says_which_token_attends_to_which_and_how_much(page, widget):
    labels, matrix = widget.view.patterns.labels, widget.view.patterns.matrix(0, 1)
    row, column = 9, int(matrix[9].argmax())
    page.locator(MAP).hover(position=at(page, "map", row, column))
    tip = page.locator(".qk-tip:visible")
    weight = f"{np.floor(100 * matrix[row, column] + 0.5):.0f}%"
    key = f"{labels[column]} ({column})"
    assert tip.inner_text() == f"{labels[row]} ({row}) attends to {key}: {weight}"
    page.locator(MAP).hover(position=at(page, "map", 2, 5))
    assert "cannot attend to the later" in tip.inner_text()
    page.locator(GRID).hover(position=at(page, "grid", 1, 0))
    assert tip.inner_text() == widget.view.patterns.title(1, 0)


def test_every_part_has_a_name_and_the_line_says_what_is_shown(page, widget):
    line = has_parts(
        page, ("group", "Attention of every head"), ("application", "The chosen head"),
        ("application", "Grid of 2 layers and 4 heads"), ("listbox", "The text"),
        ("combobox", "Arcs"), ("checkbox", "bring out small weights"), ("group", "Strongest head"),
    )  # fmt: skip
    token = widget.view.patterns.labels[12]
    assert line.startswith(f"Layer 0, head 1: {token} (12) attends to ")
    page.get_by_label("Arcs").focus()
    visited = []
    for _ in range(8):
        page.keyboard.press("Tab")
        visited.append(page.evaluate("() => document.activeElement.className"))
    assert visited.count("qk-attention-grid") == 1
    assert "qk-line qk-attention-text" in visited


def test_quick_presses_all_count(page, widget):
    page.locator(TEXT).press("Home")
    for _ in range(25):
        page.keyboard.press("ArrowRight")
    right(page, widget, token=25)


@pytest.mark.parametrize("width", [700, 1200])
def test_a_long_text_is_pooled_says_so_and_fits_the_window(toy, browser, tmp_path, width):
    widget = AttentionExplorer(*toy, "xyz" * 200)
    with opened(browser, widget.to_html(tmp_path / "page.html"), width) as page:
        words = "600 tokens: each pixel is the largest of 2 × 2 weights"
        assert page.get_by_text(words).count() == 1
        page.locator(TEXT).press("End")
        right(page, widget, token=299)
        assert overflowing(page) <= 0
        chosen = page.locator(f'{TEXT} [aria-selected="true"]')
        assert chosen.get_attribute("title").endswith("(598–599)")
        assert chosen.evaluate(  # the text is scrolled to it
            "({ offsetTop: top, offsetHeight: height, offsetParent: box }) =>"
            " top + height <= box.scrollTop + box.clientHeight"
        )
