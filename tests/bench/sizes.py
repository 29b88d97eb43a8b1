"""How many tokens each measurement takes, and what a trace keeps of them."""

from dataclasses import dataclass, replace
from typing import Self

KEPT = ("attn.pattern", "resid_post")  # by a trace: (H, T, T) and (T, C) in each layer


@dataclass(frozen=True)
class Sizes:
    """Numbers of tokens, and what else makes a run long.

    Attributes:
        prefills: lengths of the prompts.
        past, long: tokens in the cache before a decode, few and many; `pasts` has both.
        steps: decoded tokens of which the mean is taken.
        trace: tokens of the traced forward.
        forwards: (tokens, positions that get logits; 0: all) of the memory rows.
        lengths, pasts, batches: of the rows that show growth.
        floats: dtypes that fresh processes load.
        warm_starts: processes of each kind that are started before those that count.
    """

    prefills: tuple[int, ...] = (128, 512)
    past: int = 128
    long: int = 2048
    steps: int = 16
    trace: int = 256
    forwards: tuple[tuple[int, int], ...] = ((512, 1), (512, 0), (2048, 1), (4096, 1))
    lengths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048, 4096)
    pasts: tuple[int, ...] = (128, 512, 2048, 4080)
    batches: tuple[int, ...] = (1, 2, 4, 8)
    floats: tuple[str, ...] = ("float32", "bfloat16")
    warm_starts: int = 1

    def within(self, longest: int) -> Self:
        """Leave out what is longer than a model can take."""
        forwards = tuple(one for one in self.forwards if one[0] <= longest)
        lengths = tuple(length for length in self.lengths if length <= longest)
        pasts = tuple(past for past in self.pasts if past + self.steps <= longest)
        return replace(self, forwards=forwards, lengths=lengths, pasts=pasts)


# Proves that the bench works, and measures nothing.
SMALL = Sizes(
    prefills=(8, 16), past=4, long=8, steps=2, trace=16, forwards=((256, 1),), lengths=(4, 8),
    pasts=(4, 8), batches=(1, 2), floats=("float32",), warm_starts=0,
)  # fmt: skip
