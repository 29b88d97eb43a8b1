"""The checks of notebook 09, the whole model: its wiring, its tensors, and a class of one's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from qwenkit.checks.judge import Case, Mistake, Verdict, judge
from qwenkit.checks.samples import normal
from qwenkit.config import QwenConfig
from qwenkit.model import QwenForCausalLM
from qwenkit.trace import Trace

EXERCISES = {
    "09.1": "from ids to logits",
    "09.2": "untie and widen",
    "09.3": "a whole model of your own",
}
LOOSE = 1e-4  # sums may be taken in another order; no mistake below is as small as that
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
Part = Callable[[Tensor], Tensor]
Tensors = dict[str, Tensor]


def forward(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(ids, embed, layers, norm, head)`: the logits, (B, T, V)."""

    def case(words: str, layers: int, shape: tuple[int, int], scale: float = 1.0) -> Case:
        table, matrix = scale * normal(7, 4, seed=1), normal(4, 7, seed=2)
        functions = [_toy_layer(seed) for seed in range(layers)]
        ids = torch.randint(7, shape, generator=torch.Generator().manual_seed(3))
        return Case(words, (ids, lambda i: table[i], functions, _toy_norm, lambda x: x @ matrix))

    cases = [
        case("three layers, one text", 3, (1, 4)),
        case("two texts", 2, (2, 3)),
        case("one token alone", 3, (1, 1)),
        case("a single layer", 1, (1, 4)),
        case("no layer at all", 0, (1, 4)),
        case("quiet embeddings", 3, (1, 4), 0.01),
    ]
    praise = "embed, all layers in order, one last norm, the head: a language model."
    return judge("09.1", learner, _forward, cases, FORWARD_MISTAKES, praise, LOOSE)


def untied(learner: Callable[..., Tensors]) -> Verdict:
    """Check `learner(tensors)`: all of them in float32, and a head where there was none."""

    def case(words: str, dtype: torch.dtype, tied: bool, rows: int = 5) -> Case:
        tensors = {
            EMBEDDING: normal(rows, 4, seed=9).to(dtype),
            "model.layers.0.self_attn.q_proj.bias": normal(4, seed=5).to(dtype),
            "model.norm.weight": normal(4, seed=6).to(dtype),
        }
        return Case(
            words, (tensors if tied else {**tensors, HEAD: normal(rows, 4, seed=9).to(dtype)},)
        )

    cases = [
        case("a tied file in bfloat16", torch.bfloat16, True),
        case("a tied file in float32", torch.float32, True),
        case("a square embedding", torch.bfloat16, True, 4),
        Case("an untied file in bfloat16", (_other_head(),)),
    ]
    praise = "every model with a head of its own can now load this file, tied or not."
    return judge("09.2", learner, _untied, cases, UNTIED_MISTAKES, praise)


def whole(learner: Callable[..., Any]) -> Verdict:
    """Check a model: a class, or a function `learner(config, tensors, ids)`; logits (B, T, V).

    A class is called with the config alone. It is then given the tensors by `load_state_dict`,
    names and all, and called with the ids.
    """

    def case(words: str, shape: tuple[int, int] = (1, 9), **sizes: Any) -> Case:
        config = QwenConfig(**{**SIZES, **sizes})
        ids = torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(9))
        return Case(words, (config, _weights(config), ids))

    cases = [
        case("a tied head"),
        case("an untied head", tie_word_embeddings=False),
        case("another theta", rope_theta=300.0),
        case("another eps", rms_norm_eps=0.02),
        case("head_dim is not C / H", head_dim=16),
        case("two texts, all heads on one kv head", (2, 5), num_key_value_heads=1),
        case("one token alone", (1, 1), num_hidden_layers=2),
    ]
    praise = "names, config and arithmetic fit: any Qwen2 checkpoint loads into your class."
    return judge("09.3", _as_function(learner), _package, cases, WHOLE_MISTAKES, praise, LOOSE)


SIZES: dict[str, Any] = {
    "vocab_size": 29, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
    "rope_theta": 10_000.0, "rms_norm_eps": 1e-6,
}  # fmt: skip


def _toy_norm(x: Tensor) -> Tensor:
    weight = 1 + 0.5 * normal(4, seed=4)
    return weight * x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + 1e-6)


def _toy_layer(seed: int) -> Part:
    matrix = 0.5 * normal(4, 4, seed=10 + seed)
    return lambda x: x + torch.tanh(x.cumsum(dim=1) @ matrix)


