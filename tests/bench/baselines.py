"""What a language model must beat: a byte n-gram model, and a general-purpose compressor."""

import functools
import lzma

import numpy as np


class ByteNgram:
    """Bytes predicted from the n - 1 before them, with every shorter context mixed in.

    Interpolated with Witten and Bell's weights (1991): a context seen c times with t different
    followers trusts its own counts with c / (c + t) and leaves the rest to the context one byte
    shorter, down to a uniform distribution over 256 bytes. Each text is padded with zero bytes at
    its start.

    Args:
        texts: what is counted.
        order: n.
    """

    def __init__(self, texts: list[bytes], order: int = 5) -> None:
        self.order = order
        padded = b"".join(bytes(order - 1) + text for text in texts)
        grams = _grams(np.frombuffer(padded, np.uint8), order)
        counted = np.concatenate([np.arange(1 - order, len(text)) >= 0 for text in texts])
        grams, counts = np.unique(grams[counted], return_counts=True)  # padding is not predicted
        self.tables = []  # of each length: grams, counts; contexts, how often seen, followers
        for n in range(order, 0, -1):  # the n last bytes of what is counted already
            grams, counts = _summed(grams & _mask(n), counts)
            contexts, followers = np.unique(grams >> np.uint64(8), return_counts=True)
            seen = np.add.reduceat(counts, np.searchsorted(grams >> np.uint64(8), contexts))
            self.tables.insert(0, (grams, counts, contexts, seen, followers))

    def bits(self, text: bytes) -> float:
        """Return how many bits the model needs for a text."""
        padded = np.frombuffer(bytes(self.order - 1) + text, np.uint8)
        whole = _grams(padded, self.order)[self.order - 1 :]
        probability = np.full(len(text), 1 / 256)
        for n, (grams, counts, contexts, seen, followers) in enumerate(self.tables, start=1):
            wanted = whole & _mask(n)
            count = _look_up(wanted, grams, counts)
            total = _look_up(wanted >> np.uint64(8), contexts, seen)
            kinds = _look_up(wanted >> np.uint64(8), contexts, followers)
            mixed = (count + kinds * probability) / np.maximum(total + kinds, 1)
            probability = np.where(total > 0, mixed, probability)  # else the shorter context's
        return float(-np.log2(probability).sum())


def _mask(n: int) -> np.uint64:
    return np.uint64(256**n - 1)


def _grams(stream: np.ndarray, n: int) -> np.ndarray:
    """Return the n bytes that end at each position, as one integer, the last byte lowest."""
    grams = np.zeros(len(stream), dtype=np.uint64)
    for back in range(n):
        grams[back:] |= stream[: len(stream) - back].astype(np.uint64) << np.uint64(8 * back)
    return grams


def _summed(keys: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each key once, in order, and the sum of its counts."""
    order = np.argsort(keys)
    keys, counts = keys[order], counts[order]
    starts = np.flatnonzero(np.diff(keys, prepend=keys[0] ^ np.uint64(1)))
    return keys[starts], np.add.reduceat(counts, starts)


def _look_up(wanted: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the value of each wanted key; 0 where there is none."""
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)


@functools.cache
def xz_bits(text: bytes) -> int:
    """Return the bits of what `xz -9e` makes of a text, its file header included."""
    packed = lzma.compress(text, preset=9 | lzma.PRESET_EXTREME, check=lzma.CHECK_CRC64)
    return 8 * len(packed)
