"""Answers to the exercises of notebook 09."""

import functools

import torch
import torch.nn.functional as F
from torch import nn
from whole_models import (
    EMBEDDING,
    HEAD,
    DecoderLayer,
    Reversed,
    Small,
    as_in_the_notebook,
    plain,
    rope_tables,
    text_by_text,
)

from qwenkit.model import QwenForCausalLM


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


def _returns_at_once(ids, embed, layers, norm, head):
    x = embed(ids)
    for layer in layers:
        x = layer(x)
        return head(norm(x))


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


def _fills_the_file(tensors):
    for name in tensors:
        tensors[name] = tensors[name].float()
    tensors.setdefault(HEAD, tensors[EMBEDDING])
    return tensors


def _tied_only(change):
    """Apply a wrong idea to tied files, and give the right answer for others."""
    return lambda t: (_copied_then_filled if HEAD in t else change)(_copied_then_filled(t))


def _other_head(head):
    """Put `head(embedding)` in the place of a tied head."""
    return _tied_only(lambda t: t | {HEAD: head(t[EMBEDDING])})


# whole: a class, or a function of config, tensors and ids
def _idea(**changes):
    """Return a broken model; a change may be a function of the config."""
    return lambda config, tensors, ids: plain(
        config, tensors, ids,
        **{name: one(config) if callable(one) else one for name, one in changes.items()},
    )  # fmt: skip


def _act(act):
    return _idea(act=lambda config: act)


def _wired(x, norm1, attention, norm2, mlp):
    x = x + attention(norm1(x))
    return x + mlp(norm2(x))


def _wire(wire):
    return _idea(wire=lambda config: wire)


def _after(change):
    return lambda config, tensors, ids: change(plain(config, tensors, ids))


def _tables(tables):
    return as_in_the_notebook(tables=tables)


def _step(step):
    return as_in_the_notebook(step=step)


