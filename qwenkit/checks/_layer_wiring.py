"""The mistakes of exercise 08.1: how attention, MLP, norms and additions are wired."""

from __future__ import annotations

from torch import Tensor

from qwenkit.checks._judge import Mistake
from qwenkit.checks._samples import Part

# --- 08.1 ---


def wired_layer(x: Tensor, norm1: Part, attention: Part, norm2: Part, mlp: Part) -> Tensor:
    x = x + attention(norm1(x))
    return x + mlp(norm2(x))


def _itself(x: Tensor) -> Tensor:
    return x


def _stream_normed(x: Tensor, norm1: Part, attention: Part, norm2: Part, mlp: Part) -> Tensor:
    normed = norm2(x + attention(norm1(x)))
    return normed + mlp(normed)


_KEPT = (
    "the copy that a norm made continues as the stream. The part may read the copy; to what must "
    "its result be added?"
)
_AT_THE_END = (
    "you normalize the stream at the end. The norms are on the branches, before each part; the "
    "stream itself is only added to."
)
LAYER_MISTAKES = (
    Mistake("no addition", "what was in the stream is gone: the result of each part replaces it. A "
        "part only adds; what must come before the plus?",
        lambda x, norm1, attention, norm2, mlp: mlp(norm2(attention(norm1(x))))),
    Mistake("no addition around attention", "the result of attention replaces the stream, and what "
        "the token itself brought is gone. Add it instead.",
        lambda x, norm1, attention, norm2, mlp: (y := attention(norm1(x))) + mlp(norm2(y))),
    Mistake("no addition around the MLP", "you return only the output of the MLP. The layer passes "
        "on a stream: what is missing from it?",
        lambda x, norm1, attention, norm2, mlp: mlp(norm2(x + attention(norm1(x))))),
    Mistake("attention lost", "the second addition starts from the stream as it entered, so "
        "attention's part is lost. Which stream does the first addition return?",
        lambda x, norm1, attention, norm2, mlp: x + mlp(norm2(x + attention(norm1(x))))),
    Mistake("parallel", "your MLP reads the stream as it was before attention. Here the parts run "
        "one after the other: the MLP should see what attention has just written.",
        lambda x, norm1, attention, norm2, mlp: x + attention(norm1(x)) + mlp(norm2(x))),
    Mistake("post-norm", "you normalize the sums, and so the stream itself (that is post-norm). In "
        "Qwen the norms are on the branches, before each part.",
        lambda x, norm1, attention, norm2, mlp: norm2((y := norm1(x + attention(x))) + mlp(y))),
    Mistake("norm on the results", "the parts read the raw stream, and you normalize what they "
        "return. Is the norm before a part or after it?",
        lambda x, norm1, attention, norm2, mlp: (y := x + norm1(attention(x))) + norm2(mlp(y))),
    Mistake("added to the norm's copy", _KEPT,
        lambda x, norm1, attention, norm2, mlp:
            _stream_normed(norm1(x), _itself, attention, norm2, mlp)),
    Mistake("added to the norm's copy", _KEPT,
        lambda x, norm1, attention, norm2, mlp:
            wired_layer(norm1(x), _itself, attention, norm2, mlp)),
    Mistake("added to the norm's copy", _KEPT, _stream_normed),
    Mistake("norms swapped", "each part uses the other's norm. The two have different weights, and "
        "the first belongs to attention.",
        lambda x, norm1, attention, norm2, mlp: wired_layer(x, norm2, attention, norm1, mlp)),
    Mistake("one norm for both", "both parts use the same norm. There are two, each with its own "
        "weight.",
        lambda x, norm1, attention, norm2, mlp: wired_layer(x, norm1, attention, norm1, mlp)),
    Mistake("MLP first", "the MLP comes first. A token should attend to the others before the MLP "
        "processes the result.",
        lambda x, norm1, attention, norm2, mlp: wired_layer(x, norm1, mlp, norm2, attention)),
    Mistake("MLP first", "the MLP comes first. A token should attend to the others before the MLP "
        "processes the result.",
        lambda x, norm1, attention, norm2, mlp: wired_layer(x, norm2, mlp, norm1, attention)),
    Mistake("no norms", "the parts read the raw stream, no matter how large it has become. What "
        "comes before each part?",
        lambda x, norm1, attention, norm2, mlp: wired_layer(x, _itself, attention, _itself, mlp)),
    Mistake("no first norm", "attention reads the raw stream. Each part has its norm, and you do "
        "not use the first one.",
        lambda x, norm1, attention, norm2, mlp: wired_layer(x, _itself, attention, norm2, mlp)),
    Mistake("no MLP", "the MLP is missing: you return the stream after attention.",
        lambda x, norm1, attention, norm2, mlp: x + attention(norm1(x))),
    Mistake("no attention", "attention is missing: the MLP reads the stream as it entered. Do you "
        "keep the result of the first addition?",
        lambda x, norm1, attention, norm2, mlp: x + mlp(norm2(x))),
    Mistake("only one addition", "attention's result goes only to the MLP, and is never added. "
        "There are two additions, one per part.",
        lambda x, norm1, attention, norm2, mlp: x + mlp(norm2(attention(norm1(x))))),
    Mistake("MLP reads attention alone", "your MLP reads attention's result alone. It should read "
        "the stream after the first addition.",
        lambda x, norm1, attention, norm2, mlp: x + (y := attention(norm1(x))) + mlp(norm2(y))),
    Mistake("norm at the end", _AT_THE_END,
        lambda x, norm1, attention, norm2, mlp:
            norm2(wired_layer(x, norm1, attention, norm2, mlp))),
    Mistake("norm at the end", _AT_THE_END,
        lambda x, norm1, attention, norm2, mlp:
            norm2(wired_layer(x, norm1, attention, _itself, mlp))),
    Mistake("no second norm", "the MLP reads the raw stream. Each part has its norm, and you do "
        "not use the second one.",
        lambda x, norm1, attention, norm2, mlp: wired_layer(x, norm1, attention, _itself, mlp)),
    Mistake("stream added twice", "the stream is in your sum twice. After the first addition it "
        "already contains x.",
        lambda x, norm1, attention, norm2, mlp: x + wired_layer(x, norm1, attention, norm2, mlp)),
)  # fmt: skip
