"""The checks of notebook 09, the whole model: its wiring, its tensors, and a class of your own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from qwenkit.checks._judge import LOOSE, Case, Mistake, Verdict, judge
from qwenkit.checks._samples import Part, norm_of, normal, run_all
from qwenkit.config import QwenConfig
from qwenkit.model import QwenForCausalLM
from qwenkit.trace import Trace

EXERCISES = {
    "09.1": "from ids to logits",
    "09.2": "untie and upcast",
    "09.3": "a whole model of your own",
}
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
Tensors = dict[str, Tensor]


def forward(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(ids, embed, layers, norm, head)`: the logits, (B, T, V)."""

    def case(label: str, layers: int, shape: tuple[int, int], scale: float = 1.0) -> Case:
        table, matrix = scale * normal(7, 4, seed=1), normal(4, 7, seed=2)
        functions = [_toy_layer(seed) for seed in range(layers)]
        ids = torch.randint(7, shape, generator=torch.Generator().manual_seed(3))
        parts = (lambda i: table[i], functions, norm_of(4, 4), lambda x: x @ matrix)
        return Case(label, (ids, *parts))

    cases = [
        case("three layers, one text", 3, (1, 4)),
        case("two texts", 2, (2, 3)),
        case("a single token", 3, (1, 1)),
        case("a single layer", 1, (1, 4)),
        case("no layer at all", 0, (1, 4)),
        case("small embeddings", 3, (1, 4), 0.01),
    ]
    praise = "embedding, all layers in order, one last norm, the head: a language model."
    return judge("09.1", learner, _forward, cases, _FORWARD_MISTAKES, praise, LOOSE)


def untied(learner: Callable[..., Tensors]) -> Verdict:
    """Check `learner(tensors)`: all of them in float32, and a head where there was none."""

    def case(label: str, dtype: torch.dtype, rows: int = 5) -> Case:
        tensors = {
            _EMBEDDING: normal(rows, 4, seed=9),
            "model.layers.0.self_attn.q_proj.bias": normal(4, seed=5),
            "model.norm.weight": normal(4, seed=6),
        }
        return Case(label, ({name: one.to(dtype) for name, one in tensors.items()},))

    names = (_EMBEDDING, _HEAD)  # the head of an untied file is not its embedding
    other = {name: normal(5, 4, seed=20 + n).bfloat16() for n, name in enumerate(names)}
    cases = [
        case("a tied file in bfloat16", torch.bfloat16),
        case("a tied file in float32", torch.float32),
        case("a square embedding", torch.bfloat16, 4),
        Case("an untied file in bfloat16", (other,)),
    ]
    praise = "every model with a head of its own can now load this file, tied or not."
    return judge("09.2", learner, _untied, cases, _UNTIED_MISTAKES, praise)


def whole(learner: Callable[..., Any]) -> Verdict:
    """Check a model: a class, or a function `learner(config, tensors, ids)`; logits (B, T, V).

    A class is called with only the config. It then gets the tensors by `load_state_dict`, which
    compares the names, and is called with the ids.
    """

    def case(label: str, shape: tuple[int, int] = (1, 9), **sizes: Any) -> Case:
        config = QwenConfig(**{**_SIZES, **sizes})
        ids = torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(9))
        return Case(label, (config, _weights(config), ids))

    cases = [
        case("a tied head"),
        case("an untied head", tie_word_embeddings=False),
        case("another theta", rope_theta=300.0),
        case("another eps", rms_norm_eps=0.02),
        case("head_dim is not C / H", head_dim=16),
        case("two texts, all heads on one kv head", (2, 5), num_key_value_heads=1),
        case("a single token", (1, 1), num_hidden_layers=2),
    ]
    praise = "names, config and arithmetic are right: any Qwen2 checkpoint loads into your class."
    return judge("09.3", _as_function(learner), _package, cases, _WHOLE_MISTAKES, praise, LOOSE)


_SIZES: dict[str, Any] = {
    "vocab_size": 29, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
    "rope_theta": 10_000.0, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 64,  # tables that are not sliced broadcast to scores of this size
}  # fmt: skip


# --- 09.1 ---


def _toy_layer(seed: int) -> Part:
    matrix = 0.5 * normal(4, 4, seed=10 + seed)
    return lambda x: x + torch.tanh(x.cumsum(dim=1) @ matrix)


