"""What tests of LoRA share."""

import torch

from qwenkit.lora import lora_layers


def learned(model, seed=5):
    """Give every A and B random values, as if something had been learned."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_" in name:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return model


def parts(model):
    """Return name -> weight of every A and B."""
    return {
        f"{name}.{part}.weight": layer.get_submodule(part).weight
        for name, layer in lora_layers(model).items()
        for part in ("lora_A", "lora_B")
    }
