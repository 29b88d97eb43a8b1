"""A small checkpoint with random weights: the file layout, and nothing learned; for tests."""

from __future__ import annotations

from pathlib import Path

import torch

from qwenkit.config import QwenConfig
from qwenkit.model import QwenForCausalLM
from qwenkit.pretrained import save_pretrained
from qwenkit.tokenizer import write_tokenizer

# Learned once from this package's source and kept, so that the toy never changes with it.
MERGES = Path(__file__).parent / "toy_merges.txt"


def write_toy_checkpoint(
    folder: str | Path, *, tied: bool = True, seed: int = 0, max_shard_bytes: int = 5_000_000_000
) -> Path:
    """Write a Qwen2 checkpoint of two layers with random weights, and return its folder.

    Four query heads share two kv heads; every bias is non-zero. The vocabulary is a small
    byte-level BPE, followed by some padding.
    """
    folder = Path(folder)
    lines = MERGES.read_text(encoding="utf-8").splitlines()[1:]  # the first names the format
    tokenizer = write_tokenizer(folder, [tuple(line.split(" ")) for line in lines])
    end = tokenizer.special["<|endoftext|>"]
    config = QwenConfig(
        vocab_size=(tokenizer.num_tokens // 64 + 1) * 64, hidden_size=64, intermediate_size=176,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=2048, tie_word_embeddings=tied, bos_token_id=end,
        eos_token_id=(end, tokenizer.special["<|im_end|>"]), pad_token_id=end,
    )  # fmt: skip
    model = QwenForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if "norm" in name else 0.0
            spread = 0.1 if parameter.dim() == 1 else config.initializer_range * 4
            parameter.copy_(mean + spread * torch.randn(parameter.shape, generator=generator))
    save_pretrained(model.to(torch.bfloat16), folder, tokenizer, max_shard_bytes)
    return folder
