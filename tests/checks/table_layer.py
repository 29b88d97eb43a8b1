"""Answers to the exercises of notebook 08."""

import functools

import torch

from qwenkit.model import DecoderLayer, RotaryEmbedding, apply_rope


def _run(x, layers):
    return functools.reduce(lambda x, layer: layer(x), layers, x)


# decoder_layer(x, norm1, attention, norm2, mlp): n1, attend and n2 in the tables
def _by_a_loop(x, norm1, attention, norm2, mlp):
    for norm, part in ((norm1, attention), (norm2, mlp)):
        x = torch.add(x, part(norm(x)))
    return x


def _from_a_copy(x, norm1, attention, norm2, mlp):
    stream = x.clone()
    stream += attention(norm1(stream))
    stream += mlp(norm2(stream))
    return stream


def _steps(first, second=None):
    """Return a layer of two steps, alike or not; each gets the stream, a norm and a part."""
    return lambda x, n1, attend, n2, mlp: (second or first)(first(x, n1, attend), n2, mlp)


def _pre(x, norm, part):
    return x + part(norm(x))


def _replaced(x, norm, part):
    return part(norm(x))


def _stream_normed(x, norm, part):
    return (y := norm(x)) + part(y)


def _raw(x, norm, part):
    return x + part(x)


# lens(streams, norm, head)
def _by_index(streams, norm, head):
    return head(norm(streams.select(dim=1, index=streams.shape[1] - 1)))


