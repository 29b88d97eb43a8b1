"""What LayerInspector knows: one head, one layer and one token, from attention to output."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.model import QwenForCausalLM
from qwenkit.plot.tokens import label
from qwenkit.tokenizer import Tokenizer
from qwenkit.widgets.choices import check_names, check_whole
from qwenkit.widgets.outputs import Comparison, Guess, guesses, without_head
from qwenkit.widgets.pack import pack
from qwenkit.widgets.patterns import Patterns
from qwenkit.widgets.reading import Reading


@dataclass
class LayerView:
    """What the inspector shows.

    Attributes:
        model: asked for what was not kept: the lens of a long text, a head switched off.
        tokenizer: the model's.
        input_ids: (1, T) the text.
        patterns: every head's attention.
        reading: what else the forward pass left.
        other: the attention of a second text; None: there is none.
        layer: chosen, as are the following.
        head: of that layer.
        token: of the text.
        other_token: of the second text.
        off: layer and head that are switched off for a comparison; None: none.
        lenses: token -> what each layer would make the model say; filled as they are asked for.
    """

    model: QwenForCausalLM
    tokenizer: Tokenizer
    input_ids: Tensor
    patterns: Patterns
    reading: Reading
    other: Patterns | None = None
    layer: int = 0
    head: int = 0
    token: int = 0
    other_token: int = 0
    off: list[int] | None = None
    lenses: dict[int, list[Guess]] = field(default_factory=dict)
    _compared: Comparison | None = None

    def state(self) -> dict[str, Any]:
        """Return what is chosen now."""
        names = ("layer", "head", "token", "other_token", "off")
        return {name: getattr(self, name) for name in names}

    def choose(self, **state: Any) -> None:
        """Choose others; all or, where one cannot be, none of them."""
        layers, heads = self.patterns.shares.shape[:2]
        places = 1 if self.other is None else len(self.other.tokens)
        sizes = {"layer": layers, "head": heads, "token": len(self.patterns.tokens)}
        sizes["other_token"] = places
        check_names(state, self.state())
        for name, value in state.items():
            if name == "off":
                _check_head(value, layers, heads)
            else:
                check_whole(name, value, 0, sizes[name] - 1)
        for name, value in state.items():
            setattr(self, name, value)

    def data(self) -> dict[str, Any]:
        """Return what the script draws; the arrays are compressed, of little-endian numbers."""
        reading, patterns = self.reading, self.patterns
        layers, heads, _, dim = reading.queries.shape
        (queries, query_steps), (keys, key_steps) = map(_steps, (reading.queries, reading.keys))
        return {
            "tokens": patterns.tokens,
            "layers": layers,
            "heads": heads,
            "kv_heads": reading.keys.shape[1],
            "dim": dim,
            "width": self.model.config.intermediate_size,
            "shares": pack(patterns.shares),
            "titles": [[self.title(i, j) for j in range(heads)] for i in range(layers)],
            "queries": pack(queries),
            "query_steps": query_steps,
            "keys": pack(keys),
            "key_steps": key_steps,
            "cos": pack(reading.cos.astype("<f4")),
            "sin": pack(reading.sin.astype("<f4")),
            "units": pack(reading.units.astype("<u2")),
            "acts": pack(reading.acts.astype("<f4")),
            "norms": pack(reading.norms.astype("<f4")),
            "embed_norms": pack(reading.embed_norms.astype("<f4")),
            "lens": {str(token): rows for token, rows in self.lenses.items()},
            "other": self._other(),
        }

    def _other(self) -> dict[str, Any] | None:
        if self.other is None:
            return None
        return {"tokens": self.other.tokens, "shares": pack(self.other.shares)}

    def matrix(self) -> np.ndarray:
        """Return the chosen head's attention, (T, T): a row for each token that reads."""
        return self.patterns.matrix(self.layer, self.head)

    def kv_head(self) -> int:
        """Return the kv head that the chosen head reads."""
        return self.head // len(self.group())

    def group(self) -> list[int]:
        """Return the query heads that share it."""
        size = self.reading.queries.shape[1] // self.reading.keys.shape[1]
        first = self.head // size * size
        return list(range(first, first + size))

    def query(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the token's query (D,), before and after RoPE."""
        q = self.reading.queries[self.layer, self.head, self.token]
        return q, self.reading.turned(q, self.token)

    def key(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the token's key (D,) in the kv head, before and after RoPE."""
        k = self.reading.keys[self.layer, self.kv_head(), self.token]
        return k, self.reading.turned(k, self.token)

    def units(self) -> list[tuple[int, float]]:
        """Return the MLP's strongest units at the token: number and value."""
        place = self.layer, self.token
        numbers, values = self.reading.units[place], self.reading.acts[place]
        return list(zip(numbers.tolist(), values.tolist(), strict=True))

    def norms(self) -> np.ndarray:
        """Return the stream's length at the token: as it starts, after each layer's two parts."""
        token = self.token
        later = self.reading.norms[:, token].reshape(-1)
        return np.concatenate([self.reading.embed_norms[token, None], later])

    def lens(self) -> list[Guess]:
        """Return what the model would say after the token, stopped at the start and each layer."""
        if self.token not in self.lenses:
            streams = self.reading.streams[:, self.token]  # (L + 1, C)
            self.lenses[self.token] = guesses(self.model, self.tokenizer, streams)
        return self.lenses[self.token]

    def compared(self) -> Comparison | None:
        """Return the next token's probabilities with and without the head that is off."""
        if self.off is None:
            return None
        kept = self._compared
        if kept is None or [kept.layer, kept.head] != self.off:
            ids, streams = self.input_ids, self.reading.streams[-1]
            self._compared = without_head(self.model, self.tokenizer, ids, streams, *self.off)
        return self._compared

    def title(self, layer: int | None = None, head: int | None = None) -> str:
        """Name a head and its habits, by default the chosen one's."""
        layer, head = self.layer if layer is None else layer, self.head if head is None else head
        return f"Layer {layer}, head {head}: {self.patterns.behaviour(layer, head)}"

    def alt(self) -> str:
        """Return in words what is shown."""
        tokens, row, norms = self.patterns.tokens, self.matrix()[self.token], self.norms()
        most = [i for i in np.argsort(-row, kind="stable")[:3] if row[i] > 0]
        guess, share = self.lens()[self.layer + 1][0]
        unit, act = self.units()[0]
        start, middle, end = (float(norms[2 * self.layer + i]) for i in range(3))
        words = [
            self.title(),
            f"token {self.token} of {len(tokens)}, {label(tokens[self.token])}, reads "
            + ", ".join(f"{label(tokens[i])} {row[i]:.0%}" for i in most),
            f"kv head {self.kv_head()} serves heads {', '.join(map(str, self.group()))}",
            f"the MLP's strongest unit is {unit} ({act:+.2f})",
            f"the residual stream's length goes from {start:.2f} to {middle:.2f} by attention "
            f"and to {end:.2f} by the MLP",
            f"stopped after this layer the model would say {label(guess)} ({share:.0%})",
            self._moved(),
        ]
        return f"{'; '.join(filter(None, words))}."

    def _moved(self) -> str:
        compared = self.compared()
        if compared is None:
            return ""
        name, _, before, after = compared.rows[self.token][0]
        return (
            f"with head {compared.head} of layer {compared.layer} off, {label(name)} as the next "
            f"token goes from {before:.0%} to {after:.0%}"
        )


def _check_head(value: Any, layers: int, heads: int) -> None:
    """Refuse what is neither None nor the layer and head of one that there is."""
    if value is None:
        return
    pair = isinstance(value, list) and [type(number) for number in value] == [int, int]
    if not pair or not (0 <= value[0] < layers and 0 <= value[1] < heads):
        rule = f"[layer, head] from [0, 0] to [{layers - 1}, {heads - 1}], or None"
        raise InputError(f"off is {value!r}; it must be {rule}")


def _steps(vectors: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Round to whole numbers of 16 bits; return them, and what a step means in each layer."""
    largest = np.abs(vectors).reshape(len(vectors), -1).max(axis=1)
    steps = np.where(largest > 0, largest, 1) / 32767
    whole = np.rint(vectors / steps.reshape(-1, 1, 1, 1)).astype("<i2")
    return whole, steps.astype(float).tolist()
