"""The KV cache: keys and values of earlier tokens, so that each is computed only once."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from qwenkit.config import QwenConfig
from qwenkit.errors import CacheFullError, InputError


class KVCache:
    """Keys and values of every layer, in buffers of fixed length that are written in place.

    It stores the kv heads once, before they are repeated for the query heads: that is what
    grouped-query attention saves. Keys are stored already rotated by RoPE. The cache owns its
    length; the model advances it once per forward pass, after all layers have written.

    Args:
        config: gives layers, kv heads and head_dim.
        batch_size: number of sequences.
        max_length: tokens there is room for. The buffers are made at the first forward pass, in
            its dtype and on its device.

    Raises:
        InputError: a size below 1.
    """

    def __init__(self, config: QwenConfig, batch_size: int = 1, max_length: int = 512) -> None:
        for name, value in (("batch_size", batch_size), ("max_length", max_length)):
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}; it must be an integer of at least 1")
        self.config = config
        self.batch_size = batch_size
        self.max_length = max_length
        self.length = 0
        self.keys: list[Tensor] = []  # one per layer, (B, KV, max_length, D)
        self.values: list[Tensor] = []
        self._written: tuple[int, set[int]] = (-1, set())  # length before a pass, layers since

    def check_room(self, batch_size: int, queries: int) -> None:
        """Refuse a forward pass that this cache cannot take, before anything is computed.

        Raises:
            InputError: another batch size than the cache was made for.
            CacheFullError: more tokens than there is room for.
        """
        if batch_size != self.batch_size:
            raise InputError(
                f"input_ids holds {batch_size} sequences and the cache {self.batch_size}; "
                f"make the cache with batch_size={batch_size}"
            )
        if self.length + queries > self.max_length:
            raise CacheFullError(
                f"the cache holds {self.length} of {self.max_length} tokens and {queries} more "
                f"should be added; make it with max_length={self.length + queries} or more, "
                "or free it with reset() or trim(length)"
            )
        self._written = (self.length, set())

    def update(
        self, layer: int, keys: Float[Tensor, "B KV T D"], values: Float[Tensor, "B KV T D"]
    ) -> tuple[Float[Tensor, "B KV S D"], Float[Tensor, "B KV S D"]]:
        """Write one layer's new keys and values after the old; return old and new together.

        The result is a view of the buffers: nothing is copied.

        Raises:
            InputError: gradients are asked for, the cache was made for another model, dtype or
                device, or two layers have the same number.
        """
        self._check(layer, keys, values)
        if not self.keys:
            self._allocate(keys)
        end = self.length + keys.shape[2]
        self.keys[layer][:, :, self.length : end] = keys
        self.values[layer][:, :, self.length : end] = values
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]  # (B, KV, S, D)

    def advance(self, queries: int) -> None:
        """Count the tokens that every layer has written; called once per forward pass."""
        self.length += queries

    def reset(self) -> None:
        """Forget every token; the buffers stay."""
        self.length = 0

    def trim(self, length: int) -> None:
        """Keep only the first `length` tokens.

        Raises:
            InputError: fewer than 0, or more than there are.
        """
        if not 0 <= length <= self.length:
            raise InputError(f"length is {length}; it must lie between 0 and {self.length}")
        self.length = length

    def reorder(self, rows: Sequence[int]) -> None:
        """Make row i what row rows[i] was; a row may be used several times, or not at all.

        Beam search continues some rows twice and drops others; a batch drops its finished rows.
        The batch size becomes the number of rows. The buffers are copied, and replaced all at once:
        an interruption before that leaves the cache as it was.

        Raises:
            InputError: no rows, or one that does not exist.
        """
        rows = list(rows)
        inside = all(type(row) is int and 0 <= row < self.batch_size for row in rows)
        if not rows or not inside:
            raise InputError(
                f"rows is {rows}; it must hold row numbers from 0 to {self.batch_size - 1}, "
                "at least one"
            )
        with torch.inference_mode(False):  # as in _allocate
            keys = [buffer[rows] for buffer in self.keys]  # (B, KV, max_length, D)
            values = [buffer[rows] for buffer in self.values]
        self.keys, self.values, self.batch_size = keys, values, len(rows)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers; 0 before the first forward pass."""
        return sum(buffer.nbytes for buffer in (*self.keys, *self.values))

    def _check(self, layer: int, keys: Tensor, values: Tensor) -> None:
        if keys.requires_grad or values.requires_grad:
            raise InputError(
                "the cache cannot take part in backpropagation; call the model under "
                "torch.no_grad(), or without a cache to train"
            )
        config = self.config
        made_for = config.num_key_value_heads, config.head_dim
        if (keys.shape[1], keys.shape[3]) != made_for or layer >= config.num_hidden_layers:
            raise InputError(
                f"layer {layer} of the model gives keys of {keys.shape[1]} heads of "
                f"{keys.shape[3]}; the cache was made for {config.num_hidden_layers} layers with "
                f"{made_for[0]} heads of {made_for[1]}: make it with this model's config"
            )
        dtype, device = self._held(keys)
        if (dtype, device) != (keys.dtype, keys.device):
            raise InputError(
                f"the cache holds {dtype} on {device} and the model gives {keys.dtype} on "
                f"{keys.device}; make a new cache for this model"
            )
        before, written = self._written
        if before == self.length:
            if layer in written:
                raise InputError(
                    f"two layers of the model have the number {layer}, and the cache keeps one "
                    "layer's keys per number: give each its own (layer.self_attn.layer), or run "
                    "the model without a cache"
                )
            written.add(layer)

    def _held(self, keys: Tensor) -> tuple[torch.dtype, torch.device]:
        """Return the dtype and the device that new keys must have; an empty cache takes any."""
        held = self.keys[0] if self.keys else keys
        return held.dtype, held.device

    def _allocate(self, like: Tensor) -> None:
        """Make the buffers for keys and values like these, (B, KV, T, D)."""
        shape = (self.batch_size, like.shape[1], self.max_length, like.shape[3])

        def buffers() -> list[Tensor]:
            layers = range(self.config.num_hidden_layers)
            return [torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in layers]

        with torch.inference_mode(False):  # so that they can be written outside of it, too
            self.keys, self.values = buffers(), buffers()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.length} of {self.max_length} tokens, "
            f"batch {self.batch_size}, {self.nbytes:,} bytes)"
        )
