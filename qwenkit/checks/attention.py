"""The checks of notebook 05, attention: scores, shares, joined heads, and new tokens of a cache."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from qwenkit.checks.judge import Case, Mistake, Verdict, judge
from qwenkit.checks.samples import normal, turned
from qwenkit.model import eager_attention

EXERCISES = {
    "05.1": "scores",
    "05.2": "from scores to shares",
    "05.3": "heads side by side",
    "05.4": "new tokens behind old ones",
}
LOOSE = 1e-4  # in bfloat16 the order of two roundings shows; no mistake below is that small
NEVER = float("-inf")


def scores(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(q, k)`, the scaled scores (B, H, T, S): exercise 05.1."""
    q, k = normal(2, 3, 5, 8), normal(2, 3, 5, 8, seed=1)
    cases = [
        Case("one text, two heads", (normal(1, 2, 3, 4), normal(1, 2, 3, 4, seed=1))),
        Case("two texts, three heads", (q, k)),
        Case("two queries, six keys", (normal(1, 2, 2, 16), normal(1, 2, 6, 16, seed=1))),
        Case("one token alone", (normal(1, 4, 1, 9), normal(1, 4, 1, 9, seed=1))),
        Case("as many tokens as dimensions", (normal(1, 2, 4, 4), normal(1, 2, 4, 4, seed=1))),
        Case("not contiguous", (turned(q), turned(k))),
        Case("bfloat16", (q.bfloat16(), k.bfloat16())),
        Case("large values", (1e3 * q, 1e3 * k)),
    ]
    praise = "every question against every offer, and a spread that does not grow with D."
    return judge("05.1", learner, _scores, cases, SCORE_MISTAKES, praise, LOOSE)


