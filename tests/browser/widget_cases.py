"""Each widget as the tests in JupyterLab use it: how it is made, moved, clicked, and judged."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# More than 26 tokens in any vocabulary: after 25 presses there must be a token left to choose.
PROMPT = "def add(a, b):\n    return a + b\n\n\ndef mul(x, y):\n    return x * y\n\n"
PROMPT += "print(add(2, 3))\n"
# Twenty-six tokens after the prompt, none of which stops generation.
WALK = """
for at in range(26):
    ids = [choice[0] for choice in widget.view.choices()]
    token = next(one for one in ids if one not in widget.data["stop_ids"])
    widget.choose(path=[*widget.view.path, token], at=at + 1)
"""


@dataclass(frozen=True)
class Case:
    """One widget.

    Attributes:
        make: an expression that makes it from `model`, `tokenizer` and `PROMPT`.
        keys: selector of the element that has the focus.
        key: the key that is pressed.
        click: selector of the element that a click chooses something with.
        after: view-model and number of presses -> what is then chosen, counted from `start`.
        drawn: JavaScript that gives what is drawn from `qk`, with the chosen `state` among it.
        expected: view-model -> the same by Python.
        start: what is chosen first.
        limit: milliseconds from a key to the new picture, on a machine at rest.
        near: how far numbers may differ: two processes may round a sum differently.
        prepare: code that runs once `widget` is made.
    """

    make: str
    keys: str
    key: str
    click: str
    after: Callable[[Any, int], dict[str, Any]]
    drawn: str
    expected: Callable[[Any], dict[str, Any]]
    start: dict[str, Any] = field(default_factory=dict)
    limit: int = 200
    near: float = 1e-4
    prepare: str = ""


CASES = {
    "AttentionExplorer": Case(
        "qk.widgets.AttentionExplorer(model, tokenizer, PROMPT)",
        ".qk-attention-text", "ArrowRight", ".qk-attention-grid", lambda view, n: {"token": n},
        "{state: qk.state, triangle: [...qk.triangle], arcs: qk.arcs, title: qk.title}",
        lambda view: {
            "triangle": view.patterns.weights[view.layer, view.head].tolist(),
            "arcs": np.rint(view.arc_weights() * 255).tolist(),
            "title": view.title()},
        {"layer": 0, "head": 0, "token": 0}, limit=100, near=1,  # of 255
    ),
    "RopeExplorer": Case(
        "qk.widgets.RopeExplorer(model.config)",
        ".qk-rope-tables", "ArrowDown", ".qk-rope-curve", lambda view, n: {"query": n},
        "{state: qk.state, product: qk.product, products: qk.products, after: qk.after,"
        " title: qk.title}",
        lambda view: {
            "product": view.product(),
            "products": view.products().tolist(),
            "after": view.rotated()[..., view.pair].tolist(),
            "title": view.title()},
        {"pair": 3, "query": 0, "key": 40}, limit=100,
    ),
    "LayerInspector": Case(
        "qk.widgets.LayerInspector(model, tokenizer, PROMPT)",
        ".qk-line", "ArrowRight", '.qk-line [data-position="3"]', lambda view, n: {"token": n},
        "{state: qk.state, row: qk.row, kv: qk.kv, norms: qk.norms,"
        " acts: qk.units.map(([, act]) => act), guesses: qk.lens.flat().map(([name]) => name)}",
        lambda view: {
            "row": view.matrix()[view.token, : view.token + 1].tolist(),
            "kv": view.kv_head(),
            "norms": view.norms().tolist(),
            "acts": [act for _, act in view.units()],
            "guesses": [name for row in view.lens() for name, _ in row]},
        {"layer": 0, "head": 0, "token": 0, "off": None}, near=1 / 255 + 1e-3,
    ),
    "SamplingExplorer": Case(
        "qk.widgets.SamplingExplorer(model, tokenizer, PROMPT)",
        'role=slider[name="Top-k"]', "ArrowRight", 'role=button[name="Draw one"]',
        lambda view, n: {"top_k": 1 + n},
        "{state: qk.state, after: [...qk.after], end: qk.end}",
        lambda view: {"after": view.after().tolist(), "end": view.kept()[0]},
        {"temperature": 1.0, "top_k": 1, "draws": 0},
    ),
    "GenerationStepper": Case(
        "qk.widgets.GenerationStepper(model, tokenizer, PROMPT, max_new_tokens=30)",
        ".qk-line", "ArrowLeft", 'role=button[name="To the prompt"]',
        lambda view, n: {"at": 26 - n},
        "{state: {path: qk.path, at: qk.at}, ids: qk.offers.map(([id]) => id),"
        " shares: qk.offers.map(([, , share]) => share), cached: qk.cached}",
        lambda view: {
            "ids": [number for number, *_ in view.choices()],
            "shares": [share for *_, share in view.choices()],
            "cached": view.cache.length},
        {"at": 26}, prepare=WALK,
    ),
    "GQAExplorer": Case(
        "qk.widgets.GQAExplorer(model.config)",
        'role=slider[name="Head dimension"]', "ArrowRight", ".qk-gqa-heads svg",
        lambda view, n: {"head_dim": 32 + 2 * n},
        "{state: qk.state, lines: qk.lines, kept: Object.values(qk.bytes.kept)}",
        lambda view: {
            "lines": [[i, int(kv)] for i, kv in enumerate(view.matrix().argmax(axis=1))],
            "kept": list(view.compared().values())},
        {"head_dim": 32},
    ),
    "CheckpointBrowser": Case(
        "qk.widgets.CheckpointBrowser()",
        "role=tree", "ArrowDown", "role=treeitem >> nth=2",
        lambda view, n: {"selected": view.rows()[n].name},
        "{state: qk.state, rows: qk.rows}",
        lambda view: {"rows": [[r.name, r.depth, r.count, r.nbytes] for r in view.rows()]},
        {"selected": "model"}, prepare="widget.choose(opened=list(widget.view.tree.groups))",
    ),
}  # fmt: skip
