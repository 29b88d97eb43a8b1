"""ModelExplorer's page computes what the package computes, and follows what a reader does."""

import pytest
from pages import KERNEL, opened, overflowing, value

import qwenkit as qk
from qwenkit.widgets.explorer import EXAMPLES, MOST_READ, PROMPT, ModelExplorer

pytestmark = pytest.mark.browser
PRIME = EXAMPLES["Is a number prime?"]
LONG = "x = [1, 2, 3]\n" * 60
ODD = ["a", "\n", "😀🎉👩‍👩‍👧 é 日本語 = ", "<|endoftext|><b>&amp;</b>\u202e"]
WIDTHS = "(bars) => bars.map((bar) => parseFloat(bar.style.width))"
# Types a text, and resolves once its bars are drawn: with the milliseconds that it took.
TYPE = """async (text) => {
  const root = document.querySelector(".qk"), box = root.querySelector(".qkx-prompt");
  const drawn = root.dataset.drawn, start = performance.now();
  box.value = text;
  box.dispatchEvent(new Event("input", { bubbles: true }));
  while (root.dataset.drawn === drawn || root.qk.state.prompt !== text)
    await new Promise((resume) => setTimeout(resume));
  return performance.now() - start;
}"""
IDLE = "() => !document.querySelector('.qk').qk.generating"
OFF = "(count) => document.querySelector('.qk').qk.state.off.length === count"


@pytest.fixture(scope="module")
def widget():
    return ModelExplorer()


@pytest.fixture(scope="module")
def path(widget, tmp_path_factory):
    return widget.to_html(tmp_path_factory.mktemp("explorer") / "page.html")


@pytest.fixture
def page(browser, path):
    with opened(browser, path) as page:
        yield page


def expected(widget, text, off=()):
    """Return the next token's probabilities by the package."""
    view = widget.view
    view.choose(prompt=text, off=[list(one) for one in off])
    trace = qk.Trace(keep=(), edits=view.edits())
    return view.model(view.ids(), trace=trace)[0, -1].softmax(-1).tolist()


def same(page, widget, text, off=()):
    """Compare the page's probabilities with the package's."""
    found = page.evaluate("Array.from(document.querySelector('.qk').qk.probabilities)")
    assert found == pytest.approx(expected(widget, text, off), abs=2e-5)


def test_the_page_is_small_and_its_first_bars_come_soon(page, path):
    assert path.stat().st_size < 14_000_000
    assert page.evaluate("performance.now()") < 15_000  # 3 s on a machine at rest
    assert page.get_by_role("button", name="·n 37%").count() == 1


def test_any_text_gives_the_packages_probabilities(page, widget):
    for text in [PROMPT, *ODD, PRIME, LONG]:
        page.evaluate(TYPE, text)
        same(page, widget, text)
    assert f"the first {MOST_READ} of" in page.locator(".qkx-count").inner_text()
    page.evaluate(TYPE, "")
    assert value(page, "probabilities") is None
    assert "needs at least one token" in page.locator(".qkx-next").inner_text()
    page.evaluate(TYPE, PROMPT)
    same(page, widget, PROMPT)


def test_typing_reuses_what_was_computed_and_stays_right(page, widget):
    text = PRIME + "    if n < 2:\n        return 0\n    for i in range(2, n):\n        if n % i"
    page.evaluate(TYPE, text)
    took = []
    for end in range(1, 9):
        page.wait_for_timeout(150)
        took.append(page.evaluate(TYPE, text + " == 0:\n "[:end]))
    assert sorted(took)[3] < 500, took  # 100 ms on a machine at rest
    same(page, widget, text + " == 0:\n ")
    page.evaluate(TYPE, text)  # shorter again: nothing has to be computed
    same(page, widget, text)
    page.evaluate(TYPE, "#" + text)  # changed at its beginning
    same(page, widget, "#" + text)


def test_fast_typing_ends_with_the_last_text(page, widget):
    fast = "for (let i = 1; i < text.length; i++) type(text.slice(0, i)); return type(text);"
    page.evaluate(f"(text) => {{ const type = {TYPE}; {fast} }}", LONG[:300])
    same(page, widget, LONG[:300])


