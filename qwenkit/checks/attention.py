"""The checks of notebook 05, attention: weights, the whole core, joined heads, blocks of keys."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from qwenkit.checks._attention_blocks import BLOCK_MISTAKES, in_blocks, within_a_block
from qwenkit.checks._attention_heads import ATTEND_MISTAKES, JOIN_MISTAKES, joined_heads
from qwenkit.checks._attention_scores import WEIGHT_MISTAKES, causal_weights
from qwenkit.checks._judge import LOOSE, Case, Verdict, judge
from qwenkit.checks._samples import in_bfloat16, normal, not_contiguous
from qwenkit.model import eager_attention

EXERCISES = {
    "05.1": "from scores to attention weights",
    "05.2": "attention for all heads",
    "05.3": "join the heads",
    "05.4": "attention in blocks of keys",
}


def weights(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(scores)`, causal attention weights (B, H, T, S): exercise 05.1."""
    plain = normal(1, 2, 4, 4)
    cases = [
        Case("one text, two heads, four tokens", (plain,)),
        Case("two texts, three heads", (normal(2, 3, 5, 5),)),
        Case("as many heads as tokens", (normal(1, 3, 3, 3),)),
        Case("a single token", (normal(1, 2, 1, 1),)),
        Case("three new tokens after four", (normal(2, 2, 3, 7),)),
        Case("one new token after five", (normal(1, 2, 1, 6),)),
        Case("not contiguous", (plain.transpose(-2, -1),)),
        in_bfloat16(normal(1, 2, 5, 5)),
        Case("large scores", (100 * plain,)),
        Case("all scores far below zero", (plain - 20_000,)),
    ]
    praise = "the future has weight 0, and every row sums to 1, no matter how large the scores are."
    return judge("05.1", learner, causal_weights, cases, WEIGHT_MISTAKES, praise, LOOSE)


def attend(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(q, k, v)`, T new tokens over S of them: exercise 05.2."""

    def case(label: str, tokens: int, past: int, batch: int = 1, scale: float = 1) -> Case:
        q = scale * normal(batch, 2, tokens, 6)
        return Case(label, (q, *_pair(batch, 2, past + tokens, 6, seed=1)))

    q, k, v = case("", 3, 4, batch=2).arguments
    cases = [
        case("a whole text of four tokens", 4, 0),
        case("one new token after five", 1, 5),
        case("three new tokens after four", 3, 4),
        case("two texts", 2, 6, batch=2),
        case("a text of one token", 1, 0),
        not_contiguous(q, k, v),
        in_bfloat16(q / 2, k, v),
        case("large scores", 4, 0, batch=2, scale=-1000),  # token 0: far below zero
    ]
    praise = "all heads at once, and new tokens see all earlier ones: this works with a cache."
    return judge("05.2", learner, eager_attention, cases, ATTEND_MISTAKES, praise, LOOSE)


def join(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(z, weight)`, joined heads through o_proj, (B, T, C): exercise 05.3."""
    z, weight = normal(2, 3, 5, 4), normal(12, 12, seed=1)
    cases = [
        Case("one text, two heads, three tokens", (normal(1, 2, 3, 4), normal(8, 8, seed=1))),
        Case("two texts, three heads", (z, weight)),
        Case("C is not H·D", (z, normal(7, 12, seed=1))),
        Case("a single token", (normal(1, 3, 1, 4), weight)),
        Case("one head", (normal(1, 1, 5, 4), normal(4, 4, seed=1))),
        Case("equal numbers of heads, tokens and dimensions", (normal(1, 4, 4, 4), normal(16, 16))),
        Case("not contiguous", (*not_contiguous(z).arguments, weight)),
        in_bfloat16(z, weight),
    ]
    praise = "each token's heads are concatenated in order, and o_proj mixes them."
    return judge("05.3", learner, joined_heads, cases, JOIN_MISTAKES, praise, LOOSE)


def attend_in_blocks(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(q, k, v, block)`, T tokens over S in blocks of keys: exercise 05.4."""

    def case(label: str, tokens: int, past: int, block: int, scale: float = 1) -> Case:
        q = scale * normal(2, 2, tokens, 6)
        return Case(label, (q, *_pair(2, 2, past + tokens, 6, seed=1), block))

    q, k, v, _ = case("", 9, 3, 5).arguments
    cases = [
        case("eight tokens in two blocks of four", 8, 0, 4),
        case("ten tokens in blocks of three", 10, 0, 3),
        case("blocks of one key", 5, 0, 1),
        case("a block larger than the text", 5, 0, 16),
        case("one new token after ten, blocks of four", 1, 10, 4),
        case("three new tokens after eight, blocks of four", 3, 8, 4),
        Case("not contiguous", (*not_contiguous(q, k, v).arguments, 5)),
        Case("bfloat16", (*in_bfloat16(q / 2, k, v).arguments, 5)),
        case("large scores", 9, 0, 4, scale=1000),
        case("large scores of the other sign", 9, 0, 4, scale=-1000),
    ]
    praise = "exact attention, with the scores of one block at a time: the idea of FlashAttention."
    named = ("scaled_dot_product_attention", "eager_attention", "fused_attention")
    watched = within_a_block(learner) if callable(learner) else learner
    return judge("05.4", watched, in_blocks, cases, BLOCK_MISTAKES, praise, LOOSE, forbidden=named)


def _pair(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    return normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
