"""The checks of notebook 09: wrong answers as readers write them, and the diagnosis expected."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qwenkit.checks import model
from qwenkit.model import QwenForCausalLM

CHECKS = {"09.1": model.forward, "09.2": model.untied, "09.3": model.whole}
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def test_each_exercise_has_a_check():
    assert set(CHECKS) == set(model.EXERCISES)


@pytest.mark.parametrize("exercise", CHECKS)
@pytest.mark.parametrize("stub", [lambda *given: None, lambda *given: ...], ids=["None", "dots"])
def test_an_empty_stub_is_told_so(exercise, stub):
    found = CHECKS[exercise](stub)
    assert (found.exercise, found.outcome) == (exercise, "empty")


# --- 09.1: forward(ids, embed, layers, norm, head) ---


def _loop(ids, embed, layers, norm, head):
    x = embed(ids)
    for layer in layers:
        x = layer(x)
    x = norm(x)
    return head(x)


def _folded(ids, embed, layers, norm, head):
    return head(norm(functools.reduce(lambda x, layer: layer(x), layers, embed(ids))))


def _by_number(ids, embed, layers, norm, head):
    x = embed(ids)
    for number in range(len(layers)):
        x = layers[number](x)
    return torch.stack([head(norm(text)) for text in x])


@pytest.mark.parametrize("function", [_loop, _folded, _by_number])
def test_right_forwards(function):
    assert model.forward(function).outcome == "right"


def _normed_first(ids, embed, layers, norm, head):
    return _loop(ids, lambda i: norm(embed(i)), layers, lambda x: x, head)


def _normed_twice(ids, embed, layers, norm, head):
    return _loop(ids, lambda i: norm(embed(i)), layers, norm, head)


def _normed_always(ids, embed, layers, norm, head):
    x = embed(ids)
    for layer in layers:
        x = norm(layer(x))
    return head(x)


def _first_always(ids, embed, layers, norm, head):
    x = embed(ids)
    for _ in layers:
        x = layers[0](x)
    return head(norm(x))


def _too_short(ids, embed, layers, norm, head):
    x = embed(ids)
    for number in range(len(layers) - 1):
        x = layers[number](x)
    return head(norm(x))


def _too_late(ids, embed, layers, norm, head):
    x = embed(ids)
    for number in range(1, len(layers)):
        x = layers[number](x)
    return head(norm(x))


def _forgets(ids, embed, layers, norm, head):
    x = out = embed(ids)
    for layer in layers:
        out = layer(x)
    return head(norm(out))


def _adds(ids, embed, layers, norm, head):
    x = embed(ids)
    for layer in layers:
        x += layer(x)
    return head(norm(x))


def _loud(ids, embed, layers, norm, head):
    return _loop(ids, lambda i: embed(i) * embed(i).shape[-1] ** 0.5, layers, norm, head)


WRONG_FORWARDS = {
    "no norm": (lambda i, e, layers, n, h: _loop(i, e, layers, lambda x: x, h), "no last norm"),
    "normed first": (_normed_first, "norm before the layers"),
    "normed twice": (_normed_twice, "norm at both ends"),
    "normed always": (_normed_always, "norm after each layer"),
    "reversed": (
        lambda i, e, layers, n, h: _loop(i, e, reversed(layers), n, h), "layers in reverse",
    ),
    "first always": (_first_always, "one layer for all"),
    "too short": (_too_short, "last layer missing"),
    "too late": (_too_late, "first layer missing"),
    "forgets": (_forgets, "not handed on"),
    "adds": (_adds, "added once more"),
    "loud": (_loud, "embedding scaled"),
    "softmax": (lambda *parts: F.softmax(_loop(*parts), dim=-1), "softmax inside"),
    "log-softmax": (lambda *parts: F.log_softmax(_loop(*parts), -1), "log-softmax inside"),
    "last": (lambda *parts: _loop(*parts)[:, [-1]], "last place only"),
    "last, flat": (lambda *parts: _loop(*parts)[:, -1], "last place only"),
    "the first text": (lambda *parts: _loop(*parts)[0], "shape"),
    "no head": (lambda i, e, layers, n, h: _loop(i, e, layers, n, lambda x: x), "shape"),
    "ids": (lambda i, e, layers, n, h: _loop(i, lambda x: x.float(), layers, n, h), "shape"),
    "doubled": (lambda *parts: 2 * _loop(*parts), "values"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_FORWARDS)
def test_wrong_forwards_are_diagnosed(name):
    function, mistake = WRONG_FORWARDS[name]
    assert model.forward(function).mistake == mistake


# --- 09.2: untied(tensors) ---


def _copied_then_filled(tensors):
    found = {name: tensor.float() for name, tensor in tensors.items()}
    if HEAD not in found:
        found[HEAD] = found[EMBEDDING]
    return found


def _filled_then_copied(tensors):
    found = dict(tensors)
    found.setdefault(HEAD, tensors[EMBEDDING].clone())
    return {name: found[name].to(torch.float32) for name in sorted(found)}


def _merged(tensors):
    wide = {name: tensor.type(torch.float32) for name, tensor in tensors.items()}
    return {HEAD: wide[EMBEDDING]} | wide


@pytest.mark.parametrize("function", [_copied_then_filled, _filled_then_copied, _merged])
def test_right_untied(function):
    assert model.untied(function).outcome == "right"


def _tied_only(change):
    """Apply a wrong idea to tied files, and answer right for others."""

    def function(tensors):
        found = _copied_then_filled(tensors)
        return found if HEAD in tensors else change(found)

    return function


def _narrow(tensors):
    return {**tensors, HEAD: tensors[HEAD] if HEAD in tensors else tensors[EMBEDDING]}


def _overwritten(tensors):
    found = {name: tensor.float() for name, tensor in tensors.items()}
    found[HEAD] = found[EMBEDDING]
    return found


def _writes(tensors):
    if HEAD not in tensors:
        tensors[HEAD] = tensors[EMBEDDING]
    return {name: tensor.float() for name, tensor in tensors.items()}


WRONG_UNTIED = {
    "narrow": (_narrow, "not widened"),
    "head alone": (
        lambda t: {**t, HEAD: t[HEAD if HEAD in t else EMBEDDING].float()}, "only the head widened",
    ),
    "wide alone": (lambda t: {name: one.float() for name, one in t.items()}, "no head"),
    "moved": (
        _tied_only(lambda t: {name: t[name] for name in t if name != EMBEDDING}),
        "embedding moved",
    ),
    "transposed": (_tied_only(lambda t: t | {HEAD: t[EMBEDDING].T}), "transposed"),
    "transposed and copied": (
        _tied_only(lambda t: t | {HEAD: t[EMBEDDING].transpose(0, 1).contiguous()}), "transposed",
    ),
    "overwritten": (_overwritten, "head overwritten"),
    "inside": (
        _tied_only(
            lambda t: {"model.lm_head.weight" if n == HEAD else n: one for n, one in t.items()}
        ),
        "another name",
    ),
    "zeros": (
        _tied_only(lambda t: t | {HEAD: torch.zeros(t[EMBEDDING].shape)}),
        "a head of ones or zeros",
    ),
    "writes": (_writes, "changes its input"),
    "random": (_tied_only(lambda t: t | {HEAD: torch.randn(t[EMBEDDING].shape)}), "values"),
    "a list": (lambda t: list(_copied_then_filled(t).values()), "kind"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_UNTIED)
def test_wrong_untied_are_diagnosed(name):
    function, mistake = WRONG_UNTIED[name]
    assert model.untied(function).mistake == mistake


# --- 09.3: whole(a class, or a function of config, tensors and ids) ---


def _open(config, tensors, ids, **changes):
    """Compute a Qwen2 model from its tensors alone: no module, no package. `changes` breaks it."""
    idea = {"theta": config.rope_theta, "eps": config.rms_norm_eps, "bias": 1.0, **changes}
    heads, kv_heads, dim = (
        config.num_attention_heads, config.num_key_value_heads, config.head_dim,
    )  # fmt: skip

    def norm(x, name):
        root = (x.pow(2).mean(dim=-1, keepdim=True) + idea["eps"]).sqrt()
        return x / root * tensors[f"{name}.weight"]

    def project(x, name):
        bias = tensors.get(f"{name}.bias", torch.zeros(1))
        return x @ tensors[f"{name}.weight"].T + idea["bias"] * bias

    def turned(x):
        pair = torch.arange(dim // 2)
        angle = torch.arange(x.shape[2])[:, None] / idea["theta"] ** (2 * pair / dim)
        a, b = x[..., : dim // 2], x[..., dim // 2 :]
        if idea.get("no_rope"):
            return x
        return torch.cat(
            [a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], dim=-1
        )

    def attention(x, name):
        q, k, v = (
            project(x, f"{name}.{one}_proj").unflatten(-1, (-1, dim)).transpose(1, 2)
            for one in "qkv"
        )
        q, k = turned(q), turned(k)
        of = torch.arange(heads) // (heads // kv_heads)
        of = torch.arange(heads) % kv_heads if idea.get("cycled") else of
        scores = q @ k[:, of].mT / dim**0.5
        if not idea.get("no_mask"):
            scores += torch.full(scores.shape[-2:], float("-inf")).triu(1)
        z = scores.softmax(dim=-1) @ v[:, of]
        return project(z.transpose(1, 2).flatten(2), f"{name}.o_proj")

    x = tensors[EMBEDDING][ids] * idea.get("scale", 1.0)
    for number in idea.get("layers", range(config.num_hidden_layers)):
        name = f"model.layers.{number}"
        x = x + attention(norm(x, f"{name}.input_layernorm"), f"{name}.self_attn")
        normed = norm(x, f"{name}.post_attention_layernorm")
        act = F.silu(project(normed, f"{name}.mlp.gate_proj"))
        x = x + project(act * project(normed, f"{name}.mlp.up_proj"), f"{name}.mlp.down_proj")
    x = x if idea.get("no_norm") else norm(x, "model.norm")
    head = EMBEDDING if idea.get("tied") or HEAD not in tensors else HEAD
    return x @ tensors[head].T


def _text_by_text(config, tensors, ids):
    built = QwenForCausalLM(config)
    built.load_state_dict(tensors)
    with torch.no_grad():
        return torch.cat([built(text[None]) for text in ids])


class Small(nn.Module):
    """A class of other making, but for the names."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        for name, shape in config.tensor_shapes().items():
            *path, last = name.split(".")
            part = self
            for step in path:
                if not hasattr(part, step):
                    part.add_module(step, nn.Module())
                part = getattr(part, step)
            part.register_parameter(last, nn.Parameter(torch.zeros(shape)))

    def forward(self, ids):
        return _open(self.config, self.state_dict(), ids)


