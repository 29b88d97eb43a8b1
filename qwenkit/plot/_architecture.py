"""The whole model in one drawing: every part with its shapes, the residual stream running through.

`lit` lights one part and leaves the rest gray: "you are here" at the start of a chapter.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from qwenkit.config import QwenConfig
from qwenkit.errors import InputError
from qwenkit.plot._pen import GRAY, Pen
from qwenkit.plot.style import KEY, QUERY, VALUE

WIDTH, HEIGHT = 90.0, 73.0  # the drawing's own units: a tenth of an inch at its full size
STREAM_X = 12.0
_LAYER = {
    "stream", "layer", "norm_1", "q", "k", "v", "rope", "cache", "core", "heads", "o", "add_1",
    "norm_2", "gate", "up", "silu", "times", "down", "add_2",
}  # fmt: skip
_WEIGHTS = {"embed", "norm_1", "q", "k", "v", "o", "norm_2", "gate", "up", "down", "norm", "head"}
PARTS: dict[str, tuple[set[str], str]] = {  # name -> what is lit, and how the alt text calls it
    "checkpoint": (_WEIGHTS, "every box that holds weights"),
    "tokens": ({"ids", "embed"}, "the token ids and the embedding"),
    "norm": ({"norm_1", "norm_2", "norm"}, "the three RMSNorms"),
    "rope": ({"rope"}, "RoPE, which rotates queries and keys"),
    "attention": (
        {"q", "k", "v", "rope", "core", "heads", "o", "add_1"},
        "attention, from its projections to the addition",
    ),
    "gqa": ({"k", "v", "core", "heads"}, "keys, values and the query heads that share them"),
    "mlp": (
        {"gate", "up", "silu", "times", "down", "add_2"},
        "the MLP, from its projections to the addition",
    ),
    "layer": (_LAYER - {"cache"}, "the decoder layer"),
    "model": (
        (_LAYER - {"cache"}) | {"ids", "embed", "norm", "head", "logits"},
        "the whole model from token ids to logits",
    ),
    "cache": ({"cache"}, "the KV cache"),
    "sampling": ({"logits", "sampling"}, "the logits and the choice of the next token"),
    "lora": ({"q", "v"}, "the projections q and v, which LoRA adds to"),
}


def architecture(config: QwenConfig, lit: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the whole model with the shapes of a config.

    Args:
        config: gives every number in the drawing.
        lit: the part in color, the rest being gray; None: everything in color. One of checkpoint,
            tokens, norm, rope, attention, gqa, mlp, layer, model, cache, sampling, lora.
        ax: where to draw, about 9 × 7.3 inches; None: a new figure.

    Raises:
        InputError: an unknown `lit`.
    """
    lit_parts = _lit_parts(config, lit)
    if ax is None:
        size = (WIDTH / 10, HEIGHT / 10)
        ax = plt.figure(figsize=size, facecolor="white").add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0), aspect="equal")  # y runs down, as one reads
    ax.set_axis_off()
    pen = Pen(ax, lit_parts)
    _draw_sizes(pen, config)
    _draw_stream(pen, config)
    _draw_attention(pen, config, lora=lit == "lora")
    _draw_mlp(pen, config)
    _draw_ends(pen, config)
    return ax


def architecture_alt(config: QwenConfig, lit: str | None = None) -> str:
    """Return the alt text of `architecture`; arguments as above."""
    _lit_parts(config, lit)
    c = config
    head = "the embedding again (a tied head)" if c.tie_word_embeddings else "the head lm_head"
    text = (
        f"Drawing of the whole model. Token ids (B, T) go through embed_tokens "
        f"({c.vocab_size:,} × {c.hidden_size:,}) into the residual stream (B, T, "
        f"{c.hidden_size:,}), a line that runs through {c.num_hidden_layers} decoder layers. In "
        f"each, a branch through RMSNorm, q, k and v, RoPE and attention "
        f"({c.num_attention_heads} query heads on {c.num_key_value_heads} kv heads of "
        f"{c.head_dim}) and o_proj is added to the stream; then a branch through RMSNorm and the "
        f"MLP ({c.intermediate_size:,} units). A last RMSNorm and {head} give the logits "
        f"(B, T, {c.vocab_size:,})."
    )
    return text if lit is None else f"{text} In color: {PARTS[lit][1]}."


def _lit_parts(config: QwenConfig, lit: str | None) -> set[str] | None:
    """Return what `lit` lights; a tied head has no weights of its own in the checkpoint."""
    if lit is None:
        return None
    if lit not in PARTS:
        raise InputError(f"lit is {lit!r}; it must be None or one of {', '.join(PARTS)}")
    tied = lit == "checkpoint" and config.tie_word_embeddings
    return PARTS[lit][0] - {"head"} if tied else PARTS[lit][0]


