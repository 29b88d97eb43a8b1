"""SamplingExplorer's exported page computes what qwenkit.sampling computes."""

import pytest
from pages import test_both_themes, test_nothing_overflows, value  # noqa: F401

from qwenkit.widgets.sampling import SamplingExplorer, _entropy

pytestmark = pytest.mark.browser
PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 0, "draws": 0}


@pytest.fixture
def widget(toy):
    return SamplingExplorer(*toy, "def add(a, b):\n    return a +")


def check(page, widget):
    """Compare the page's numbers with the view-model's, which are qwenkit.sampling's."""
    widget.view.choose(**value(page, "state"))
    view = widget.view
    after = page.evaluate("Array.from(document.querySelector('.qk').qk.after)")
    assert after == pytest.approx(view.after().tolist(), abs=1e-6)
    count, kept = view.kept()
    assert value(page, "end") == count
    assert value(page, "share") == pytest.approx(kept, abs=1e-5)
    cuts = {name: [n, pytest.approx(cut, abs=1e-5)] for name, (n, cut) in view.cuts().items()}
    assert value(page, "cuts") == cuts
    assert value(page, "order") == view.drawn()


@pytest.mark.parametrize("state", [
    {}, {"temperature": 0.0, "draws": 3}, {"temperature": 0.3}, {"top_k": 7, "draws": 50},
    {"temperature": 1.7, "draws": 1000, "seed": 4294967295}, {"top_p": 0.55}, {"min_p": 0.31},
    {"temperature": 0.45, "top_k": 60, "top_p": 0.87, "min_p": 0.04, "draws": 500, "seed": 2},
])  # fmt: skip
def test_the_page_keeps_cuts_and_draws_what_python_does(widget, shown, state):
    with shown(**state) as page:
        check(page, widget)


def test_sliders_follow_the_arrow_keys_and_the_numbers_follow_them(widget, page):
    page.get_by_label("Temperature").press("ArrowLeft")
    for _ in range(5):
        page.get_by_label("Top-k").press("ArrowRight")
    page.get_by_label("Top-p").press("PageDown")
    state = value(page, "state")
    assert (state["temperature"], state["top_k"]) == (0.95, 5)
    assert state["top_p"] < 1
    check(page, widget)
    words = page.locator(".qk-mass").inner_text()
    assert f"kept: {widget.view.kept()[0]} of" in words
    numbers = [_entropy(widget.view.before()), _entropy(widget.view.after())]
    assert "Entropy {:.2f} → {:.2f} nats".format(*numbers) in words
    page.get_by_role("button", name="Reset").click()
    assert value(page, "state") == PLAIN
    assert page.get_by_label("Top-k").evaluate("(slider) => slider.value") == "0"


def test_drawing_counts_and_repeats_with_the_seed(widget, shown):
    with shown(top_k=3) as page:
        page.get_by_role("button", name="Draw one").press("Enter")
        page.get_by_role("button", name="Draw 100").click()
        assert value(page, "state.draws") == 101
        counts = value(page, "counts")
        assert sum(counts.values()) == 101
        check(page, widget)
        first = page.get_by_role("table").get_by_role("row").first.inner_text()
        assert f"{counts['0']}×" in first
        page.get_by_label("Seed").fill("7")
        page.get_by_label("Seed").press("Enter")
        assert value(page, "state.seed") == 7
        check(page, widget)
        page.get_by_role("button", name="Clear").click()
        assert value(page, "order") == []


def test_tokens_that_are_cut_say_by_what(shown):
    with shown(top_k=6, min_p=0.9) as page:
        rows = page.get_by_role("table").get_by_role("row").all_inner_texts()
        assert "cut by min-p" in rows[value(page, "end")]
        assert "cut by top-k" in rows[6]
        assert "cut" not in rows[0]