# from_tensors(x, tensors, number, config)
def _layer(x, tensors, number, config, **idea):
    """Compute a layer in plain PyTorch; each entry of `idea` breaks a step."""
    name, dim, length = f"model.layers.{idea.get('at', number)}", config.head_dim, x.shape[1]
    dim = idea.get("dim", lambda config: config.head_dim)(config)

    def norm(x, one):
        if idea.get("raw") == one:
            return x
        if idea.get("center"):
            x = x - x.mean(-1, keepdim=True)
        size = (x * x).mean(-1, keepdim=True) + idea.get("eps", config.rms_norm_eps)
        x = x / (size if idea.get("no_root") else size.sqrt())
        return x if idea.get("no_weight") else x * tensors[f"{name}.{one}.weight"]

    def project(x, one, bias=""):
        out = x @ tensors[f"{name}.{one}.weight"].T
        return out + tensors[f"{name}.{one}.bias"] if bias else out

    def rotated(x):
        power = torch.arange(dim // 2) / (dim // 2)
        angles = torch.outer(
            torch.arange(length), 1 / idea.get("theta", config.rope_theta) ** power
        )
        angles = torch.cat([angles, angles], dim=-1)
        if idea.get("interleaved"):
            angles = angles[:, : dim // 2].repeat_interleave(2, -1)
            other = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
        else:
            other = torch.cat([-x[..., dim // 2 :], x[..., : dim // 2]], dim=-1)
        return x * angles.cos() + other * angles.sin()

    def attention(x):
        has = idea.get("bias", "qkv")
        q, k, v = (project(x, f"self_attn.{one}_proj", one in has) for one in "qkv")
        counts = config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads
        split = idea.get("split", lambda x, n: x.view(len(x), length, n, dim).transpose(1, 2))
        q, k, v = (split(one, n) for one, n in zip((q, k, v), counts, strict=True))
        turn = idea.get("rotate", "qk")
        q, k, v = (rotated(x) if n in turn else x for n, x in (("q", q), ("k", k), ("v", v)))
        groups = counts[0] // counts[1]
        k, v = (
            idea.get("repeat", lambda x, n: x.repeat_interleave(n, 1))(x, groups) for x in (k, v)
        )
        scores = q @ k.mT * idea.get("scale", dim**-0.5)
        if idea.get("masked", True):
            seen = torch.ones(length, length).tril(idea.get("diagonal", 0)) == 1
            scores = scores.where(seen, -torch.inf)
        z = scores.softmax(idea.get("over", -1)) @ v
        z = z if idea.get("flat") else z.transpose(1, 2)
        return project(z.reshape(len(x), length, -1), "self_attn.o_proj", idea.get("o_bias"))

    def mlp(x):
        gate, up = project(x, "mlp.gate_proj"), project(x, "mlp.up_proj")
        return project(
            idea.get("act", lambda g, u: g * torch.sigmoid(g) * u)(gate, up), "mlp.down_proj"
        )

    one, two = idea.get("norms", ("input_layernorm", "post_attention_layernorm"))
    wired = idea.get("wired", lambda x, n1, a, n2, m: (y := x + a(n1(x))) + m(n2(y)))
    return wired(x, lambda x: norm(x, one), attention, lambda x: norm(x, two), mlp)


def _broken(**idea):
    return lambda *given: _layer(*given, **idea)


def _packaged(x, tensors, number, config):
    """Load the tensors into the package's layer."""
    layer, name = DecoderLayer(config, number), f"model.layers.{number}."
    mine = {key[len(name) :]: one for key, one in tensors.items() if key.startswith(name)}
    layer.load_state_dict(mine)
    rope = RotaryEmbedding(config)(torch.arange(x.shape[1])[None])
    with torch.no_grad():
        return layer(x, rope, None)


def _text_by_text(x, *given):
    return torch.cat([_layer(one[None], *given) for one in x])


def _with_sdpa(x, tensors, number, config):
    def attend(q, k, v):
        return torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=True
        )

    c, at = config, f"model.layers.{number}"
    norm = lambda x, n: torch.rms_norm(  # noqa: E731
        x, (c.hidden_size,), tensors[f"{at}.{n}.weight"], c.rms_norm_eps
    )
    y = norm(x, "input_layernorm")
    q, k, v = (
        torch.nn.functional.linear(y, *(tensors[f"{at}.self_attn.{n}_proj.{w}"] for w in (
            "weight", "bias"))).unflatten(-1, (-1, c.head_dim)).transpose(1, 2) for n in "qkv"
    )  # fmt: skip
    cos, sin = RotaryEmbedding(c)(torch.arange(x.shape[1])[None])
    z = attend(apply_rope(q, cos, sin), apply_rope(k, cos, sin), v)
    x = x + z.transpose(1, 2).flatten(2) @ tensors[f"{at}.self_attn.o_proj.weight"].T
    y = norm(x, "post_attention_layernorm")
    gate, up, down = (tensors[f"{at}.mlp.{n}_proj.weight"].T for n in ("gate", "up", "down"))
    return x + (torch.nn.functional.silu(y @ gate) * (y @ up)) @ down


# parts(parts, weight, eps, row)
def _rms(x, eps):
    return (x.square().mean(-1, keepdim=True) + eps).sqrt()


def _split(divide, change=lambda parts: parts):
    """Return the parts of a logit with another divisor, or of other parts."""
    return lambda parts, w, eps, row: ((change(parts) / divide(parts, eps)) * w * row).sum(-1)


def _whole(parts, eps):
    return _rms(parts.sum(0), eps)


def _one_by_one(parts, weight, eps, row):
    stream = sum(parts)
    root = (float((stream * stream).sum()) / len(stream) + eps) ** 0.5
    return torch.tensor([sum(p * w * r / root for p, w, r in zip(one, weight, row, strict=True))
                         for one in parts])  # fmt: skip


RIGHT = {
    "decoder_layer": [
        lambda x, norm1, attention, norm2, mlp: (y := x + attention(norm1(x))) + mlp(norm2(y)),
        _by_a_loop, _from_a_copy,
    ],
    "from_tensors": [_layer, _packaged, _text_by_text, _with_sdpa],
    "parts": [
        _one_by_one, _split(_whole),
        lambda parts, w, eps, row: parts @ (row * w) / _rms(parts.sum(0), eps),
        lambda parts, w, eps, row: torch.einsum(
            "pc,c,c->p", parts * torch.rsqrt(parts.sum(0).pow(2).mean() + eps), w, row),
    ],
    "lens": [
        lambda s, norm, head: torch.stack([head(norm(one[-1])) for one in s]),
        lambda s, norm, head: head(norm(s))[:, -1, :], _by_index,
    ],
}  # fmt: skip
WRONG = {
    "decoder_layer": [
        ("no addition", lambda x, *parts: _run(x, parts)),
        ("no addition around attention", _steps(_replaced, _pre)),
        ("no addition around the MLP", _steps(_pre, _replaced)),
        ("attention lost", lambda x, n1, attend, n2, mlp: mlp(n2(x + attend(n1(x)))) + x),
        ("parallel", lambda x, n1, attend, n2, mlp: attend(n1(x)) + mlp(n2(x)) + x),
        ("post-norm", _steps(lambda x, norm, part: norm(x + part(x)))),
        ("norm on the results", _steps(lambda x, norm, part: x + norm(part(x)))),
        ("added to the norm's copy", _steps(_stream_normed)),
        ("added to the norm's copy", _steps(_stream_normed, _pre)),
        ("added to the norm's copy", _steps(_pre, _stream_normed)),
        ("norms swapped", lambda x, n1, attend, n2, mlp: _by_a_loop(x, n2, attend, n1, mlp)),
        ("one norm for both", lambda x, n1, attend, n2, mlp: _by_a_loop(x, n1, attend, n1, mlp)),
        ("MLP first", lambda x, n1, attend, n2, mlp: _by_a_loop(x, n2, mlp, n1, attend)),
        ("no norms", _steps(_raw)),
        ("no second norm", _steps(_pre, _raw)),
        ("stream added twice",
            lambda x, n1, attend, n2, mlp: x + (y := x + attend(n1(x))) + mlp(n2(y))),
        ("changes its input",
            lambda x, n1, attend, n2, mlp: x.add_(attend(n1(x))).add_(mlp(n2(x)))),
        ("no first norm", _steps(_raw, _pre)),
        ("no MLP", lambda x, norm1, attention, *rest: _pre(x, norm1, attention)),
        ("no attention", lambda x, n1, attend, n2, mlp: x + mlp(n2(x))),
        ("only one addition", lambda x, n1, attend, n2, mlp: x + mlp(n2(attend(n1(x))))),
        ("MLP reads attention alone",
            lambda x, n1, attend, n2, mlp: x + (a := attend(n1(x))) + mlp(n2(a))),
        ("MLP first", lambda x, n1, attend, n2, mlp: _by_a_loop(x, n1, mlp, n2, attend)),
        ("norm at the end", lambda x, n1, attend, n2, mlp: n2(_by_a_loop(x, n1, attend, n2, mlp))),
        ("norm at the end", lambda x, n1, attend, n2, mlp: n2(_raw(_pre(x, n1, attend), n2, mlp))),
        ("values", lambda x, *parts: 2 * _by_a_loop(x, *parts)),
        ("kind", lambda x, *parts: (x, _by_a_loop(x, *parts))),
        ("dtype", lambda x, *parts: _by_a_loop(x, *parts).float()),
        ("shape", lambda x, *parts: _by_a_loop(x, *parts)[:, -1]),
    ],
    "from_tensors": [
        ("no biases", _broken(bias="")),
        ("bias of q only", _broken(bias="q")),
        ("bias of o", _broken(o_bias=True)),
        ("layer 0 always", _broken(at=0)),
        ("theta fixed", _broken(theta=1e4)),
        ("theta fixed", _broken(theta=1e6)),
        ("eps fixed", _broken(eps=1e-6)),
        ("eps fixed", _broken(eps=1e-5)),
        ("eps fixed", _broken(eps=0)),
        ("head_dim from C / H", _broken(dim=lambda c: c.hidden_size // c.num_attention_heads)),
        ("no mask", _broken(masked=False)),
        ("no self", _broken(diagonal=-1)),
        ("no scale", _broken(scale=1)),
        ("scale without root", lambda x, t, n, c: _layer(x, t, n, c, scale=1 / c.head_dim)),
        ("softmax over queries", _broken(over=-2)),
        ("no RoPE", _broken(rotate="")),
        ("only q rotated", _broken(rotate="q")),
        ("only k rotated", _broken(rotate="k")),
        ("v rotated", _broken(rotate="qkv")),
        ("interleaved", _broken(interleaved=True)),
        ("kv heads cycled", _broken(repeat=lambda x, n: torch.cat([x] * n, dim=1))),
        ("heads not split by token",
            lambda x, t, n, c: _layer(x, t, n, c, split=lambda y, heads: y.reshape(
                len(y), heads, y.shape[1], c.head_dim))),
        ("heads not joined by token", _broken(flat=True)),
        ("norms swapped", _broken(norms=("post_attention_layernorm", "input_layernorm"))),
        ("one norm for both", _broken(norms=("input_layernorm",) * 2)),
        ("one norm for both", _broken(norms=("post_attention_layernorm",) * 2)),
        ("no first norm", _broken(raw="input_layernorm")),
        ("no second norm", _broken(raw="post_attention_layernorm")),
        ("no norm weight", _broken(no_weight=True)),
        ("mean subtracted", _broken(center=True)),
        ("no root", _broken(no_root=True)),
        ("attention replaces", _broken(wired=lambda x, n1, a, n2, m: (y := a(n1(x))) + m(n2(y)))),
        ("MLP alone", _broken(wired=lambda x, n1, a, n2, m: m(n2(x + a(n1(x)))))),
        ("parallel", _broken(wired=lambda x, n1, a, n2, m: x + a(n1(x)) + m(n2(x)))),
        ("gate and up swapped", _broken(act=lambda g, u: u * torch.sigmoid(u) * g)),
        ("no SiLU", _broken(act=lambda g, u: u * g)),
        ("another activation", _broken(act=lambda g, u: u * torch.nn.functional.gelu(g))),
        ("another activation", _broken(act=lambda g, u: u * g.relu())),
        ("error", lambda x, t, n, c: x @ t["embed_tokens"]),
        ("error", lambda x, t, n, c: _layer(x, {k[6:]: v for k, v in t.items()}, n, c)),
        ("values", _broken(act=lambda g, u: torch.sigmoid(g) * u)),
        ("changes its input", lambda x, *given: x.copy_(_layer(x, *given))),
    ],
    "parts": [
        ("each part normalized", _split(_rms)),
        ("each part normalized", _split(lambda parts, eps: parts.norm(dim=1)[:, None])),
        ("no divisor", lambda parts, w, eps, row: (parts * w) @ row),
        ("eps missing", _split(lambda parts, eps: _whole(parts, 0))),
        ("eps outside the root", _split(lambda parts, eps: _whole(parts, 0) + eps)),
        ("length of the sum", _split(lambda parts, eps: parts.sum(0).norm())),
        ("length of the sum", _split(lambda parts, eps: (parts.sum(0) ** 2).sum().add(eps) ** 0.5)),
        ("no root", _split(lambda parts, eps: _whole(parts, eps) ** 2)),
        ("mean over all parts", _split(lambda parts, eps: _rms(parts.flatten(), eps))),
        ("squares added", _split(lambda p, eps: (p.square().sum(0).mean() + eps).sqrt())),
        ("mean of the parts", _split(lambda parts, eps: _rms(parts.mean(0), eps))),
        ("the last part's divisor", _split(lambda parts, eps: _rms(parts[-1], eps))),
        ("running sums", _split(_whole, lambda parts: parts.cumsum(0))),
        ("running divisors", _split(lambda parts, eps: _rms(parts.cumsum(0), eps))),
        ("running sums", _split(
            lambda parts, eps: _rms(parts.cumsum(0), eps), lambda parts: parts.cumsum(0))),
        ("norm's weight missing", lambda parts, w, eps, row: parts / _whole(parts, eps) @ row),
        ("row missing", lambda parts, w, eps, row: parts * w / _whole(parts, eps)),
        ("products not added", lambda parts, w, eps, row: parts * w * row / _whole(parts, eps)),
        ("added over the parts",
            lambda parts, w, eps, row: (parts * w * row / _whole(parts, eps)).sum(0)),
        ("the sum", lambda parts, w, eps, row: (parts.sum(0) / _whole(parts, eps) * w) @ row),
        ("proportions", lambda parts, w, eps, row: (y := parts @ (w * row)) / y.sum()),
        ("absolute", lambda *given: _split(_whole)(*given).abs()),
        ("kind: not a tensor", lambda *given: _split(_whole)(*given).tolist()),
        ("shape: dimensions of size 1", lambda *given: _split(_whole)(*given)[:, None]),
        ("values", lambda *given: 2 * _split(_whole)(*given)),
        ("error", lambda parts, w, eps, row: row @ parts),
    ],
    "lens": [
        ("no norm", lambda s, norm, head: torch.stack([head(one[-1]) for one in s])),
        ("first position", lambda s, norm, head: head(norm(s))[:, 0]),
        ("last stream only", lambda s, norm, head: head(norm(s))[-1, -1]),
        ("all positions of the last stream", lambda s, norm, head: head(norm(s))[-1]),
        ("all positions", lambda s, norm, head: torch.stack([head(norm(one)) for one in s])),
        ("what each layer added",
            lambda s, norm, head: head(norm(torch.cat([s[:1, -1], s[1:, -1] - s[:-1, -1]])))),
        ("summed again", lambda s, norm, head: head(norm(s[:, -1].cumsum(0)))),
        ("probabilities", lambda s, norm, head: torch.softmax(_by_index(s, norm, head), dim=1)),
        ("token ids", lambda s, norm, head: _by_index(s, norm, head).max(-1).indices),
        ("embedding left out", lambda s, norm, head: _by_index(s[1:], norm, head)),
        ("no head", lambda s, norm, head: norm(s[:, -1])),
        ("a list", lambda s, norm, head: [head(norm(one[-1])) for one in s]),
        ("axis kept", lambda s, norm, head: head(norm(s[:, -1:]))),
        ("token before the last", lambda s, norm, head: head(norm(s[:, -2]))),
        ("last layer left out", lambda s, norm, head: head(norm(s[:-1, -1]))),
        ("averaged over tokens", lambda s, norm, head: head(norm(s.mean(1)))),
        ("averaged over tokens", lambda s, norm, head: head(norm(s)).mean(1)),
        ("first stream only", lambda s, norm, head: head(norm(s[0]))),
        ("first stream only", lambda s, norm, head: head(norm(s[0, -1]))),
        ("probabilities", lambda s, norm, head: _by_index(s, norm, head).log_softmax(-1)),
        ("error", lambda s, norm, head: norm(head(s[:, -1]))),
        ("values", lambda s, norm, head: 2 * _by_index(s, norm, head)),
    ],
}  # fmt: skip