def _forward(ids: Tensor, embed: Part, layers: Sequence[Part], norm: Part, head: Part) -> Tensor:
    return head(norm(run_all(embed(ids), layers)))


def _added(layer: Part) -> Part:
    return lambda x: x + layer(x)


def _norm_in_all(
    ids: Tensor, embed: Part, layers: Sequence[Part], norm: Part, head: Part
) -> Tensor:
    x = embed(ids)
    for layer in layers:
        x = norm(layer(x))
    return head(x if layers else norm(x))


def _scaled(ids: Tensor, embed: Part, layers: Sequence[Part], norm: Part, head: Part) -> Tensor:
    return _forward(ids, lambda i: embed(i) * math.sqrt(embed(i).shape[-1]), layers, norm, head)


_REVERSED = "the layers run from the last to the first. Which of them should see the embedding?"
_LAST_MISSING = "the last layer never runs. Where does your range end?"
_SCALED = "your embedding is too large by a factor of √C. Gemma's models do that; Qwen's do not."
_SOFTMAX = (
    "these are probabilities. A model returns logits; whoever wants to choose applies softmax."
)
_LAST_FLAT = (
    "you return only the last position, and its axis is gone. Every position predicts its next "
    "token."
)
_FORWARD_MISTAKES = (
    Mistake("no last norm", "the head reads the raw stream. One part of the drawing is between the "
        "last layer and the head.",
        lambda ids, embed, layers, norm, head: head(run_all(embed(ids), layers))),
    Mistake("norm before the layers", "your norm is before the layers. They have norms of their "
        "own; where does this one belong?",
        lambda ids, embed, layers, norm, head: head(run_all(norm(embed(ids)), layers))),
    Mistake("norm at both ends", "you normalize the embeddings, too. The stream starts as the "
        "embedding itself.",
        lambda ids, embed, layers, norm, head: head(norm(run_all(norm(embed(ids)), layers)))),
    Mistake("norm after each layer", "you normalize the stream after every layer, and so it loses "
        "its length. This norm occurs once in a model.",
        _norm_in_all),
    Mistake("layers in reverse", _REVERSED,
        lambda ids, embed, layers, norm, head: _forward(ids, embed, layers[::-1], norm, head)),
    Mistake("one layer for all", "the first layer runs every time. The list holds others: does "
        "your loop use them?",
        lambda ids, embed, layers, norm, head:
            _forward(ids, embed, layers[:1] * len(layers), norm, head)),
    Mistake("last layer missing", _LAST_MISSING,
        lambda ids, embed, layers, norm, head: _forward(ids, embed, layers[:-1], norm, head)),
    Mistake("first layer missing", "the first layer never runs. Where does your range start?",
        lambda ids, embed, layers, norm, head: _forward(ids, embed, layers[1:], norm, head)),
    Mistake("not passed on", "every layer reads the embedding, and only the last one counts. What "
        "should a layer read?",
        lambda ids, embed, layers, norm, head: _forward(ids, embed, layers[-1:], norm, head)),
    Mistake("added once more", "you add each layer's result to x. A layer returns the whole "
        "stream: x is already in it.",
        lambda ids, embed, layers, norm, head:
            _forward(ids, embed, [_added(layer) for layer in layers], norm, head)),
    Mistake("embedding scaled", _SCALED, _scaled),
    Mistake("softmax inside", _SOFTMAX, lambda *parts: _forward(*parts).softmax(dim=-1)),
    Mistake("log-softmax inside", "these are logarithms of probabilities. A model returns the "
        "logits as the head gives them.",
        lambda *parts: _forward(*parts).log_softmax(dim=-1)),
    Mistake("last position only", "you return only the last position. Every position predicts its "
        "next token, and training needs them all.",
        lambda *parts: _forward(*parts)[:, -1:]),
    Mistake("last position only", _LAST_FLAT, lambda *parts: _forward(*parts)[:, -1]),
)  # fmt: skip


# --- 09.2 ---


def _upcast(tensors: Mapping[str, Tensor]) -> Tensors:
    return {name: tensor.float() for name, tensor in tensors.items()}


def _untied(tensors: Mapping[str, Tensor]) -> Tensors:
    return _upcast({_HEAD: tensors[_EMBEDDING], **tensors})


