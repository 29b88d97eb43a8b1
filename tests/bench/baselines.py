"""What a language model must beat: a byte n-gram model, and a general-purpose compressor."""

from __future__ import annotations

import lzma

import numpy as np


class ByteNgram:
    """Bytes foreseen from the n - 1 before them, every shorter context mixed in.

    Interpolated with Witten and Bell's weights (1991): a context seen c times with t different
    followers trusts its own counts with c / (c + t) and leaves the rest to the context one byte
    shorter, down to all 256 bytes alike. Zero bytes stand before each text.

    Args:
        texts: what is counted.
        order: n.
    """

    def __init__(self, texts: list[bytes], order: int = 5) -> None:
        self.order = order
        stream = np.concatenate([self._padded(text) for text in texts])
        first = np.concatenate(
            [np.arange(len(self._padded(text))) >= order - 1 for text in texts]
        )  # the padding itself is foreseen by nobody
        self.grams, self.contexts = [], []
        for n in range(1, order + 1):
            grams, counts = np.unique(self._ends(stream, n)[first], return_counts=True)
            contexts, followers = np.unique(grams >> np.uint64(8), return_counts=True)
            seen = np.add.reduceat(counts, np.searchsorted(grams >> np.uint64(8), contexts))
            self.grams.append((grams, counts))
            self.contexts.append((contexts, seen, followers))

    def bits(self, text: bytes) -> float:
        """Return how many bits the model needs for a text."""
        stream = self._padded(text)
        chance = np.full(len(text), 1 / 256)
        for n in range(1, self.order + 1):
            grams = self._ends(stream, n)[self.order - 1 :]
            count = _look_up(grams, *self.grams[n - 1])
            contexts, seen, followers = self.contexts[n - 1]
            total = _look_up(grams >> np.uint64(8), contexts, seen)
            kinds = _look_up(grams >> np.uint64(8), contexts, followers)
            known = total > 0  # elsewhere the shorter context has the word
            chance = np.where(
                known, (count + kinds * chance) / np.maximum(total + kinds, 1), chance
            )
        return float(-np.log2(chance).sum())

    def _padded(self, text: bytes) -> np.ndarray:
        return np.frombuffer(bytes(self.order - 1) + text, dtype=np.uint8)

    @staticmethod
    def _ends(stream: np.ndarray, n: int) -> np.ndarray:
        """Return the n bytes that end at each place, as one number, the last byte lowest."""
        numbers = np.zeros(len(stream), dtype=np.uint64)
        for back in range(n):
            shifted = np.zeros_like(numbers)
            shifted[back:] = stream[: len(stream) - back]
            numbers |= shifted << np.uint64(8 * back)
        return numbers


def _look_up(wanted: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the value of each wanted key; 0 where there is none."""
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)


def xz_bits(text: bytes) -> int:
    """Return the bits of what `xz -9e` makes of a text, its file header included."""
    packed = lzma.compress(text, preset=9 | lzma.PRESET_EXTREME, check=lzma.CHECK_CRC64)
    return 8 * len(packed)
