"""A KV cache in int8: 56 % of the bytes of bfloat16, so room for 1.8 times the tokens.

The D values of a key or value are rounded as a row of an int8 weight is (`fast.int8`).
Their scales are stored next to them, as in the blocks of GGUF's Q8_0, which llama.cpp offers for
its cache, too.

Some channels of Qwen2.5's keys have biases of 100 and more, next to others below 1. With one scale
per key these make the steps of all others coarse. They lie together, in pairs that RoPE hardly
rotates, so it is enough that 16 neighbors share a scale. Qwen2.5-Coder-0.5B in bfloat16, on 1,000
tokens of Python's textwrap.py (0.7438 bits per byte with an ordinary cache):

    numbers per scale    bits per byte    bytes per token
    64, the whole vector    +1.64 %           6,336
    32                      +0.61 %           6,528
    16                      +0.03 %           6,912    (bfloat16: 12,288)

tests/bench/int8_cache.py measures a model of one's own. With tiny-coder in float32, on 2,000 tokens
of code, it is +0.01 %, with the same most likely token at 99.5 % of them; of three greedy texts,
165 of 192 tokens are the same; a decode step after 500 tokens took 2.9 times as long.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.fast.int8 import dequantize_rows, quantize_rows
from qwenkit.model import KVCache


class Int8Cache(KVCache):
    """A `KVCache` that stores int8, and gives attention floats of the model's dtype.

    Keys are rounded after RoPE. All queries attend to rounded keys and values, those of the same
    forward pass too: so logits do not depend on how a text is divided into forward passes. While a
    layer's attention computes, all its keys and values are floats again, at each step. The compiled
    kernels read floats only, so they step aside.

    A number is stored with an error of half a step at most; a step is the largest number of its
    group / 127, rounded to bfloat16. Reading rounds to the model's dtype. Zeros stay zeros. Where
    a group holds NaN or infinity, none of its numbers is finite when it is read; the dtype's very
    largest numbers (the last 0.4 %) may become infinite.

    Attributes:
        keys: one tensor per layer, (B, KV, max_length, D + 2·G) int8: D numbers, then the bytes of
            the bfloat16 scales of their G groups (`QwenConfig.cache_groups`).
        values: the same for values.

    Args:
        config: as of `KVCache`.
        batch_size: number of sequences.
        max_length: tokens there is room for.

    Raises:
        InputError: a size below 1.
    """

    def update(
        self, layer: int, keys: Float[Tensor, "B KV T D"], values: Float[Tensor, "B KV T D"]
    ) -> tuple[Float[Tensor, "B KV S D"], Float[Tensor, "B KV S D"]]:
        """Round and write one layer's new keys and values; return old and new together, as floats.

        Raises:
            InputError: see `KVCache.update`; but the dtype may be another than before.
        """
        self._check(layer, keys, values)
        groups = self.config.cache_groups
        small_keys, small_values = pack(keys, groups), pack(values, groups)  # (B, KV, T, D + 2·G)
        if not self.keys:
            self._allocate(small_keys)
        end = self.length + keys.shape[2]
        self.keys[layer][:, :, self.length : end] = small_keys
        self.values[layer][:, :, self.length : end] = small_values
        k = unpack(self.keys[layer][:, :, :end], groups, keys.dtype)  # (B, KV, S, D)
        v = unpack(self.values[layer][:, :, :end], groups, values.dtype)  # (B, KV, S, D)
        return k, v

    def _held(self, keys: Tensor) -> tuple[torch.dtype, torch.device]:
        return keys.dtype, super()._held(keys)[1]


def pack(vectors: Float[Tensor, "*B D"], groups: int) -> Int8[Tensor, "*B D+2*G"]:
    """Round vectors to int8, and append the bytes of their scales.

    Args:
        vectors: (..., D) in any float dtype.
        groups: G, how many parts of each vector have a scale of their own; it divides D.
    """
    dim = vectors.shape[-1]
    small, scale = quantize_rows(vectors.reshape(-1, dim), dim // groups)  # (N, D), (N, G)
    packed = torch.cat([small, scale.view(torch.int8)], dim=1)  # (N, D + 2·G)
    return torch.unflatten(packed, 0, vectors.shape[:-1])


def unpack(
    packed: Int8[Tensor, "*B D+2*G"], groups: int, dtype: torch.dtype
) -> Float[Tensor, "*B D"]:
    """Return the vectors that `pack` has rounded, in a float dtype."""
    flat = packed.flatten(0, -2)  # (N, D + 2·G)
    small, scale = flat[:, : -2 * groups], flat[:, -2 * groups :]  # (N, D), (N, 2·G)
    scale = scale.contiguous().view(torch.bfloat16)  # (N, G)
    exact = torch.promote_types(dtype, torch.bfloat16)  # float16 does not hold every scale
    vectors = dequantize_rows(small, scale.to(exact)).to(dtype)  # (N, D)
    return torch.unflatten(vectors, 0, packed.shape[:-1])


def stored_dtype(cache_dtype: str, dtype: str) -> str:
    """Return the dtype of a cache as `QwenConfig.kv_bytes_per_token` takes it.

    Args:
        cache_dtype: "auto": that of the model; or "int8".
        dtype: of the model.

    Raises:
        InputError: another `cache_dtype`.
    """
    if cache_dtype not in ("auto", "int8"):
        raise InputError(
            f"cache_dtype is {cache_dtype!r}; it must be 'auto' (the model's dtype) or 'int8'"
        )
    return dtype if cache_dtype == "auto" else "int8"
