"""What is kept of one forward pass at every layer and token, apart from the attention itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.model import QwenForCausalLM
from qwenkit.tokenizer import Tokenizer
from qwenkit.trace import Edit, Trace

UNITS = 8  # of the MLP, kept at each layer and token


@dataclass(frozen=True)
class Reading:
    """What is kept of a forward pass over one text.

    Attributes:
        queries: (L, H, T, D) before RoPE.
        keys: (L, KV, T, D) before RoPE.
        cos: (T, D / 2) by which RoPE rotates each pair at each position.
        sin: the same.
        units: (L, T, N) the most active units of the MLP, the strongest first.
        acts: (L, T, N) their activations: SiLU(gate) × up.
        norms: (L, T, 2) of the residual stream after attention, and after the MLP.
        embed_norms: (T,) of the embeddings.
        streams: (L + 1, T, C) the stream itself: the embeddings, then after each layer.
    """

    queries: np.ndarray
    keys: np.ndarray
    cos: np.ndarray
    sin: np.ndarray
    units: np.ndarray
    acts: np.ndarray
    norms: np.ndarray
    embed_norms: np.ndarray
    streams: Tensor

    def rotated(self, vectors: np.ndarray, token: int) -> np.ndarray:
        """Return queries or keys (..., D) of a token as RoPE rotates them."""
        a, b = np.split(vectors, 2, axis=-1)
        cos, sin = self.cos[token], self.sin[token]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def one_text(model: QwenForCausalLM, tokenizer: Tokenizer, prompt: str) -> Tensor:
    """Return a prompt's ids (1, T) on the model's device.

    Raises:
        InputError: an empty prompt, or one that is not a string.
    """
    if not isinstance(prompt, str) or not prompt:
        raise InputError(f"prompt is {prompt!r}; it must be a text of at least one token")
    return tokenizer(prompt).to(model.device)


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
