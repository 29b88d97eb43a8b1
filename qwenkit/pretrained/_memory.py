"""How many bytes a model takes, forecast from its config before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from qwenkit.config import BYTES_PER_VALUE, QwenConfig
from qwenkit.device import has_bfloat16_products
from qwenkit.errors import InputError, MemoryForecastError
from qwenkit.fast import stored_dtype
from qwenkit.files import format_bytes


@dataclass(frozen=True)
class Forecast:
    """Bytes that a running model takes.

    Attributes:
        weights: all parameters; a tied head counts once.
        cache: keys and values for `length` tokens of each sequence.
        activations: the most that a forward pass holds at a time, besides those.
    """

    weights: int
    cache: int
    activations: int

    @property
    def total(self) -> int:
        """What has to fit: weights, cache and activations."""
        return self.weights + self.cache + self.activations


def forecast(
    config: QwenConfig,
    dtype: str = "float32",
    length: int = 512,
    batch_size: int = 1,
    *,
    logits_to_keep: int = 0,
    eager_attention: bool = False,
    cache_dtype: str = "auto",
) -> Forecast:
    """Forecast the bytes of a forward pass over `length` tokens with a cache of that length.

    Activations are those of the CPU. One without bfloat16 instructions multiplies bfloat16, int8
    and int4 in float32, and holds more.

    Args:
        config: the model's.
        dtype: of weights, cache and activations; "int8" or "int4": of a quantized model, whose
            cache and activations are bfloat16, or float32 if its checkpoint is stored so.
        length: tokens per sequence, T = S.
        batch_size: sequences, B.
        logits_to_keep: positions that get logits (0: all), as in `QwenForCausalLM.forward`.
        eager_attention: whether scores and pattern are computed, as a trace asks for.
        cache_dtype: "auto": that of the activations; "int8": of a `qwenkit.fast.Int8Cache`.

    Raises:
        InputError: an unknown dtype, or a size below 1.
        ConfigError: int4 groups of 64 do not fill the rows of this config's matrices.
    """
    if dtype in ("int8", "int4"):
        config = config if config.quantization == dtype else config.quantized(dtype)
        dtype = config.dtype_with_int8
    if dtype not in BYTES_PER_VALUE:
        known = ", ".join(BYTES_PER_VALUE)
        raise InputError(f"dtype is {dtype!r}; it must be one of {known}, int8, int4")
    if length < 1 or batch_size < 1 or logits_to_keep < 0:
        raise InputError(
            f"length is {length}, batch_size {batch_size}, logits_to_keep {logits_to_keep}; "
            "they must be at least 1, 1 and 0"
        )
    stored = stored_dtype(cache_dtype, dtype)
    tokens, kept = batch_size * length, batch_size * (logits_to_keep or length)
    scores = tokens * length * config.num_attention_heads if eager_attention else 0
    return Forecast(
        weights=config.weight_bytes(dtype),
        cache=tokens * config.kv_bytes_per_token(stored),
        activations=_activations(config, dtype, tokens, scores, kept),
    )


def _activations(config: QwenConfig, dtype: str, tokens: int, scores: int, kept: int) -> int:
    """Return the bytes at the fullest moment of a forward pass.

    Args:
        config: the model's.
        dtype: of the activations.
        tokens: batch × length.
        scores: of eager attention in one layer; 0: attention is fused.
        kept: tokens that get logits.
    """
    size, float32 = BYTES_PER_VALUE[dtype], BYTES_PER_VALUE["float32"]
    upcast = dtype == "bfloat16" and not has_bfloat16_products()
    # A layer holds most either in the MLP (gate, up, SiLU(gate) and the product; if it is upcast, a
    # copy of the product too) or, in eager attention, with the scores (masked; softmax in float32,
    # and its input).
    mlp = tokens * config.intermediate_size * (4 * size + float32 * upcast)
    attention = scores * (size + (2 if size < float32 else 1) * float32)
    # Add the residual stream, its normalized copy, and the memory of attention's q, k, v and z,
    # which the allocator keeps for the next layer: eight tensors of the stream's size. It keeps
    # float32 copies too: three in the norm, and about five of the inputs and outputs of products
    # that are upcast.
    copies = (3 if size < float32 else 0) + 5 * upcast
    residual = tokens * config.hidden_size * (8 * size + copies * float32)
    in_logits = float32 if config.quantization else size
    logits = kept * config.vocab_size * in_logits  # last, when the layers' tensors are gone
    return residual + max(mlp, attention, logits)


def refuse_what_cannot_fit(config: QwenConfig, dtype: str, free: int, source: str) -> None:
    """Refuse, before loading, a model in a dtype that `free` bytes of memory cannot hold.

    Raises:
        MemoryForecastError: with the sizes, and what would fit instead.
    """
    need = forecast(config, dtype, logits_to_keep=1)
    if need.total <= free:
        return
    half = forecast(config, "bfloat16", logits_to_keep=1)
    if dtype == "float32" and half.total <= free:
        advice = f'load it with dtype="bfloat16" ({format_bytes(half.total)})'
    else:
        advice = "take a smaller model, or close other programs"
    raise MemoryForecastError(
        f"{source} in {dtype} needs about {format_bytes(need.total)} (weights "
        f"{format_bytes(need.weights)}, the rest for 512 tokens) and {format_bytes(free)} is "
        f"free; {advice}"
    )