def test_switching_parts_off_is_an_ablation_and_can_be_taken_back(page, widget):
    off = [[3, 2], [3, 5], [1, None], [0, 7]]
    for count, (layer, head) in enumerate(off, 1):
        name = f"MLP, layer {layer}: gate and up" if head is None else f"Layer {layer}, head {head}"
        page.get_by_role("button", name=name, exact=True).press("x")
        page.wait_for_function(OFF, arg=count)
        same(page, widget, PROMPT, off[:count])
    before = page.evaluate("Array.from(document.querySelector('.qk').qk.before)")
    assert before == pytest.approx(expected(widget, PROMPT), abs=2e-5)
    longer = PROMPT + " n % 2 =="
    page.evaluate(TYPE, longer)  # both with and without the parts go on from their caches
    same(page, widget, longer, off)
    head = page.get_by_role("button", name="Layer 3, head 2, switched off", exact=True)
    head.press("Enter")
    page.get_by_role("button", name="Switch head 2 on").click()
    same(page, widget, longer, off[1:])
    page.get_by_role("button", name="All on again (3 off)").click()
    same(page, widget, longer)
    assert value(page, "before") is None


def test_every_part_opens_by_the_keyboard(page):
    page.get_by_role("button", name="embedding ·return: the token's row of the table").focus()
    seen = set()
    for key in ["ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown", "End", "Home"]:
        page.keyboard.press(key)
        page.keyboard.press("Enter")
        page.wait_for_timeout(150)
        seen.add(page.evaluate("document.querySelector('.qk').dataset.panel"))
    assert {"attn_norm", "qkv", "rope", "pattern", "sampling", "embed"} <= seen
    assert page.locator(".qkx-model [tabindex='0']").count() == 1


def test_tokens_are_chosen_by_keys_and_clicks(page):
    line = page.get_by_role("listbox", name="Tokens of the prompt")
    line.press("ArrowLeft")
    assert value(page, "position") == 14
    line.locator('[data-position="3"]').click()
    assert value(page, "position") == 3
    assert page.get_by_text("Next token after").inner_text().endswith("(n")


def test_generating_writes_what_the_package_writes(page, widget):
    page.evaluate(TYPE, PRIME)
    page.get_by_role("button", name="Generate").click()
    page.wait_for_function(IDLE)
    wanted = qk.complete(widget.view.model, widget.view.tokenizer, PRIME, max_new_tokens=80)
    assert page.get_by_label("Prompt", exact=True).input_value() == PRIME + wanted
    assert "which stops generation" in page.locator(".qkx-coach").inner_text()
    assert value(page, "speed") > 8  # 30 on a machine at rest


def test_heads_are_switched_and_text_is_typed_while_generating(page, widget):
    page.evaluate(TYPE, "import numpy as np\n")
    page.get_by_role("button", name="Generate").click()
    head = page.get_by_role("button", name="Layer 2, head 1", exact=True)
    head.press("x")
    page.get_by_role("button", name="Layer 2, head 1, switched off", exact=True).wait_for()
    assert value(page, "generating")
    length = len(value(page, "ids"))
    page.wait_for_function("(n) => document.querySelector('.qk').qk.ids.length > n + 3", arg=length)
    page.get_by_role("button", name="Stop").click()
    page.wait_for_function(IDLE)
    same(page, widget, page.get_by_label("Prompt", exact=True).input_value(), [[2, 1]])
    page.get_by_role("button", name="Generate").click()
    page.evaluate(TYPE, PROMPT)
    page.wait_for_function(IDLE)
    same(page, widget, PROMPT, [[2, 1]])


def test_a_full_text_ends_generation(page):
    page.evaluate(TYPE, LONG)
    page.get_by_role("button", name="Generate").click()
    page.get_by_text(f"This page reads at most {MOST_READ} tokens.").wait_for()
    assert len(value(page, "ids")) == MOST_READ


