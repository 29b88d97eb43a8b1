"""Exercise 14.4, the search for heads by patching, on a toy model: right, and with mistakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks._judge import Mistake
from qwenkit.checks._whole_model import random_weights
from qwenkit.config import QwenConfig
from qwenkit.model import QwenForCausalLM
from qwenkit.trace import Edit, Trace

Heads = list[tuple[int, int]]
Put = Callable[[Tensor, Tensor, list[int]], None]  # z, the other run's z, heads: writes into z
Search = Callable[..., Any]
_GOOD, _BAD = 3, 7  # the tokens whose logits the metric compares


def _put(z: Tensor, other: Tensor, heads: list[int]) -> None:
    z[:, heads] = other[:, heads]


def _zero(z: Tensor, other: Tensor, heads: list[int]) -> None:
    z[:, heads] = 0.0


def _last(z: Tensor, other: Tensor, heads: list[int]) -> None:
    z[:, heads, -1] = other[:, heads, -1]


def _all_heads(z: Tensor, other: Tensor, heads: list[int]) -> None:
    z.copy_(other)


def _tokens(z: Tensor, other: Tensor, heads: list[int]) -> None:
    z[:, :, heads] = other[:, :, heads]


def _last_head(z: Tensor, other: Tensor, heads: list[int]) -> None:
    z[:, heads[-1:]] = other[:, heads[-1:]]


def _together(lost: Callable[[Heads], float], heads: Heads) -> float:
    return lost(heads)


def _one_by_one(lost: Callable[[Heads], float], heads: Heads) -> float:
    return sum(lost([one]) for one in heads)


def _largest(table: Tensor, number: int) -> Heads:
    width = table.shape[1]
    order = table.flatten().argsort(descending=True, stable=True)
    return [divmod(int(i), width) for i in order[:number]]


def _same_layers(table: Tensor, heads: Heads, key: Callable[[Tensor], Tensor]) -> Heads:
    found: Heads = []
    for layer in sorted({layer for layer, _ in heads}):
        count = sum(one == layer for one, _ in heads)
        found += [(layer, int(head)) for head in key(table[layer]).argsort()[:count]]
    return found


def weakest(table: Tensor, heads: Heads) -> Heads:
    """Return as many heads of the same layers, those that recover least, up or down."""
    return _same_layers(table, heads, torch.abs)


def _weakest_of_all(table: Tensor, heads: Heads) -> Heads:
    width = table.shape[1]
    return [divmod(int(i), width) for i in table.abs().flatten().argsort()[: len(heads)]]


def search(
    put: Put = _put,
    swapped: bool = False,
    own: bool = False,
    table_of: Callable[[Tensor, float, float], Tensor] = lambda x, good, bad: (
        (x - bad) / (good - bad)
    ),
    pick: Callable[[Tensor, int], Heads] = _largest,
    control: Callable[[Tensor, Heads], Heads] = weakest,
    group_put: Put = _put,
    group: Callable[[Callable[[Heads], float], Heads], float] = _together,
    into_corrupted: bool = False,
    lost_of: Callable[[float, float, float], float] = lambda x, good, bad: (
        (good - x) / (good - bad)
    ),
    returned: Callable[..., Any] = lambda table, heads, lost, control: (
        table, heads, lost, control
    ),
) -> Search:  # fmt: skip
    """Return a search; the arguments are what can go wrong in it.

    Args:
        put: how one head is patched for the table.
        swapped: the table is made with corrupted values in the clean run.
        own: the table is made with the run's own values.
        table_of: the table, from the metric of each patch and of both runs.
        pick: the heads found.
        control: the heads of the control.
        group_put: how the heads of a group are patched.
        group: what a group loses.
        into_corrupted: a group is tested by its clean values in the corrupted run.
        lost_of: what is lost, from the metric of the patch and of both runs.
        returned: the answer.
    """

    def find_circuit(
        model: QwenForCausalLM,
        clean: Tensor,
        corrupted: Tensor,
        metric: Callable[[Tensor], float],
        number: int,
    ) -> Any:
        traces = Trace(keep=("attn.z",)), Trace(keep=("attn.z",))
        good = float(metric(model(clean, trace=traces[0])))
        bad = float(metric(model(corrupted, trace=traces[1])))

        def patched(ids: Tensor, source: Trace, heads: Heads, how: Put) -> float:
            edits: dict[str, Edit] = {}
            for layer in {layer for layer, _ in heads}:
                point = f"layers.{layer}.attn.z"
                chosen = [head for one, head in heads if one == layer]

                def edit(z: Tensor, point: str = point, chosen: list[int] = chosen) -> Tensor:
                    how(z, source[point], chosen)
                    return z

                edits[point] = edit
            return float(metric(model(ids, trace=Trace(keep=(), edits=edits))))

        config = model.config
        layers, width = range(config.num_hidden_layers), range(config.num_attention_heads)
        ids = clean if swapped else corrupted
        source = traces[1 if swapped or own else 0]
        rows = [[patched(ids, source, [(n, h)], put) for h in width] for n in layers]
        table = table_of(torch.tensor(rows), good, bad)

        def lost(heads: Heads) -> float:
            if into_corrupted:
                return lost_of(patched(corrupted, traces[0], heads, group_put), good, bad)
            return lost_of(patched(clean, traces[1], heads, group_put), good, bad)

        heads = pick(table, number)
        return returned(table, heads, group(lost, heads), group(lost, control(table, heads)))

    return find_circuit


def measured(function: Search) -> Callable[..., Any]:
    """Turn a learner's search into a function of sizes: the table, the heads, and two numbers."""

    @wraps(function)
    @torch.no_grad()
    def run(layers: int, heads: int, length: int, number: int) -> Any:
        config = QwenConfig(24, 4 * heads, 20, layers, heads, heads // 2, tie_word_embeddings=True)
        model = QwenForCausalLM(config)
        model.load_state_dict(random_weights(config))
        model.requires_grad_(False)
        clean = torch.randint(8, 24, (1, length), generator=torch.Generator().manual_seed(layers))
        corrupted = clean.clone()
        clean[0, 1], corrupted[0, 1] = _GOOD, _BAD

        def metric(logits: Tensor) -> float:
            return float(logits[0, -1, _GOOD] - logits[0, -1, _BAD])

        found = function(model, clean, corrupted, metric, number)
        if not isinstance(found, tuple | list) or len(found) != 4:
            return found
        table, pairs, lost, control = found
        if isinstance(pairs, Sequence | Tensor) and all(_is_pair(one) for one in pairs):
            pairs = [(int(one[0]), int(one[1])) for one in pairs]
        numbers = [float(one) if isinstance(one, Tensor) else one for one in (lost, control)]
        return table, pairs, *numbers

    return run


def _is_pair(value: Any) -> bool:
    return isinstance(value, Sequence | Tensor) and not isinstance(value, str) and len(value) == 2


CIRCUIT_MISTAKES: tuple[tuple[str, str, Search], ...] = (
    ("runs exchanged", "your table has the corrupted heads in the clean run. To ask what brings "
        "the answer back, which run must be edited?",
        search(swapped=True)),
    ("its own values", "your table is 0 everywhere: each head gets the output that it already has. "
        "From which run should it come?",
        search(own=True)),
    ("zeros", "your table switches heads off. Patching puts the clean run's output there.",
        search(put=_zero)),
    ("zeros", "your table switches heads off. Patching puts the clean run's output there.",
        search(put=_zero, group_put=_zero)),
    ("last position only", "your table patches the last position alone. The exercise asks for all "
        "positions.",
        search(put=_last)),
    ("last position only", "your table patches the last position alone. The exercise asks for all "
        "positions.",
        search(put=_last, group_put=_last)),
    ("the whole layer", "in your table all heads of a layer have the same value: you patch the "
        "whole layer. Which axis of z counts the heads?",
        search(put=_all_heads)),
    ("the whole layer", "in your table all heads of a layer have the same value: you patch the "
        "whole layer. Which axis of z counts the heads?",
        search(put=_all_heads, group_put=_all_heads)),
    ("a token, not a head", "you patch a position, not a head. In (B, H, T, D), which axis counts "
        "the heads?",
        search(put=_tokens)),
    ("a token, not a head", "you patch a position, not a head. In (B, H, T, D), which axis counts "
        "the heads?",
        search(put=_tokens, group_put=_tokens)),
    ("the metric itself", "your table holds the metric. What should be 0 if nothing comes back, "
        "and 1 if all does?",
        search(table_of=lambda x, good, bad: x)),
    ("the metric itself", "your table holds the metric. What should be 0 if nothing comes back, "
        "and 1 if all does?",
        search(table_of=lambda x, good, bad: x, lost_of=lambda x, good, bad: x)),
    ("not divided", "your table holds differences. By what must they be divided, so that 1 is the "
        "clean run?",
        search(table_of=lambda x, good, bad: x - bad)),
    ("not divided", "your table holds differences. By what must they be divided, so that 1 is the "
        "clean run?",
        search(table_of=lambda x, good, bad: x - bad,
            lost_of=lambda x, good, bad: good - x)),
    ("what is missing", "your table says what is still missing: 1 where nothing comes back.",
        search(table_of=lambda x, good, bad: (good - x) / (good - bad))),
    ("sign", "the signs of your table are exchanged.",
        search(table_of=lambda x, good, bad: (x - bad) / (bad - good))),
    ("signs lost", "your table has no signs. A head may also push the answer away.",
        search(table_of=lambda x, good, bad: ((x - bad) / (good - bad)).abs())),
    ("smallest first", "those heads bring back least. Which end of the sorted table do you take?",
        search(pick=lambda table, number: _largest(-table, number))),
    ("largest up or down", "you also take heads that push the answer away. The heads asked for are "
        "those with the largest values, signs included.",
        search(pick=lambda table, number: _largest(table.abs(), number))),
    ("ascending", "the heads are right; the strongest should come first.",
        search(returned=lambda table, heads, *rest: (table, heads[::-1], *rest))),
    ("flat numbers", "the heads are flat numbers of the table. How many heads has a layer, and "
        "what do quotient and remainder say?",
        search(returned=lambda table, heads, *rest:
            (table, [n * table.shape[1] + h for n, h in heads], *rest))),
    ("layer and head exchanged", "your pairs are (head, layer). The exercise asks for (layer, "
        "head).",
        search(returned=lambda table, heads, *rest: (table, [(h, n) for n, h in heads], *rest))),
    ("one head per layer", "of two heads in one layer only the last is switched. A dictionary has "
        "one edit for each point: how can one edit take care of both?",
        search(group_put=_last_head)),
    ("one by one", "you add what single heads cost. Switch the whole group in one run.",
        search(group=_one_by_one)),
    ("the group brought back", "you put the clean heads into the corrupted run once more. Whether "
        "the heads are needed shows only in the clean run.",
        search(into_corrupted=True)),
    ("the group brought back", "you put the clean heads into the corrupted run once more. Whether "
        "the heads are needed shows only in the clean run.",
        search(into_corrupted=True, lost_of=lambda x, good, bad: (x - bad) / (good - bad))),
    ("the group zeroed", "you set the group to zero. Give it the outputs of the corrupted run.",
        search(group_put=_zero)),
    ("metric of the groups", "your last two values are the metric. Which part of the way from "
        "clean to corrupted is that?",
        search(lost_of=lambda x, good, bad: x)),
    ("what is left", "your last two values say how much of the answer is left. How much is lost?",
        search(lost_of=lambda x, good, bad: (x - bad) / (good - bad))),
    ("lost, not divided", "your last two values are differences of the metric. Divide them as you "
        "did for the table.",
        search(lost_of=lambda x, good, bad: good - x)),
    ("control from other layers", "your control takes the weakest heads of the whole model. Take "
        "them from the same layers as the group, or you compare layers.",
        search(control=_weakest_of_all)),
    ("control that pushes", "your control has the heads with the lowest values, and those may push "
        "strongly the other way. Which heads do least, up or down?",
        search(control=lambda table, heads: _same_layers(table, heads, lambda row: row))),
    ("control is the group", "your control is the group itself. Which heads should make no "
        "difference?",
        search(control=lambda table, heads: heads)),
    ("no control", "without a control the number for the group says little. Return four values.",
        search(returned=lambda table, heads, lost, control: (table, heads, lost))),
    ("the table alone", "that is the table. Return four values: the table, the heads, what is lost "
        "without them, and the same for the control.",
        search(returned=lambda table, *rest: table)),
)  # fmt: skip
KNOWN = [Mistake(name, hint, cache(measured(wrong))) for name, hint, wrong in CIRCUIT_MISTAKES]
