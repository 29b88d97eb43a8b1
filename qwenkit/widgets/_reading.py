"""What a model computes on one text: what is kept of a forward pass, lens, and ablation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.generate.steps import only_tokens
from qwenkit.interpret import ablate_heads
from qwenkit.model import QwenForCausalLM
from qwenkit.progress import stage
from qwenkit.tokenizer import Tokenizer
from qwenkit.trace import Edit, Trace

UNITS = 8  # of the MLP, kept at each layer and token
LENS, SHOWN = 3, 6  # tokens shown of a layer's guess, and of a comparison
ROWS = 16  # positions whose logits are computed at a time: a large vocabulary takes memory

Guess = list[tuple[str, float]]
"""Tokens as they are shown, with their probabilities, the most likely first."""


@dataclass(frozen=True)
class Reading:
    """What is kept of a forward pass over one text."""

    queries: np.ndarray  # (L, H, T, D) before RoPE
    keys: np.ndarray  # (L, KV, T, D) before RoPE
    cos: np.ndarray  # (T, D / 2) by which RoPE rotates each pair at each position
    sin: np.ndarray  # the same
    units: np.ndarray  # (L, T, N) the most active units of the MLP, the strongest first
    acts: np.ndarray  # (L, T, N) their activations: SiLU(gate) × up
    norms: np.ndarray  # (L, T, 2) of the residual stream after attention, and after the MLP
    embed_norms: np.ndarray  # (T,) of the embeddings
    streams: Tensor  # (L + 1, T, C) the stream itself: the embeddings, then after each layer

    def rotated(self, vectors: np.ndarray, token: int) -> np.ndarray:
        """Return queries or keys (..., D) of a token as RoPE rotates them."""
        a, b = np.split(vectors, 2, axis=-1)
        cos, sin = self.cos[token], self.sin[token]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def one_text(
    model: QwenForCausalLM, tokenizer: Tokenizer, prompt: str, most: int | None = None
) -> Tensor:
    """Return a prompt's ids (1, T) on the model's device.

    Raises:
        InputError: an empty prompt, one that is not a string, or one of more than `most` tokens;
            or not a model and a tokenizer.
    """
    for name, value, kind in (
        ("model", model, QwenForCausalLM),
        ("tokenizer", tokenizer, Tokenizer),
    ):
        if not isinstance(value, kind):
            raise InputError(f"{name} is a {type(value).__name__}; it must be a {kind.__name__}")
    if not isinstance(prompt, str) or not prompt:
        raise InputError(f"prompt is {prompt!r}; it must be a text of at least one token")
    ids = tokenizer(prompt)
    if most is not None and ids.shape[1] > most:
        raise InputError(
            f"the prompt has {ids.shape[1]:,} tokens; this widget takes at most {most:,}: "
            "shorten it"
        )
    return ids.to(model.device)


def check_finite(what: str, values: Tensor) -> None:
    """Refuse NaN and infinity: no picture, and no page, can show them.

    Raises:
        InputError: naming what holds them.
    """
    if not bool(values.isfinite().all()):
        raise InputError(
            f"{what} is NaN or infinite on this text: a weight before it is not finite, is too "
            "large, or float16 overflowed; qk.interpret.divergences compares every point with "
            "those of another model"
        )


@stage("Running the model")
@torch.no_grad()
def read_layers(model: QwenForCausalLM, input_ids: Tensor) -> Reading:
    """Run a model over one text (1, T); what is large is reduced layer by layer."""
    layers = range(model.config.num_hidden_layers)
    strongest: list[tuple[Tensor, Tensor]] = []
    middle: list[Tensor] = []

    def read_act(act: Tensor) -> Tensor:
        values = act[0].float()  # (T, F)
        units = values.abs().topk(min(UNITS, values.shape[-1])).indices  # (T, N)
        strongest.append((units, values.gather(-1, units)))
        return act

    def read_middle(stream: Tensor) -> Tensor:
        middle.append(stream[0].float().norm(dim=-1))  # (T,)
        return stream

    edits: dict[str, Edit] = {}
    for i in layers:
        edits |= {f"layers.{i}.mlp.act": read_act, f"layers.{i}.resid_mid": read_middle}
    trace = Trace(keep=("embed", "attn.q", "attn.k", "resid_post"), edits=edits)
    model(input_ids, trace=trace, logits_to_keep=1)

    def stacked(name: str) -> Tensor:
        return torch.stack([trace[f"layers.{i}.{name}"][0] for i in layers])

    streams = torch.cat([trace["embed"], stacked("resid_post")])  # (L + 1, T, C)
    lengths = streams.float().norm(dim=-1)  # (L + 1, T)
    positions = torch.arange(input_ids.shape[1], device=model.device)[None]
    tables = model.model.rotary_emb(positions, model.dtype)  # 2 × (1, T, D), in equal halves
    cos, sin = (_array(table[0].chunk(2, dim=-1)[0]) for table in tables)
    for i, stream in enumerate(lengths):  # of a NaN or an infinity, the norm is one too
        check_finite(
            "the embedding" if i == 0 else f"the residual stream after layer {i - 1}", stream
        )
    return Reading(
        queries=_array(stacked("attn.q")),
        keys=_array(stacked("attn.k")),
        cos=cos,
        sin=sin,
        units=torch.stack([units for units, _ in strongest]).cpu().numpy(),
        acts=_array(torch.stack([acts for _, acts in strongest])),
        norms=_array(torch.stack([torch.stack(middle), lengths[1:]], dim=-1)),
        embed_norms=_array(lengths[0]),
        streams=streams,
    )


def _array(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()


def guesses(model: QwenForCausalLM, tokenizer: Tokenizer, streams: Tensor) -> list[Guess]:
    """Return what the model would predict from each residual stream (N, C): the logit lens."""
    found = _probabilities(model, streams).topk(LENS)
    pairs = zip(found.indices, found.values.tolist(), strict=True)
    return [list(zip(tokenizer.token_strings(ids), probs, strict=True)) for ids, probs in pairs]


@dataclass(frozen=True)
class Comparison:
    """The next token's probabilities at each position of a text, with a head and without it."""

    off: list[int]  # layer and head that were ablated
    # The Kullback-Leibler divergence of the probabilities without the head from those with it, in
    # nats, at each position: 0 where nothing changed.
    moved: list[float]
    # The tokens that are most likely with or without the head, at each position: name, id,
    # probability with it, and without it.
    rows: list[list[tuple[str, int, float, float]]]