def _with_head(head: Callable[[Tensor], Tensors]) -> Callable[[Mapping[str, Tensor]], Tensors]:
    """Return the right answer, except for the head of a tied file."""

    def untied(tensors: Mapping[str, Tensor]) -> Tensors:
        return _upcast(tensors) | ({} if _HEAD in tensors else head(tensors[_EMBEDDING].float()))

    return untied


_UNTIED_MISTAKES = (
    Mistake("not upcast", "the head is there, but all tensors keep their dtype. Return float32: "
        "bfloat16 would round every step of the comparison.",
        lambda tensors: {_HEAD: tensors[_EMBEDDING], **tensors}),
    Mistake("only the head upcast", "only the head is in float32. The other tensors are computed "
        "with, too.",
        lambda tensors: {**tensors, _HEAD: tensors.get(_HEAD, tensors[_EMBEDDING]).float()}),
    Mistake("no head", "all tensors are upcast, but a tied file still does not have a head. Which "
        "tensor serves as one?",
        _upcast),
    Mistake("embedding moved", "the head is there, but the embedding is gone. A tied model uses "
        "that matrix twice.",
        lambda tensors:
            {n: one for n, one in _untied(tensors).items() if n != _EMBEDDING or _HEAD in tensors}),
    Mistake("transposed", "your head is transposed. A linear layer keeps one row per *output*: how "
        "many rows does the embedding have?",
        _with_head(lambda embedding: {_HEAD: embedding.T})),
    Mistake("head overwritten", "an untied file already has a head, and you replace it with the "
        "embedding. When is there nothing to do?",
        lambda tensors: _upcast({**tensors, _HEAD: tensors[_EMBEDDING]})),
    Mistake("another name", "the head's name is wrong: it is outside `model`, and its tensor is a "
        "weight.",
        _with_head(lambda embedding: {"model.lm_head.weight": embedding})),
    Mistake("a head of ones or zeros", "your head gives every token the same score. A tied model's "
        "head is a matrix that is there already.",
        _with_head(lambda embedding: {_HEAD: torch.zeros_like(embedding)})),
)  # fmt: skip


# --- 09.3 ---


def _as_function(learner: Any) -> Any:
    """Return a class as a function of config, tensors and ids; leave a function as it is."""
    if isinstance(learner, nn.Module):
        learner = type(learner)
    return _Built(learner) if isinstance(learner, type) else learner


class _Built:
    """Builds a class from a config, loads tensors into it, and runs it."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.__wrapped__ = getattr(kind, "forward", None)  # is it still a stub?

    @torch.no_grad()
    def __call__(self, config: QwenConfig, tensors: Tensors, ids: Tensor) -> Any:
        built = self.kind(config)
        state = built.state_dict()
        if state:  # else it is still a stub
            problems = [f"no parameter for {name}" for name in tensors if name not in state]
            problems += [f"no tensor for {name}" for name in state if name not in tensors]
            problems += [
                f"{name} is {tuple(state[name].shape)}, in the file {tuple(tensor.shape)}"
                for name, tensor in tensors.items()
                if name in state and state[name].shape != tensor.shape
            ]
            if problems:
                raise ValueError(f"{len(problems)} tensors do not fit: {'; '.join(problems)}")
            built.load_state_dict(tensors, strict=True)
        return built(ids)


def _weights(config: QwenConfig) -> Tensors:
    """Return random weights under which every part matters, biases and norms included."""
    found = {}
    for seed, (name, shape) in enumerate(config.tensor_shapes().items()):
        wide = 0.3 if len(shape) == 2 else 0.5
        found[name] = wide * normal(*shape, seed=seed) + ("norm" in name)
    return found


@torch.no_grad()
def _package(
    config: QwenConfig,
    tensors: Tensors,
    ids: Tensor,
    trace: Trace | None = None,
    change: Callable[[QwenForCausalLM], None] | None = None,
) -> Tensor:
    """Return the logits of the package's model, after a change to it."""
    model = QwenForCausalLM(config)
    model.load_state_dict(tensors, strict=True)
    if change is not None:
        change(model)
    logits: Tensor = model(ids, trace=trace)
    return logits


def _changed(change: Callable[[QwenForCausalLM], None]) -> Callable[..., Tensor]:
    return lambda config, tensors, ids: _package(config, tensors, ids, change=change)


def _without_last_norm(model: QwenForCausalLM) -> None:
    model.model.norm.register_forward_hook(lambda _, given, out: given[0])