def _through(x: Tensor, layers: Sequence[Part]) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _forward(ids: Tensor, embed: Part, layers: Sequence[Part], norm: Part, head: Part) -> Tensor:
    return head(norm(_through(embed(ids), layers)))


def _scaled(ids: Tensor, embed: Part, layers: Sequence[Part], norm: Part, head: Part) -> Tensor:
    x = embed(ids)
    return head(norm(_through(x * math.sqrt(x.shape[-1]), layers)))


def _norm_in_all(
    ids: Tensor, embed: Part, layers: Sequence[Part], norm: Part, head: Part
) -> Tensor:
    x = embed(ids)
    for layer in layers:
        x = norm(layer(x))
    return head(x if layers else norm(x))


def _not_handed_on(
    ids: Tensor, embed: Part, layers: Sequence[Part], norm: Part, head: Part
) -> Tensor:
    x = embed(ids)
    return head(norm(layers[-1](x) if layers else x))


def _added_up(ids: Tensor, embed: Part, layers: Sequence[Part], norm: Part, head: Part) -> Tensor:
    x = embed(ids)
    for layer in layers:
        x = x + layer(x)
    return head(norm(x))


FORWARD_MISTAKES = (
    Mistake(
        "no last norm",
        "the head reads the raw stream. One part of the drawing stands between the last layer and "
        "the head.",
        lambda ids, embed, layers, norm, head: head(_through(embed(ids), layers)),
    ),
    Mistake(
        "norm before the layers",
        "the norm stands before the layers. They bring norms of their own; whose is this one?",
        lambda ids, embed, layers, norm, head: head(_through(norm(embed(ids)), layers)),
    ),
    Mistake(
        "norm at both ends",
        "you normalise the embeddings, too. The stream begins as the embedding left it.",
        lambda ids, embed, layers, norm, head: head(norm(_through(norm(embed(ids)), layers))),
    ),
    Mistake(
        "norm after each layer",
        "you normalise the stream after every layer, and so it forgets its length. This norm "
        "stands once in a model.",
        _norm_in_all,
    ),
    Mistake(
        "layers in reverse",
        "the layers run from the last to the first. Which of them should see the embedding?",
        lambda ids, embed, layers, norm, head: _forward(ids, embed, layers[::-1], norm, head),
    ),
    Mistake(
        "one layer for all",
        "the first layer runs every time. The list holds others: does your loop use them?",
        lambda ids, embed, layers, norm, head: _forward(
            ids, embed, [layers[0]] * len(layers) if layers else [], norm, head
        ),
    ),
    Mistake(
        "last layer missing",
        "the last layer never runs. Where does your range end?",
        lambda ids, embed, layers, norm, head: _forward(ids, embed, layers[:-1], norm, head),
    ),
    Mistake(
        "first layer missing",
        "the first layer never runs. Where does your range begin?",
        lambda ids, embed, layers, norm, head: _forward(ids, embed, layers[1:], norm, head),
    ),
    Mistake(
        "not handed on",
        "every layer reads the embedding, and only the last one counts. What should a layer read?",
        _not_handed_on,
    ),
    Mistake(
        "added once more",
        "you add each layer's result to x. A layer returns the whole stream: x is in it already.",
        _added_up,
    ),
    Mistake(
        "embedding scaled",
        "your embedding is too loud by √C. Gemma's models do that; Qwen's do not.",
        _scaled,
    ),
    Mistake(
        "softmax inside",
        "these are probabilities. A model returns logits; whoever wants to choose applies softmax.",
        lambda *parts: _forward(*parts).softmax(dim=-1),
    ),
    Mistake(
        "log-softmax inside",
        "these are logarithms of probabilities. A model returns the logits as the head gives them.",
        lambda *parts: _forward(*parts).log_softmax(dim=-1),
    ),
    Mistake(
        "last place only",
        "you return only the last place. Every place guesses its next token, and training needs "
        "them all.",
        lambda *parts: _forward(*parts)[:, -1:],
    ),
    Mistake(
        "last place only",
        "you return only the last place, and its axis is gone. Every place guesses its next token.",
        lambda *parts: _forward(*parts)[:, -1],
    ),
)