RIGHT = {
    "forward": [
        _loop, _numbered(range),
        lambda i, e, layers, n, h: h(n(functools.reduce(lambda x, layer: layer(x), layers, e(i)))),
    ],
    "untied": [
        _copied_then_filled, _filled_then_copied,
        lambda t: {n: one.type(torch.float32) for n, one in ({HEAD: t[EMBEDDING]} | t).items()},
    ],
    "whole": [QwenForCausalLM, Small, plain, text_by_text, as_in_the_notebook()],
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
        ("no head", lambda i, e, layers, n, h: _loop(i, e, layers, n, nn.Identity())),
        ("return inside the loop", _returns_at_once),
        ("result not kept", lambda i, e, layers, n, h: h(n(e(i)))),
        ("token ids", lambda *parts: _loop(*parts).argmax(-1)),
        ("fixed number of layers", _numbered(lambda count: range(3))),
        ("error", lambda i, e, layers, n, h: n(_loop(i, e, layers, nn.Identity(), h))),
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
        ("another name", _tied_only(lambda t: {n.replace("d.weight", "d"): t[n] for n in t})),
        ("a head of ones or zeros", _other_head(torch.ones_like)),
        ("another dtype", lambda t: {n: one.double() for n, one in _copied_then_filled(t).items()}),
        ("another dtype", lambda t: {n: one.half() for n, one in _copied_then_filled(t).items()}),
        ("other tensors gone", lambda t: {HEAD: t.get(HEAD, t[EMBEDDING]).float()}),
        ("condition inverted",
            lambda t: _upcast(t) | ({HEAD: t[EMBEDDING].float()} if HEAD in t else {})),
        ("only the embedding upcast",
            lambda t: t | {EMBEDDING: t[EMBEDDING].float(), HEAD: t.get(HEAD, t[EMBEDDING])}),
        ("a name that is not there", lambda t: _upcast(t) | {HEAD: t[HEAD].float()}),
        ("a name that is not there",
            lambda t: _upcast(t if HEAD in t else t | {HEAD: t["embed_tokens.weight"]})),
        ("changes its input", _fills_the_file),
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
        ("last position only", _after(lambda logits: logits[:, -1])),
        ("eps fixed", _idea(eps=1e-5)),
        ("last norm's eps fixed", as_in_the_notebook(eps=1e-6)),
        ("last norm's eps fixed", as_in_the_notebook(eps=1e-5)),
        ("theta fixed", _tables(lambda c, length: rope_tables(length, c.head_dim, 1e6))),
        ("head_dim from C / H", _tables(lambda c, length:
            rope_tables(length, c.hidden_size // c.num_attention_heads, c.rope_theta))),
        ("tables not cut", _tables(lambda c, length:
            rope_tables(c.max_position_embeddings, c.head_dim, c.rope_theta))),
        ("layers not registered", as_in_the_notebook(layers=lambda c: [
            DecoderLayer(c) for _ in range(c.num_hidden_layers)])),
        ("the same layer each time", as_in_the_notebook(
            layers=lambda c: nn.ModuleList([DecoderLayer(c)] * c.num_hidden_layers))),
        ("added once more", _step(lambda x, layer, norm, *tables: x + layer(x, *tables))),
        ("norm after each layer", as_in_the_notebook(no_norm=True,
            step=lambda x, layer, norm, *tables: norm(layer(x, *tables)))),
        ("result not kept", _step(lambda x, layer, *more: x)),
        ("return inside the loop", _idea(layers=[0])),
        ("a head although tied", as_in_the_notebook(head=lambda config: True)),
        ("no head although untied", as_in_the_notebook(head=lambda config: False)),
        ("error", as_in_the_notebook(bias=True)),
        ("tied although untied", as_in_the_notebook(embedding_always=True)),
        ("no head", as_in_the_notebook(stream_returned=True)),
        ("no last norm", as_in_the_notebook(no_norm=True)),
        ("log-softmax inside", _after(lambda logits: logits.log_softmax(dim=-1))),
        ("error", as_in_the_notebook(layers=lambda c: nn.ModuleList(
            [DecoderLayer(c) for _ in range(c.num_hidden_layers - 1)]))),
        ("shape", _after(lambda logits: logits[0])),
        ("values", _after(lambda logits: 2 * logits)),
        ("theta fixed", _idea(theta=10_000.0, eps=1e-6)),
        ("interleaved RoPE", _idea(interleaved=True)),
        ("values rotated", _idea(rotated="qkv")),
        ("only queries rotated", _idea(rotated="q")),
        ("only keys rotated", _idea(rotated="k")),
        ("heads split in the wrong order", _idea(viewed=True)),
        ("heads joined in the wrong order", _idea(unjoined=True)),
        ("o_proj twice", _idea(out=lambda c: 1 if c.head_dim == 16 else 2)),
        ("o_proj twice", _idea(out=2)),
        ("no o_proj", _idea(out=0)),
        ("gate and up exchanged", _idea(gated=("up", "gate"))),
        ("another activation", _act(torch.relu)),
        ("another activation", _act(F.gelu)),
        ("another activation", _act(torch.sigmoid)),
        ("norms exchanged", _wire(lambda x, n1, a, n2, m: _wired(x, n2, a, n1, m))),
        ("one norm for both", _wire(lambda x, n1, a, n2, m: _wired(x, n1, a, n1, m))),
        ("parallel", _wire(lambda x, n1, a, n2, m: x + m(n2(x)) + a(n1(x)))),
        ("no residual connection", _wire(lambda x, n1, a, n2, m: m(n2(a(n1(x)))))),
        ("the stream is normalized", _wire(lambda x, n1, a, n2, m: (
            lambda x: x + m(x))(n2(n1(x) + a(n1(x)))))),
        ("norm after the part", _wire(lambda x, n1, a, n2, m:
            _wired(x, nn.Identity(), lambda x: n1(a(x)), nn.Identity(), lambda x: n2(m(x))))),
        ("last norm twice", _idea(norms=2)),
        ("no scale", _idea(power=0)),
        ("divided by D", _idea(power=1)),
        ("norm without its weight", _idea(weight=lambda config: torch.ones_like)),
        ("norm with 1 + weight", _idea(weight=lambda config: lambda weight: 1 + weight)),
        ("error", _idea(layers=range(5))),
        ("values", _act(torch.tanh)),
        ("values", _idea(power=0.25)),
    ],
}  # fmt: skip
