"""Exported pages in Chromium: opened from disk, watched for errors and for what they ask for."""

import json
from contextlib import contextmanager

import matplotlib as mpl
import pytest

from qwenkit.widgets._base import _as_text


@contextmanager
def opened(browser, path, width=1280, height=900):
    """Open a page from disk; yield it once its widget is painted; then it must be blameless."""
    page = browser.new_page(viewport={"width": width, "height": height})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else 0)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector('.qk:not([data-drawn="0"])', timeout=20_000)
    yield page
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    page.close()


# A model that is not alone: what the page saves and asks is kept, and a test answers in the
# kernel's place.
KERNEL = """const answering = (values) => {
  const model = standalone(values), saved = [], asked = [];
  const save_changes = () => {
    const { turn, ...state } = model.get("state");
    saved.push(state);
  };
  const send = (message) => { if ("ask" in message) asked.push(message); };
  window.kernel = Object.assign(model, { alone: false, saved, save_changes, asked, send });
  return steady(window.kernel);
};
render({ model: answering("""
# Give the page what the kernel sends: its messages, with the widget's values before the last one.
ANSWER = """([text, messages]) => {
  const bytes = (_, value) => typeof value?.base64 === "string"
    ? Uint8Array.from(atob(value.base64), (letter) => letter.charCodeAt(0)) : value;
  const last = messages.pop();
  for (const message of messages) kernel.emit("msg:custom", message);
  for (const [name, value] of Object.entries(JSON.parse(text, bytes))) kernel.set(name, value);
  kernel.emit("msg:custom", last);
}"""

# Texts whose contrast with what is behind them is below 4.5:1.
FAINT = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const paint = (colors) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => rgb.map((one) => one / 255)
    .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, i) => sum + one * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  for (const one of document.querySelectorAll(".qk *")) {
    const words = [...one.childNodes].filter((child) => child.nodeType === 3 && child.data.trim());
    const style = getComputedStyle(one);
    if (!words.length || !one.checkVisibility({ opacityProperty: true, visibilityProperty: true })
        || one.closest("svg, option, [aria-disabled=true], .qk-tip")) continue;
    const behind = [];
    for (let box = one; box; box = box.parentElement)
      behind.unshift(getComputedStyle(box).backgroundColor);
    const [low, high] = [paint(behind), paint([...behind, style.color])].map(light)
      .sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05), name = one.className || one.tagName;
    if (ratio < 4.5) found.push(`${name} ${ratio.toFixed(2)} ${words[0].data}`);
  }
  return found;
}"""


@contextmanager
def answered(browser, path, **options):
    """Open a page as if a kernel stood behind it: `kernel.saved`, and `kernel.set(name, value)`."""
    text = path.read_text(encoding="utf-8")
    assert text.count("render({ model: standalone(") == 1
    path.write_text(text.replace("render({ model: standalone(", KERNEL), encoding="utf-8")
    with opened(browser, path, **options) as page:
        yield page


def relay(page, widget, monkeypatch):
    """Let a real widget answer the page's last question, and the page get its answer."""
    messages = []
    monkeypatch.setattr(widget, "send", messages.append)
    widget._handle_custom_msg(page.evaluate("kernel.asked.at(-1)"), [])
    values = json.dumps({"data": widget.data} | widget.exported(), default=_as_text)
    page.evaluate(ANSWER, [values, messages])


def value(page, expression):
    """Return a part of what the widget says it draws: `root.qk` in its script."""
    return page.evaluate(f"() => document.querySelector('.qk').qk.{expression}")


def pixel(page, canvas, x, y):
    """Return what is drawn at a point of a canvas: red, green, blue."""
    return page.evaluate(
        """([canvas, ...point]) => {
          const [x, y] = point.map((one) => Math.floor(one * window.devicePixelRatio));
          const pen = document.querySelector(canvas).getContext("2d");
          return [...pen.getImageData(x, y, 1, 1).data].slice(0, 3);
        }""",
        [canvas, x, y],
    )


def color(name, number):
    """Return a color of one of Matplotlib's maps: red, green, blue."""
    return [round(255 * part) for part in mpl.colormaps[name](int(number))[:3]]


def has_parts(page, *parts):
    """Tell whether each part, a role and a name, is on a page once; wait for its spoken line."""
    for role, name in parts:
        assert page.get_by_role(role, name=name).count() == 1, name
    page.wait_for_function("() => document.querySelector('.qk-live').textContent !== ''")
    return page.locator(".qk-live").inner_text()


def overflowing(page):
    """Return how many pixels the page is wider than its window."""
    return page.evaluate(
        "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


@pytest.mark.parametrize("width", [700, 1200, 1280])
def test_nothing_overflows(shown, width):
    """Test the widget of each file that imports this."""
    with shown(width=width) as page:
        assert overflowing(page) == 0
