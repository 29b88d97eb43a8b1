"""Answers to the exercises of notebook 09."""

import functools

import torch
import torch.nn.functional as F
from torch import nn

from qwenkit.model import QwenForCausalLM

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


# forward(ids, embed, layers, norm, head)
def _loop(ids, embed, layers, norm, head):
    x = embed(ids)
    for layer in layers:
        x = layer(x)
    return head(norm(x))


def _embedded(change):
    """Return a forward with another embedding."""
    return lambda i, e, layers, n, h: _loop(i, lambda i: change(e(i), n), layers, n, h)


def _numbered(numbers):
    """Return a forward that runs the layers of some numbers."""
    return lambda i, e, layers, n, h: _loop(i, e, [layers[at] for at in numbers(len(layers))], n, h)


# untied(tensors)
def _upcast(tensors):
    return {name: tensor.float() for name, tensor in tensors.items()}


def _copied_then_filled(tensors):
    found = _upcast(tensors)
    found.setdefault(HEAD, found[EMBEDDING])
    return found


def _filled_then_copied(tensors):
    found = dict(tensors)
    found.setdefault(HEAD, tensors[EMBEDDING].clone())
    return {name: found[name].to(torch.float32) for name in sorted(found)}


def _tied_only(change):
    """Apply a wrong idea to tied files, and give the right answer for others."""
    return lambda t: (_copied_then_filled if HEAD in t else change)(_copied_then_filled(t))


def _other_head(head):
    """Put `head(embedding)` in the place of a tied head."""
    return _tied_only(lambda t: t | {HEAD: head(t[EMBEDDING])})


