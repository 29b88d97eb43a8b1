"""Every widget in the real JupyterLab: shown, moved by keys and mouse, right, and quick."""

import json
import statistics
import time

import nbformat
import pytest
from lab_server import CLEAR, PANEL, READY, SAVE, carry_out
from nbformat.v4 import new_code_cell, new_notebook
from widget_cases import CASES, PROMPT

pytestmark = pytest.mark.browser
SLOWER = 3  # what a machine that also does other things is allowed
SINGLE, QUICK = 15, 25  # presses with a pause, and without
SHOWN = '.qk:not([data-drawn="0"])'
PICTURE = ".jp-OutputArea-child .jp-RenderedImage img"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
LOAD = f"""import json
import qwenkit as qk
from qwenkit.pretrained import EMBEDDED
model, tokenizer = qk.load_pretrained(EMBEDDED)
PROMPT = {PROMPT!r}"""
# Milliseconds from a key to the frame after the drawing, in `took`.
STOPWATCH = """() => {
  window.took = [];
  let pressed = 0;
  document.addEventListener("keydown", (event) => { pressed = event.timeStamp; }, true);
  const done = () => window.took.push(performance.now() - pressed);
  new MutationObserver(() => requestAnimationFrame(() => setTimeout(done)))
    .observe(document.querySelector(".qk"), { attributeFilter: ["data-drawn"] });
}"""
RUN_CELL = f"""(number) => {{
  {PANEL}.content.activeCellIndex = number;
  window.jupyterapp.commands.execute("notebook:run-cell");
}}"""
COUNT = f"(number) => {PANEL}.content.widgets[number].model.executionCount || 0"
RESTART = f"() => {PANEL}.sessionContext.session.kernel.restart()"
OUTPUTS = f"(number) => {PANEL}.content.widgets[number].model.outputs.toJSON()"


def sources(case):
    """Return the cells that show a widget, print its state, and lead it back to its start."""
    start = f"widget.choose(**{case.start!r})"
    show = f"widget = {case.make}\n{case.prepare}\n{start}\nwidget"
    return [show, "print(json.dumps(widget.view.state()))", start]


def notebook_of(*sources):
    """Return a notebook of code cells; without a kernel's name JupyterLab would ask for one."""
    cells = [new_code_cell(source) for source in sources]
    return new_notebook(cells=cells, metadata={"kernelspec": KERNEL})


def run(page, number):
    """Run a cell and wait until it has run; return its outputs."""
    before = page.evaluate(COUNT, number)
    page.evaluate(RUN_CELL, number)
    page.wait_for_function(
        f"([number, before]) => ({COUNT})(number) > before", arg=[number, before]
    )
    outputs = page.evaluate(OUTPUTS, number)
    assert [one for one in outputs if one["output_type"] == "error"] == []
    return outputs


def script(case, expression):
    """Return JavaScript that computes something of a `value` and of what the widget has `drawn`."""
    find = f"const qk = document.querySelector('.qk').qk, drawn = ({case.drawn});"
    return f"(value) => {{ {find} return {expression}; }}"


def wait_until_chosen(page, case, wanted):
    """Wait until the page has drawn what `wanted` names; return the seconds that it took."""
    start = time.perf_counter()
    same = "JSON.stringify(drawn.state[name]) === JSON.stringify(one)"
    chosen = script(case, f"Object.entries(value).every(([name, one]) => {same})")
    page.wait_for_function(chosen, arg=wanted)
    return time.perf_counter() - start


def check(page, case, widget, **wanted):
    """Compare everything that is drawn with the view-model of the same state."""
    shown = page.evaluate(script(case, "drawn"))
    state = shown.pop("state")
    assert {name: state[name] for name in wanted} == wanted
    widget.choose(**state)
    expected = flat(case.expected(widget.view))
    assert flat(shown) == pytest.approx(expected, abs=case.near, rel=1e-5)
    return state


def flat(value, path="drawn"):
    """Return path -> number for every part of a value: itself, or how many parts it has.

    What is not a number is a part of the path.
    """
    if isinstance(value, int | float):
        return {path: value}
    if not isinstance(value, dict | list):
        return {f"{path} {value!r}": 0}
    found = {path: len(value)}
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        found |= flat(part, f"{path}.{key}")
    return found


@pytest.fixture(scope="module")
def notebook(in_lab):
    """Open one notebook for all widgets: its first cell loads the model, each has three more.

    Give its page, its errors, and what the first cell defines, in this process.
    """
    cells = [LOAD] + [source for case in CASES.values() for source in sources(case)]
    names = {}
    exec(LOAD, names)
    with in_lab("widgets.ipynb", notebook_of(*cells)) as (page, errors):
        run(page, 0)
        yield page, errors, names


@pytest.mark.parametrize("name", CASES)
def test_a_widget_shows_answers_and_is_quick(notebook, name):
    page, errors, names = notebook
    carry_out(page, CLEAR)
    errors.clear()
    case = CASES[name]
    shows = 1 + 3 * list(CASES).index(name)
    exec(sources(case)[0], names)
    widget = names["widget"]

    run(page, shows)
    page.wait_for_selector(SHOWN)
    check(page, case, widget, **case.start)
    assert page.locator(PICTURE).count() == 1
    assert not page.locator(PICTURE).is_visible()

    took = press_one_by_one(page, case)
    check(page, case, widget, **case.after(widget.view, SINGLE))
    run(page, shows + 2)  # back to the start, from Python
    wait_until_chosen(page, case, case.start)
    check(page, case, widget, **case.start)

    page.locator(case.keys).first.focus()
    for _ in range(QUICK):
        page.keyboard.press(case.key)
    late = wait_until_chosen(page, case, case.after(widget.view, QUICK))
    check(page, case, widget, **case.after(widget.view, QUICK))
    kernel_knows(page, shows + 1, widget)

    before = page.evaluate(script(case, "drawn.state"))
    page.locator(case.click).first.click()
    changed = script(case, "JSON.stringify(drawn.state) !== JSON.stringify(value)")
    page.wait_for_function(changed, arg=before)
    page.wait_for_timeout(150)  # a kernel's answer may draw once more
    assert check(page, case, widget) != before
    kernel_knows(page, shows + 1, widget)
    assert errors == []
    print(f"key to picture {took:.0f} ms, {QUICK} presses right {1000 * late:.0f} ms later")
    assert took <= SLOWER * case.limit
    assert late <= SLOWER


