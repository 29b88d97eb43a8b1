"""From text to token ids and back, with chat and fill-in-the-middle prompts; BPE training."""

from qwenkit.tokenizer._tokenizer import Tokenizer
from qwenkit.tokenizer.bpe import learn_merges, write_tokenizer

__all__ = ["Tokenizer", "learn_merges", "write_tokenizer"]