# whole: a class, or a function of config, tensors and ids
def _plain(config, tensors, ids, **changes):
    """Compute a Qwen2 model from its tensors alone: no module, no package. `changes` breaks it."""
    idea = {"theta": config.rope_theta, "eps": config.rms_norm_eps, "bias": 1.0, **changes}
    heads, kv_heads, dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim

    def norm(x, name):
        root = (x.pow(2).mean(dim=-1, keepdim=True) + idea["eps"]).sqrt()
        return x / root * tensors[f"{name}.weight"]

    def project(x, name):
        bias = tensors.get(f"{name}.bias", torch.zeros(1))
        return x @ tensors[f"{name}.weight"].T + idea["bias"] * bias

    def rotated(x):
        pair = torch.arange(dim // 2)
        angle = torch.arange(x.shape[2])[:, None] / idea["theta"] ** (2 * pair / dim)
        a, b = x[..., : dim // 2], x[..., dim // 2 :]
        if idea.get("no_rope"):
            return x
        cos, sin = angle.cos(), angle.sin()
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)

    def attention(x, name):
        q, k, v = (
            project(x, f"{name}.{one}_proj").unflatten(-1, (-1, dim)).transpose(1, 2)
            for one in "qkv"
        )
        q, k = rotated(q), rotated(k)
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
    """A class that is written differently, except for the names."""

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
        return _plain(self.config, self.state_dict(), ids)


class Reversed(Small):
    def forward(self, ids):
        order = range(self.config.num_hidden_layers)[::-1]
        return _plain(self.config, self.state_dict(), ids, layers=order)


def _idea(**changes):
    """Return a broken model; a change may be a function of the config."""
    return lambda config, tensors, ids: _plain(
        config, tensors, ids,
        **{name: one(config) if callable(one) else one for name, one in changes.items()},
    )  # fmt: skip


def _after(change):
    return lambda config, tensors, ids: change(_plain(config, tensors, ids))


RIGHT = {
    "forward": [
        _loop, _numbered(range),
        lambda i, e, layers, n, h: h(n(functools.reduce(lambda x, layer: layer(x), layers, e(i)))),
    ],
    "untied": [
        _copied_then_filled, _filled_then_copied,
        lambda t: {n: one.type(torch.float32) for n, one in ({HEAD: t[EMBEDDING]} | t).items()},
    ],
    "whole": [QwenForCausalLM, Small, _plain, _text_by_text],
}  # fmt: skip
WRONG = {
    "forward": [
        ("no last norm", lambda i, e, layers, n, h: _loop(i, e, layers, nn.Identity(), h)),
        ("norm before the layers",
            lambda i, e, layers, n, h: _loop(i, lambda i: n(e(i)), layers, nn.Identity(), h)),
        ("norm at both ends", _embedded(lambda x, norm: norm(x))),
        ("norm after each layer", lambda i, e, layers, n, h:
            _loop(i, e, [lambda x, f=f: n(f(x)) for f in layers], nn.Identity(), h)),
        ("layers in reverse", lambda i, e, layers, n, h: _loop(i, e, reversed(layers), n, h)),
        ("one layer for all", _numbered(lambda count: [0] * count)),
        ("last layer missing", _numbered(lambda count: range(count - 1))),
        ("first layer missing", _numbered(lambda count: range(1, count))),
        ("not passed on",
            lambda i, e, layers, n, h: h(n([e(i), *(layer(e(i)) for layer in layers)][-1]))),
        ("added once more", lambda i, e, layers, n, h:
            _loop(i, e, [lambda x, f=f: x.add_(f(x)) for f in layers], n, h)),
        ("embedding scaled", _embedded(lambda x, norm: x * x.shape[-1] ** 0.5)),
        ("softmax inside", lambda *parts: F.softmax(_loop(*parts), dim=-1)),
        ("log-softmax inside", lambda *parts: F.log_softmax(_loop(*parts), -1)),
        ("last position only", lambda *parts: _loop(*parts)[:, [-1]]),
        ("last position only", lambda *parts: _loop(*parts)[:, -1]),
        ("shape", lambda *parts: _loop(*parts)[0]),
        ("shape", lambda i, e, layers, n, h: _loop(i, e, layers, n, nn.Identity())),
        ("shape", lambda i, e, layers, n, h: _loop(i, lambda x: x.float(), layers, n, h)),
        ("values", lambda *parts: 2 * _loop(*parts)),
    ],
    "untied": [
        ("not upcast", lambda t: {**t, HEAD: t.get(HEAD, t[EMBEDDING])}),
        ("only the head upcast", lambda t: {**t, HEAD: t.get(HEAD, t[EMBEDDING]).float()}),
        ("no head", _upcast),
        ("embedding moved", _tied_only(lambda t: {n: t[n] for n in t if n != EMBEDDING})),
        ("transposed", _other_head(lambda embedding: embedding.T)),
        ("transposed", _other_head(lambda embedding: embedding.transpose(0, 1).contiguous())),
        ("head overwritten", lambda t: _upcast(t) | {HEAD: t[EMBEDDING].float()}),
        ("another name", _tied_only(lambda t: {n.replace("lm_", "model.lm_"): t[n] for n in t})),
        ("a head of ones or zeros", _other_head(lambda embedding: torch.zeros(embedding.shape))),
        ("changes its input", lambda t: t.update({HEAD: t.get(HEAD, t[EMBEDDING])}) or _upcast(t)),
        ("values", _other_head(lambda embedding: torch.randn(embedding.shape))),
        ("kind", lambda t: list(_copied_then_filled(t).values())),
    ],
    "whole": [
        ("no last norm", _idea(no_norm=True)),
        ("theta fixed", _idea(theta=10_000.0)),
        ("eps fixed", _idea(eps=1e-6)),
        ("tied although untied", _idea(tied=True)),
        ("no biases", _idea(bias=0.0)),
        ("layers in reverse", Reversed),
        ("one layer for all", _idea(layers=lambda config: [0] * config.num_hidden_layers)),
        ("last layer missing", _idea(layers=lambda config: range(config.num_hidden_layers - 1))),
        ("kv heads cycled", _idea(cycled=True)),
        ("no mask", _idea(no_mask=True)),
        ("no RoPE", _idea(no_rope=True)),
        ("embedding scaled", _idea(scale=lambda config: config.hidden_size**0.5)),
        ("softmax inside", _after(lambda logits: logits.softmax(dim=-1))),
        ("last position only", _after(lambda logits: logits[:, -1:])),
        ("shape", _after(lambda logits: logits[0])),
        ("values", _after(lambda logits: 2 * logits)),
        ("theta fixed", _idea(theta=10_000.0, eps=1e-6)),
    ],
}  # fmt: skip
