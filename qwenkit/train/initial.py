"""The weights that training starts from."""

import math

import torch

from qwenkit.model import QwenForCausalLM


def init_weights(model: QwenForCausalLM, seed: int = 0) -> None:
    """Fill a model with random weights, in place; the same on every device.

    Matrices and the embedding are normal with the config's `initializer_range`, biases zero, norm
    weights one. What writes to the residual stream (o_proj, down_proj) is smaller by √(2 × layers),
    so that the stream does not grow with depth (Radford et al. 2019, section 2.3).
    """
    generator = torch.Generator().manual_seed(seed)
    std = model.config.initializer_range
    smaller = std / math.sqrt(2 * model.config.num_hidden_layers)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.fill_(1.0)
            elif parameter.dim() < 2:
                parameter.zero_()
            else:
                writes = name.endswith(("o_proj.weight", "down_proj.weight"))
                values = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(values * (smaller if writes else std))
