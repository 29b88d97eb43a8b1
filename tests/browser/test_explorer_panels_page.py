"""ModelExplorer's panels on a page of their own: their numbers are those of a trace by torch."""

import base64
import html
import json

import pytest
import torch
from fixtures_toy import toy_of
from pages import color, opened, overflowing, pixel

import qwenkit as qk
from qwenkit.generate.sampling import Sampling
from qwenkit.pretrained import EMBEDDED
from qwenkit.widgets import _base

pytestmark = pytest.mark.browser

PROMPT = "class Box:\n    def __init__(self, width, height):\n        self.width ="
HOSTILE = "<b>日本</b>\n" + " " * 40 + "'&lt;\t" + "é" * 3
ENTRY = """import { frame } from "./common.js";
import { Model } from "./engine/model.js";
import { readTensors } from "./engine/safetensors.js";
import { Tokenizer } from "./engine/tokenizer.js";
import { Trace } from "./engine/trace.js";
import { PARTS, partPanel } from "./explorer_panels.js";
"""
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Panels</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>:root {{ color-scheme: light dark; }} body {{ margin: 8px; }}
{style}</style>
<h1>Panels</h1><main></main>
<pre id="given" hidden>{given}</pre>
<script type="module">
{script}
const given = JSON.parse(document.getElementById("given").textContent);
const tokenizer = new Tokenizer(JSON.parse(given.tokenizer));
const bytes = Uint8Array.from(atob(given.model), (one) => one.charCodeAt(0));
const weights = readTensors(bytes.buffer), model = new Model(JSON.parse(given.config), weights);
const {{ root, stage }} = frame(document.querySelector("main"), "Panels");
stage.style.display = "block";
const name = (id) => tokenizer.decode([id]).replaceAll("\\n", "↵").replaceAll(" ", "·");
window.draw = (changes = {{}}) => {{
  const state = window.state = {{ ...given.state, ...window.state, ...changes }};
  const run = (edits) => {{
    const trace = new Trace({{ edits }});
    const logits = model.forward(state.ids, {{ trace }}).slice(-model.config.vocab);
    return [trace, logits.subarray(0, state.tokens)];
  }};
  const edits = Object.fromEntries(state.off.map((point) => [point, (value) => value.fill(0)]));
  const [trace, logits] = run(edits), base = state.off.length ? run({{}})[0] : null;
  const view = {{ ...state, config: model.config, tokens: state.ids.map(name), trace, base, logits,
    weights, name, seen: state.ids.length - 2, root, choose: (patch) => window.draw(patch) }};
  stage.replaceChildren(...Object.keys(PARTS).map((part) => partPanel(part, view)));
  root.dataset.drawn = String(Number(root.dataset.drawn) + 1);
}};
window.draw();
</script></html>
"""


@pytest.fixture(scope="module", params=["embedded", "toy"])
def folder(request, tmp_path_factory):
    """The toy's head is not tied, and its layers have other sizes."""
    return EMBEDDED if request.param == "embedded" else toy_of(tmp_path_factory, tied=False)


@pytest.fixture
def loaded(folder):
    return qk.load_pretrained(folder, dtype="float32", device="cpu")


@pytest.fixture
def shown(folder, loaded, browser, tmp_path, monkeypatch):
    """Give a function: open a page with all panels for a prompt."""
    read = _base.static
    monkeypatch.setattr(_base, "static", lambda name: ENTRY if name == "panels.js" else read(name))

    def show(prompt=PROMPT, width=1000, **state):
        files = {
            "config": (folder / "config.json").read_text(encoding="utf-8"),
            "tokenizer": (folder / "tokenizer.json").read_text(encoding="utf-8"),
            "model": base64.b64encode((folder / "model.safetensors").read_bytes()).decode(),
        }
        ids = loaded[1].encode(prompt)
        state = {
            "ids": ids, "tokens": loaded[1].num_tokens, "layer": 1, "head": 1, "position": 6,
            "off": [], "settings": {"temperature": 0.7, "topK": 4}, **state,
        }  # fmt: skip
        text = PAGE.format(
            given=html.escape(json.dumps({**files, "state": state})),
            style=read("style.css") + read("explorer_panels.css"),
            script=_base.source.__wrapped__("panels"),
        )
        path = tmp_path / "panels.html"
        path.write_text(text, encoding="utf-8")
        return opened(browser, path, width=width)

    return show


@pytest.fixture
def trace(loaded):
    """Give a function: a prompt's trace by torch, without the batch."""

    @torch.inference_mode()
    def run(prompt=PROMPT, **options):
        model, tokenizer = loaded
        trace = qk.Trace(**options)
        model(torch.tensor([tokenizer.encode(prompt)]), trace=trace)
        return trace

    return run