def _other_head() -> Tensors:
    """Return an untied file whose head is not its embedding."""
    names = (EMBEDDING, HEAD)
    return {name: normal(5, 4, seed=20 + n).bfloat16() for n, name in enumerate(names)}


def _widened(tensors: Mapping[str, Tensor]) -> Tensors:
    return {name: tensor.float() for name, tensor in tensors.items()}


def _untied(tensors: Mapping[str, Tensor]) -> Tensors:
    return _widened({HEAD: tensors[EMBEDDING], **tensors})


def _renamed(tensors: Mapping[str, Tensor]) -> Tensors:
    """Return the right answer, but for the name of a head that was not there before."""
    found = _untied(tensors)
    if HEAD not in tensors:
        found["model.lm_head.weight"] = found.pop(HEAD)
    return found


UNTIED_MISTAKES = (
    Mistake(
        "not widened",
        "the head is there, but all keep the dtype they had. float32 is wanted: bfloat16 would "
        "round every step of the comparison.",
        lambda tensors: {HEAD: tensors[EMBEDDING], **tensors},
    ),
    Mistake(
        "only the head widened",
        "only the head is in float32. The others are computed with, too.",
        lambda tensors: {**tensors, HEAD: tensors.get(HEAD, tensors[EMBEDDING]).float()},
    ),
    Mistake(
        "no head",
        "all are widened, and a tied file still has no head. Which tensor serves as one?",
        _widened,
    ),
    Mistake(
        "embedding moved",
        "the head is there, but the embedding is gone. A tied model reads that matrix twice.",
        lambda tensors: {
            name: tensor for name, tensor in _untied(tensors).items()
            if name != EMBEDDING or HEAD in tensors
        },
    ),
    Mistake(
        "transposed",
        "your head is turned round. A linear layer keeps a row for each *output*: how many rows "
        "has the embedding?",
        lambda tensors: (
            _untied(tensors) | ({} if HEAD in tensors else {HEAD: tensors[EMBEDDING].float().T})
        ),
    ),
    Mistake(
        "head overwritten",
        "an untied file has a head already, and you put the embedding in its place. When is there "
        "nothing to do?",
        lambda tensors: _widened({**tensors, HEAD: tensors[EMBEDDING]}),
    ),
    Mistake(
        "another name",
        "the head's name does not fit: it stands outside `model`, and its tensor is a weight.",
        _renamed,
    ),
    Mistake(
        "a head of ones or zeros",
        "your head says the same of every token. A tied model's head is a matrix that is there.",
        lambda tensors: _untied(tensors)
        | ({} if HEAD in tensors else {HEAD: torch.zeros_like(tensors[EMBEDDING].float())}),
    ),
)  # fmt: skip


def _as_function(learner: Any) -> Any:
    """Return a class as a function of config, tensors and ids; leave a function as it is."""
    if isinstance(learner, nn.Module):
        learner = type(learner)
    return _Built(learner) if isinstance(learner, type) else learner