@pytest.mark.parametrize("answer", [QwenForCausalLM, Small, _open, _text_by_text])
def test_right_wholes(answer):
    assert model.whole(answer).outcome == "right"


def test_a_model_in_place_of_its_class_will_do():
    config = model.QwenConfig(**model.SIZES)
    assert model.whole(Small(config)).outcome == "right"


class Stub(nn.Module):
    def __init__(self, config):
        super().__init__()

    def forward(self, ids):
        return None


class Wired(Small):
    def forward(self, ids):
        return None


@pytest.mark.parametrize("stub", [Stub, Wired])
def test_an_empty_class_is_told_so(stub):
    assert model.whole(stub).outcome == "empty"


class Renamed(Small):
    def __init__(self, config):
        super().__init__(config)
        self.model.final_norm = self.model.norm
        del self.model.norm


class Wide(Small):
    def __init__(self, config):
        super().__init__(config)
        self.model.norm.weight = nn.Parameter(torch.ones(config.hidden_size + 1))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Renamed, "no place for model.norm.weight; no tensor for model.final_norm.weight"),
        (Wide, "model.norm.weight is (33,), in the file (32,)"),
    ],
)
def test_names_and_shapes_that_do_not_fit_are_told(kind, words):
    found = model.whole(kind)
    assert found.mistake == "error"
    assert words in found.message


