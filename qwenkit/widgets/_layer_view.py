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
from qwenkit.widgets._patterns import HeadView, Patterns, pack
from qwenkit.widgets._reading import Comparison, Guess, Reading, guesses, without_head


@dataclass
class LayerView(HeadView):
    """What the inspector shows."""

    chosen = ("layer", "head", "token", "other_token", "off")
    model: QwenForCausalLM  # computes what was not kept: the lens of a long text, an ablated head
    tokenizer: Tokenizer
    input_ids: Tensor  # (1, T) the text
    patterns: Patterns  # every head's attention
    reading: Reading  # what else was kept of the forward pass
    other: Patterns | None = None  # the attention of a second text
    layer: int = 0
    head: int = 0  # of that layer
    token: int = 0
    other_token: int = 0  # of the second text
    off: list[int] | None = None  # layer and head that are ablated for a comparison
    lenses: dict[int, list[Guess]] = field(default_factory=dict)  # by token, once computed
    _compared: Comparison | None = None

    def largest(self) -> dict[str, int]:
        """Return the last layer, head and token."""
        layers, heads = self.patterns.weights.shape[:2]
        last = {"layer": layers - 1, "head": heads - 1, "token": len(self.patterns.tokens) - 1}
        return last | {"other_token": len(self.other.tokens) - 1 if self.other else 0}

    def checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """Refuse a head to ablate that does not exist."""
        value, (layers, heads) = state.get("off"), self.patterns.weights.shape[:2]
        if value is not None:
            pair = isinstance(value, list) and [type(number) for number in value] == [int, int]
            if not pair or not (0 <= value[0] < layers and 0 <= value[1] < heads):
                rule = f"[layer, head] from [0, 0] to [{layers - 1}, {heads - 1}], or None"
                raise InputError(f"off is {value!r}; it must be {rule}")
        return super().checked(state)

    def data(self) -> dict[str, Any]:
        """Return what the script draws; the arrays are compressed, of little-endian numbers."""
        reading, other = self.reading, self.other
        (queries, query_steps), (keys, key_steps) = map(_steps, (reading.queries, reading.keys))
        floats = ("cos", "sin", "acts", "norms", "embed_norms")
        return self.patterns.data() | {
            "tokens": self.patterns.tokens,
            "kv_heads": reading.keys.shape[1],
            "dim": reading.queries.shape[-1],
            "width": self.model.config.intermediate_size,
            "queries": pack(queries),
            "query_steps": query_steps,
            "keys": pack(keys),
            "key_steps": key_steps,
            "units": pack(reading.units.astype("<u2")),
            **{name: pack(getattr(reading, name).astype("<f4")) for name in floats},
            "lens": {str(token): rows for token, rows in self.lenses.items()},
            "other": other and {"tokens": other.tokens, "weights": pack(other.weights)},
        }

    def kv_head(self) -> int:
        """Return the kv head that the chosen head uses."""
        return self.head // len(self.group())

    def group(self) -> list[int]:
        """Return the query heads that share it."""
        size = self.reading.queries.shape[1] // self.reading.keys.shape[1]
        first = self.head // size * size
        return list(range(first, first + size))

    def query(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the token's query (D,), before and after RoPE."""
        q = self.reading.queries[self.layer, self.head, self.token]
        return q, self.reading.rotated(q, self.token)

    def key(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the token's key (D,) in the kv head, before and after RoPE."""
        k = self.reading.keys[self.layer, self.kv_head(), self.token]
        return k, self.reading.rotated(k, self.token)

    def units(self) -> list[tuple[int, float]]:
        """Return the MLP's strongest units at the token: number and activation."""
        at = self.layer, self.token
        pairs = zip(self.reading.units[at].tolist(), self.reading.acts[at].tolist(), strict=True)
        return list(pairs)

    def norms(self) -> np.ndarray:
        """Return the stream's norm at the token: of its embedding, then after attention and MLP."""
        later = self.reading.norms[:, self.token].reshape(-1)
        return np.concatenate([self.reading.embed_norms[self.token, None], later])

    def lens(self) -> list[Guess]:
        """Return what the model would predict after the token from its embedding and each layer."""
        if self.token not in self.lenses:
            streams = self.reading.streams[:, self.token]  # (L + 1, C)
            self.lenses[self.token] = guesses(self.model, self.tokenizer, streams)
        return self.lenses[self.token]

    def compared(self) -> Comparison | None:
        """Return the next token's probabilities with and without the head that is off."""
        if self.off is None:
            return None
        kept = self._compared
        if kept is None or kept.off != self.off:
            ids, streams = self.input_ids, self.reading.streams[-1]
            self._compared = without_head(self.model, self.tokenizer, ids, streams, self.off)
        return self._compared

    def alt(self) -> str:
        """Return what is shown as text."""
        tokens, row, norms = self.patterns.tokens, self.matrix()[self.token], self.norms()
        most = [i for i in np.argsort(-row, kind="stable")[:3] if row[i] > 0]
        guess, probability = self.lens()[self.layer + 1][0]
        unit, act = self.units()[0]
        start, middle, end = (float(norms[2 * self.layer + i]) for i in range(3))
        words = [
            self.title(),
            f"token {self.token} of {len(tokens)}, {label(tokens[self.token])}, attends to "
            + ", ".join(f"{label(tokens[i])} {row[i]:.0%}" for i in most),
            f"heads {', '.join(map(str, self.group()))} share kv head {self.kv_head()}",
            f"the MLP's strongest unit is {unit} ({act:+.2f})",
            f"the residual stream's norm goes from {start:.2f} to {middle:.2f} by attention and to "
            f"{end:.2f} by the MLP",
            f"stopped after this layer the model would predict {label(guess)} ({probability:.0%})",
        ]
        compared = self.compared()
        if compared is not None:
            name, _, before, after = compared.rows[self.token][0]
            layer, head = compared.off
            words.append(
                f"without head {head} of layer {layer}, {label(name)} as the next token goes from "
                f"{before:.0%} to {after:.0%}"
            )
        return f"{'; '.join(words)}."


def _steps(vectors: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Round to integers of 16 bits; return them, and the size of a step in each layer."""
    largest = np.abs(vectors).reshape(len(vectors), -1).max(axis=1)
    steps = np.where(largest > 0, largest, 1) / 32767
    rounded = np.rint(vectors / steps.reshape(-1, 1, 1, 1)).astype("<i2")
    return rounded, steps.astype(float).tolist()
