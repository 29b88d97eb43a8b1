"""A small checkpoint with random weights: the file layout, and nothing learned; for tests."""

from __future__ import annotations

from pathlib import Path

import torch

from qwenkit.config import QwenConfig
from qwenkit.model import QwenForCausalLM
from qwenkit.pretrained import save_pretrained
from qwenkit.tokenizer import Tokenizer
from qwenkit.tokenizer.bpe import write_tokenizer

# Learned once from this package's source and kept, so that the toy never changes with it.
MERGES = Path(__file__).parent / "toy_merges.txt"


def write_toy_checkpoint(
    folder: str | Path, *, tied: bool = True, seed: int = 0, max_shard_bytes: int = 5_000_000_000
) -> Path:
    """Write a Qwen2 checkpoint of two layers with random weights, and return its folder.

    Four query heads share two kv heads; every bias is non-zero. The vocabulary is a small
    byte-level BPE with some padding rows behind it.

    Args:
        folder: made if absent.
        tied: whether the embedding serves as the head.
        seed: of the weights.
        max_shard_bytes: the weights are split into files of at most this size.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _make_tokenizer(folder)
    config = QwenConfig(
        vocab_size=(tokenizer.num_tokens // 64 + 1) * 64,
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=tied,
        bos_token_id=tokenizer.special["<|endoftext|>"],
        eos_token_id=(tokenizer.special["<|endoftext|>"], tokenizer.special["<|im_end|>"]),
        pad_token_id=tokenizer.special["<|endoftext|>"],
    )
    model = QwenForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name else 0.0
            spread = 0.1 if parameter.dim() == 1 else config.initializer_range * 4
            parameter.copy_(centre + spread * torch.randn(parameter.shape, generator=generator))
    save_pretrained(model.to(torch.bfloat16), folder, tokenizer, max_shard_bytes)
    return folder


def _make_tokenizer(folder: Path) -> Tokenizer:
    """Write the toy's tokenizer: 256 bytes, the merges, then the special tokens, as in Qwen."""
    lines = MERGES.read_text(encoding="utf-8").splitlines()[1:]  # the first names the format
    merges = [(left, right) for left, right in (line.split(" ") for line in lines)]
    return write_tokenizer(folder, merges)
