"""What the model would predict if it stopped here, and which part adds what to a logit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.model import QwenForCausalLM
from qwenkit.progress import stage
from qwenkit.trace import Trace


@stage("Running the model")
@torch.no_grad()
def logit_lens(
    model: QwenForCausalLM, input_ids: Int[Tensor, "1 T"], position: int = -1
) -> Float[Tensor, "N V"]:
    """Return the logits that the residual stream would give after each layer, at one position.

    The last norm and the head are applied early (nostalgebraist 2020, "interpreting GPT: the logit
    lens").

    Args:
        model: any Qwen2 model.
        input_ids: one text.
        position: which token's stream; -1: the last.

    Returns:
        (layers + 1, V) float32: first the embedding alone, then after each layer. The last row is
        the model's own logits.

    Raises:
        InputError: more than one text, or a position outside it.
    """
    position = _position(input_ids, position)
    trace = Trace(keep=("embed", "resid_post"))
    model(input_ids, trace=trace, logits_to_keep=1)
    layers = range(model.config.num_hidden_layers)
    streams = [trace["embed"], *(trace[f"layers.{layer}.resid_post"] for layer in layers)]
    stream = torch.cat([x[:, position] for x in streams])  # (L + 1, C)
    return model.head(model.model.norm(stream)[None])[0].float()


@dataclass(frozen=True)
class Attribution:
    """How much each part of the model adds to one logit.

    Attributes:
        token: whose logit.
        position: at which.
        embed: what the token's own embedding adds.
        heads: (L, H) what each head adds.
        mlps: (L) what each MLP adds.
    """

    token: int
    position: int
    embed: float
    heads: Float[Tensor, "L H"]
    mlps: Float[Tensor, " L"]

    @property
    def total(self) -> float:
        """Their sum: the logit itself."""
        return self.embed + float(self.heads.sum()) + float(self.mlps.sum())


@stage("Running the model")
@torch.no_grad()
def attribute_logit(
    model: QwenForCausalLM,
    input_ids: Int[Tensor, "1 T"],
    token: int | None = None,
    position: int = -1,
) -> Attribution:
    """Split one logit into what each head and each MLP adds to it (direct effects alone).

    The residual stream is a sum, and so is the logit if the last norm's divisor is held fixed
    (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits").

    Args:
        model: any Qwen2 model; the sum is exact to rounding in its dtype.
        input_ids: one text.
        token: whose logit; None: that of the most likely token.
        position: at which; -1: after the last token.

    Raises:
        InputError: more than one text, a position outside it, or a token that does not exist.
    """
    position = _position(input_ids, position)
    if token is not None and not 0 <= token < model.config.vocab_size:
        raise InputError(
            f"token is {token}; it must be an id from 0 to {model.config.vocab_size - 1}"
        )
    trace = Trace(keep=("embed", "attn.z", "mlp.out", "resid_post", "final_norm"))
    model(input_ids, trace=trace, logits_to_keep=1)
    logits = model.head(trace["final_norm"][:, position, None])[0, 0]  # (V)
    chosen = int(logits[: model.num_tokens].argmax()) if token is None else token
    config, layers = model.config, range(model.config.num_hidden_layers)

    parts = [trace["embed"][:, position]]  # (1, C)
    for layer in layers:
        z = trace[f"layers.{layer}.attn.z"][0, :, position]  # (H, D)
        itself = torch.eye(len(z), dtype=z.dtype, device=z.device)[..., None]  # (H, H, 1)
        alone = (itself * z).flatten(1)  # (H, H·D): one head per row, the others zero
        o_proj = model.get_submodule(f"model.layers.{layer}.self_attn.o_proj")
        parts.append(o_proj(alone))  # (H, C)
    parts += [trace[f"layers.{layer}.mlp.out"][:, position] for layer in layers]  # (1, C) each
    last = trace[f"layers.{layers[-1]}.resid_post"][0, position].float()
    divisor = (last.pow(2).mean() + model.model.norm.eps).sqrt()
    scaled = torch.cat(parts).float() / divisor * model.model.norm.weight.float()  # (parts, C)
    added = model.head(scaled.to(model.dtype)[None])[0, :, chosen].float().cpu()  # (parts)
    heads = added[1 : 1 + len(layers) * config.num_attention_heads]
    return Attribution(
        token=chosen,
        position=position,
        embed=float(added[0]),
        heads=heads.view(len(layers), -1),
        mlps=added[-len(layers) :],
    )


def _position(input_ids: Tensor, position: int) -> int:
    """Return a position counted from 0."""
    if input_ids.dim() != 2 or len(input_ids) != 1:
        raise InputError(
            f"input_ids has shape {tuple(input_ids.shape)}; it must be one text, (1, T)"
        )
    length = input_ids.shape[1]
    if not -length <= position < length:
        raise InputError(f"position is {position}; the text has {length} tokens")
    return position % length
