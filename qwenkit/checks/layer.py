"""The checks of notebook 08, decoder layer: its wiring, the lens, a layer left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from qwenkit.checks.judge import Case, Mistake, Verdict, judge
from qwenkit.checks.samples import normal

EXERCISES = {
    "08.1": "wire a layer",
    "08.2": "the logit lens",
    "08.3": "leave a layer out",
}
LOOSE = 1e-4  # in bfloat16 the order of additions shows; no mistake below is as small as that
Part = Callable[[Tensor], Tensor]


def decoder_layer(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(x, norm1, attention, norm2, mlp)`: the stream after the layer, (B, T, C)."""
    wide = normal(2, 4, 6, seed=8)
    cases = [
        Case("one text of three tokens", (normal(1, 3, 4, seed=8), *_parts(4))),
        Case("two texts", (wide, *_parts(6))),
        Case("one token alone", (normal(1, 1, 4, seed=8), *_parts(4))),
        Case("a loud stream", (50 * normal(1, 3, 4, seed=8), *_parts(4))),
        Case("not contiguous", (wide.transpose(0, 1), *_parts(6))),
        Case("bfloat16", (wide.bfloat16(), *_parts(6))),
    ]
    praise = "two branches read a normalised copy, and the stream itself is only added to."
    return judge("08.1", learner, _layer, cases, LAYER_MISTAKES, praise, LOOSE)


