"""CheckpointBrowser's exported page: keyboard, mouse, filter, and the histogram that was read."""

import pytest
from pages import test_both_themes, test_nothing_overflows, value  # noqa: F401

from qwenkit.pretrained import EMBEDDED
from qwenkit.widgets.checkpoint import CheckpointBrowser

pytestmark = pytest.mark.browser
NORM = "model.norm.weight"


@pytest.fixture(scope="module")
def widget():
    made = CheckpointBrowser(EMBEDDED)
    made.choose(asked=[NORM])
    return made


def rows(widget, **state):
    widget.view.choose(**({"opened": ["model"], "text": "", "selected": "model"} | state))
    return [[row.name, row.depth, row.count, row.nbytes] for row in widget.view.rows()]


def test_it_shows_the_same_rows_as_the_view_model(page, widget):
    assert value(page, "rows") == rows(widget)
    assert page.get_by_role("tree").count() == 1
    assert page.get_by_role("treeitem", name="model").first.get_attribute("aria-expanded") == "true"


def test_arrow_keys_walk_open_and_close(page, widget):
    tree = page.get_by_role("tree")
    tree.press("End")
    assert value(page, "state.selected") == rows(widget)[-1][0]
    tree.press("Home")
    tree.press("ArrowDown")
    second = value(page, "state.selected")
    assert second == rows(widget)[1][0]
    tree.press("ArrowRight")
    assert value(page, "rows") == rows(widget, opened=["model", second])
    tree.press("ArrowLeft")
    assert value(page, "rows") == rows(widget)
    tree.press("ArrowLeft")
    assert value(page, "state.selected") == "model"


def test_a_click_selects_and_the_sign_opens(page, widget):
    page.get_by_role("treeitem", name="layers").locator(".qk-sign").click()
    assert value(page, "state.selected") == "model.layers"
    assert value(page, "rows") == rows(widget, opened=["model", "model.layers"])
    page.get_by_role("treeitem", name="embed_tokens").click()
    assert page.locator(".qk-facts").inner_text().startswith("tensors")


def test_the_filter_finds_tensors_by_a_part_of_their_name(page, widget):
    page.get_by_label("Name contains").fill("q_proj.b")
    assert value(page, "rows") == rows(widget, text="q_proj.b")
    page.get_by_label("Name contains").fill("nothing like this")
    assert value(page, "rows") == []


def test_the_histogram_that_was_read_is_in_the_page_and_others_need_a_kernel(page, widget):
    page.get_by_label("Name contains").fill("norm.weight")
    page.get_by_role("treeitem", name="weight").last.click()
    found = value(page, "histogram")
    assert found["counts"] == widget.view.histograms[NORM].counts
    assert page.get_by_role("img", name="Histogram").is_visible()
    page.get_by_label("Name contains").fill("embed")
    page.get_by_role("treeitem", name="weight").last.click()
    assert "needs a kernel" in page.locator(".qk-numbers").inner_text()
