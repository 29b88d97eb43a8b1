"""The whole model: embed tokens, pass them through the layers, score every next token."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from qwenkit.config import QwenConfig
from qwenkit.errors import InputError
from qwenkit.model.cache import KVCache
from qwenkit.model.decoder import DecoderLayer
from qwenkit.model.inputs import check_input_ids, real_tokens
from qwenkit.model.mask import attention_mask as layer_mask
from qwenkit.model.mask import positions
from qwenkit.model.norm import RMSNorm
from qwenkit.model.rope import RotaryEmbedding
from qwenkit.trace import Trace, tap


class QwenModel(nn.Module):
    """Embedding, decoder layers and the final norm: token ids in, residual stream out."""

    def __init__(self, config: QwenConfig) -> None:
        super().__init__()
        if not isinstance(config, QwenConfig):
            raise InputError(f"config is a {type(config).__name__}; it must be a QwenConfig")
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = RotaryEmbedding(config)

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        *,
        cache: KVCache | None = None,
        attention_mask: Tensor | None = None,
        trace: Trace | None = None,
    ) -> Float[Tensor, "B T C"]:
        """Return the normalized residual stream; arguments as in `QwenForCausalLM.forward`."""
        past = 0 if cache is None else cache.length
        check_input_ids(input_ids, self.config, self.embed_tokens.weight.device, past)
        real = real_tokens(attention_mask, input_ids, past)
        length, device = input_ids.shape[1], input_ids.device
        if cache is not None:
            cache.check_room(input_ids.shape[0], length)
        if trace is not None:
            trace.begin(self.config.num_hidden_layers)

        x = tap(trace, "embed", self.embed_tokens(input_ids))  # (B, T, C)
        rope = self.rotary_emb(positions(length, past, real, device), x.dtype)  # 2 × (B, T, D)
        masks = {  # at most two: with and without the sliding window
            window: layer_mask(length, past, real=real, window=window, device=device)
            for window in {self.config.window(i) for i in range(len(self.layers))}
        }
        for i, layer in enumerate(self.layers):
            at_layer = None if trace is None else trace.at_layer(i)
            x = layer(x, rope, masks[self.config.window(i)], cache, at_layer)  # (B, T, C)
        x = tap(trace, "final_norm", self.norm(x))
        if cache is not None:
            cache.advance(length)
        return x


class QwenForCausalLM(nn.Module):
    """A Qwen2 language model: token ids in, logits out.

    Attributes:
        model: embedding, layers and final norm.
        lm_head: the head; None where it is tied, that is, where the embedding serves as the head.
        stop_ids: tokens that stop generation.
        num_tokens: ids from here on are padding rows of the vocabulary: not tokens, never sampled.
    """

    __call__: Callable[..., Tensor]  # for type checkers, which nn.Module tells nothing

    def __init__(self, config: QwenConfig) -> None:
        super().__init__()
        self.config = config
        self.model = QwenModel(config)
        self.lm_head: nn.Linear | None = None
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.stop_ids: tuple[int, ...] = config.eos_token_id
        self.num_tokens: int = config.vocab_size

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype it computes in: that of the norms, as matrices may be quantized."""
        return self.model.norm.weight.dtype

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        *,
        cache: KVCache | None = None,
        attention_mask: Tensor | None = None,
        trace: Trace | None = None,
        logits_to_keep: int = 0,
    ) -> Float[Tensor, "B L V"]:
        """Return the logits of the next token at each position.

        Args:
            input_ids: (B, T) token ids.
            cache: earlier tokens; T counts the new ones alone.
            attention_mask: (B, S) 1 for real tokens, 0 for padding, the cached ones included.
            trace: records and edits activations.
            logits_to_keep: only the last this many positions (0: all), as in transformers. The
                head is a quarter of the work at 0.5B, and generation reads one position.

        Returns:
            (B, T, V), or (B, logits_to_keep, V).

        Raises:
            InputError: shapes, dtypes, devices or ids that do not fit.
            CacheFullError: no room in the cache.
        """
        if type(logits_to_keep) is not int or logits_to_keep < 0:
            raise InputError(f"logits_to_keep is {logits_to_keep!r}; it must be 0 (all) or more")
        if not isinstance(cache, KVCache | None):
            raise InputError(f"cache is a {type(cache).__name__}; it must be a KVCache, or None")
        past = 0 if cache is None else cache.length
        try:
            x = self.model(input_ids, cache=cache, attention_mask=attention_mask, trace=trace)
            x = x[:, -logits_to_keep:]  # -0 is 0: all of them
            return tap(trace, "logits", self.head(x))  # (B, T, V)
        except BaseException:  # Ctrl-C, too: the cache is as before, so the call can be repeated
            if cache is not None:
                cache.trim(past)
            raise

    def head(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T V"]:
        """Score every token; a tied head uses the embedding's matrix (Press and Wolf 2017)."""
        if self.lm_head is None:
            return F.linear(x, self.model.embed_tokens.weight)
        logits: Tensor = self.lm_head(x)
        return logits
