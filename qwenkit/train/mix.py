"""What an epoch is made of: the plain text, and examples of infilling and of copying.

An example is a list of ids with a flag for each: whether the loss counts it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qwenkit.errors import InputError
from qwenkit.tokenizer import Tokenizer
from qwenkit.train.documents import Document

SHORTEST = 8  # characters or tokens: nothing shorter is worth an example
EDGE = re.compile(r"\b")  # of a word
INSIDE = re.compile(r"(?<=[(\[{])[^()\[\]{}\n]+(?=[)\]}])")  # innermost brackets, in a line


@dataclass(frozen=True)
class Mix:
    """How much of the text is turned into examples.

    Args:
        fim: share of the text that is shown once more as fill-in-the-middle examples (Bavarian et
            al. 2022, "Efficient Training of Language Models to Fill in the Middle"), in Qwen's
            order prefix, suffix, middle.
        repeats: how many tokens of copying examples there are for each token of text: random
            tokens, then the same again. Only the second time counts in the loss, for the first
            cannot be foreseen. They teach to look back for what came before (Olsson et al. 2022).
    """

    fim: float = 0.0
    repeats: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("fim", self.fim), ("repeats", self.repeats)):
            if type(value) not in (int, float) or not 0.0 <= value <= 1.0:
                raise InputError(f"{name} is {value!r}; it must be a share from 0 to 1")


@dataclass(frozen=True)
class Epoch:
    """One pass over the text.

    Attributes:
        plain: ids of the whole text in one stream; may be cut anywhere.
        examples: (ids, counted) of each example; must not be cut.
    """

    plain: np.ndarray
    examples: list[tuple[np.ndarray, np.ndarray]]


def make_epoch(
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    mix: Mix,
    context: int,
    rng: np.random.Generator,
) -> Epoch:
    """Shuffle the documents, and draw examples from them that fit the context.

    Args:
        documents: the text.
        tokenizer: with Qwen's special tokens.
        mix: how much becomes examples.
        context: the longest example in tokens.
        rng: decides everything that is random.

    Raises:
        InputError: no documents, or copying examples that cannot fit the context.
    """
    if not documents:
        raise InputError("there are no documents; at least one is needed")
    if mix.repeats and context < 2 * SHORTEST:
        raise InputError(
            f"context is {context}; copying examples take at least {2 * SHORTEST} tokens, "
            "so set repeats to 0 or the context higher"
        )
    end = np.array([tokenizer.special_id("<|endoftext|>")], dtype=np.int32)
    shuffled = [documents[number].text for number in rng.permutation(len(documents))]
    encoded = _encode(shuffled, tokenizer)
    plain = np.concatenate([part for ids in encoded for part in (ids, end)])
    parts: list[str] = []  # prefix, suffix, middle; prefix, suffix, middle; ...
    for text in shuffled:
        for piece in _pieces(text, context, rng) if mix.fim else ():
            if rng.random() < mix.fim and len(piece) >= 2 * SHORTEST:
                parts += _cut_out_a_middle(piece, rng)
    examples = _fim_examples(_encode(parts, tokenizer), tokenizer, context)
    examples += _repeats(int(mix.repeats * len(plain)), tokenizer, context, rng)
    order = rng.permutation(len(examples))
    return Epoch(plain, [examples[i] for i in order])


def _encode(texts: list[str], tokenizer: Tokenizer) -> list[np.ndarray]:
    """Return the ids of many texts at once; special tokens in them are read as letters."""
    tokenizer.backend.encode_special_tokens = True
    found = tokenizer.backend.encode_batch_fast(texts, add_special_tokens=False)
    return [np.array(one.ids, dtype=np.int32) for one in found]


def _pieces(text: str, context: int, rng: np.random.Generator) -> list[str]:
    """Cut a text at line ends into pieces that make examples of many lengths.

    Lengths are drawn evenly in their logarithm: what is asked of a model is often a few lines.
    """
    shortest, longest = 4 * SHORTEST, max(context, 4 * SHORTEST)
    pieces = []
    piece, wanted = "", 0.0
    for line in text.splitlines(keepends=True):
        if not piece:
            wanted = shortest * (longest / shortest) ** rng.random()
        piece += line
        if len(piece) >= wanted:
            pieces.append(piece)
            piece = ""
    return [*pieces, piece] if piece else pieces


def _cut_out_a_middle(piece: str, rng: np.random.Generator) -> tuple[str, str, str]:
    """Return prefix, suffix and middle, of a kind that a person would ask for.

    A third of the middles are what stands between brackets, a third are within a line, most of
    them up to its end, and a third go over several lines. Three times in four the cuts of the
    latter two are at words' edges.
    """
    kind = int(rng.integers(3))
    inside = [found.span() for found in INSIDE.finditer(piece)] if kind == 0 else []
    if inside:
        start, stop = inside[int(rng.integers(len(inside)))]
        return piece[:start], piece[stop:], piece[start:stop]
    places = np.arange(1, len(piece))
    edges = [edge.start() for edge in EDGE.finditer(piece, 1, len(piece) - 1)]
    if rng.random() < 0.75 and len(edges) > 1:
        places = np.array(edges)
    start = int(rng.choice(places[:-1]))
    later = places[places > start]
    line_end = piece.find("\n", start)
    if kind < 2 and line_end > start:
        within = later[later < line_end]
        to_end = rng.random() < 0.6 or not len(within)
        stop = line_end if to_end else int(rng.choice(within))
    else:
        stop = int(rng.choice(later))
    return piece[:start], piece[stop:], piece[start:stop]


def _fim_examples(
    parts: list[np.ndarray], tokenizer: Tokenizer, context: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    marks = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|endoftext|>")
    before, after, fill, end = (
        np.array([tokenizer.special[mark]], dtype=np.int32) for mark in marks
    )
    examples = []
    for prefix, suffix, middle in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        ids = np.concatenate([before, prefix, after, suffix, fill, middle, end])
        if len(ids) <= context:  # a piece of many rare characters may be too long
            examples.append((ids, np.ones(len(ids), dtype=bool)))
    return examples


def _repeats(
    tokens: int, tokenizer: Tokenizer, context: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    ordinary = np.setdiff1d(np.arange(tokenizer.num_tokens), list(tokenizer.special.values()))
    examples = []
    while tokens > 0:
        length = int(rng.integers(SHORTEST, max(context // 4, SHORTEST) + 1))
        once = rng.choice(ordinary, size=length).astype(np.int32)
        counted = np.repeat([False, True], length)
        examples.append((np.concatenate([once, once]), counted))
        tokens -= 2 * length
    return examples
