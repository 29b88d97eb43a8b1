"""Exported pages in Chromium: opened from disk, watched for errors and for what they ask for."""

import json
from contextlib import contextmanager
from itertools import pairwise

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


# What is wider than its box, so that it is cut or has to be scrolled sideways; lines that are
# shortened with "…" and what only a screen reader sees may be.
CUT = """() => [...document.querySelectorAll('.qk, .qk *')].filter((one) => {
  const style = getComputedStyle(one);
  return one.clientWidth && one.scrollWidth > one.clientWidth + 1 && !one.matches('.qk-live')
    && style.overflowX !== 'visible' && style.textOverflow !== 'ellipsis';
}).map((one) => `${one.tagName} ${one.className}`)"""
SMALL = """() => [...document.querySelectorAll('.qk :is(button, select, input, textarea)')]
  .map((one) => [one.outerHTML.slice(0, 80), one.getBoundingClientRect()])
  .filter(([, box]) => box.width && Math.min(box.width, box.height) < 24 - 0.5)
  .map(([name]) => name)"""
# The lowest contrast of text with what is behind it, of all texts in `.qk`; canvases hold none.
CONTRAST = """() => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = color;
    pen.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = pen.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  };
  const over = ([r, g, b, a], ground) =>
    [r, g, b].map((one, i) => a * one + (1 - a) * ground[i]);
  const behind = (one) => {
    const own = rgba(getComputedStyle(one).backgroundColor);
    return own[3] === 1 || !one.parentElement ? own : over(own, behind(one.parentElement));
  };
  const light = (rgb) => rgb.slice(0, 3).map((one) => one / 255)
    .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, i) => sum + one * [0.2126, 0.7152, 0.0722][i], 0);
  const texts = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  const found = [];
  while (texts.nextNode()) {
    const one = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !one.checkVisibility({ opacityProperty: true })) continue;
    if (one.closest('noscript, svg, .qk-live, [aria-disabled="true"]')) continue;
    const ground = behind(one), ink = over(rgba(getComputedStyle(one).color), ground);
    const [low, high] = [light(ground), light(ink)].sort((a, b) => a - b);
    found.push([(high + 0.05) / (low + 0.05), texts.currentNode.data]);
  }
  return found.sort(([a], [b]) => a - b)[0];
}"""


@pytest.mark.parametrize("width", [360, 640, 900, 1280, 1600])
def test_nothing_overflows(shown, width):
    """Test the widget of each file that imports this: nothing is cut, and no control is small."""
    with shown(width=width) as page:
        assert overflowing(page) == 0
        assert page.evaluate(CUT) == []
        assert page.evaluate(SMALL) == []


def test_both_themes(shown):
    """Test the widget of each file that imports this: its text stands out, and it is drawn again.

    The page begins with one h1, and levels of headings are not skipped.
    """
    with shown() as page:
        levels = "() => [...document.querySelectorAll('h1, h2, h3, h4')].map((one) => one.tagName)"
        found = page.evaluate(levels)
        assert found[0] == "H1"
        assert found.count("H1") == 1
        assert all(int(b[1]) <= int(a[1]) + 1 for a, b in pairwise(found))
        assert page.locator("main h1").count() == 1
        for theme, ground in (("light", "255, 255, 255"), ("dark", "21, 23, 28")):
            drawn = page.locator(".qk").get_attribute("data-drawn")
            page.evaluate("(theme) => { document.body.dataset.theme = theme; }", theme)
            page.wait_for_function(
                "(rgb) => getComputedStyle(document.querySelector('.qk')).backgroundColor === rgb",
                arg=f"rgb({ground})",
            )
            if page.locator(".qk canvas").count():
                assert page.locator(".qk").get_attribute("data-drawn") != drawn
            contrast, text = page.evaluate(CONTRAST)
            assert contrast >= 4.5, text
