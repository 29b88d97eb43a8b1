"""Whole models for exercise 09.3: the notebook's, and others that are written differently.

Each can be broken: by `changes` of the arithmetic, or by an `idea` of how a class is built.
"""

import functools

import torch
import torch.nn.functional as F
from torch import nn

from qwenkit.model import QwenForCausalLM

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def plain(config, tensors, ids, **changes):
    """Compute a Qwen2 model from its tensors alone: no module, no package. `changes` breaks it."""
    idea = {"theta": config.rope_theta, "eps": config.rms_norm_eps, "bias": 1.0, **changes}
    heads, kv_heads, dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim

    def norm(x, name):
        root = (x.pow(2).mean(dim=-1, keepdim=True) + idea["eps"]).sqrt()
        return x / root * idea.get("weight", lambda weight: weight)(tensors[f"{name}.weight"])

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
        if idea.get("interleaved"):
            a, b = x[..., ::2], x[..., 1::2]
            return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)

    def attention(x, name):
        batch, length = x.shape[:2]
        q, k, v = (project(x, f"{name}.{one}_proj") for one in "qkv")
        if idea.get("viewed"):
            q, k, v = (one.view(batch, -1, length, dim) for one in (q, k, v))
        else:
            q, k, v = (one.unflatten(-1, (-1, dim)).transpose(1, 2) for one in (q, k, v))
        turn = idea.get("rotated", "qk")
        q, k, v = (
            rotated(one) if n in turn else one for n, one in zip("qkv", (q, k, v), strict=True)
        )
        of = torch.arange(heads) // (heads // kv_heads)
        of = torch.arange(heads) % kv_heads if idea.get("cycled") else of
        scores = q @ k[:, of].mT / dim ** idea.get("power", 0.5)
        if not idea.get("no_mask"):
            scores += torch.full(scores.shape[-2:], float("-inf")).triu(1)
        z = scores.softmax(dim=-1) @ v[:, of]
        z = z.reshape(batch, length, -1) if idea.get("unjoined") else z.transpose(1, 2).flatten(2)
        for _ in range(idea.get("out", 1)):
            z = project(z, f"{name}.o_proj")
        return z

    def mlp(x, name):
        gate, up = (project(x, f"{name}.{one}_proj") for one in idea.get("gated", ("gate", "up")))
        return project(idea.get("act", F.silu)(gate) * up, f"{name}.down_proj")

    def wire(x, norm1, attention, norm2, mlp):
        x = x + attention(norm1(x))
        return x + mlp(norm2(x))

    x = tensors[EMBEDDING][ids] * idea.get("scale", 1.0)
    for number in idea.get("layers", range(config.num_hidden_layers)):
        name = f"model.layers.{number}"
        norms = (f"{name}.input_layernorm", f"{name}.post_attention_layernorm")
        norms = [functools.partial(norm, name=one) for one in norms]
        parts = [functools.partial(attention, name=f"{name}.self_attn")]
        parts.append(functools.partial(mlp, name=f"{name}.mlp"))
        x = idea.get("wire", wire)(x, norms[0], parts[0], norms[1], parts[1])
    for _ in range(idea.get("norms", 0 if idea.get("no_norm") else 1)):
        x = norm(x, "model.norm")
    head = EMBEDDING if idea.get("tied") or HEAD not in tensors else HEAD
    return x @ tensors[head].T


def text_by_text(config, tensors, ids):
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
        return plain(self.config, self.state_dict(), ids)


class Reversed(Small):
    def forward(self, ids):
        order = range(self.config.num_hidden_layers)[::-1]
        return plain(self.config, self.state_dict(), ids, layers=order)


# the parts of notebook 09
class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return self.weight * (x / torch.sqrt(x.pow(2).mean(dim=-1, keepdim=True) + self.eps))


def rope_tables(length, head_dim, theta):
    speeds = theta ** (-torch.arange(0, head_dim, 2) / head_dim)
    angles = torch.arange(length)[:, None] * speeds
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def _rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin


def _attend(q, k, v):
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(diagonal=1)
    return scores.masked_fill(future, float("-inf")).softmax(dim=-1) @ v


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.head_dim, width = config.head_dim, config.hidden_size
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.groups = heads // kv_heads
        self.q_proj = nn.Linear(width, heads * self.head_dim)
        self.k_proj = nn.Linear(width, kv_heads * self.head_dim)
        self.v_proj = nn.Linear(width, kv_heads * self.head_dim)
        self.o_proj = nn.Linear(heads * self.head_dim, width, bias=False)

    def split(self, x):
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def forward(self, x, cos, sin):
        q, k = (_rotate(self.split(one(x)), cos, sin) for one in (self.q_proj, self.k_proj))
        k, v = (x.repeat_interleave(self.groups, 1) for x in (k, self.split(self.v_proj(x))))
        return self.o_proj(_attend(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class _Stream(nn.Module):
    def __init__(self, config, idea):
        super().__init__()
        self.config, self.idea = config, idea
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        each = (DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.layers = idea["layers"](config) if "layers" in idea else nn.ModuleList(each)
        self.norm = RMSNorm(config.hidden_size, idea.get("eps", config.rms_norm_eps))

    def forward(self, ids):
        c, x = self.config, self.embed_tokens(ids)
        own = lambda c, length: rope_tables(length, c.head_dim, c.rope_theta)  # noqa: E731
        tables = self.idea.get("tables", own)(c, ids.shape[1])
        step = self.idea.get("step", lambda x, layer, norm, *tables: layer(x, *tables))
        for layer in self.layers:
            x = step(x, layer, self.norm, *tables)
        return x if self.idea.get("no_norm") else self.norm(x)


def as_in_the_notebook(**idea):
    """Return the notebook's class, or one with another idea of a part of it."""

    class Whole(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.model = _Stream(config, idea)
            wants_head = idea.get("head", lambda config: not config.tie_word_embeddings)
            if wants_head(config):
                bias = idea.get("bias", False)
                self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=bias)

        def forward(self, ids):
            x = self.model(ids)
            if idea.get("stream_returned"):
                return x
            if hasattr(self, "lm_head") and not idea.get("embedding_always"):
                return self.lm_head(x)
            return x @ self.model.embed_tokens.weight.T

    return Whole
