"""An exported page that carries its model: the engine answers there as the kernel does."""

import json
import re
import zlib

import numpy as np
import pytest
from pages import opened

import qwenkit as qk
from qwenkit import widgets
from qwenkit.errors import InputError
from qwenkit.pretrained import EMBEDDED

pytestmark = pytest.mark.browser
PROMPT = "def add(a, b):\n    return a + b\n"
PROMPTS = (
    "class Box:\n    def __init__(self, width):\n        self.width = width\n",
    "x",
    "é漢字🙂 \t\n  <|endoftext|>x = x",
    "for i in range(10):\n    print(i, i, i)\n" * 36,
)
PACKED = {  # names in `data` -> dtype, and how far a number may be from Python's
    "AttentionExplorer": {"weights": ("u1", 1)},
    "SamplingExplorer": {"logits": ("<f4", 1e-3)},
    "GenerationStepper": {},
    "LayerInspector": {
        "weights": ("u1", 1), "queries": ("<i2", 2), "keys": ("<i2", 2), "units": ("<u2", 0),
        **dict.fromkeys(("cos", "sin", "acts", "norms", "embed_norms"), ("<f4", 1e-3)),
    },
}  # fmt: skip
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
        page.evaluate("() => { window.qk = () => document.querySelector('.qk').qk; }")
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
        said = enter(page, prompt)
        if said:  # Python refuses it in the same words
            with pytest.raises(InputError, match=re.escape(said)):
                widget.choose(prompt=prompt)
            continue
        widget.choose(prompt=prompt)
        found, wanted = data_of(page, packed), dict(widget.data)
        for one, (dtype, near) in packed.items():
            numbers = np.frombuffer(zlib.decompress(wanted.pop(one)), dtype).astype(float)
            assert np.abs(found.pop(one).astype(float) - numbers).max() <= near, one
        same(found, wanted)
        assert json.loads(page.evaluate(BYTES, "state")) == widget.state
        assert page.evaluate("kept.get('prompt')") == prompt


def same(found, wanted):
    """Compare JSON values; numbers may differ by rounding."""
    if isinstance(wanted, float):
        assert found == pytest.approx(wanted, abs=1e-4)
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            same(one, other)
    elif isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key, one in wanted.items():
            same(found[key], one)
    else:
        assert found == wanted


def test_a_wrong_prompt_is_refused_as_in_python(live):
    _, page = live
    before = page.evaluate(BYTES, "data")
    assert enter(page, "") == "prompt is ''; it must be a text of at least one token"
    assert "takes at most" in enter(page, "x" * 3000)
    assert page.evaluate(BYTES, "data") == before


@pytest.mark.parametrize("name", ["GenerationStepper"], indirect=True)
def test_steps_are_computed_in_the_page(live):
    widget, page = live
    page.get_by_role("button", name="To the prompt").focus()
    page.keyboard.press("3")
    page.wait_for_function("() => qk().at === 1 && qk().offers")
    agrees(page, widget)
    for prompt in ("for i in ", "class Box:\n    def"):
        assert enter(page, prompt) == ""
        widget.choose(prompt=prompt)
        page.get_by_role("button", name="Add 10").click()
        page.wait_for_function("() => qk().at === 10 && qk().offers")
        agrees(page, widget)
        page.get_by_role("button", name="Back").click()
        before = page.evaluate("() => qk().path")
        page.keyboard.press("3")
        page.wait_for_function(
            "(before) => String(qk().path) !== String(before) && qk().offers", arg=before
        )
        agrees(page, widget)
    assert "kernel" not in page.locator(".qk-body").inner_text().lower().replace("kv", "")


def agrees(page, widget):
    """Tell whether a stepper of Python that takes the same path offers the same."""
    widget.choose(**json.loads(page.evaluate(BYTES, "state")))
    same(page.evaluate("() => qk().offers"), widget.view.choices())


@pytest.mark.parametrize("name", ["LayerInspector"], indirect=True)
def test_a_head_is_switched_off_in_the_page(live):
    widget, page = live
    for prompt in (None, "for i in "):
        if prompt:
            assert enter(page, prompt) == ""
            widget.choose(prompt=prompt)
        else:
            page.get_by_role("button", name="Switch head 0 of layer 0 off").click()
        page.wait_for_function("() => qk().without")
        widget.choose(off=[0, 0])
        same(page.evaluate("() => qk().without"), json.loads(json.dumps(widget.without)))
    page.get_by_role("button", name="Switch head 0 of layer 0 on again").click()
    assert page.evaluate("() => qk().without") is None
