"""GQAExplorer: which query heads share a kv head, and what that saves in the cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from qwenkit.config import BYTES_PER_VALUE, QwenConfig
from qwenkit.errors import InputError
from qwenkit.files import format_bytes
from qwenkit.plot import gqa_sharing
from qwenkit.plot.style import BLUE, PALE, TEXT, WIDEST
from qwenkit.widgets._base import Inspector, View, check_config, check_integer

SHAPE = ("heads", "kv_heads", "head_dim", "layers")
Preset = tuple[tuple[int, int, int, int], int]
"""The four of `SHAPE`, and the longest context of the config."""
PRESETS: dict[str, Preset] = {
    "tiny-coder": ((8, 2, 32, 6), 1024),
    "0.5B": ((14, 2, 64, 24), 32_768),
    "1.5B": ((12, 2, 128, 28), 32_768),
    "3B": ((16, 2, 128, 36), 32_768),
    "7B": ((28, 4, 128, 28), 32_768),
    "14B": ((40, 8, 128, 48), 32_768),
    "32B": ((40, 8, 128, 64), 32_768),
}
OWN = "other values"
LARGEST = {"heads": 64, "head_dim": 256, "layers": 128, "tokens": 131_072}
DRAWN = {"heads": 256, "head_dim": 4096, "layers": 4096, "tokens": 10**9}  # of any config
BYTES = {1: "8 bits", 2: "bfloat16", 4: "float32"}


@dataclass
class GQAView(View):
    """What the explorer shows."""

    chosen = (*SHAPE, "tokens", "value_bytes", "head")
    heads: int = 14  # H, query heads
    kv_heads: int = 2  # KV; it divides `heads`
    head_dim: int = 64  # D
    layers: int = 24  # N
    tokens: int = 32_768  # in the cache
    value_bytes: int = 2  # bytes per value
    head: int = 0  # the query head that is marked
    presets: dict[str, Preset] = field(default_factory=lambda: dict(PRESETS))

    def checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """Refuse sizes that do not fit together.

        With fewer heads the marked one becomes the last there is, unless another is named too.
        """
        wanted = self.state() | state
        for name, most in self.most().items():
            check_integer(name, wanted[name], 1, most)
        heads, kv_heads = wanted["heads"], wanted["kv_heads"]
        check_integer("kv_heads", kv_heads, 1, heads)
        if heads % kv_heads:
            can = ", ".join(map(str, divisors(heads)))
            raise InputError(
                f"kv_heads is {kv_heads}; it must divide the {heads} query heads: {can}"
            )
        if type(wanted["value_bytes"]) is not int or wanted["value_bytes"] not in BYTES:
            raise InputError(f"value_bytes is {wanted['value_bytes']!r}; it must be 1, 2 or 4")
        if "head" not in state:
            wanted["head"] = min(wanted["head"], heads - 1)
        check_integer("head", wanted["head"], 0, heads - 1)
        return wanted

    def most(self) -> dict[str, int]:
        """Return the largest value of each size: the usual one, or a larger preset's."""
        found = dict(LARGEST)
        for (heads, _, head_dim, layers), tokens in self.presets.values():
            given = {"heads": heads, "head_dim": head_dim, "layers": layers, "tokens": tokens}
            found = {name: max(found[name], given[name]) for name in found}
        return found

    def data(self) -> dict[str, Any]:
        """Return what the script needs in addition to the state."""
        presets = {
            name: {**dict(zip(SHAPE, shape, strict=True)), "tokens": tokens}
            for name, (shape, tokens) in self.presets.items()
        }
        return {
            "presets": presets, "most": self.most(), "own": OWN,
            "bytes": {str(size): name for size, name in BYTES.items()},
        }  # fmt: skip

    def matrix(self) -> np.ndarray:
        """Return (H, KV) whether a query head uses a kv head."""
        return np.repeat(np.eye(self.kv_heads, dtype=bool), self.heads // self.kv_heads, axis=0)

    def kv_head(self) -> int:
        """Return the kv head that the marked query head uses."""
        return self.head // (self.heads // self.kv_heads)

    def group(self) -> list[int]:
        """Return the query heads that use the same kv head as the marked one."""
        return np.flatnonzero(self.matrix()[:, self.kv_head()]).tolist()

    def token_bytes(self, kv_heads: int | None = None) -> int:
        """Return the cache's bytes for one token, with these kv heads or with others."""
        kept = self.kv_heads if kv_heads is None else kv_heads
        return 2 * self.layers * kept * self.head_dim * self.value_bytes  # keys and values

    def compared(self) -> dict[str, int]:
        """Return kv heads by kind: one for each query head, those chosen, and a single one."""
        return {"MHA": self.heads, "chosen": self.kv_heads, "MQA": 1}

    def kind(self) -> str:
        """Return the name of such a sharing."""
        if self.kv_heads == self.heads:
            return "MHA"
        return "MQA" if self.kv_heads == 1 else "GQA"

    def preset(self) -> str:
        """Return the name of the model with these heads and layers, or that there is none."""
        shape = tuple(getattr(self, name) for name in SHAPE)
        return next((name for name, one in self.presets.items() if one[0] == shape), OWN)

    def title(self) -> str:
        """Return a line that names what is shown."""
        one = self.token_bytes()
        return (
            f"{count(self.heads, 'query head')}, {count(self.kv_heads, 'kv head')} "
            f"({self.kind()}): {one:,} bytes per token, {format_bytes(one * self.tokens)} for "
            f"{count(self.tokens, 'token')}"
        )

    def alt(self) -> str:
        """Return what is shown as text."""
        group, kv = self.group(), self.kv_head()
        shared = "each query head has a kv head of its own"
        if len(group) > 1:
            shared = (
                f"{len(group)} query heads share each kv head; the marked one, q{self.head}, uses "
                f"k{kv} and v{kv}, as do all from q{group[0]} to q{group[-1]}"
            )
        lines = []
        for name, kept in self.compared().items():
            size = format_bytes(self.token_bytes(kept) * self.tokens)
            lines.append(f"{name} ({count(kept, 'kv head')}) {size}")
        return f"{self.title()}: {shared}. The whole cache compared: {', '.join(lines)}."


class GQAExplorer(Inspector):
    """Choose heads, kv heads and context; see which heads share, and the bytes of the cache.

    Args:
        config: a model's, to begin with, in the dtype that it names; None: the 0.5B.

    Raises:
        InputError: not a config, or one with too many heads, layers or tokens to be drawn.
    """

    script = "gqa"
    view: GQAView

    def __init__(self, config: QwenConfig | None = None) -> None:
        super().__init__(GQAView() if config is None else _view_of(config))

    def snapshot(self) -> Figure:
        """Draw which heads share a kv head, above the bytes of the cache."""
        view = self.view
        figure, (above, below) = plt.subplots(
            2, 1, figsize=(WIDEST, 4.4), layout="constrained", height_ratios=(1.4, 1)
        )
        gqa_sharing(view.heads, view.kv_heads, ax=above, marked=view.head)
        kinds = view.compared()
        totals = [view.token_bytes(kept) * view.tokens for kept in kinds.values()]
        names = [f"{name}: {count(kept, 'kv head')}" for name, kept in kinds.items()]
        bars = below.barh(names, totals, color=[PALE, BLUE, PALE])
        below.bar_label(bars, [f" {format_bytes(total)}" for total in totals], fontsize=TEXT)
        below.invert_yaxis()
        below.set_xlim(0, 1.15 * max(totals))
        below.set_xticks([])
        below.spines[["top", "right", "bottom"]].set_visible(False)
        figure.suptitle(view.title(), fontsize=TEXT + 1)
        return figure


def _view_of(config: QwenConfig) -> GQAView:
    """Return a view that begins with a config, which becomes a preset if it is not one."""
    check_config(config)
    shape = (
        config.num_attention_heads, config.num_key_value_heads, config.head_dim,
        config.num_hidden_layers,
    )  # fmt: skip
    tokens = config.max_position_embeddings
    given = {"heads": shape[0], "head_dim": shape[2], "layers": shape[3], "tokens": tokens}
    for name, most in DRAWN.items():
        check_integer(name, given[name], 1, most)
    known = (shape, tokens) in PRESETS.values()
    view = GQAView(presets=PRESETS if known else {"your config": (shape, tokens), **PRESETS})
    sizes = dict(zip(SHAPE, shape, strict=True))
    view.choose(**sizes, tokens=tokens, value_bytes=BYTES_PER_VALUE[config.dtype])
    return view


def divisors(number: int) -> list[int]:
    """Return the numbers that divide one evenly, the smallest first.

    >>> divisors(14)
    [1, 2, 7, 14]
    """
    return [part for part in range(1, number + 1) if number % part == 0]


def count(number: int, what: str) -> str:
    """Return a number of things: 1 kv head, 2 kv heads."""
    return f"{number:,} {what}{'s' * (number != 1)}"