@stage("Running the model")
@torch.no_grad()
def without_head(
    model: QwenForCausalLM, tokenizer: Tokenizer, input_ids: Tensor, streams: Tensor, off: list[int]
) -> Comparison:
    """Run a text (1, T) with a head ablated; `streams` (T, C) left the last layer with all on."""
    last = f"layers.{model.config.num_hidden_layers - 1}.resid_post"
    trace = Trace(keep=(last,), edits=ablate_heads([(off[0], off[1])]))
    model(input_ids, trace=trace, logits_to_keep=1)
    moved: list[float] = []
    rows = []
    for start in range(0, len(streams), ROWS):
        few = slice(start, start + ROWS)
        before = _probabilities(model, streams[few])
        after = _probabilities(model, trace[last][0, few])
        terms = before * (before.log() - after.clamp(min=1e-37).log())
        moved += terms.nan_to_num(0.0).sum(-1).clamp(min=0).tolist()  # where before is 0: no term
        tokens = torch.maximum(before, after).topk(SHOWN).indices  # (rows, SHOWN)
        for i, ids in enumerate(tokens):
            columns = (ids.tolist(), before[i, ids].tolist(), after[i, ids].tolist())
            rows.append(list(zip(tokenizer.token_strings(ids), *columns, strict=True)))
    return Comparison(off, moved, rows)


@torch.no_grad()
def _probabilities(model: QwenForCausalLM, streams: Tensor) -> Tensor:
    """Return the next token's probabilities (N, V) for residual streams (N, C), on the CPU."""
    logits = model.head(model.model.norm(streams)[None])[0].float().cpu()
    check_finite("a logit", logits[:, : model.num_tokens])
    return only_tokens(logits, model.num_tokens).softmax(dim=-1)
