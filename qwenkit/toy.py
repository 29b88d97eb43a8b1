"""A small checkpoint with random weights: a real file layout to look at, and nothing learned.

It serves the tests, and the notebooks until a trained model is embedded.
"""

from __future__ import annotations

from pathlib import Path

import tokenizers
import torch
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from qwenkit.config import QwenConfig
from qwenkit.config_json import write_json
from qwenkit.model import QwenForCausalLM
from qwenkit.pretrained import save_pretrained
from qwenkit.tokenizer import Tokenizer

# Learned once from this package's source and kept, so that the toy never changes with it.
MERGES = Path(__file__).parent / "toy_merges.txt"
# How Qwen2 cuts text before merging bytes: contractions, words, single digits, signs, newlines.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "<|fim_middle|>",
    "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip
CHAT = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content "
    "+ '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


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
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens += [left + right for left, right in merges]
    vocab = {token: number for number, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    backend.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"chat_template": CHAT})
    return Tokenizer(folder)
