"""An exported page that carries its model: the engine answers there as the kernel does."""

import json
import zlib

import numpy as np
import pytest
from pages import opened

import qwenkit as qk
from qwenkit import widgets
from qwenkit.pretrained import EMBEDDED

pytestmark = pytest.mark.browser
PROMPT = "def add(a, b):\n    return a + b\n"
PROMPTS = (
    "class Box:\n    def __init__(self, width):\n        self.width = width\n",
    "x",
    "é漢字🙂 \t\n  <|endoftext|>x = x",
    "for i in range(10):\n    print(i, i, i)\n" * 60,
)
PACKED = {  # names in `data` -> dtype, and how far a number may be from Python's
    "AttentionExplorer": {"weights": ("u1", 1)},
    "SamplingExplorer": {"logits": ("<f4", 1e-3)},
}
NAMES = tuple(PACKED)


@pytest.fixture(scope="module")
def tiny():
    return qk.load_pretrained(EMBEDDED, dtype="float32", device="cpu")


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def live(name, tiny, browser, tmp_path):
    """Open the live page of a widget; `model` is its model, for a test."""
    widget = getattr(widgets, name)(*tiny, PROMPT)
    path = widget.to_html(tmp_path / "page.html", live=True)
    text = path.read_text(encoding="utf-8")
    model = "renderLive({ model: window.kept = standalone("
    assert text.count("renderLive({ model: standalone(") == 1
    path.write_text(text.replace("renderLive({ model: standalone(", model), encoding="utf-8")
    with opened(browser, path) as page:
        yield widget, page


ENDED = """() => {
  window.ended = new Promise((done) => kept.on("msg:custom", (it) => it.done && done(it.error)));
}"""


def enter(page, text):
    """Run a prompt in the page, and wait for its end; return the error that is shown then."""
    box = page.get_by_role("textbox", name="Prompt")
    box.fill(text)
    page.evaluate(ENDED)
    box.press("Enter")
    error = page.evaluate("() => ended")
    assert page.locator(".qk-ask [role=status]").inner_text() == error
    return error


BYTES = """(name) => JSON.stringify(kept.get(name), (_, value) =>
  value instanceof Uint8Array ? { bytes: [...value] } : value)"""


def data_of(page, packed):
    """Return the page's data, with what is packed as arrays."""
    data = json.loads(page.evaluate(BYTES, "data"))
    for one, (dtype, _) in packed.items():
        data[one] = np.frombuffer(zlib.decompress(bytes(data[one]["bytes"])), dtype)
    return data


def test_the_engine_makes_the_data_that_python_makes(name, live):
    widget, page = live
    packed = PACKED[name]
    for prompt in PROMPTS:
        assert enter(page, prompt) == ""
        widget.choose(prompt=prompt)
        found, wanted = data_of(page, packed), dict(widget.data)
        for one, (dtype, near) in packed.items():
            numbers = np.frombuffer(zlib.decompress(wanted.pop(one)), dtype).astype(float)
            assert np.abs(found.pop(one).astype(float) - numbers).max() <= near, one
        assert found == json.loads(json.dumps(wanted))
        assert json.loads(page.evaluate(BYTES, "state")) == widget.state
        assert page.evaluate("kept.get('prompt')") == prompt


def test_a_wrong_prompt_is_refused_as_in_python(live):
    _, page = live
    before = page.evaluate(BYTES, "data")
    assert enter(page, "") == "prompt is ''; it must be a text of at least one token"
    assert "at most 1,024" in enter(page, "x" * 3000)
    assert page.evaluate(BYTES, "data") == before
