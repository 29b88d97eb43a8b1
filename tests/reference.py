"""A tiny transformers Qwen2 model with random weights, and qwenkit's with the very same weights.

No weight is trivial: biases are not zero and norm weights are not one, so that a forgotten bias or
a forgotten norm weight shows.
"""

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from qwenkit.config import QwenConfig
from qwenkit.model import QwenForCausalLM

VOCAB = 61
LAYERS = 3
TINY = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
SLIDING = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
VARIANTS = {
    "gqa": {},
    "mha": {"num_key_value_heads": 4},
    "mqa": {"num_key_value_heads": 1},
    "tied": {"tie_word_embeddings": True},
    "head_dim": {"head_dim": 10},
    "yarn": {"rope_parameters": YARN, "head_dim": 16},
    "sliding": SLIDING,
}


def pair(
    *, seed: int = 0, attention: str = "eager", dtype: torch.dtype = torch.float32, **overrides
) -> tuple[Qwen2ForCausalLM, QwenForCausalLM]:
    """Return transformers' model and ours; `overrides` are keys of `Qwen2Config`."""
    config = Qwen2Config(**{**TINY, **overrides}, attn_implementation=attention)
    theirs = Qwen2ForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if name.endswith("norm.weight"):
                weight.copy_(1 + 0.3 * noise)
            elif name.endswith("bias"):
                weight.copy_(0.5 * noise)
            else:
                weight.copy_(1.5 * noise / weight.shape[-1] ** 0.5)
    frequencies = theirs.model.rotary_emb.inv_freq.clone()
    theirs = theirs.to(dtype)
    # .to() rounds this buffer as well; from_pretrained, which readers use, keeps it in float32
    theirs.model.rotary_emb.inv_freq = frequencies
    ours = QwenForCausalLM(QwenConfig.from_dict(config.to_dict())).to(dtype)
    weights = theirs.state_dict()
    if config.tie_word_embeddings:
        del weights["lm_head.weight"]  # the file of a tied checkpoint has none
    ours.load_state_dict(weights, strict=True)
    return theirs, ours.eval()


def tiny(**overrides) -> QwenForCausalLM:
    """Return our model alone."""
    return pair(**overrides)[1].requires_grad_(False)


def ids(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    """Return random token ids, (B, T)."""
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def left_padding(lengths: list[int], total: int) -> torch.Tensor:
    """Return the mask of a left-padded batch, (B, S)."""
    return (torch.arange(total) >= total - torch.tensor(lengths)[:, None]).long()


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    """Return the largest difference, relative to the largest wanted value."""
    return ((got - want).abs().max() / want.abs().max()).item()
