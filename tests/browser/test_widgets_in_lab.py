"""Every widget in the real JupyterLab: shown, moved by keys and mouse, right, and quick."""

import json
import statistics
import time
from contextlib import contextmanager

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from test_lab import READY
from widget_cases import CASES, PROMPT

import qwenkit as qk
from qwenkit.pretrained import EMBEDDED

pytestmark = pytest.mark.browser
SLOWER = 3  # what a machine that also does other things is allowed
SINGLE, QUICK = 15, 25  # presses with a pause, and without
SHOWN = '.qk:not([data-drawn="0"])'
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
PANEL = "window.jupyterapp.shell.currentWidget"
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
OUTPUTS = f"(number) => {PANEL}.content.widgets[number].model.outputs.toJSON()"
COUNT = f"(number) => {PANEL}.content.widgets[number].model.executionCount"


def setup_code(name, case):
    start = f"widget.choose(**{case.start!r})"
    return [
        f"import json\nimport qwenkit as qk\nfrom qwenkit.widgets.{case.module} import {name}\n"
        f"PROMPT = {PROMPT!r}\nmodel, tokenizer = qk.load_pretrained()",
        f"widget = {case.make}\n{case.prepare}\n{start}\nwidget",
        "print(json.dumps(widget.view.state()))",
        start,
    ]


@contextmanager
def in_lab(browser, lab, root, name, cells):
    """Open a notebook of these cells, run none; afterwards nothing may have gone wrong."""
    path = root / name
    if cells is not None:
        notebook = new_notebook(cells=[new_code_cell(code) for code in cells])
        notebook.metadata["kernelspec"] = KERNEL  # else JupyterLab asks which one
        nbformat.write(notebook, path)
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else 0)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{lab}/doc/tree/{name}?reset")
    page.wait_for_function(READY, timeout=60_000)
    yield page, said
    assert [url for url in asked if not url.startswith((lab, "data:", "blob:"))] == []
    page.close()


def run(page, number):
    """Run a cell and wait until it has run; return its outputs."""
    before = page.evaluate(COUNT, number) or 0
    page.evaluate(RUN_CELL, number)
    page.wait_for_function(
        f"([number, before]) => (({COUNT})(number) || 0) > before", arg=[number, before],
        timeout=90_000,
    )  # fmt: skip
    outputs = page.evaluate(OUTPUTS, number)
    assert [one for one in outputs if one["output_type"] == "error"] == []
    return outputs


def drawn(page, case):
    """Return what the widget says that it draws."""
    find = "const qk = document.querySelector('.qk').qk"
    return page.evaluate(f"() => {{ {find}; return ({case.drawn}); }}")


def wait_until_chosen(page, case, wanted, seconds=30):
    """Wait until the page has drawn what `wanted` names; return the seconds that it took."""
    start = time.perf_counter()
    page.wait_for_function(
        f"""(wanted) => {{
          const qk = document.querySelector('.qk').qk, state = ({case.drawn}).state;
          return Object.entries(wanted).every(
            ([name, value]) => JSON.stringify(state[name]) === JSON.stringify(value));
        }}""", arg=wanted, timeout=1000 * seconds,
    )  # fmt: skip
    return time.perf_counter() - start


def check(page, case, widget, **wanted):
    """Compare everything that is drawn with the view-model of the same state."""
    shown = drawn(page, case)
    state = shown.pop("state")
    assert {name: state[name] for name in wanted} == wanted
    widget.choose(**state)
    close(shown, case.expected(widget.view), case.near)
    return state


def close(shown, expected, near, where="drawn"):
    """Compare values of any depth; numbers may lie `near` one another."""
    if isinstance(expected, dict):
        assert shown.keys() == expected.keys(), where
        for name, value in expected.items():
            close(shown[name], value, near, f"{where}.{name}")
    elif isinstance(expected, list):
        assert len(shown) == len(expected), where
        for place, (one, other) in enumerate(zip(shown, expected, strict=True)):
            close(one, other, near, f"{where}[{place}]")
    elif isinstance(expected, str):
        assert shown == expected, where
    else:
        assert shown == pytest.approx(expected, abs=near, rel=1e-5), where