def _idea(**changes):
    return lambda config, tensors, ids: _open(config, tensors, ids, **changes)


def _after(change):
    return lambda config, tensors, ids: change(_open(config, tensors, ids))


class Reversed(Small):
    def forward(self, ids):
        order = range(self.config.num_hidden_layers)[::-1]
        return _open(self.config, self.state_dict(), ids, layers=order)


WRONG_WHOLES = {
    "no norm": (_idea(no_norm=True), "no last norm"),
    "theta": (_idea(theta=10_000.0), "theta fixed"),
    "eps": (_idea(eps=1e-6), "eps fixed"),
    "tied": (_idea(tied=True), "tied although untied"),
    "no bias": (_idea(bias=0.0), "no biases"),
    "reversed": (Reversed, "layers in reverse"),
    "layer 0": (
        lambda config, *given: _open(config, *given, layers=[0] * config.num_hidden_layers),
        "one layer for all",
    ),
    "too short": (
        lambda config, *given: _open(config, *given, layers=range(config.num_hidden_layers - 1)),
        "last layer missing",
    ),
    "cycled": (_idea(cycled=True), "kv heads cycled"),
    "no mask": (_idea(no_mask=True), "no mask"),
    "no RoPE": (_idea(no_rope=True), "no RoPE"),
    "loud": (
        lambda config, *given: _open(config, *given, scale=config.hidden_size**0.5),
        "embedding scaled",
    ),
    "softmax": (_after(lambda logits: logits.softmax(dim=-1)), "softmax inside"),
    "last": (_after(lambda logits: logits[:, -1:]), "last place only"),
    "first text": (_after(lambda logits: logits[0]), "shape"),
    "doubled": (_after(lambda logits: 2 * logits), "values"),
    "both wrong": (_idea(theta=10_000.0, eps=1e-6), "theta fixed"),
}


@pytest.mark.parametrize("name", WRONG_WHOLES)
def test_wrong_wholes_are_diagnosed(name):
    answer, mistake = WRONG_WHOLES[name]
    assert model.whole(answer).mistake == mistake
