"""What holds for every widget: its page, its text, and choices that are refused."""

import html
import re

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.plot.style import TEXT, WIDEST
from qwenkit.pretrained import EMBEDDED

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPT = "def add(a, b):\n    return a +"


def stepped(model, tokenizer):
    widget = qk.widgets.GenerationStepper(model, tokenizer, PROMPT, max_new_tokens=6)
    for rank in (0, 1):
        path, token = widget.view.path, widget.view.choices()[rank][0]
        widget.state = {"path": [*path, token], "at": len(path) + 1}
    return widget


MAKERS = {
    "AttentionExplorer": lambda *toy: qk.widgets.AttentionExplorer(*toy, PROMPT),
    "CheckpointBrowser": lambda *toy: qk.widgets.CheckpointBrowser(EMBEDDED),
    "GQAExplorer": lambda *toy: qk.widgets.GQAExplorer(),
    "GenerationStepper": stepped,
    "LayerInspector": lambda *toy: qk.widgets.LayerInspector(*toy, PROMPT, "x = 1\n"),
    "ModelExplorer": lambda *toy: qk.widgets.ModelExplorer(),
    "RopeExplorer": lambda *toy: qk.widgets.RopeExplorer(qk.QwenConfig.from_file(EMBEDDED)),
    "SamplingExplorer": lambda *toy: qk.widgets.SamplingExplorer(*toy, PROMPT),
}


@pytest.fixture(scope="module")
def widgets(toy):
    return {name: make(*toy) for name, make in MAKERS.items()}


@pytest.mark.parametrize("name", MAKERS)
def test_a_page_needs_nothing_but_itself_and_a_cell_shows_a_picture(widgets, tmp_path, name):
    widget = widgets[name]
    page = widget.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    outside = re.sub(r"http://www\.w3\.org/\S+", "", page)  # the name of SVG is not a request
    outside = re.sub(r"^// Source: .*", "", outside, flags=re.MULTILINE)  # nor is a comment
    assert "http://" not in outside
    assert "https://" not in outside
    alt = widget.view.alt()
    assert f'<img alt="{html.escape(alt, quote=True)}"' in page
    assert repr(widget) == f"{name}: {widget.view.title()}"
    data, metadata = widget._repr_mimebundle_()
    assert data["text/plain"] == alt == metadata["image/png"]["alt"]
    assert data["image/png"].startswith("iVBORw0KGgo")
    assert isinstance(widget.snapshot(), Figure)


def texts_of(figure):
    """Return each visible text of a drawn figure."""
    figure.canvas.draw()
    found = figure.findobj(Text, include_self=False)
    return [one for one in found if one.get_visible() and one.get_text().strip()]


@pytest.mark.parametrize("name", sorted(set(MAKERS) - {"AttentionExplorer", "LayerInspector"}))
def test_the_picture_is_as_wide_as_a_notebook_and_its_text_large_enough(widgets, name):
    figure = widgets[name].snapshot()
    assert figure.get_figwidth() <= WIDEST
    small = [one.get_text() for one in texts_of(figure) if one.get_fontsize() < TEXT]
    assert small == []


def test_a_page_has_one_main_part_with_its_name_and_what_it_shows(widgets, tmp_path):
    page = widgets["GQAExplorer"].to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    body = page[page.index("<main>") : page.index("</main>")]
    assert '<h1 class="qk-page">GQAExplorer</h1>' in body
    assert "Choose heads, kv heads and context; see which heads share" in body
    assert page.count("<main") == page.count("<h1") == 1