class _Built:
    """Builds a class from a config, loads tensors into it, and runs it."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    @torch.no_grad()
    def __call__(self, config: QwenConfig, tensors: Tensors, ids: Tensor) -> Any:
        built = self.kind(config)
        state = built.state_dict()
        if state:  # else it is still a stub
            problems = [f"no place for {name}" for name in tensors if name not in state]
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
    """Return random weights under which every part matters; the biases and norms too."""
    found = {}
    for seed, (name, shape) in enumerate(config.tensor_shapes().items()):
        wide = 0.3 if len(shape) == 2 else 0.5
        found[name] = wide * normal(*shape, seed=seed) + ("norm" in name)
    return found


def _load(config: QwenConfig, tensors: Tensors) -> QwenForCausalLM:
    model = QwenForCausalLM(config)
    model.load_state_dict(tensors, strict=True)
    return model


@torch.no_grad()
def _package(
    config: QwenConfig, tensors: Tensors, ids: Tensor, trace: Trace | None = None
) -> Tensor:
    logits: Tensor = _load(config, tensors)(ids, trace=trace)
    return logits


def _without_biases(config: QwenConfig, tensors: Tensors, ids: Tensor) -> Tensor:
    silent = {name: torch.zeros_like(one) for name, one in tensors.items() if "bias" in name}
    return _package(config, tensors | silent, ids)


@torch.no_grad()
def _without_last_norm(config: QwenConfig, tensors: Tensors, ids: Tensor) -> Tensor:
    model, trace = _load(config, tensors), Trace(keep=("resid_post",))
    model(ids, trace=trace)
    return model.head(trace[f"layers.{config.num_hidden_layers - 1}.resid_post"])


def _with_layers(choose: Callable[[list[nn.Module]], list[nn.Module]]) -> Callable[..., Tensor]:
    @torch.no_grad()
    def run(config: QwenConfig, tensors: Tensors, ids: Tensor) -> Tensor:
        model = _load(config, tensors)
        model.model.layers = nn.ModuleList(choose(list(model.model.layers)))
        logits: Tensor = model(ids)
        return logits

    return run


def _with_inputs(change: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[..., Tensor]:
    """Return the model whose layers get other rope tables or another mask."""

    def before(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (given[0], *change(given[1], given[2]), *given[3:])

    @torch.no_grad()
    def run(config: QwenConfig, tensors: Tensors, ids: Tensor) -> Tensor:
        model = _load(config, tensors)
        for layer in model.model.layers:
            layer.register_forward_pre_hook(before)
        logits: Tensor = model(ids)
        return logits

    return run


def _no_mask(rope: Any, mask: Any) -> tuple[Any, Any]:
    length = rope[0].shape[1]
    return rope, torch.ones(1, 1, length, length, dtype=torch.bool)


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


def _loud(config: QwenConfig, tensors: Tensors, ids: Tensor) -> Tensor:
    edits = {"embed": lambda x: x * math.sqrt(config.hidden_size)}
    return _package(config, tensors, ids, Trace(keep=(), edits=edits))


WHOLE_MISTAKES = (
    Mistake(
        "no last norm",
        "the head reads the raw stream. Which tensor of the checkpoint have you not used?",
        _without_last_norm,
    ),
    Mistake(
        "theta fixed",
        "with another rope_theta it goes wrong: your theta is always 10,000. The config knows it.",
        lambda config, tensors, ids: _package(replace(config, rope_theta=1e4), tensors, ids),
    ),
    Mistake(
        "eps fixed",
        "with another rms_norm_eps it goes wrong: your eps is always 1e-6. The config knows it.",
        lambda config, tensors, ids: _package(replace(config, rms_norm_eps=1e-6), tensors, ids),
    ),
    Mistake(
        "tied although untied",
        "a config says that the head has a matrix of its own, and you read the embedding.",
        lambda config, tensors, ids: _package(
            config, tensors | ({HEAD: tensors[EMBEDDING]} if HEAD in tensors else {}), ids
        ),
    ),
    Mistake(
        "no biases",
        "the biases of q, k and v do nothing. They are loaded; are they added?",
        _without_biases,
    ),
    Mistake(
        "layers in reverse",
        "the layers run from the last to the first. Which of them should see the embedding?",
        _with_layers(lambda layers: layers[::-1]),
    ),
    Mistake(
        "one layer for all",
        "layer 0 runs every time. Each round of the loop should use another layer.",
        _with_layers(lambda layers: layers[:1] * len(layers)),
    ),
    Mistake(
        "last layer missing",
        "the last layer never runs. Where does your range end?",
        _with_layers(lambda layers: layers[:-1]),
    ),
    Mistake(
        "kv heads cycled",
        "with several kv heads it goes wrong: query head h reads kv head h % KV. Neighbours share "
        "a kv head: repeat each of them in a run.",
        _cycled,
    ),
    Mistake(
        "no mask",
        "your tokens read the future. What hides it?",
        _with_inputs(_no_mask),
    ),
    Mistake(
        "no RoPE",
        "your queries and keys are not turned: the model cannot tell where a token stands.",
        _with_inputs(lambda rope, mask: ((torch.ones_like(rope[0]), 0 * rope[1]), mask)),
    ),
    Mistake(
        "embedding scaled",
        "your embedding is too loud by √C. Gemma's models do that; Qwen's do not.",
        _loud,
    ),
    Mistake(
        "softmax inside",
        "these are probabilities. A model returns logits; whoever wants to choose applies softmax.",
        lambda *given: _package(*given).softmax(dim=-1),
    ),
    Mistake(
        "last place only",
        "you return only the last place. Every place guesses its next token.",
        lambda *given: _package(*given)[:, -1:],
    ),
    Mistake(
        "last place only",
        "you return only the last place, and its axis is gone. Every place guesses its next token.",
        lambda *given: _package(*given)[:, -1],
    ),
)  # fmt: skip
