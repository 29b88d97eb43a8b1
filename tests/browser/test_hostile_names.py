"""Whatever a tensor, a token or a prompt is called, its page shows it as text and runs nothing."""

import pytest
import torch
from fixtures_toy import entry, pack, small_config
from pages import opened, value

import qwenkit as qk
from qwenkit.files import write_json
from qwenkit.widgets import CheckpointBrowser

pytestmark = pytest.mark.browser
NAMES = [
    "<!--<script>", "</script><img src=x onerror=document.title='ran'>", "base64", "__proto__",
    "__proto__.constructor", "constructor", "toString", "$\\frac$", "\u05e9\u05dc\u05d5\u05dd",
    "\u202ereversed", "a\x00b\x1b[31m", "", "..", "a" * 3000, "9" * 5000, "\u2028",
    "x.y", "x",
]  # fmt: skip
PROMPT = " ".join(NAMES[:11]) + "\r\n\t" + "\u0301\u200d"


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A checkpoint whose tensors have all those names, some of them empty."""
    folder = tmp_path_factory.mktemp("named")
    write_json(folder / "config.json", small_config().to_dict())
    header, end = {}, 0
    for i, name in enumerate(NAMES):
        start, end = end, end + 8 * (i % 2)
        header[name] = entry("F32", (i % 2, 2), (start, end))
    (folder / "model.safetensors").write_bytes(pack(header, bytes(end)))
    return folder


def test_names_of_tensors_are_text(browser, named, tmp_path):
    widget = CheckpointBrowser(named)
    widget.choose(opened=list(widget.view.tree.groups), asked=["__proto__", "base64"])
    for name in ("<!--<script>", "__proto__", "constructor", ""):
        widget.choose(selected=name)
        with opened(browser, widget.to_html(tmp_path / "page.html")) as page:
            assert page.locator(".qk-tensor").evaluate("node => node.textContent") == name
            assert [row[0] for row in value(page, "rows")] == [r.name for r in widget.view.rows()]
            assert page.title() == "CheckpointBrowser"


@pytest.mark.parametrize("kind", [
    "AttentionExplorer", "LayerInspector", "SamplingExplorer", "GenerationStepper",
])  # fmt: skip
def test_tokens_are_text(browser, toy, tmp_path, kind):
    widget = getattr(qk.widgets, kind)(*toy, PROMPT)
    with opened(browser, widget.to_html(tmp_path / "page.html")) as page:
        page.evaluate("document.querySelectorAll('button').forEach((one) => one.click())")
        shown = page.locator(".qk").evaluate("node => node.textContent")
        assert "<!--" in shown.replace(" ", "")
        assert page.title() == kind
        page.evaluate("document.querySelectorAll('canvas').forEach((one) => one.focus())")
    assert torch.is_grad_enabled()
