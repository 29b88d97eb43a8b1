"""Each widget as the tests in JupyterLab use it: how it is made, moved, clicked, and judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# More than 26 tokens in any vocabulary: after 25 presses there must be somewhere left to go.
PROMPT = """def add(a, b):
    return a + b


def mul(x, y):
    return x * y

print(add(2, 3))
"""
# Twenty-six tokens beyond the prompt, none of which ends the text.
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
        module: of qwenkit.widgets.
        make: an expression that makes it from `model`, `tokenizer` and `PROMPT`.
        keys: selector of what takes the keys.
        key: the key that is pressed.
        after: view-model and number of presses -> what is then chosen, counted from `start`.
        click: selector of what a click chooses something with.
        drawn: JavaScript that gives what is drawn from `qk`, with the chosen `state` among it.
        expected: view-model -> the same by Python.
        limit: milliseconds from a key to the new picture, on a machine at rest.
        start: what is chosen first.
        prepare: code that runs once `widget` is made.
        near: how far numbers may lie apart: two processes may round a sum differently.
    """

    module: str
    make: str
    keys: str
    key: str
    after: Callable[[Any, int], dict[str, Any]]
    click: str
    drawn: str
    expected: Callable[[Any], dict[str, Any]]
    limit: int = 200
    start: dict[str, Any] = field(default_factory=dict)
    prepare: str = ""
    near: float = 1e-4


CASES = {
    "AttentionExplorer": Case(
        module="attention",
        make="AttentionExplorer(model, tokenizer, PROMPT)",
        start={"layer": 0, "head": 0, "token": 0},
        keys=".qk-attention-text",
        key="ArrowRight",
        after=lambda view, presses: {"token": presses},
        click=".qk-attention-grid",
        drawn="{state: qk.state, triangle: [...qk.triangle], arcs: qk.arcs, title: qk.title}",
        expected=lambda view: {
            "triangle": view.patterns.weights[view.layer, view.head].tolist(),
            "arcs": np.rint(view.arc_weights() * 255).tolist(),
            "title": view.title(),
        },
        limit=100,
        near=1,  # of 255
    ),
    "RopeExplorer": Case(
        module="rope",
        make="RopeExplorer(model.config)",
        start={"pair": 3, "query": 0, "key": 40},
        keys=".qk-rope-tables",
        key="ArrowDown",
        after=lambda view, presses: {"query": presses},
        click=".qk-rope-curve",
        drawn="{state: qk.state, product: qk.product, products: qk.products, after: qk.after,"
        " title: qk.title}",
        expected=lambda view: {
            "product": view.product(),
            "products": view.products().tolist(),
            "after": view.rotated()[..., view.pair].tolist(),
            "title": view.title(),
        },
        limit=100,
    ),
    "LayerInspector": Case(
        module="layer",
        make="LayerInspector(model, tokenizer, PROMPT)",
        start={"layer": 0, "head": 0, "token": 0, "off": None},
        keys=".qk-line",
        key="ArrowRight",
        after=lambda view, presses: {"token": presses},
        click='.qk-line [data-position="3"]',
        drawn="{state: qk.state, row: qk.row, kv: qk.kv, norms: qk.norms,"
        " acts: qk.units.map(([, act]) => act), guesses: qk.lens.flat().map(([name]) => name)}",
        expected=lambda view: {
            "row": view.matrix()[view.token, : view.token + 1].tolist(),
            "kv": view.kv_head(),
            "norms": view.norms().tolist(),
            "acts": [act for _, act in view.units()],
            "guesses": [name for row in view.lens() for name, _ in row],
        },
        near=1 / 255 + 1e-3,
    ),
    "SamplingExplorer": Case(
        module="sampling",
        make="SamplingExplorer(model, tokenizer, PROMPT)",
        start={"temperature": 1.0, "top_k": 1, "draws": 0},
        keys='role=slider[name="Top-k"]',
        key="ArrowRight",
        after=lambda view, presses: {"top_k": 1 + presses},
        click='role=button[name="Draw one"]',
        drawn="{state: qk.state, after: [...qk.after], end: qk.end}",
        expected=lambda view: {"after": view.after().tolist(), "end": view.kept()[0]},
    ),
    "GenerationStepper": Case(
        module="stepper",
        make="GenerationStepper(model, tokenizer, PROMPT, max_new_tokens=30)",
        prepare=WALK,
        start={"at": 26},
        keys=".qk-line",
        key="ArrowLeft",
        after=lambda view, presses: {"at": 26 - presses},
        click='role=button[name="To the prompt"]',
        drawn="{state: {path: qk.path, at: qk.at}, ids: qk.offers.map(([id]) => id),"
        " shares: qk.offers.map(([, , share]) => share), cached: qk.cached}",
        expected=lambda view: {
            "ids": [number for number, *_ in view.choices()],
            "shares": [share for *_, share in view.choices()],
            "cached": view.cache.length,
        },
    ),
    "GQAExplorer": Case(
        module="gqa",
        make="GQAExplorer(model.config)",
        start={"head_dim": 32},
        keys='role=slider[name="Head dimension"]',
        key="ArrowRight",
        after=lambda view, presses: {"head_dim": 32 + 2 * presses},
        click=".qk-gqa-heads svg",
        drawn="{state: qk.state, lines: qk.lines, kept: Object.values(qk.bytes.kept)}",
        expected=lambda view: {
            "lines": [[i, int(kv)] for i, kv in enumerate(view.matrix().argmax(axis=1))],
            "kept": list(view.compared().values()),
        },
    ),
    "CheckpointBrowser": Case(
        module="checkpoint",
        make="CheckpointBrowser()",
        prepare="widget.choose(opened=list(widget.view.tree.groups))",
        start={"selected": "model"},
        keys="role=tree",
        key="ArrowDown",
        after=lambda view, presses: {"selected": view.rows()[presses].name},
        click="role=treeitem >> nth=2",
        drawn="{state: qk.state, rows: qk.rows}",
        expected=lambda view: {
            "rows": [[row.name, row.depth, row.count, row.nbytes] for row in view.rows()]
        },
    ),
}