@pytest.fixture(scope="module")
def embedded():
    return qk.load_pretrained(EMBEDDED)


@pytest.mark.parametrize("name", CASES)
def test_a_widget_shows_answers_and_is_quick(lab, lab_root, browser, embedded, capsys, name):
    case = CASES[name]
    names = {"model": embedded[0], "tokenizer": embedded[1]}
    for code in setup_code(name, case)[:2]:
        exec(code.replace("model, tokenizer = qk.load_pretrained()", ""), names)
    widget = names["widget"]
    with in_lab(browser, lab, lab_root, f"{name}.ipynb", setup_code(name, case)) as (page, said):
        run(page, 0)
        run(page, 1)
        page.wait_for_selector(SHOWN)
        check(page, case, widget, **case.start)
        picture = page.locator(".jp-OutputArea-child .jp-RenderedImage")
        assert picture.count() == 1
        assert not picture.is_visible()

        took = press_one_by_one(page, case)
        check(page, case, widget, **case.after(widget.view, SINGLE))
        run(page, 3)  # back to the start, from Python
        wait_until_chosen(page, case, case.start)
        check(page, case, widget, **case.start)

        late = press_quickly(page, case, widget)
        check(page, case, widget, **case.after(widget.view, QUICK))
        said_by_kernel(page, case, widget)

        before = drawn(page, case)["state"]
        page.locator(case.click).first.click()
        page.wait_for_timeout(300)
        assert check(page, case, widget) != before
        said_by_kernel(page, case, widget)
        assert said == []
    with capsys.disabled():
        print(f"\n{name}: key to picture {took:.0f} ms, {QUICK} quick presses right "
              f"{1000 * late:.0f} ms after the last")  # fmt: skip
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


def press_quickly(page, case, widget):
    """Press the key without waiting; return how long after the last press all was right."""
    page.locator(case.keys).first.focus()
    for _ in range(QUICK):
        page.keyboard.press(case.key)
    return wait_until_chosen(page, case, case.after(widget.view, QUICK))


def said_by_kernel(page, case, widget):
    """The kernel knows what the page shows."""
    wanted = json.loads(json.dumps(widget.view.state()))
    for _ in range(20):
        told = json.loads(run(page, 2)[0]["text"])
        if told == wanted:
            return
        page.wait_for_timeout(100)  # some widgets tell the kernel once the hand rests
    assert told == wanted


def test_a_stored_widget_is_a_picture_where_there_is_no_kernel(lab, lab_root, browser):
    name, code = "stored.ipynb", ["from qwenkit.widgets.rope import RopeExplorer\nRopeExplorer()"]
    picture = ".jp-OutputArea-child .jp-RenderedImage img"
    with in_lab(browser, lab, lab_root, name, code) as (page, said):
        run(page, 0)
        page.wait_for_selector(SHOWN)
        assert not page.locator(picture).is_visible()
        page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        page.wait_for_function(f"() => !{PANEL}.context.model.dirty")
        assert said == []
        page.evaluate(f"() => {PANEL}.sessionContext.shutdown()")
    stored = nbformat.read(lab_root / name, as_version=4)
    assert "widgets" not in stored.metadata
    # as its author left it: trusted, and no kernel knows the widget
    with in_lab(browser, lab, lab_root, name, None) as (page, _):
        page.get_by_text("Error displaying widget").wait_for()
        sees(page, picture)
    # as a reader gets it: run by nobody here, so not trusted
    stored.cells[0].source = "# as it came from elsewhere"
    nbformat.write(stored, lab_root / "fresh.ipynb")
    with in_lab(browser, lab, lab_root, "fresh.ipynb", None) as (page, said):
        sees(page, picture)
        words = page.locator(".jp-OutputArea-child .jp-RenderedText").first
        assert words.inner_text().startswith("RopeExplorer: Pair 2, dimensions 2 and 34")
        assert said == []


def sees(page, picture):
    page.locator(picture).wait_for(state="visible")
    assert page.locator(picture).evaluate("image => image.naturalWidth") > 500
    assert page.locator(".qk").count() == 0
