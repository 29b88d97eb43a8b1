"""The checks of notebook 08, decoder layer: its wiring, the logit lens, a layer left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from qwenkit.checks._judge import LOOSE, Case, Mistake, Verdict, judge
from qwenkit.checks._layer_wiring import LAYER_MISTAKES, wired_layer
from qwenkit.checks._samples import Part, norm_of, normal, run_all

EXERCISES = {
    "08.1": "wire a layer",
    "08.2": "the logit lens",
    "08.3": "leave a layer out",
}


def decoder_layer(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(x, norm1, attention, norm2, mlp)`: the stream after the layer, (B, T, C)."""
    wide = normal(2, 4, 6, seed=8)
    cases = [
        Case("one text of three tokens", (normal(1, 3, 4, seed=8), *_parts(4))),
        Case("two texts", (wide, *_parts(6))),
        Case("a single token", (normal(1, 1, 4, seed=8), *_parts(4))),
        Case("a large stream", (50 * normal(1, 3, 4, seed=8), *_parts(4))),
        Case("not contiguous", (wide.transpose(0, 1), *_parts(6))),
        Case("bfloat16", (wide.bfloat16(), *_parts(6))),
    ]
    praise = "two branches read a normalized copy, and the stream itself is only added to."
    return judge("08.1", learner, wired_layer, cases, LAYER_MISTAKES, praise, LOOSE)


