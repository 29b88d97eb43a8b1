"""Generation as its definition: no cache, no batch, nothing but the model and a choice."""

import torch
from jaxtyping import Int
from torch import Tensor

from qwenkit.model import QwenForCausalLM


@torch.no_grad()
def reference_generate(
    model: QwenForCausalLM, input_ids: Int[Tensor, "1 T"], max_new_tokens: int
) -> list[int]:
    """Return the most likely continuation, token by token, as `generate` does it greedily.

    The whole text goes through the model for each new token: slow, and easy to see to be right.
    """
    new: list[int] = []
    while len(new) < max_new_tokens and (not new or new[-1] not in model.stop_ids):
        logits = model(input_ids, logits_to_keep=1)[0, -1]  # (V)
        token = int(logits[: model.num_tokens].argmax())  # padding rows are not tokens
        new.append(token)
        input_ids = torch.cat([input_ids, torch.tensor([[token]], device=model.device)], dim=1)
    return new
