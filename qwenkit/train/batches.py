"""Packing text into windows of one length, and handing them out in a seeded order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.tokenizer import Tokenizer
from qwenkit.train.documents import Document
from qwenkit.train.losses import IGNORE
from qwenkit.train.mix import Epoch, Mix, make_epoch


class Batch(NamedTuple):
    """What one forward takes, and what it is compared with.

    Attributes:
        input_ids: (B, T) the tokens.
        labels: (B, T) the token that follows each; `IGNORE` where nothing counts.
    """

    input_ids: Int[Tensor, "B T"]
    labels: Int[Tensor, "B T"]


class Batches:
    """An endless row of batches: epoch after epoch, each shuffled anew.

    Every batch is a function of the seed and the position alone, so that a training that goes on
    from a saved position sees what it would have seen. Windows are packed full: no padding, but
    a window may hold the end of one text and the start of another.

    Args:
        documents: the text.
        tokenizer: with Qwen's special tokens.
        context: T, the tokens of a window.
        batch_size: B, windows in a batch.
        seed: of the order, and of what the mix draws.
        mix: how much of the text becomes examples.

    Raises:
        InputError: too little text for one batch in every epoch, sizes below 1, or a seed below 0.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        *,
        context: int,
        batch_size: int,
        seed: int = 0,
        mix: Mix | None = None,
    ) -> None:
        least = (("context", context, 1), ("batch_size", batch_size, 1), ("seed", seed, 0))
        for name, value, low in least:
            if value < low:
                raise InputError(f"{name} is {value}; it must be at least {low}")
        self.documents = documents
        self.tokenizer = tokenizer
        self.context = context
        self.batch_size = batch_size
        self.seed = seed
        self.mix = mix or Mix()
        self.epoch = -1
        self._open(0)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        """Return the next batch."""
        if self.index + self.batch_size > len(self._order):
            self._open(self.epoch + 1)
        chosen = self._order[self.index : self.index + self.batch_size]
        self.index += self.batch_size
        windows = torch.from_numpy(self._ids[chosen]).long()  # (B, T + 1)
        counted = torch.from_numpy(self._counted[chosen])
        labels = windows.masked_fill(~counted, IGNORE)
        return Batch(windows[:, :-1], labels[:, 1:])

    @property
    def position(self) -> dict[str, int]:
        """Where the next batch starts; `seek` goes there."""
        return {"epoch": self.epoch, "index": self.index}

    def seek(self, position: dict[str, int]) -> None:
        """Go to a position that `position` gave.

        Raises:
            InputError: what is no position, or one that this text does not have.
        """
        named = position if isinstance(position, dict) else {}
        found = [named.get(name) for name in ("epoch", "index")]
        if not all(type(number) is int and number >= 0 for number in found):
            raise InputError(
                f"position is {position!r}; it must hold an epoch and an index from 0 up"
            )
        if position["epoch"] != self.epoch:
            self._open(position["epoch"])
        if position["index"] > len(self._order) or position["index"] % self.batch_size:
            raise InputError(
                f"position {position['index']} is no batch's start among the epoch's "
                f"{len(self._order)} windows, {self.batch_size} in a batch; "
                "the text and its settings must be those the training began with"
            )
        self.index = position["index"]

    def describe(self) -> dict[str, Any]:
        """Return what the batches are made of: another text, or another order, differs in it."""
        sums = hashlib.sha256()
        for document in self.documents:
            for part in (document.name, document.text):
                # A file's name may hold bytes that are no UTF-8; Python keeps them as surrogates.
                sums.update(part.encode("utf-8", "surrogateescape") + b"\0")
        sums.update(self.tokenizer.backend.to_str().encode("utf-8"))
        return {
            "sha256": sums.hexdigest(),
            "context": self.context,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "mix": asdict(self.mix),
        }

    def __len__(self) -> int:
        """Return the number of batches in the present epoch."""
        return len(self._order) // self.batch_size

    def _open(self, epoch: int) -> None:
        rng = np.random.default_rng([self.seed, epoch])
        made = make_epoch(self.documents, self.tokenizer, self.mix, self.context, rng)
        self._ids, self._counted = pack(made, self.context + 1, rng)
        self._order = rng.permutation(len(self._ids))
        self.epoch, self.index = epoch, 0
        # Epochs are cut at other places and differ by a window: count what is there in any of them,
        # so that a text too short is refused now and not after hours.
        windows = max(len(made.plain) - self.context, 0) // (self.context + 1)
        if windows < self.batch_size:
            raise InputError(
                f"the text gives {windows} windows of {self.context} tokens, fewer than "
                f"one batch of {self.batch_size}; take more text or a smaller context or batch"
            )


def pack(epoch: Epoch, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Fill windows: plain text first, then as many whole examples as fall to each.

    Args:
        epoch: the plain stream and the examples.
        length: of a window.
        rng: draws where the plain stream is cut first.

    Returns:
        (N, length) ids and whether the loss counts each. What does not fill a window is left out:
        less than a window of plain text at each end, and the examples that no window had room for.
    """
    plain = epoch.plain[int(rng.integers(0, min(length, len(epoch.plain)))) :]
    total = len(plain) + sum(len(ids) for ids, _ in epoch.examples)
    share = len(epoch.examples) / max(total / length, 1.0)  # examples for each window
    windows, flags = [], []
    start, waiting, due = 0, 0, 0.0
    while True:
        due += share
        chosen: list[tuple[np.ndarray, np.ndarray]] = []
        room = length
        while due >= 1.0 and waiting < len(epoch.examples):
            example = epoch.examples[waiting]
            if len(example[0]) > room:
                break
            chosen.append(example)
            room -= len(example[0])
            waiting += 1
            due -= 1.0
        if start + room > len(plain):
            break
        text = plain[start : start + room]
        start += room
        windows.append(np.concatenate([text, *(ids for ids, _ in chosen)]))
        flags.append(np.concatenate([np.ones(room, dtype=bool), *(flag for _, flag in chosen)]))
    if not windows:
        return np.zeros((0, length), np.int32), np.zeros((0, length), bool)
    return np.stack(windows), np.stack(flags)