def lens(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(streams, norm, head)`: logits of the last token after each layer, (N+1, V)."""

    def case(label: str, layers: int, tokens: int, scale: float = 1.0) -> Case:
        streams = scale * normal(layers + 1, tokens, 6, seed=8).cumsum(dim=0)
        matrix = normal(6, 9, seed=8).flip(0)
        return Case(label, (streams, norm_of(6, 3), lambda x: x @ matrix))

    cases = [
        case("three layers, four tokens", 3, 4),
        case("one layer", 1, 5),
        case("a single token", 4, 1),
        case("as many tokens as streams", 2, 3),
        case("a large stream", 3, 4, 100.0),
    ]
    praise = "last norm, then head: any stream can be read early and says what it predicts."
    return judge("08.2", learner, _lens, cases, _LENS_MISTAKES, praise, LOOSE)


def skip(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(x, layers, number)`: the stream after all layers but one."""
    layers = [_layer_of(seed) for seed in range(4)]
    x = normal(1, 3, 4, seed=8)
    cases = [
        Case("the third of four", (x, layers, 2)),
        Case("the first", (x, layers, 0)),
        Case("the last", (x, layers, 3)),
        Case("the only one", (x, layers[:1], 0)),
        Case("one layer that occurs twice", (x, [*layers[:2], layers[0]], 2)),
    ]
    praise = "without its layer the stream just continues, because layers only add to it."
    return judge("08.3", learner, _skip, cases, _SKIP_MISTAKES, praise, LOOSE)


def _parts(width: int, seed: int = 0) -> tuple[Part, Part, Part, Part]:
    """Return norm1, attention, norm2 and mlp: small, and all different."""
    across, up, down = (normal(width, width, seed=seed + n) for n in (10, 20, 30))

    def attention(x: Tensor) -> Tensor:
        """Return the mean of the tokens so far."""
        count = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]
        return x.cumsum(dim=1) / count @ across.to(x.dtype)

    def mlp(x: Tensor) -> Tensor:
        return F.silu(x @ up.to(x.dtype)) @ down.to(x.dtype)

    return norm_of(width, seed + 40), attention, norm_of(width, seed + 50), mlp


def _layer_of(seed: int) -> Part:
    return lambda x: wired_layer(x, *_parts(4, seed))


# --- 08.2 ---


def _lens(streams: Tensor, norm: Part, head: Part) -> Tensor:
    return head(norm(streams[:, -1]))


_LENS_MISTAKES = (
    Mistake("no norm", "the head reads the raw stream. In the model the last norm comes before it, "
        "and its weights change which token wins.",
        lambda streams, norm, head: head(streams[:, -1])),
    Mistake("first position", "you read the first token's stream. Which position predicts what "
        "comes after the text?",
        lambda streams, norm, head: head(norm(streams[:, 0]))),
    Mistake("last stream only", "that is what the model predicts in the end. The lens reads all "
        "streams, the early ones too.",
        lambda streams, norm, head: head(norm(streams[-1, -1]))),
    Mistake("all positions of the last stream", "you took the last stream, at every position. "
        "Which axis counts the layers, and which the tokens?",
        lambda streams, norm, head: head(norm(streams[-1]))),
    Mistake("all positions", "you read every position of every stream. Only that of the last token "
        "is needed.",
        lambda streams, norm, head: head(norm(streams))),
    Mistake("what each layer added", "you read only what each layer added. The stream is the sum "
        "of all that: read the whole sum.",
        lambda streams, norm, head:
            _lens(torch.cat([streams[:1], streams.diff(dim=0)]), norm, head)),
    Mistake("summed again", "you add the streams up. Each of them already contains everything "
        "before it.",
        lambda streams, norm, head: _lens(streams.cumsum(dim=0), norm, head)),
    Mistake("probabilities", "these are probabilities. Logits come straight from the head, before "
        "any softmax.",
        lambda streams, norm, head: _lens(streams, norm, head).softmax(dim=-1)),
    Mistake("probabilities", "these are logarithms of probabilities. Logits come straight from the "
        "head.",
        lambda streams, norm, head: _lens(streams, norm, head).log_softmax(dim=-1)),
    Mistake("no head", "the head is missing: these are normalized streams of C values.",
        lambda streams, norm, head: norm(streams[:, -1])),
    Mistake("a list", "you return a list. Return one tensor, (N + 1, V): stack the rows.",
        lambda streams, norm, head: list(_lens(streams, norm, head))),
    Mistake("axis kept", "the axis of the tokens is still there, with size 1. Index it with a "
        "number, not with a slice.",
        lambda streams, norm, head: head(norm(streams[:, -1:]))),
    Mistake("token before the last", "you read the token before the last one. Which position "
        "predicts what comes after the text?",
        lambda streams, norm, head: head(norm(streams[:, -2]))),
    Mistake("last layer left out", "one row is missing: the stream after the last layer counts, "
        "too.",
        lambda streams, norm, head: _lens(streams[:-1], norm, head)),
    Mistake("averaged over tokens", "you average over the tokens. Only the last one predicts what "
        "comes after the text.",
        lambda streams, norm, head: head(norm(streams.mean(dim=1)))),
    Mistake("averaged over tokens", "you average over the tokens. Only the last one predicts what "
        "comes after the text.",
        lambda streams, norm, head: head(norm(streams)).mean(dim=1)),
    Mistake("first stream only", "you read only the embedding. The lens reads all streams.",
        lambda streams, norm, head: head(norm(streams[0, -1]))),
    Mistake("first stream only", "you took the embedding, at every position. Which axis counts the "
        "layers, and which the tokens?",
        lambda streams, norm, head: head(norm(streams[0]))),
    Mistake("token ids", "these are the ids of the most likely tokens. Return the logits: the "
        "caller can then choose.",
        lambda streams, norm, head: _lens(streams, norm, head).argmax(dim=-1)),
    Mistake("embedding left out", "one row is missing: streams[0] is the embedding, before any "
        "layer, and it counts.",
        lambda streams, norm, head: _lens(streams[1:], norm, head)),
)  # fmt: skip


# --- 08.3 ---


def _skip(x: Tensor, layers: Sequence[Part], number: int) -> Tensor:
    return run_all(x, [layer for place, layer in enumerate(layers) if place != number])


def _added(layer: Part) -> Part:
    return lambda x: x + layer(x)


def _zeroed(x: Tensor, layers: Sequence[Part], number: int) -> Tensor:
    x = torch.zeros_like(run_all(x, layers[:number]))
    return run_all(x, layers[number + 1 :])


def _not_passed_on(x: Tensor, layers: Sequence[Part], number: int) -> Tensor:
    chosen = [layer for place, layer in enumerate(layers) if place != number]
    return run_all(x, chosen[-1:])


def _after_one(x: Tensor, layers: Sequence[Part], number: int) -> Tensor:
    """Return at the end of the first turn of the loop."""
    return x if number == 0 else layers[0](x)


def _after_first(x: Tensor, layers: Sequence[Part], number: int) -> Tensor | None:
    """Return as soon as one layer has run."""
    rest = [layer for place, layer in enumerate(layers) if place != number]
    return rest[0](x) if rest else None


def _first_equal_gone(x: Tensor, layers: Sequence[Part], number: int) -> Tensor:
    rest = list(layers)
    rest.remove(layers[number])
    return run_all(x, rest)


_RETURNS = "you return inside the loop, after its first layer. Return once, after the loop."
_FROM_1 = "you leave out the layer before. The first layer has number 0."
_SKIP_MISTAKES = (
    Mistake("counted from 1", _FROM_1, lambda x, layers, number: _skip(x, layers, number - 1)),
    Mistake("counted from 1", _FROM_1,
        lambda x, layers, number: _skip(x, layers, (number - 1) % len(layers))),
    Mistake("counted from 1", "your slices end one layer too early. Layer `number` is left out if "
        "the first slice ends at `number`, and the second starts at `number + 1`.",
        lambda x, layers, number: run_all(x, [*layers[: number - 1], *layers[number:]])),
    Mistake("one too late", "you leave out the layer after. The first layer has number 0.",
        lambda x, layers, number: _skip(x, layers, number + 1)),
    Mistake("two left out", "you leave out two layers: the next one, too.",
        lambda x, layers, number: run_all(x, [*layers[:number], *layers[number + 2 :]])),
    Mistake("return inside the loop", _RETURNS, _after_one),
    Mistake("return inside the loop", _RETURNS, _after_first),
    Mistake("result not kept", "x comes back unchanged: no layer's result is kept. Assign it: x = "
        "layer(x).",
        lambda x, layers, number: x),
    Mistake("added once more", "you add each layer's result to x. A layer returns the whole "
        "stream: x is already in it.",
        lambda x, layers, number: _skip(x, [_added(layer) for layer in layers], number)),
    Mistake("layers in reverse", "the layers run from the last to the first. Keep their order.",
        lambda x, layers, number: _skip(x, layers[::-1], len(layers) - 1 - number)),
    Mistake("first copy left out", "`remove` takes out the first equal entry. One layer is in the "
        "list twice: leave out the one at that index.",
        _first_equal_gone),
    Mistake("stops there", "you stop at the layer that is left out. The stream continues: what "
        "comes after it?",
        lambda x, layers, number: run_all(x, layers[:number])),
    Mistake("starts there", "you start after the layer that is left out. What about those before "
        "it?",
        lambda x, layers, number: run_all(x, layers[number + 1 :])),
    Mistake("that one only", "you run only the layer that should be left out. Do the opposite.",
        lambda x, layers, number: layers[number](x)),
    Mistake("nothing left out", "all layers ran. Do you compare the number with the index of a "
        "layer, and not run that one?",
        lambda x, layers, number: run_all(x, layers)),
    Mistake("stream set to zero", "at that layer you set the stream to zero. A layer that is left "
        "out adds nothing; what came before stays.",
        _zeroed),
    Mistake("not passed on", "each of your layers reads x as it was at the start, and only the "
        "last one counts. What should a layer read?",
        _not_passed_on),
    Mistake("every copy left out", "one of the layers is in the list twice, and you left out both. "
        "Compare the index, not the layer.",
        lambda x, layers, number: run_all(x, [one for one in layers if one != layers[number]])),
)  # fmt: skip