def close(text, value):
    """Tell whether a text is a number rounded, or a percentage."""
    number = float(text.rstrip("%").replace("−", "-").replace(",", "").lstrip("<"))
    value = float(value) * (100 if text.endswith("%") else 1)
    size = abs(value)
    wide = 0.51 if size >= 99 else 0.051 if size >= 9.9 else 0.0051
    return abs(number - value) <= (0.51 if text.endswith("%") else wide) + 1e-4 * size


def fact(page, part, name):
    return page.locator(f'[data-part="{part}"] [data-fact="{name}"]').inner_text()


def test_vectors_start_with_the_numbers_of_the_trace(shown, trace):
    found = trace()
    heads, kv_heads = found["layers.1.attn.q"].shape[1], found["layers.1.attn.k"].shape[1]
    kv = 1 // (heads // kv_heads)
    wanted = {
        "embed embed": found["embed"][0, 6],
        "attn_norm before": found["layers.1.resid_pre"][0, 6],
        "attn_norm after": found["layers.1.attn_norm"][0, 6],
        "qkv q": found["layers.1.attn.q"][0, 1, 6],
        "qkv k": found["layers.1.attn.k"][0, kv, 6],
        "qkv v": found["layers.1.attn.v"][0, kv, 6],
        "attn_out z": found["layers.1.attn.z"][0, 1, 6],
        "attn_out out": found["layers.1.attn.out"][0, 6],
        "add_attn after": found["layers.1.resid_mid"][0, 6],
        "mlp_norm after": found["layers.1.mlp_norm"][0, 6],
        "gate_up gate": found["layers.1.mlp.gate"][0, 6],
        "gate_up up": found["layers.1.mlp.up"][0, 6],
        "gate_up act": found["layers.1.mlp.act"][0, 6],
        "mlp_out out": found["layers.1.mlp.out"][0, 6],
        "add_mlp after": found["layers.1.resid_post"][0, 6],
        "final_norm after": found["final_norm"][0, 6],
        "logits final": found["final_norm"][0, 6],
    }
    with shown() as page:
        for where, values in wanted.items():
            part, vector = where.split()
            at = f'[data-part="{part}"] [data-vector="{vector}"] .qk-part-numbers span'
            texts = page.locator(at).all_inner_texts()
            assert len(texts) == min(8, len(values)), where
            assert all(map(close, texts, values)), (where, texts, values[:8])


def test_norms_angles_and_attention_weights_are_those_of_the_trace(shown, trace, loaded):
    found, config = trace(), loaded[0].config
    x = found["layers.1.resid_pre"][0, 6]
    pattern, scores = found["layers.1.attn.pattern"][0, 1], found["layers.1.attn.scores"][0, 1]
    before, added = found["layers.1.resid_mid"][0, 6], found["layers.1.mlp.out"][0, 6]
    with shown() as page:
        assert close(fact(page, "attn_norm", "rms"), x.pow(2).mean().sqrt())
        assert close(fact(page, "add_mlp", "before"), before.norm())
        assert close(fact(page, "add_mlp", "added"), added.norm())
        cosine = torch.cosine_similarity(before, added, dim=0)
        assert close(fact(page, "add_mlp", "cosine").split()[0], cosine)
        for pair in range(config.head_dim // 2):
            angle = 6 * config.rope_theta ** (-2 * pair / config.head_dim)
            text = page.locator(f'[data-angle="{pair}"]').inner_text().rstrip("°")
            assert close(text, torch.tensor(angle).rad2deg()), pair
        assert close(fact(page, "rope", "apart"), scores[6, :7].max())
        for part, values in (("scores", scores[6, :7]), ("pattern", pattern[6, :7])):
            for key, value in enumerate(values):
                row = page.locator(f'[data-part="{part}"] [data-row="{key}"]')
                assert close(row.locator("td").last.inner_text(), value), (part, key)
        assert close(fact(page, "pattern", "self"), pattern[6, 6])
        bytes_per_token = 2 * config.num_hidden_layers * config.num_key_value_heads
        assert close(
            fact(page, "cache", "values").split(" = ")[-1], bytes_per_token * config.head_dim
        )


def test_maps_have_the_color_of_each_weight_and_later_keys_stay_clear(shown, trace):
    pattern = trace()["layers.1.attn.pattern"][0]
    with shown() as page:
        for head, canvas in (
            (1, '[data-part="pattern"] .qk-part-field canvas'),
            (2, '[data-control="head-2"] canvas'),
        ):
            for query, key in ((6, 0), (6, 5), (6, 6), (9, 3)):
                wanted = color("viridis", round(255 * float(pattern[head, query, key])))
                found = pixel(page, canvas, key, query)
                assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) <= 3
        assert pixel(page, canvas, 7, 6) == [0, 0, 0]  # and not opaque: the field shows through