def lens(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(streams, norm, head)`: logits after each layer at the last place, (N+1, V)."""

    def case(words: str, layers: int, tokens: int, scale: float = 1.0) -> Case:
        streams = scale * normal(layers + 1, tokens, 6, seed=8).cumsum(dim=0)
        matrix = normal(6, 9, seed=8).flip(0)
        return Case(words, (streams, _norm(6, 3), lambda x: x @ matrix))

    cases = [
        case("three layers, four tokens", 3, 4),
        case("one layer", 1, 5),
        case("one token alone", 4, 1),
        case("as many tokens as streams", 2, 3),
        case("a loud stream", 3, 4, 100.0),
    ]
    praise = "any stream can be read early: the last norm, the head, and it says what it thinks."
    return judge("08.2", learner, _lens, cases, LENS_MISTAKES, praise, LOOSE)


def skip(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(x, layers, number)`: the stream after all layers but one."""
    layers = [_layer_of(seed) for seed in range(4)]
    x = normal(1, 3, 4, seed=8)
    cases = [
        Case("the third of four", (x, layers, 2)),
        Case("the first", (x, layers, 0)),
        Case("the last", (x, layers, 3)),
        Case("the only one", (x, layers[:1], 0)),
        Case("one layer that stands there twice", (x, [*layers[:2], layers[0]], 2)),
    ]
    praise = "without its layer the stream just flows on, because nobody ever replaced it."
    return judge("08.3", learner, _skip, cases, SKIP_MISTAKES, praise, LOOSE)


def _norm(width: int, seed: int) -> Part:
    """Return an RMSNorm with a weight of its own."""
    weight = 1 + 0.5 * normal(width, seed=seed)

    def norm(x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + 1e-6)
        return weight.to(x.dtype) * normed.to(x.dtype)

    return norm


def _parts(width: int, seed: int = 0) -> tuple[Part, Part, Part, Part]:
    """Return norm1, attention, norm2 and mlp: small, and no two alike."""
    across, up, down = (normal(width, width, seed=seed + n) for n in (10, 20, 30))

    def attention(x: Tensor) -> Tensor:
        """Read the mean of the tokens so far."""
        count = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]
        return x.cumsum(dim=1) / count @ across.to(x.dtype)

    def mlp(x: Tensor) -> Tensor:
        return F.silu(x @ up.to(x.dtype)) @ down.to(x.dtype)

    return _norm(width, seed + 40), attention, _norm(width, seed + 50), mlp


def _layer_of(seed: int) -> Part:
    return lambda x: _layer(x, *_parts(4, seed))


def _layer(x: Tensor, norm1: Part, attention: Part, norm2: Part, mlp: Part) -> Tensor:
    x = x + attention(norm1(x))
    return x + mlp(norm2(x))


def _after_norm(x: Tensor, norm1: Part, attention: Part, norm2: Part, mlp: Part) -> Tensor:
    normed = norm1(x)
    normed = norm2(normed + attention(normed))
    return normed + mlp(normed)


def _after_one_norm(x: Tensor, norm1: Part, attention: Part, norm2: Part, mlp: Part) -> Tensor:
    normed = norm1(x)
    x = normed + attention(normed)
    return x + mlp(norm2(x))


def _after_other_norm(x: Tensor, norm1: Part, attention: Part, norm2: Part, mlp: Part) -> Tensor:
    normed = norm2(x + attention(norm1(x)))
    return normed + mlp(normed)


def _first_norm_only(x: Tensor, norm1: Part, attention: Part, norm2: Part, mlp: Part) -> Tensor:
    x = x + attention(norm1(x))
    return x + mlp(x)


KEPT = (
    "the copy that a norm made goes on as the stream. The part may read the copy; to what does its "
    "result have to be added?"
)
LAYER_MISTAKES = (
    Mistake(
        "no addition",
        "what was in the stream is gone: each part's result takes its place. A part only adds; "
        "what has to stand before the plus?",
        lambda x, norm1, attention, norm2, mlp: mlp(norm2(attention(norm1(x)))),
    ),
    Mistake(
        "no addition around attention",
        "attention's result takes the stream's place, and what the token itself brought is gone. "
        "Add it instead.",
        lambda x, norm1, attention, norm2, mlp: (
            (y := attention(norm1(x))) + mlp(norm2(y))
        ),
    ),
    Mistake(
        "no addition around the MLP",
        "you return what the MLP says and nothing else. The layer hands on a stream: what is "
        "missing from it?",
        lambda x, norm1, attention, norm2, mlp: mlp(norm2(x + attention(norm1(x)))),
    ),
    Mistake(
        "attention's part lost",
        "the second addition starts from the stream as it entered, so attention's part is lost. "
        "Which stream leaves the first addition?",
        lambda x, norm1, attention, norm2, mlp: x + mlp(norm2(x + attention(norm1(x)))),
    ),
    Mistake(
        "parallel",
        "your MLP reads the stream as it was before attention. Here the parts work one after the "
        "other: the MLP should see what attention has just written.",
        lambda x, norm1, attention, norm2, mlp: x + attention(norm1(x)) + mlp(norm2(x)),
    ),
    Mistake(
        "post-norm",
        "you normalise the sums, and so the stream itself (that is post-norm). In Qwen the norms "
        "stand on the branches, before each part.",
        lambda x, norm1, attention, norm2, mlp: (
            norm2((y := norm1(x + attention(x))) + mlp(y))
        ),
    ),
    Mistake(
        "norm on the results",
        "the parts read the raw stream, and you normalise what they return. Which side of a part "
        "does its norm stand on?",
        lambda x, norm1, attention, norm2, mlp: (y := x + norm1(attention(x))) + norm2(mlp(y)),
    ),
    Mistake("added to the norm's copy", KEPT, _after_norm),
    Mistake("added to the norm's copy", KEPT, _after_one_norm),
    Mistake("added to the norm's copy", KEPT, _after_other_norm),
    Mistake(
        "norms exchanged",
        "each part reads through the other's norm. The two have different weights, and the first "
        "belongs to attention.",
        lambda x, norm1, attention, norm2, mlp: _layer(x, norm2, attention, norm1, mlp),
    ),
    Mistake(
        "one norm for both",
        "both parts read through the same norm. There are two, with weights of their own.",
        lambda x, norm1, attention, norm2, mlp: _layer(x, norm1, attention, norm1, mlp),
    ),
    Mistake(
        "MLP first",
        "the MLP comes first. A token should read from the others before it works on what it read.",
        lambda x, norm1, attention, norm2, mlp: _layer(x, norm2, mlp, norm1, attention),
    ),
    Mistake(
        "no norms",
        "the parts read the raw stream, however loud it has become. What stands before each part?",
        lambda x, norm1, attention, norm2, mlp: (y := x + attention(x)) + mlp(y),
    ),
    Mistake(
        "no second norm",
        "the MLP reads the raw stream. Each part has its norm, and the second one is not used.",
        _first_norm_only,
    ),
    Mistake(
        "stream added twice",
        "the stream is in your sum twice. After the first addition it already holds x.",
        lambda x, norm1, attention, norm2, mlp: x + _layer(x, norm1, attention, norm2, mlp),
    ),
)  # fmt: skip


def _lens(streams: Tensor, norm: Part, head: Part) -> Tensor:
    return head(norm(streams[:, -1]))


LENS_MISTAKES = (
    Mistake(
        "no norm",
        "the head reads the raw stream. In the model the last norm stands before it, and its "
        "weights change which token wins.",
        lambda streams, norm, head: head(streams[:, -1]),
    ),
    Mistake(
        "first place",
        "you read the first token's stream. Which place says what comes after the text?",
        lambda streams, norm, head: head(norm(streams[:, 0])),
    ),
    Mistake(
        "last stream only",
        "that is what the model says in the end. The lens reads all streams, the early ones too.",
        lambda streams, norm, head: head(norm(streams[-1, -1])),
    ),
    Mistake(
        "all places of the last stream",
        "you took the last stream, at every place. Which axis counts the layers, and which the "
        "tokens?",
        lambda streams, norm, head: head(norm(streams[-1])),
    ),
    Mistake(
        "all places",
        "you read every place of every stream. Only the last token's place is wanted.",
        lambda streams, norm, head: head(norm(streams)),
    ),
    Mistake(
        "what each layer added",
        "you read only what each layer added. The stream is the sum of all that: read it whole.",
        lambda streams, norm, head: _lens(
            torch.cat([streams[:1], streams.diff(dim=0)]), norm, head
        ),
    ),
    Mistake(
        "summed again",
        "you add the streams up. Each of them already holds all that came before it.",
        lambda streams, norm, head: _lens(streams.cumsum(dim=0), norm, head),
    ),
    Mistake(
        "probabilities",
        "these are probabilities. Logits come straight from the head, before any softmax.",
        lambda streams, norm, head: _lens(streams, norm, head).softmax(dim=-1),
    ),
    Mistake(
        "token numbers",
        "these are the likeliest tokens' numbers. Return the logits: whoever reads them can still "
        "choose.",
        lambda streams, norm, head: _lens(streams, norm, head).argmax(dim=-1),
    ),
    Mistake(
        "embedding left out",
        "one row is missing: streams[0] is the embedding, before any layer, and it counts.",
        lambda streams, norm, head: _lens(streams[1:], norm, head),
    ),
)


def _skip(x: Tensor, layers: Sequence[Part], number: int) -> Tensor:
    return _through(x, [layer for place, layer in enumerate(layers) if place != number])


def _through(x: Tensor, layers: Sequence[Part]) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _silent(x: Tensor, layers: Sequence[Part], number: int) -> Tensor:
    x = torch.zeros_like(_through(x, layers[:number]))
    return _through(x, layers[number + 1 :])


def _not_handed_on(x: Tensor, layers: Sequence[Part], number: int) -> Tensor:
    chosen = [layer for place, layer in enumerate(layers) if place != number]
    return chosen[-1](x) if chosen else x


SKIP_MISTAKES = (
    Mistake(
        "counted from 1",
        "you leave out the layer before. The first layer has the number 0.",
        lambda x, layers, number: _through(
            x, [one for place, one in enumerate(layers, start=1) if place != number]
        ),
    ),
    Mistake(
        "counted from 1",
        "you leave out the layer before. The first layer has the number 0.",
        lambda x, layers, number: _skip(x, layers, (number - 1) % len(layers)),
    ),
    Mistake(
        "stops there",
        "you stop at the layer that is left out. The stream flows on: what comes after it?",
        lambda x, layers, number: _through(x, layers[:number]),
    ),
    Mistake(
        "starts there",
        "you begin after the layer that is left out. What about those before it?",
        lambda x, layers, number: _through(x, layers[number + 1 :]),
    ),
    Mistake(
        "that one only",
        "you run the one layer that should be left out. Turn the question around.",
        lambda x, layers, number: layers[number](x),
    ),
    Mistake(
        "nothing left out",
        "all layers ran. Is the number compared with a layer's place, and does the layer then not "
        "run?",
        lambda x, layers, number: _through(x, layers),
    ),
    Mistake(
        "stream emptied",
        "at that layer you set the stream to zero. A layer that is left out adds nothing; what "
        "came before stays.",
        _silent,
    ),
    Mistake(
        "not handed on",
        "each of your layers reads x as it was at the start, and only the last one counts. What "
        "does a layer read?",
        _not_handed_on,
    ),
    Mistake(
        "every copy left out",
        "one of the layers stands in the list twice, and you left out both. Go by the place, not "
        "by which layer it is.",
        lambda x, layers, number: _through(x, [one for one in layers if one != layers[number]]),
    ),
)
