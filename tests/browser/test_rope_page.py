"""RopeExplorer's exported page computes what Python computes, from keys, sliders and clicks."""

import numpy as np
import pytest
from pages import (  # noqa: F401
    color,
    has_parts,
    opened,
    overflowing,
    pixel,
    test_both_themes,
    test_nothing_overflows,
    value,
)

from qwenkit.config import QwenConfig, YarnScaling
from qwenkit.widgets._rope_view import RopeView
from qwenkit.widgets.rope import RopeExplorer

pytestmark = pytest.mark.browser
CONFIG = QwenConfig(8, 16, 8, 1, 1, 1, rope_theta=10_000.0, rope_scaling=YarnScaling(4.0, 64))
TABLES, CURVE = ".qk-rope-tables", ".qk-rope-curve"


@pytest.fixture(scope="module")
def widget():
    vectors = np.random.default_rng(5).normal(size=(2, 16)).astype(np.float32)
    made = RopeExplorer(CONFIG, vectors=vectors, positions=100)
    made.choose(pair=3, query=40, key=25)
    return made


def point(page, pair, position):
    """Return where the cos of a pair at one of the 100 positions is drawn, in pixels."""
    width = (page.locator(TABLES).bounding_box()["width"] - 38 - 14 - 4) / 2
    return 38 + (pair + 0.5) * width / 8, 18 + (position + 0.5) * 2.4


def right(page, widget, **expected):
    """Tell whether what is chosen is as expected, and all numbers are those of the view-model."""
    state = value(page, "state")
    assert {name: state[name] for name in expected} == expected
    old = widget.view
    view = RopeView(old.config, old.vectors, old.positions)
    view.choose(**state)
    assert value(page, "product") == pytest.approx(view.product(), abs=1e-9)
    assert value(page, "pairProduct") == pytest.approx(view.pair_product(), abs=1e-9)
    assert np.allclose(value(page, "after"), view.rotated()[..., view.pair], atol=1e-9)
    assert np.allclose(value(page, "products"), view.products(), atol=1e-9)
    assert np.allclose(value(page, "pairProducts"), view.products(view.pair), atol=1e-9)
    for name, table in zip(("cos", "sin"), view.tables(), strict=True):
        drawn = page.evaluate(f"() => [...document.querySelector('.qk').qk.{name}]")
        assert np.allclose(drawn, table.reshape(-1), atol=1e-6)  # float32
    assert page.locator(".qk-rope-title").inner_text() == view.title()
    shown = page.locator(".qk-rope-product").inner_text().replace("−", "-")
    assert float(shown) == pytest.approx(view.product(), abs=6e-5)


def test_keys_on_the_tables_choose_pair_and_query(page, widget):
    for key, pair, query in [
        ("ArrowRight", 4, 40), ("ArrowLeft", 3, 40), ("ArrowDown", 3, 41), ("PageDown", 3, 51),
        ("ArrowUp", 3, 50), ("End", 7, 50), ("ArrowRight", 7, 50), ("Home", 0, 50),
    ]:  # fmt: skip
        page.locator(TABLES).press(key)
        right(page, widget, pair=pair, query=query, key=25)


def test_keys_on_the_curve_change_the_distance(page, widget):
    for key, query, position in [
        ("ArrowRight", 40, 24), ("ArrowLeft", 40, 25), ("PageUp", 40, 15), ("Home", 40, 40),
        ("ArrowLeft", 40, 41), ("End", 99, 0), ("ArrowRight", 99, 0),
    ]:  # fmt: skip
        page.locator(CURVE).press(key)
        right(page, widget, query=query, key=position)


def test_shifting_both_rotates_the_arrows_and_leaves_the_product(page, widget):
    product, after = value(page, "product"), value(page, "after")
    shift = page.get_by_label("Shift both")
    assert (shift.get_attribute("max"), shift.input_value()) == ("84", "25")
    assert page.get_by_text("40 and 25").count() == 1
    for press, query, key in [("ArrowRight", 41, 26), ("Home", 15, 0), ("End", 99, 84)]:
        shift.press(press)
        right(page, widget, query=query, key=key)
        assert value(page, "product") == pytest.approx(product, abs=1e-12)
    assert not np.allclose(value(page, "after"), after, atol=0.1)


def test_sliders_and_the_list_choose_the_rest(page, widget):
    for label, name, last in ("Pair", "pair", 7), ("Query at", "query", 99), ("Key at", "key", 99):
        page.get_by_role("slider", name=label).press("End")
        right(page, widget, **{name: last})
    page.get_by_label("Theta").select_option("1,000,000")
    right(page, widget, pair=7, theta=1_000_000)
    options = page.get_by_label("Theta").locator("option").all_inner_texts()
    assert "10,000 (with YaRN)" in options
    assert len(options) == 6


def test_clicks_on_tables_and_curve_choose_and_hover_says_the_value(page, widget):
    x, y = point(page, 2, 12)
    page.locator(TABLES).click(position={"x": x, "y": y})
    right(page, widget, pair=2, query=12)
    tip = page.locator(".qk-tip:visible").inner_text()
    cos = RopeView(CONFIG, widget.view.vectors, 100).tables()[0][12, 2]
    assert tip.startswith("cos at position 12, pair 2: ")
    assert float(tip.rsplit(": ")[-1].replace("−", "-")) == pytest.approx(cos, abs=0.006)
    width = page.locator(CURVE).bounding_box()["width"]
    page.locator(CURVE).click(position={"x": 48 + (10 + 99) / 198 * (width - 56), "y": 60})
    right(page, widget, query=12, key=2)
    assert "distance 10: q·k " in page.locator(".qk-tip:visible").inner_text()


def test_it_begins_with_what_was_chosen_and_tables_in_the_colors_of_their_values(page, widget):
    right(page, widget, pair=3, query=40, key=25, theta=10_000)
    cos = widget.view.tables()[0]
    for row, pair in [(60, 0), (75, 5)]:
        drawn = pixel(page, TABLES, *point(page, pair, row))
        shade = min(np.floor((cos[row, pair] + 1) * 127.5 + 0.5), 255)
        assert np.abs(np.subtract(drawn, color("RdBu_r", shade))).max() <= 2


def test_every_part_has_a_name_and_the_line_says_what_is_shown(page):
    line = has_parts(
        page, ("group", "Rotary position embedding"), ("slider", "Pair"), ("slider", "Shift both"),
        ("combobox", "Theta"), ("application", "cos and sin of each position"),
        ("application", "q·k against the distance"), ("img", "Pair 3 as arrows"),
        ("region", "In numbers"),
    )  # fmt: skip
    assert "Query at 40, key at 25, distance 15: q·k " in line


@pytest.mark.parametrize("width", [390, 1200])
def test_it_fits_the_window(browser, tmp_path, width):
    widget = RopeExplorer(theta=1e6, head_dim=128, positions=1024)
    with opened(browser, widget.to_html(tmp_path / "page.html"), width) as page:
        right(page, widget, pair=2, query=12, key=0)
        assert overflowing(page) <= 0
