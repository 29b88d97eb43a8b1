"""AWQ: scale up the weights whose inputs are large, so that rounding harms them less.

A few channels of a layer's input are far larger than the others, and errors in their weights are
multiplied by that. If column i of a weight is multiplied by s and the input's channel i divided by
s, the product is the same, but in a group of 64 the important weights are now rounded in finer
relative steps (Lin et al. 2023, "AWQ", section 3.2). Dividing the input costs nothing where a part
before it can be divided instead: the weight of a norm, or the rows of another matrix.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from qwenkit.config import GROUP
from qwenkit.fast.int4 import dequantize, quantize_groups
from qwenkit.model import DecoderLayer, RMSNorm

TRIES = 10  # powers of the activations' mean size: 0 (no scaling), 0.1, up to 0.9
TOKENS = 512  # of the activations, whole texts of them, to judge a try by


@torch.no_grad()
def scale_channels(
    layer: DecoderLayer,
    inputs: Mapping[str, Float[Tensor, "N _"]],
    group: int = GROUP,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Scale a float32 layer's matrices for rounding, in place; what it computes stays the same.

    - q, k and v read what input_layernorm gives, whose weight is divided.
    - gate and up read what post_attention_layernorm gives, whose weight is divided.
    - down reads SiLU(gate) × up: the rows of up are divided.
    - o reads values that several query heads share (grouped-query attention): v's rows cannot be
      divided for each of them alone, and o stays as it is.

    Args:
        layer: in float32.
        inputs: name of a matrix, such as "mlp.down_proj" -> (N, in_features) what it is multiplied
            by on some text.
        group: that the weights will be rounded in.
        dtype: that the norms will be stored in. The factors are chosen so that no digit of a
            divided norm is lost in it.
    """
    attention, mlp = layer.self_attn, layer.mlp
    for norm, name, parts in (
        (layer.input_layernorm, "self_attn.q_proj",
         (attention.q_proj, attention.k_proj, attention.v_proj)),
        (layer.post_attention_layernorm, "mlp.gate_proj", (mlp.gate_proj, mlp.up_proj)),
    ):  # fmt: skip
        weights = [part.weight for part in parts]
        factors = best_factors(weights, inputs[name], group)
        factors = _divide_norm(norm, factors, dtype)
        for weight in weights:
            weight.mul_(factors)
    factors = best_factors([mlp.down_proj.weight], inputs["mlp.down_proj"], group)
    mlp.down_proj.weight.mul_(factors)
    mlp.up_proj.weight.div_(factors[:, None])


def best_factors(
    weights: Sequence[Float[Tensor, "_ I"]], x: Float[Tensor, "N I"], group: int = GROUP
) -> Float[Tensor, " I"]:
    """Return the factor of each input channel with which rounding changes the outputs least.

    Tried are powers of the channels' mean size, from 0 on, which is rounding to nearest: so that
    on x the result is never worse (equation 5 of the paper).

    Args:
        weights: matrices that read the same input.
        x: that input, on some text.
        group: that the weights will be rounded in.
    """
    size = x.abs().mean(0).clamp(min=1e-6)  # (I)
    sample = x[:TOKENS]  # (N', I)
    best, least = torch.ones_like(size), float("inf")
    for number in range(TRIES):
        factors = size ** (number / TRIES)
        factors /= (factors.max() * factors.min()).sqrt()
        error = sum(_output_error(weight, sample, factors, group) for weight in weights)
        if error < least:
            best, least = factors, error
    return best


def _output_error(weight: Tensor, x: Tensor, factors: Tensor, group: int) -> float:
    """Return the squared error of x Wᵀ if the weight is rounded with these factors."""
    rounded = dequantize(*quantize_groups(weight * factors, group)) / factors
    return float((x @ (rounded - weight).t()).square().sum())


def _divide_norm(norm: RMSNorm, factors: Tensor, dtype: torch.dtype) -> Tensor:
    """Divide a norm's weight, and return by what it was divided after rounding to `dtype`."""
    divided = (norm.weight / factors).to(dtype).float()
    exact = torch.where(divided == 0, factors, norm.weight / divided)
    norm.weight.copy_(divided)
    return exact