def pattern(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(scores)`, causal shares (B, H, T, T): exercise 05.2."""
    plain = normal(1, 2, 4, 4)
    cases = [
        Case("one text, two heads, four tokens", (plain,)),
        Case("two texts, three heads", (normal(2, 3, 5, 5),)),
        Case("as many heads as tokens", (normal(1, 3, 3, 3),)),
        Case("one token alone", (normal(1, 2, 1, 1),)),
        Case("not contiguous", (plain.transpose(-2, -1),)),
        Case("bfloat16", (normal(1, 2, 5, 5).bfloat16(),)),
        Case("large scores", (100 * plain,)),
        Case("all scores far below zero", (plain - 20_000,)),
    ]
    praise = "no share for the future, and every row adds up to 1, however large the scores."
    return judge("05.2", learner, _pattern, cases, PATTERN_MISTAKES, praise, LOOSE)


def join(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(z, weight)`, joined heads through o_proj, (B, T, C): exercise 05.3."""
    z, weight = normal(2, 3, 5, 4), normal(12, 12, seed=1)
    cases = [
        Case("one text, two heads, three tokens", (normal(1, 2, 3, 4), normal(8, 8, seed=1))),
        Case("two texts, three heads", (z, weight)),
        Case("C is not H·D", (z, normal(7, 12, seed=1))),
        Case("one token alone", (normal(1, 3, 1, 4), weight)),
        Case("one head", (normal(1, 1, 5, 4), normal(4, 4, seed=1))),
        Case("as many heads as tokens as dimensions", (normal(1, 4, 4, 4), normal(16, 16))),
        Case("not contiguous", (turned(z), weight)),
        Case("bfloat16", (z.bfloat16(), weight.bfloat16())),
    ]
    praise = "each token's heads stand side by side, in order, and o_proj mixes them."
    return judge("05.3", learner, _join, cases, JOIN_MISTAKES, praise, LOOSE)


def attend(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(q, k, v)`, T new tokens over S of them: exercise 05.4."""

    def case(words: str, tokens: int, past: int, batch: int = 1, scale: float = 1) -> Case:
        new, all_of_them = (batch, 2, tokens, 4), (batch, 2, past + tokens, 4)
        k, v = normal(*all_of_them, seed=1), normal(*all_of_them, seed=2)
        return Case(words, (scale * normal(*new), k, v))

    q, k, v = case("", 3, 4, batch=2).arguments
    cases = [
        case("a whole text of four tokens", 4, 0),
        case("one new token behind five", 1, 5),
        case("three new tokens behind four", 3, 4),
        case("two texts", 2, 6, batch=2),
        case("a text of one token", 1, 0),
        Case("not contiguous", (turned(q), turned(k), turned(v))),
        Case("bfloat16", tuple(each.bfloat16() for each in (q / 2, k, v))),
        case("large scores", 3, 4, scale=100),
    ]
    praise = "new tokens see all the old ones and no later one: this works with a cache."
    return judge("05.4", learner, _attend, cases, ATTEND_MISTAKES, praise, LOOSE)


# --- 05.1 ---


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return _products(q, k) / math.sqrt(q.shape[-1])


def _products(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-2, -1)  # (B, H, T, S)


def _divided(by: Callable[[Tensor, Tensor], float]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda q, k: _products(q, k) / by(q, k)


SCORE_MISTAKES = (
    Mistake(
        "no scale",
        "the products are right and the division is missing. What happens to their spread when D "
        "grows?",
        _products,
    ),
    Mistake(
        "divided by D",
        "you divide by D itself, so all scores come close to 0 and attention spreads evenly. How "
        "did the spread grow when D went from 4 to 16?",
        _divided(lambda q, k: q.shape[-1]),
    ),
    Mistake(
        "multiplied",
        "you multiply by the square root of D: the spread grows twice over.",
        lambda q, k: _products(q, k) * math.sqrt(q.shape[-1]),
    ),
    Mistake(
        "divided by the number of keys",
        "your divisor is the root of how many keys there are, so a score would change with the "
        "length of the text. A dot product adds up how many terms?",
        _divided(lambda q, k: math.sqrt(k.shape[-2])),
    ),
    Mistake(
        "divided by all heads",
        "you divide by the square root of H·D. Each head computes its own dot products: how long "
        "are the lists it multiplies?",
        _divided(lambda q, k: math.sqrt(q.shape[1] * q.shape[-1])),
    ),
    Mistake(
        "keys ask",
        "your rows are keys and your columns are queries. Row t is to hold the scores of token t's "
        "question.",
        lambda q, k: _scores(k, q),
    ),
    Mistake(
        "dimensions, not tokens",
        "you add up over the tokens, so each dimension meets each other dimension. Which of the "
        "two must be transposed?",
        lambda q, k: q.transpose(-2, -1) @ k / math.sqrt(q.shape[-1]),
    ),
    Mistake(
        "reshaped",
        "the shape is right, but `reshape` or `view` does not turn a table: it reads the same "
        "numbers in the same order. Each column must be one key.",
        lambda q, k: (
            q @ k.reshape(*k.shape[:-2], k.shape[-1], k.shape[-2]) / math.sqrt(q.shape[-1])
        ),
    ),
    Mistake(
        "each with itself",
        "you compare each query with the key of its own token. Every query is to meet every key: "
        "that is a table.",
        lambda q, k: (q * k).sum(dim=-1) / math.sqrt(q.shape[-1]),
    ),
    Mistake(
        "cosine",
        "you divide each list by its length, so only directions count. Here a long key is a loud "
        "offer: divide by the square root of D alone.",
        lambda q, k: _products(F.normalize(q, dim=-1), F.normalize(k, dim=-1)),
    ),
    Mistake(
        "softmax already",
        "these are shares, not scores. Softmax comes later, after the mask.",
        lambda q, k: _scores(q, k).softmax(dim=-1),
    ),
)


# --- 05.2 ---


def _masked(scores: Tensor, diagonal: int = 0, fill: float = NEVER) -> Tensor:
    """Fill what lies above a diagonal; 0: the future."""
    return scores.masked_fill(~_lower(scores, diagonal), fill)


def _lower(scores: Tensor, diagonal: int = 0) -> Tensor:
    return torch.ones_like(scores, dtype=torch.bool).tril(diagonal)


def _pattern(scores: Tensor) -> Tensor:
    return _masked(scores).softmax(dim=-1)


def _first_reads_itself(scores: Tensor) -> Tensor:
    shares = _masked(scores, -1).softmax(dim=-1).nan_to_num()
    shares[..., 0, 0] = 1
    return shares


def _by_hand(powers: Tensor) -> Tensor:
    return powers / powers.sum(dim=-1, keepdim=True)


ZERO = (
    "a masked score of 0 is an ordinary score: e to the power of 0 is 1, so the future still gets "
    "a share. Which score gives a share of exactly 0?"
)
NOT_ITSELF = (
    "a token does not see itself in yours, and the first one has nothing to read at all. Is the "
    "diagonal the future?"
)
TOO_LARGE = (
    "right for small scores. For large ones e to their power is infinite, or 0 in every place of a "
    "row. `softmax` takes the largest score of a row away first; do so, or use it."
)
PATTERN_MISTAKES = (
    Mistake(
        "no mask",
        "your rows are right for a model that may read everything. Here token 0 gives shares to "
        "tokens that come after it.",
        lambda scores: scores.softmax(dim=-1),
    ),
    Mistake(
        "sees its successor",
        "each token sees one token too many: its successor, which is the answer it is to guess. "
        "How many shares of row 0 may be above 0?",
        lambda scores: _masked(scores, 1).softmax(dim=-1),
    ),
    Mistake("not itself", NOT_ITSELF, lambda scores: _masked(scores, -1).softmax(dim=-1)),
    Mistake("not itself", NOT_ITSELF, _first_reads_itself),
    Mistake("not itself", NOT_ITSELF, lambda scores: _masked(scores, -1).softmax(-1).nan_to_num()),
    Mistake(
        "the future only",
        "you have masked the past and left the future. `masked_fill` fills where the mask is True: "
        "what does True mean in yours?",
        lambda scores: scores.masked_fill(_lower(scores), NEVER).softmax(dim=-1),
    ),
    Mistake(
        "the future only",
        "your triangle is the upper one: each token reads itself and what comes later. Row 0 is "
        "the first token; what may it read?",
        lambda scores: scores.masked_fill(~_lower(scores).transpose(-2, -1), NEVER).softmax(-1),
    ),
    Mistake("zero before softmax", ZERO, lambda scores: _masked(scores, fill=0.0).softmax(dim=-1)),
    Mistake(
        "a mask of yes and no, added",
        "you add the mask to the scores. Adding 0 or 1 shifts a score; it forbids nothing.",
        lambda scores: (scores + _lower(scores)).softmax(dim=-1),
    ),
    Mistake(
        "mask after softmax",
        "your rows add up to less than 1: the future is crossed out after it has taken its share. "
        "Which of the two steps must come first?",
        lambda scores: scores.softmax(dim=-1).tril(),
    ),
    Mistake(
        "over queries",
        "your columns add up to 1. Each token divides its own attention among the keys: along "
        "which axis do these lie?",
        lambda scores: _masked(scores).softmax(dim=-2),
    ),
    Mistake(
        "over heads",
        "you let the heads compete with one another: softmax runs along their axis. Each head has "
        "rows of its own that add up to 1.",
        lambda scores: _masked(scores).softmax(dim=1),
    ),
    Mistake(
        "over everything",
        "one table adds up to 1 as a whole. Each row is to.",
        lambda scores: _masked(scores).flatten(-2).softmax(dim=-1).view(scores.shape),
    ),
    Mistake(
        "no softmax",
        "the mask is right, and these are still scores. What turns them into shares?",
        _masked,
    ),
    Mistake(
        "not low enough",
        "right, except where all scores lie far below zero: there your filler is larger than they "
        "are, and the future wins. Which number is below every other?",
        lambda scores: _masked(scores, fill=-1e4).softmax(dim=-1),
    ),
    Mistake("too large to exponentiate", TOO_LARGE, lambda scores: _by_hand(_masked(scores).exp())),
    Mistake(
        "too large to exponentiate",
        TOO_LARGE,
        lambda scores: _by_hand(scores.exp() * _lower(scores)),  # an infinite future times 0: NaN
    ),
    Mistake(
        "float32 comes back",
        "the shares are right, but they come back in float32. Whoever multiplies them by bfloat16 "
        "values gets an error: return the dtype that came in.",
        lambda scores: _masked(scores).softmax(dim=-1, dtype=torch.float32),
    ),
)


# --- 05.3 ---


def _join(z: Tensor, weight: Tensor) -> Tensor:
    return _side_by_side(z) @ weight.T


def _side_by_side(z: Tensor) -> Tensor:
    return z.transpose(1, 2).flatten(2)  # (B, T, H·D)


def _like_tokens(z: Tensor) -> Tensor:
    return z.reshape(z.shape[0], z.shape[2], -1)  # (B, T, H·D), numbers of several tokens in a row


JOIN_MISTAKES = (
    Mistake(
        "heads not moved",
        "the shape is right and the numbers belong to other tokens: `reshape` reads in order, and "
        "in order come all tokens of head 0. What must change places before?",
        lambda z, weight: _like_tokens(z) @ weight.T,
    ),
    Mistake(
        "heads interleaved",
        "each token's numbers are all there, in the wrong order: first of every head, second of "
        "every head. A head is a run of D numbers.",
        lambda z, weight: z.permute(0, 2, 3, 1).flatten(2) @ weight.T,
    ),
    Mistake(
        "weight not turned",
        "a stored weight has a row for each output, so x has to meet its rows: multiply by its "
        "transpose. With a square weight the mistake raises no error.",
        lambda z, weight: _side_by_side(z) @ weight,
    ),
    Mistake(
        "not projected",
        "the heads stand side by side, but nothing mixes them yet. Where does `weight` come in?",
        lambda z, weight: _side_by_side(z),
    ),
    Mistake(
        "heads reversed",
        "your last head comes first. `weight` was trained with head 0 in front.",
        lambda z, weight: _side_by_side(z.flip(1)) @ weight.T,
    ),
    Mistake(
        "heads added",
        "you add the heads up before you project. Each has columns of its own in `weight`: set "
        "them side by side.",
        lambda z, weight: z.sum(dim=1) @ weight[:, : z.shape[-1]].T,
    ),
    Mistake(
        "every head the same columns",
        "you give every head the first D columns of `weight`, or their average. Head h has the "
        "columns from h·D on.",
        lambda z, weight: z.mean(dim=1).repeat(1, 1, z.shape[1]) @ weight.T,
    ),
    Mistake(
        "tokens last",
        "your result is (B, C, T). The stream has a row for each token: (B, T, C).",
        lambda z, weight: weight @ z.transpose(2, 3).flatten(1, 2),
    ),
)


# --- 05.4 ---


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return eager_attention(q, k, v)


def _seen_up_to(ahead: Callable[[int, int], int]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return attention whose mask ends `ahead(T, S)` places right of the main diagonal."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return _masked(_scores(q, k), ahead(q.shape[2], k.shape[2])).softmax(dim=-1) @ v

    return attend


def _past(q: Tensor, k: Tensor) -> int:
    return k.shape[2] - q.shape[2]


ATTEND_MISTAKES = (
    Mistake(
        "no offset",
        "right without a cache. With one, your first new token sees only the first old one: the "
        "triangle begins at the left. At which place does query row 0 stand?",
        _seen_up_to(lambda new, all_of_them: 0),
    ),
    Mistake(
        "offset backwards",
        "your triangle moves to the left when there are old tokens, so rows are left with nothing "
        "to read. Which way must it move?",
        _seen_up_to(lambda new, all_of_them: new - all_of_them),
    ),
    Mistake(
        "sees its successor",
        "each token sees one too many. The last of the new tokens hides it, since nothing comes "
        "after it: look at the row before.",
        _seen_up_to(lambda new, all_of_them: all_of_them - new + 1),
    ),
    Mistake(
        "not itself",
        "each token stops one place before itself. Draw it for one new token behind five: which "
        "of the six may it read?",
        _seen_up_to(lambda new, all_of_them: all_of_them - new - 1),
    ),
    Mistake(
        "no mask",
        "right for one new token, which may read everything. Of several, the first sees the last.",
        lambda q, k, v: _scores(q, k).softmax(dim=-1) @ v,
    ),
    Mistake(
        "old tokens forgotten",
        "your queries read the new tokens only. The old ones are what the cache is kept for.",
        lambda q, k, v: _attend(q, k[:, :, _past(q, k) :], v[:, :, _past(q, k) :]),
    ),
    Mistake(
        "mask after softmax",
        "your shares add up to less than 1: the future is crossed out after softmax.",
        lambda q, k, v: _scores(q, k).softmax(dim=-1).tril(_past(q, k)) @ v,
    ),
    Mistake(
        "zero before softmax",
        ZERO,
        lambda q, k, v: _masked(_scores(q, k), _past(q, k), 0.0).softmax(dim=-1) @ v,
    ),
    Mistake(
        "over queries",
        "softmax runs along the queries. One new token alone would then give a full share to "
        "every key.",
        lambda q, k, v: _masked(_scores(q, k), _past(q, k)).softmax(dim=-2) @ v,
    ),
    Mistake(
        "no scale",
        "the scores are not divided by the square root of D.",
        lambda q, k, v: _masked(_products(q, k), _past(q, k)).softmax(dim=-1) @ v,
    ),
    Mistake(
        "keys are passed on",
        "you add up keys. A key is an offer, there to be found by; what is passed on is the value.",
        lambda q, k, v: _attend(q, k, k),
    ),
)