def test_the_next_token_is_predicted_and_sampled_as_by_the_package(shown, trace, loaded):
    logits = trace()["logits"][0][:, : loaded[1].num_tokens]  # without padding rows
    last = len(logits) - 1
    with shown() as page:
        for position in (6, last):
            page.evaluate("(position) => window.draw({ position })", position)
            rows = page.locator('[data-part="logits"] [data-row]')
            top = logits[position].topk(10)
            ids = [int(row.get_attribute("data-row")) for row in rows.all()]
            assert ids[:10] == top.indices.tolist()
            for row, value, id_ in zip(rows.all(), top.values, top.indices, strict=False):
                assert close(row.locator("td").first.inner_text(), value)
                chance = logits[position].softmax(dim=-1)[id_]
                assert close(row.locator("td").last.inner_text(), chance)
        sampling = Sampling(temperature=0.7, top_k=4)
        chances = sampling.probabilities(logits[last], torch.tensor([0]))
        rows = page.locator('[data-part="sampling"] [data-row]')
        for row in rows.all():
            text = row.locator("td").nth(3).inner_text()
            chance = chances[int(row.get_attribute("data-row"))]
            assert text == "cut" if chance == 0 else close(text, chance)
        assert fact(page, "sampling", "kept") == "4"
        page.evaluate("() => window.draw({ settings: { temperature: 0, topK: 0 } })")
        assert fact(page, "sampling", "kept") == "1"


def test_what_is_switched_off_is_shown_next_to_what_was(shown, trace, loaded):
    was, kept = trace(), {"layers.1.mlp.out": torch.zeros_like}
    now = trace(edits=kept)
    with shown(off=["layers.1.mlp.out"]) as page:
        assert close(fact(page, "add_mlp", "after"), now["layers.1.resid_post"][0, 6].norm())
        assert close(fact(page, "add_mlp", "base"), was["layers.1.resid_post"][0, 6].norm())
        assert "switched off" in page.locator('[data-part="add_mlp"]').inner_text()
        row = page.locator('[data-part="logits"] [data-row]').first
        now_and_before = row.locator("td").all_inner_texts()[-2:]
        top = int(row.get_attribute("data-row"))
        for text, one in zip(now_and_before, (now, was), strict=True):
            logits = one["logits"][0, 6, : loaded[1].num_tokens]
            assert close(text, logits.softmax(dim=-1)[top])


def test_keys_and_clicks_choose_and_the_control_keeps_the_focus(shown):
    with shown() as page:
        chosen = "() => [window.state.position, window.state.head]"
        at = page.get_by_role("slider", name="Attention map of head 1")
        assert "strongest of the row" in at.get_attribute("aria-valuetext")
        at.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")  # the map was made again, and has the focus
        assert page.evaluate(chosen) == [4, 1]
        page.keyboard.press("End")
        assert page.evaluate(chosen)[0] == page.evaluate("() => window.state.ids.length - 1")
        page.keyboard.press("Home")
        page.locator('[data-part="attn_norm"]').get_by_role("slider").press("ArrowRight")
        assert page.evaluate(chosen) == [1, 1]
        page.get_by_role("button", name="head 0", exact=True).press("Enter")
        assert page.evaluate(chosen) == [1, 0]
        focused = "() => document.activeElement.getAttribute('aria-label')"
        page.wait_for_function(f"({focused}) && ({focused})() === 'head 0'")
        box = page.get_by_role("slider", name="Attention map of head 0").bounding_box()
        page.mouse.click(box["x"] + 3, box["y"] + box["height"] - 2)  # the last row
        assert page.evaluate(chosen)[0] == page.evaluate("() => window.state.ids.length - 1")
        key = page.get_by_role("button", name="key", exact=True)
        key.click()
        assert key.get_attribute("aria-pressed") == "true"


BEYOND = """() => [...document.querySelectorAll(".qk-part *")].filter((one) => {
  const box = one.closest(".qk-part").getBoundingClientRect();
  return one.getBoundingClientRect().right > box.right + 1 &&
    !one.closest(".qk-part-strip, .qk-part-scroll, .qk-part-above, .qk-tip");
}).map((one) => `${one.closest(".qk-part").dataset.part}: ${one.className}`)"""


def test_nothing_overflows_in_either_theme(shown):
    with shown() as page:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for width in (330, 360, 700, 1000):
                page.set_viewport_size({"width": width, "height": 900})
                assert overflowing(page) == 0, (scheme, width)
                assert page.evaluate(BEYOND) == [], (scheme, width)


@pytest.mark.parametrize(
    ("prompt", "position"), [("x", 0), (HOSTILE, 3), ("x = 1\n" * 60, 100)], ids=["1", "odd", "240"]
)
def test_one_token_markup_and_long_prompts(shown, prompt, position):
    with shown(prompt=prompt, position=position, width=360) as page:
        assert overflowing(page) == 0
        assert page.locator(".qk-part").count() == 18
        assert page.locator(".qk-part b:text-is('日本')").count() == 0
        assert "NaN" not in page.locator("main").inner_text()