REFUSED = {  # name -> what is allowed; (what is not, the message) of each case
    "AttentionExplorer": ({"faint": True},
        ({"layer": 2}, "layer is 2; it must be an integer from 0 to 1"),
        ({"head": -1}, "head is -1; it must be an integer from 0 to 3"),
        ({"head": 4}, "head is 4"), ({"head": True}, "head is True"),
        ({"token": 1.0}, r"token is 1.0; it must be an integer from 0 to \d+"),
        ({"arcs": "writes"}, "'attends to' or 'is attended to by'"),
        ({"faint": 1}, "faint is 1; it must be True or False"),
        ({"heads": 1}, "'heads' cannot be chosen; layer, head, token, arcs, faint can"),
    ),
    "CheckpointBrowser": ({"text": "norm"},
        ({"selected": "model.layer"}, "must be a tensor of the checkpoint"),
        ({"text": 3}, "must be a string"), ({"opened": ["model.norm.weight"]}, "no such group"),
        ({"asked": ["model.norm"]}, "no such tensor"), ({"color": 1}, "cannot be chosen"),
    ),
    "GQAExplorer": ({"head_dim": 32},
        ({"kv_heads": 3}, "kv_heads is 3; it must divide the 14 query heads: 1, 2, 7, 14"),
        ({"heads": 7}, "kv_heads is 2; it must divide the 7 query heads: 1, 7"),
        ({"kv_heads": 28}, "kv_heads is 28; it must be an integer from 1 to 14"),
        ({"heads": 65}, "heads is 65; it must be an integer from 1 to 64"),
        ({"heads": 2.0}, "heads is 2.0"), ({"layers": True}, "layers is True"),
        ({"tokens": 0}, "tokens is 0; it must be an integer from 1 to 131,072"),
        ({"value_bytes": 3}, "value_bytes is 3; it must be 1, 2 or 4"),
        ({"head": 14}, "head is 14; it must be an integer from 0 to 13"),
        ({"color": 1}, "'color' cannot be chosen; heads, kv_heads"),
    ),
    "GenerationStepper": ({},
        ({"at": 3}, "at is 3; it must be an integer from 0 to 2"),
        ({"at": -1}, "at is -1"), ({"at": True}, "at is True"),
        ({"path": "ab"}, "path is 'ab'; it must be a list of ids"),
        ({"path": [1.0], "at": 0}, "list of ids"), ({"step": 1}, "'step' cannot be chosen"),
        ({"path": [0] * 7, "at": 0}, "path has 7 tokens; at most max_new_tokens=6"),
        ({"path": [10**9], "at": 0}, "token 0 of the path is 1000000000; it must be one of"),
    ),
    "LayerInspector": ({"layer": 1},
        ({"layer": 2}, "layer is 2; it must be an integer from 0 to 1"),
        ({"head": -1}, "from 0 to 3"), ({"token": 1.0}, "token is 1.0"),
        ({"token": 99}, "token is 99"), ({"layer": True}, "layer is True"),
        ({"other_token": 0, "head": 9}, "head is 9"), ({"unit": 3}, "'unit' cannot be chosen"),
        ({"off": [0]}, r"off is \[0\]; it must be \[layer, head\]"),
        ({"off": [2, 0]}, r"to \[1, 3\], or None"), ({"off": "no"}, "off is 'no'"),
    ),
    "ModelExplorer": ({"top_k": 3},
        ({"prompt": None}, "prompt is None; it must be a string"),
        ({"temperature": -1.0}, "temperature is -1.0"), ({"top_k": -1}, "top_k is -1"),
        ({"off": 3}, r"off is 3; it must be a list of \[layer, head\]"),
        ({"off": [[6, 0]]}, "the layer in off is 6; it must be an integer from 0 to 5"),
        ({"off": [[0, 8]]}, "the head in off is 8; it must be an integer from 0 to 7"),
        ({"off": [[0]]}, r"off holds \[0\]; it must hold \[layer, head\]"),
        ({"layer": 1}, "'layer' cannot be chosen; prompt, temperature, top_k, off can"),
    ),
    "RopeExplorer": ({"pair": 1},
        ({"pair": 16}, "pair is 16; it must be an integer from 0 to 15"),
        ({"query": 256}, "query is 256; it must be an integer from 0 to 255"),
        ({"key": -1}, "key is -1"), ({"key": 1.0}, "key is 1.0"),
        ({"theta": 12.0}, "theta is 12.0; it must be one of 100, 1,000, 10,000"),
        ({"theta": True}, "theta is True"),
        ({"phi": 1}, "'phi' cannot be chosen; pair, query, key, theta can"),
    ),
    "SamplingExplorer": ({"top_k": 5},
        ({"temperature": -1}, "temperature is -1; it must be 0"), ({"top_k": 1.5}, "top_k is 1.5"),
        ({"top_p": 0}, "top_p is 0"), ({"min_p": 2}, "min_p is 2"),
        ({"seed": -1}, "seed is -1; it must be an integer"), ({"draws": True}, "draws is True"),
        ({"draws": 10_001}, "from 0 to 10,000"), ({"penalty": 1}, "'penalty' cannot be chosen"),
    ),
}  # fmt: skip
CASES = [(name, good, *case) for name, (good, *cases) in REFUSED.items() for case in cases]


@pytest.mark.parametrize(("name", "good", "state", "words"), CASES)
def test_what_is_not_allowed_is_refused_and_changes_nothing(widgets, name, good, state, words):
    widget = widgets[name]
    before, cache = dict(widget.state), getattr(widget.view, "cache", None)
    length = cache and cache.length
    with pytest.raises(InputError, match=words):
        widget.choose(**{**good, **state})
    assert widget.state == before == widget.view.state()
    assert (cache and cache.length) == length


@pytest.mark.parametrize(("name", "prompt", "settings", "words"), [
    *((name, prompt, {}, f"prompt is {prompt!r}; it must be a text of at least one token")
      for name in ("AttentionExplorer", "GenerationStepper", "LayerInspector", "SamplingExplorer")
      for prompt in ("", None, 3)),
    ("GenerationStepper", PROMPT, {"max_new_tokens": 0}, "max_new_tokens is 0"),
    ("LayerInspector", "x = 1\n" * 200, {}, "takes at most 512"),
])  # fmt: skip
def test_a_wrong_prompt_is_refused(toy, name, prompt, settings, words):
    with pytest.raises(InputError, match=words):
        getattr(qk.widgets, name)(*toy, prompt, **settings)
