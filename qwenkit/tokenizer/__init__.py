"""From text to token ids and back, with chat and fill-in-the-middle prompts; BPE training."""

from qwenkit._deprecated import renamed
from qwenkit.tokenizer._files import PATTERNS
from qwenkit.tokenizer._pipeline import byte_alphabet
from qwenkit.tokenizer._tokenizer import Tokenizer
from qwenkit.tokenizer.bpe import learn_merges, write_tokenizer

__all__ = ["PATTERNS", "Tokenizer", "byte_alphabet", "learn_merges", "write_tokenizer"]
__getattr__ = renamed(__name__, _byte_alphabet="byte_alphabet")