def _draw_sizes(pen: Pen, config: QwenConfig) -> None:
    """Write the legend: what each letter means, and its size here."""
    style = {"ha": "left", "color": "#333333"}
    title = f"Qwen2 model · {config.num_parameters:,} parameters"
    pen.text(25, 3.4, title, "sizes", "tokens", fontsize=12, weight="bold", **style)
    entries = (
        ("B", "sequences in the batch"),
        ("T", "tokens per sequence"),
        ("N", f"{config.num_hidden_layers:,} decoder layers"),
        ("C", f"hidden size {config.hidden_size:,}"),
        ("F", f"intermediate size {config.intermediate_size:,}"),
        ("V", f"vocabulary size {config.vocab_size:,}"),
        ("H", f"{config.num_attention_heads:,} query heads"),
        ("KV", f"{config.num_key_value_heads:,} kv heads"),
        ("D", f"head dimension {config.head_dim:,}"),
    )
    for number, (letter, words) in enumerate(entries):
        x, y = 25 + 21.5 * (number // 3), 7.3 + 2.6 * (number % 3)
        pen.text(x, y, letter, "sizes", "tokens", weight="bold", **style)
        pen.text(x + 2.9, y, words, "sizes", "tokens", **style)


def _draw_stream(pen: Pen, config: QwenConfig) -> None:
    """Draw the layer's frame and the residual stream, from the embedding to the last norm."""
    lit = pen.shines("layer")
    line = "#7d7d7d" if lit else "#b0b0b0"
    style = {"facecolor": "#fdfdfd", "edgecolor": line, "linewidth": 1.2, "zorder": 1}
    for shift in (1.2, 0.6, 0.0):  # three sheets: there are many such layers
        pen.rounded((5 + shift, 86.5 + shift), (19.2 - shift, 62 - shift), 1.2, **style)
    words = f"decoder layer × {config.num_hidden_layers:,}"
    style = {"ha": "left", "weight": "bold", "color": "#333333" if lit else GRAY[2]}
    pen.text(15.5, 21.6, words, "layer", "tokens", fontsize=10.5, **style)
    color = pen.colors("stream", "tokens")[1]
    pen.ax.plot([STREAM_X] * 2, [14, 65.8], color=color, lw=4.5, solid_capstyle="butt", zorder=2)
    words = f"residual stream (B, T, {config.hidden_size:,})"
    pen.text(8.4, 34, words, "stream", "tokens", rotation=90)


def _draw_attention(pen: Pen, config: QwenConfig, lora: bool) -> None:
    """Draw the branch with attention, from the stream back into it."""
    c = config
    width, query = c.hidden_size, c.num_attention_heads * c.head_dim
    key_value = c.num_key_value_heads * c.head_dim
    rows, roles = {"q": 26.2, "k": 31.4, "v": 36.6}, {"q": QUERY, "k": KEY, "v": VALUE}
    pen.line([(STREAM_X, rows["k"]), (15.5, rows["k"])], "norm_1")
    pen.box((15.5, 26), (28.9, 33.9), "norm_1", "norm", ("RMSNorm", f"{width:,} weights"))
    for name, y in rows.items():
        pen.line([(26, rows["k"]), (27.5, rows["k"]), (27.5, y), (29.5, y)], name)
        bias = "+ LoRA" if lora and name != "k" else "+ bias"
        out = query if name == "q" else key_value
        lines = (f"{name}_proj", f"{width:,} → {out:,} {bias}")
        pen.box((29.5, 46.0), (y - 2.2, y + 2.2), name, "attention", lines, edge=roles[name])
        pen.line([(46, y), (67.5 if name == "v" else 50, y)], name, roles[name])
        if name != "v":
            pen.line([(55, y), (67.5, y)], "core", roles[name])
    span = (rows["q"] - 2.2, rows["k"] + 2.2)
    pen.box((49, 56), span, "rope", "rope", ("RoPE", "rotates", "q, k"))
    span = (rows["k"] - 2.2, rows["v"] + 2.2)
    pen.box((58, 66), span, "cache", "rope", ("KV cache", "keeps", "k and v"), dashed=True)
    _draw_heads(pen, config)
    pen.line([(77, 39), (77, 42.4), (46, 42.4)], "o")
    pen.line([(29.5, 42.4), (STREAM_X + 1.3, 42.4)], "add_1")
    lines = ("o_proj", f"{query:,} → {width:,}")
    pen.box((29.5, 46.0), (40.2, 44.6), "o", "attention", lines)
    pen.sign(STREAM_X, 42.4, "+", "add_1", "attention")


def _draw_heads(pen: Pen, config: QwenConfig) -> None:
    """Draw attention's core: query heads above the keys and values that they share."""
    left, right = 67.5, 85.0
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    pen.box((left, right), (24.0, 38.8), "core", "attention", ())
    middle = (left + right) / 2
    pen.text(middle, 25.7, "attention", "core", "attention", weight="bold")
    for y, words, part in (
        (27.8, f"softmax(q·k / √{config.head_dim}) · v", "core"),
        (30.2, f"{heads} query head{'s' * (heads > 1)}", "heads"),
        (37.3, f"share {kv_heads} kv head{'s' * (kv_heads > 1)}", "heads"),
    ):
        pen.text(middle, y, words, part, "attention")
    lit = pen.shines("heads")
    query, key, value = (QUERY, KEY, VALUE) if lit else (GRAY[1],) * 3
    group = (right - left - 2) / kv_heads
    for number in range(kv_heads):
        x = left + 1 + group * number
        start, wide = x + group * 0.06, group * 0.88
        for y, fill in ((33.9, key), (34.8, value)):
            pen.ax.add_patch(Rectangle((start, y), wide, 0.8, facecolor=fill, lw=0, zorder=4))
        one = wide / (heads // kv_heads)
        for member in range(heads // kv_heads):
            corner = (start + one * (member + 0.1), 31.7)
            square = Rectangle(corner, one * 0.8, 1.5, fc="white", ec=query, lw=1.1, zorder=4)
            pen.ax.add_patch(square)


def _draw_mlp(pen: Pen, config: QwenConfig) -> None:
    """Draw the branch with the MLP, from the stream back into it."""
    width, wide = config.hidden_size, config.intermediate_size
    gate, up, middle = 48.9, 54.1, 51.5
    pen.line([(STREAM_X, middle), (15.5, middle)], "norm_2")
    pen.box((15.5, 26), (49, 54), "norm_2", "norm", ("RMSNorm", f"{width:,} weights"))
    for name, y in (("gate", gate), ("up", up)):
        pen.line([(26, middle), (27.5, middle), (27.5, y), (29.5, y)], name)
        lines = (f"{name}_proj", f"{width:,} → {wide:,}")
        pen.box((29.5, 46.0), (y - 2.2, y + 2.2), name, "mlp", lines)
    pen.line([(46, gate), (49, gate)], "silu")
    pen.line([(56, gate), (62, gate), (62, middle - 1.3)], "times")
    pen.line([(46, up), (62, up), (62, middle + 1.3)], "times")
    pen.box((49, 56), (gate - 2.2, gate + 2.2), "silu", "mlp", ("SiLU", "gate"))
    pen.text(77, 47.3, "MLP", "down", "mlp", weight="bold")
    pen.sign(62, middle, "×", "times", "mlp")
    pen.line([(63.3, middle), (67.5, middle)], "down")
    lines = ("down_proj", f"{wide:,} → {width:,}")
    pen.box((67.5, 85), (middle - 2.3, middle + 2.3), "down", "mlp", lines)
    pen.line([(77, middle + 2.3), (77, 59.2), (STREAM_X + 1.3, 59.2)], "add_2")
    pen.sign(STREAM_X, 59.2, "+", "add_2", "mlp")


def _draw_ends(pen: Pen, config: QwenConfig) -> None:
    """Draw what comes before the layers and after them."""
    width, rows = f"{config.hidden_size:,}", f"{config.vocab_size:,}"
    pen.box((4.5, 19.5), (1.6, 6.2), "ids", "tokens", ("token ids", "(B, T)"))
    pen.line([(STREAM_X, 6.2), (STREAM_X, 9.4)], "ids")
    lines = ("embed_tokens", f"{rows} × {width}")
    pen.box((4.5, 19.5), (9.4, 14.0), "embed", "tokens", lines)
    y = (65.8, 70.8)
    middle = (y[0] + y[1]) / 2
    pen.box((4.5, 19.5), y, "norm", "norm", ("norm", f"RMSNorm, {width}"))
    pen.line([(19.5, middle), (25.5, middle)], "head")
    name = "embed_tokens again" if config.tie_word_embeddings else "lm_head"
    kind = "tied head" if config.tie_word_embeddings else "own head"
    lines = (name, f"{kind}, {width} → {rows}")
    pen.box((25.5, 46.0), y, "head", "tokens", lines)
    pen.line([(46, middle), (50, middle)], "logits")
    pen.box((50, 64.5), y, "logits", "choice", ("logits", f"(B, T, {rows})"))
    pen.line([(64.5, middle), (68.5, middle)], "sampling")
    lines = ("sampling", "picks the next token")
    pen.box((68.5, 86.5), y, "sampling", "choice", lines, dashed=True)