def _with_layers(choose: Callable[[list[nn.Module]], list[nn.Module]]) -> Callable[..., Tensor]:
    def change(model: QwenForCausalLM) -> None:
        model.model.layers = nn.ModuleList(choose(list(model.model.layers)))

    return _changed(change)


def _with_inputs(change: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[..., Tensor]:
    """Return the model whose layers get other rope tables or another mask."""

    def before(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (given[0], *change(given[1], given[2]), *given[3:])

    def hook(model: QwenForCausalLM) -> None:
        for layer in model.model.layers:
            layer.register_forward_pre_hook(before)

    return _changed(hook)


def _no_mask(rope: Any, mask: Any) -> tuple[Any, Any]:
    length = rope[0].shape[1]
    return rope, torch.ones(1, 1, length, length, dtype=torch.bool)


def _without_biases(config: QwenConfig, tensors: Tensors, ids: Tensor) -> Tensor:
    zeros = {name: torch.zeros_like(one) for name, one in tensors.items() if "bias" in name}
    return _package(config, tensors | zeros, ids)


def _tied(config: QwenConfig, tensors: Tensors, ids: Tensor) -> Tensor:
    return _package(config, {n: tensors[_EMBEDDING if n == _HEAD else n] for n in tensors}, ids)


def _cycled(config: QwenConfig, tensors: Tensors, ids: Tensor) -> Tensor:
    """Give query head h the kv head h % KV: the same as another order of the query heads."""
    heads, groups = config.num_attention_heads, config.num_key_value_groups
    order = torch.arange(heads).view(groups, -1).T.flatten()
    rows = (order[:, None] * config.head_dim + torch.arange(config.head_dim)).flatten()
    changed = dict(tensors)
    for name, tensor in tensors.items():
        if ".q_proj." in name:
            changed[name] = tensor[rows]
        elif ".o_proj." in name:
            changed[name] = tensor[:, rows]
    return _package(config, changed, ids)


def _large_embedding(config: QwenConfig, tensors: Tensors, ids: Tensor) -> Tensor:
    edits = {"embed": lambda x: x * math.sqrt(config.hidden_size)}
    return _package(config, tensors, ids, Trace(keep=(), edits=edits))


_WHOLE_MISTAKES = (
    Mistake("no last norm", "the head reads the raw stream. Which tensor of the checkpoint did you "
        "not use?",
        _changed(_without_last_norm)),
    Mistake("theta fixed", "with another rope_theta it goes wrong: your theta is always 10,000. "
        "Take it from the config.",
        lambda config, tensors, ids: _package(replace(config, rope_theta=1e4), tensors, ids)),
    Mistake("eps fixed", "with another rms_norm_eps it goes wrong: your eps is always 1e-6. Take "
        "it from the config.",
        lambda config, tensors, ids: _package(replace(config, rms_norm_eps=1e-6), tensors, ids)),
    Mistake("tied although untied", "one config says that the head has its own matrix, but you use "
        "the embedding.",
        _tied),
    Mistake("no biases", "the biases of q, k and v have no effect. They are loaded; are they "
        "added?",
        _without_biases),
    Mistake("layers in reverse", _REVERSED, _with_layers(lambda layers: layers[::-1])),
    Mistake("one layer for all", "layer 0 runs every time. Each iteration of the loop should use "
        "another layer.",
        _with_layers(lambda layers: layers[:1] * len(layers))),
    Mistake("last layer missing", _LAST_MISSING, _with_layers(lambda layers: layers[:-1])),
    Mistake("kv heads cycled", "with several kv heads it goes wrong: query head h uses kv head h % "
        "KV. Consecutive query heads share a kv head: use repeat_interleave.",
        _cycled),
    Mistake("no mask", "your tokens see the future. What hides it?", _with_inputs(_no_mask)),
    Mistake("no RoPE", "your queries and keys are not rotated: the model cannot tell the position "
        "of a token.",
        _with_inputs(lambda rope, mask: ((torch.ones_like(rope[0]), 0 * rope[1]), mask))),
    Mistake("embedding scaled", _SCALED, _large_embedding),
    Mistake("softmax inside", _SOFTMAX, lambda *given: _package(*given).softmax(dim=-1)),
    Mistake("last position only", "you return only the last position. Every position predicts its "
        "next token.",
        lambda *given: _package(*given)[:, -1:]),
    Mistake("last position only", _LAST_FLAT, lambda *given: _package(*given)[:, -1]),
)  # fmt: skip
