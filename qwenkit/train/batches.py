"""Windows of one length from the text, in batches and in an order that a seed decides."""

import hashlib
from collections.abc import Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from itertools import islice
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.programs.generator import generate
from qwenkit.tokenizer import Tokenizer
from qwenkit.train._checks import at_least, require
from qwenkit.train._epoch import make_epoch, pack
from qwenkit.train.documents import Document
from qwenkit.train.losses import IGNORE
from qwenkit.train.settings import Mix


class Batch(NamedTuple):
    """What one forward takes, (B, T) input_ids, and what it is compared with, (B, T) labels."""

    input_ids: Int[Tensor, "B T"]
    labels: Int[Tensor, "B T"]  # the token that follows each; `IGNORE` where nothing counts


@dataclass(eq=False, repr=False)
class Batches:
    """An endless sequence of batches: epoch after epoch, each in a new order.

    Every batch depends on the seed and the position alone, so that a training that resumes from a
    saved position sees what it would have seen. Windows are packed full: no padding, but a window
    may hold the end of one text and the start of another.

    Args:
        documents: the text.
        tokenizer: with Qwen's special tokens.
        context: T, the tokens of a window.
        batch_size: B, windows in a batch.
        seed: of the order, and of what the mix draws.
        mix: how much of the text becomes examples.
        short_epochs: in so many epochs at the beginning T is half the context, and B twice the
            batch size.

    Raises:
        InputError: too little text for one batch in every epoch, sizes below 1, or a seed below 0.
    """

    documents: Sequence[Document]
    tokenizer: Tokenizer
    _: KW_ONLY
    context: int
    batch_size: int
    seed: int = 0
    mix: Mix = field(default_factory=Mix)
    short_epochs: int = 0

    def __post_init__(self) -> None:
        for name in ("context", "batch_size", "seed", "short_epochs"):
            value = getattr(self, name)
            require(isinstance(value, (int, np.integer)), name, value, "an integer")
        at_least(1, context=self.context, batch_size=self.batch_size)
        at_least(0, seed=self.seed, short_epochs=self.short_epochs)
        # A token has at least one byte, and a character at most four. Examples of copying have the
        # context's length, so that too large a one would fill the memory before it is refused.
        if self.documents and self.context > sum(4 * len(one.text) + 1 for one in self.documents):
            raise _too_little(0, self.context, self.batch_size)
        self.epoch = -1
        self._open(0)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        """Return the next batch."""
        if self.index + self._size > len(self._order):
            self._open(self.epoch + 1)
        chosen = self._order[self.index : self.index + self._size]
        windows = torch.from_numpy(self._ids[chosen]).long()  # (B, T + 1)
        counted = torch.from_numpy(self._counted[chosen])
        labels = windows.masked_fill(~counted, IGNORE)
        self.index += self._size
        return Batch(windows[:, :-1], labels[:, 1:])

    @property
    def position(self) -> dict[str, int]:
        """Where the next batch starts; `seek` goes there."""
        return {"epoch": self.epoch, "index": self.index}

    def seek(self, position: dict[str, int]) -> None:
        """Go to a position that `position` gave.

        Raises:
            InputError: not a position, or one that this text does not have.
        """
        named = position if isinstance(position, dict) else {}
        found = [named.get(name) for name in ("epoch", "index")]
        if not all(type(number) is int and number >= 0 for number in found):
            raise InputError(
                f"position is {position!r}; it must hold an epoch and an index from 0 up"
            )
        if position["epoch"] != self.epoch:
            self._open(position["epoch"])
        if position["index"] > len(self._order) or position["index"] % self._size:
            raise InputError(
                f"position {position['index']} does not start a batch in the epoch's "
                f"{len(self._order)} windows, {self._size} in a batch; "
                "the text and its settings must be those the training began with"
            )
        self.index = position["index"]

    def describe(self) -> dict[str, Any]:
        """Return what the batches are made of; it differs for another text or another order."""
        sums = hashlib.sha256()
        for document in self.documents:
            for part in (document.name, document.text):
                # A file's name may hold bytes that are not UTF-8; Python keeps them as surrogates.
                sums.update(part.encode("utf-8", "surrogateescape") + b"\0")
        sums.update(self.tokenizer.backend.to_str().encode("utf-8"))
        if self.mix.programs:  # other families would give other programs
            sums.update("".join(one.code for one in islice(generate(0), 1000)).encode("utf-8"))
        names = ("context", "batch_size", "seed", "short_epochs")
        settings = {name: getattr(self, name) for name in names}
        return {"sha256": sums.hexdigest(), **settings, "mix": asdict(self.mix)}

    def __len__(self) -> int:
        """Return the number of batches in the present epoch."""
        return len(self._order) // self._size

    def _open(self, epoch: int) -> None:
        rng = np.random.default_rng([self.seed, epoch])
        context, size = self.context, self.batch_size
        if epoch < self.short_epochs:
            context, size = max(context // 2, 1), 2 * size
        made = make_epoch(self.documents, self.tokenizer, self.mix, context, rng)
        # Epochs are cut at different positions and differ by a window: count what any of them has,
        # so that a text that is too short is refused now and not after hours.
        windows = max(len(made.plain) - context, 0) // (context + 1)
        if windows < size:
            raise _too_little(windows, context, size)
        ids, counted = pack(made, context + 1, rng)
        order = rng.permutation(len(ids))
        # Last and in one statement: an interruption before it leaves the old epoch whole.
        self._ids, self._counted, self._order, self._size, self.epoch, self.index = (
            ids, counted, order, size, epoch, 0,
        )  # fmt: skip


def _too_little(windows: int, context: int, batch_size: int) -> InputError:
    return InputError(
        f"the text gives {windows} windows of {context} tokens, fewer than one batch of "
        f"{batch_size}; take more text or a smaller context or batch"
    )