def press_one_by_one(page, case):
    """Press the key and wait for the picture, some times; return the median milliseconds."""
    page.locator(case.keys).first.focus()
    page.evaluate(STOPWATCH)
    for press in range(SINGLE):
        page.keyboard.press(case.key)
        page.wait_for_function("(count) => window.took.length >= count", arg=press + 1)
        page.wait_for_timeout(150)  # a kernel's answer may draw once more
        page.evaluate("(count) => { window.took.length = count; }", press + 1)
    return statistics.median(page.evaluate("() => window.took"))


def kernel_knows(page, number, widget):
    """Check that the kernel's state of the widget is what the page shows."""
    wanted = json.loads(json.dumps(widget.view.state()))
    for _ in range(20):
        told = json.loads(run(page, number)[0]["text"])
        if told == wanted:
            return
        page.wait_for_timeout(100)  # some widgets tell the kernel once the hand rests
    assert told == wanted


PROMPTED = ("AttentionExplorer", "SamplingExplorer", "GenerationStepper", "LayerInspector")
OTHER = "class Box:\n    w = 1\n"
# What a reader of the kernel's answer sees: the number of tokens that are shown.
TOKENS = "(widget) => widget.querySelectorAll('.qk-line .qk-token:not(.qk-next)').length"
GONE = "The kernel does not answer: run this cell again."


def test_a_prompt_is_answered_and_a_kernel_that_is_gone_is_noticed(in_lab):
    shows = [f"qk.widgets.{name}(model, tokenizer, PROMPT)" for name in PROMPTED]
    names = {}
    exec(LOAD, names)
    count = names["tokenizer"](OTHER).shape[1]
    with in_lab("prompts.ipynb", notebook_of(LOAD, *shows)) as (page, errors):
        run(page, 0)
        for number in range(1, 5):
            run(page, number)
        page.wait_for_function(
            "(shown) => document.querySelectorAll(shown).length === 4", arg=SHOWN
        )
        for widget in page.locator(".qk").all():
            enter(page, widget, count)
        run(page, 0)  # as a cell between them
        assert errors == []

        page.evaluate(RESTART)
        page.wait_for_function(READY)
        attention, sampling, stepper, layer = page.locator(".qk").all()
        for press, within in (
            (attention.get_by_role("button", name="Run"), attention.locator(".qk-ask")),
            (sampling.get_by_role("button", name="Run"), sampling.locator(".qk-ask")),
            (stepper.get_by_role("button", name="Add the most likely"), stepper),
            (layer.get_by_role("button", name="Switch head 0 of layer 0 off"), layer),
        ):
            press.click()
            within.get_by_text(GONE).first.wait_for(timeout=5000)
        carry_out(page, CLEAR)  # with the numbers of the runs before
        errors.clear()  # JupyterLab's own, about the kernel that is gone
        run(page, 0)
        for number in range(1, 5):
            run(page, number)
            widget = page.locator(".qk").nth(number - 1)
            enter(page, widget, count)


def enter(page, widget, count):
    """Type a prompt, and wait until its tokens are shown."""
    box = widget.get_by_role("textbox", name="Prompt")
    box.fill(OTHER)
    box.press("Enter")
    page.wait_for_function(
        f"([widget, count]) => ({TOKENS})(widget) === count", arg=[widget.element_handle(), count]
    )
    widget.locator(".qk-ask [role=status]:empty").wait_for(state="attached")  # no error


def test_a_stored_widget_is_a_picture_where_there_is_no_kernel(in_lab, lab_root):
    name, source = "stored.ipynb", "import qwenkit as qk\nqk.widgets.RopeExplorer()"
    with in_lab(name, notebook_of(source)) as (page, _):
        run(page, 0)
        page.wait_for_selector(SHOWN)
        assert not page.locator(PICTURE).is_visible()
        carry_out(page, SAVE)
        page.wait_for_function(f"() => !{PANEL}.context.model.dirty")
    stored = nbformat.read(lab_root / name, as_version=4)
    assert "widgets" not in stored.metadata
    # as its author left it: trusted, and no kernel knows the widget
    with in_lab(name) as (page, errors):
        page.get_by_text("Error displaying widget").wait_for()
        see_picture(page)
        errors.clear()  # JupyterLab says so in the console, too
    # as a reader gets it: never run here, so not trusted
    stored.cells[0].source = "# as it came from elsewhere"
    with in_lab("fresh.ipynb", stored) as (page, _):
        see_picture(page)
        text = page.locator(".jp-OutputArea-child .jp-RenderedText").first
        assert text.inner_text().startswith("RopeExplorer: Pair 2, dimensions 2 and 34")


def see_picture(page):
    page.locator(PICTURE).wait_for(state="visible")
    assert page.locator(PICTURE).evaluate("image => image.naturalWidth") > 500
    assert page.locator(".qk").count() == 0