def test_the_tour_has_ten_steps_by_keys_and_ends_with_escape(page):
    page.get_by_role("button", name="Take the tour").press("Enter")
    coach, panels = page.get_by_role("region", name="What happens"), []
    for number in range(1, 11):
        page.get_by_text(f"{number} of 10.").wait_for()
        page.wait_for_timeout(120)
        panels.append(page.evaluate("document.querySelector('.qk').dataset.panel"))
        assert len(coach.locator("p").inner_text()) < 300
        if number < 10:
            page.keyboard.press("ArrowRight")
    assert panels[0] == "tokens"
    assert panels[-1] == "sampling"
    assert len(set(panels)) == 10
    page.keyboard.press("ArrowLeft")
    page.get_by_text("9 of 10.").wait_for()
    page.evaluate(TYPE, "class A:\n    def __init__(self")  # the sentences follow the text
    page.get_by_text("Stopped after layer 0").filter(has_text="“._”").wait_for()
    page.keyboard.press("Escape")
    page.get_by_text("New here?").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Take the tour"


def test_step_goes_through_all_parts_and_appends_a_token(page):
    step = page.get_by_role("button", name="Step", exact=True)
    step.click()
    words = page.locator(".qkx-coach p").inner_text()
    total = int(words.split(" of ")[1].split(".")[0])
    assert total == 2 + 12 + 5 * 4 + 3
    for _ in range(total):
        step.click()
    page.locator(".qkx-coach").get_by_text("is appended").wait_for()
    assert page.get_by_label("Prompt", exact=True).input_value() == PROMPT + " not"


def test_play_goes_on_by_itself_and_pauses(page):
    page.get_by_role("button", name="Play").click()
    page.get_by_text("3 of 37.").wait_for()
    page.get_by_role("button", name="Pause").click()
    page.wait_for_timeout(2000)
    at = page.locator(".qkx-coach p").inner_text()[:8]
    page.wait_for_timeout(2000)
    assert page.locator(".qkx-coach p").inner_text()[:8] == at


def test_temperature_and_top_k_show_what_is_drawn_from(page):
    page.get_by_label("Temperature").fill("1.5")
    page.get_by_label("Top-k").fill("2")
    text = page.locator(".qkx-next").inner_text()
    assert "drawn with temperature 1.5, top-k 2" in text
    widths = page.eval_on_selector_all(".qkx-track > .qkx-bar-drawn", WIDTHS)
    assert widths[0] + widths[1] == pytest.approx(100, abs=0.1)
    assert max(widths[2:]) == 0


def test_a_bar_that_is_clicked_is_appended(page, widget):
    page.get_by_role("button", name="·n 37%").click()
    page.wait_for_function("() => document.querySelector('.qk').qk.ids.length === 17")
    assert page.get_by_label("Prompt", exact=True).input_value() == PROMPT + " n"
    same(page, widget, PROMPT + " n")


@pytest.mark.parametrize("width", [360, 640, 1000, 1600])
def test_nothing_overflows_at_any_width(browser, path, width):
    with opened(browser, path, width=width) as page:
        page.get_by_role("button", name="Take the tour").click()
        for _ in range(10):
            page.wait_for_timeout(100)
            assert overflowing(page) == 0
            page.keyboard.press("ArrowRight")


def test_reduced_motion_switches_motion_off(browser, path):
    with opened(browser, path) as page:
        assert page.get_by_label("Motion").is_checked()
        page.emulate_media(reduced_motion="reduce")
        page.reload()
        page.wait_for_selector('.qk:not([data-drawn="0"])')
        assert not page.get_by_label("Motion").is_checked()
        durations = page.eval_on_selector_all(
            ".qkx-track *", "(all) => all.map((one) => getComputedStyle(one).transitionDuration)"
        )
        assert set(durations) == {"0s"}


def test_a_kernel_that_does_not_send_the_model_is_noticed_within_five_seconds(
    browser, path, tmp_path
):
    text = path.read_text(encoding="utf-8")
    assert text.count('"files": {') == 1
    silent = text.replace('"files": {', '"no files": {')  # as in a notebook, which asks for them
    (tmp_path / "page.html").write_text(
        silent.replace("render({ model: standalone(", KERNEL), encoding="utf-8"
    )
    page = browser.new_page()
    page.clock.install()
    page.goto((tmp_path / "page.html").as_uri())
    wait = page.locator(".qkx-wait")
    wait.wait_for()
    assert page.evaluate("kernel.asked.map(({ files }) => files)") == [True]
    page.clock.run_for(4000)
    assert wait.inner_text() == "Loading the model …"
    page.clock.run_for(1000)
    assert "The kernel does not answer" in wait.inner_text()
    page.close()
