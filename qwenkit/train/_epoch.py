"""One pass over the text: the plain stream, examples of several kinds, and windows of both.

An example is a list of ids with a flag for each: whether the loss counts it.
"""

import math
import re
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from qwenkit.errors import InputError
from qwenkit.programs.checking import passes
from qwenkit.programs.generator import generate
from qwenkit.tokenizer import Tokenizer
from qwenkit.train.documents import Document
from qwenkit.train.settings import Mix

SHORTEST = 8  # characters or tokens: nothing shorter is worth an example
FILLED = 0.25  # proportion of the programs that become infilling examples
_CHARACTERS = 2  # per token of the context; code has about three, so most examples fit into it
_AT_ONCE = 1000  # programs that are tokenized together, at most
_CHUNK = 640  # tokens wanted per program of a chunk; a program has about 64, so a tenth too many
_WORD_EDGE = re.compile(r"\b")
_IN_BRACKETS = re.compile(r"(?<=[(\[{])[^()\[\]{}\n]+(?=[)\]}])")  # innermost ones, in a line
_FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
_Example = tuple[np.ndarray, np.ndarray]


class Epoch(NamedTuple):
    """One pass over the text."""

    plain: np.ndarray  # ids of the whole text in one stream; may be cut anywhere
    examples: list[_Example]  # must not be cut


def make_epoch(
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    mix: Mix,
    context: int,
    rng: np.random.Generator,
) -> Epoch:
    """Shuffle the documents, and draw examples from them of at most `context` tokens.

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
    end = np.array([tokenizer.document_end], dtype=np.int32)
    shuffled = [documents[number].text for number in rng.permutation(len(documents))]
    plain = np.concatenate([part for ids in _encode(shuffled, tokenizer) for part in (ids, end)])
    parts: list[str] = []  # prefix, suffix, middle; prefix, suffix, middle; ...
    times = math.ceil(mix.fim)
    for text in shuffled * times:
        for chunk in _chunks(text, context, mix.fim_lengths, rng):
            if rng.random() < mix.fim / times and len(chunk) >= 2 * SHORTEST:
                parts += _split(chunk, rng)
    examples = _fim_examples(_encode(parts, tokenizer), tokenizer, context)
    examples += _repeats(int(mix.repeats * len(plain)), tokenizer, context, rng)
    examples += _programs(int(mix.programs * len(plain)), tokenizer, context, rng)
    return Epoch(plain, [examples[i] for i in rng.permutation(len(examples))])


def _encode(texts: list[str], tokenizer: Tokenizer) -> list[np.ndarray]:
    """Return the ids of many texts at once; special tokens in them are read as plain text."""
    return [np.array(ids, dtype=np.int32) for ids in tokenizer.encode_batch(texts, special=False)]


def _chunks(text: str, context: int, lengths: str, rng: np.random.Generator) -> list[str]:
    """Cut a text at line ends into chunks that make examples of many lengths.

    A gap to fill is often in a few lines. But a model that never saw a gap in a long text fills it
    worse than if it knew only the text before.
    """
    shortest, longest = 4 * SHORTEST, max(_CHARACTERS * context, 4 * SHORTEST)
    chunks = []
    chunk, wanted = "", 0.0
    for line in text.splitlines(keepends=True):
        if not chunk:
            drawn = rng.random()
            wanted = shortest + (longest - shortest) * drawn**2
            if lengths == "log-uniform":
                wanted = shortest * (longest / shortest) ** drawn
        chunk += line
        if len(chunk) >= wanted:
            chunks.append(chunk)
            chunk = ""
    return [*chunks, chunk] if chunk else chunks


def _split(chunk: str, rng: np.random.Generator) -> tuple[str, str, str]:
    """Return prefix, suffix and middle; the middle is of a kind that a person would ask for.

    Two in five middles are the inside of brackets, two in five are within a line, most of them up
    to its end, and one in five goes over several lines. Three in four of the latter two kinds begin
    and end at word edges.
    """
    kind = int(rng.integers(5))
    inside = [found.span() for found in _IN_BRACKETS.finditer(chunk)] if kind < 2 else []
    if inside:
        start, stop = inside[int(rng.integers(len(inside)))]
        return chunk[:start], chunk[stop:], chunk[start:stop]
    cuts = np.arange(1, len(chunk))
    edges = [edge.start() for edge in _WORD_EDGE.finditer(chunk, 1, len(chunk) - 1)]
    if rng.random() < 0.75 and len(edges) > 1:
        cuts = np.array(edges)
    start = int(rng.choice(cuts[:-1]))
    later = cuts[cuts > start]
    line_end = chunk.find("\n", start)
    if kind < 4 and line_end > start:
        within = later[later < line_end]
        to_end = rng.random() < 0.6 or not len(within)
        stop = line_end if to_end else int(rng.choice(within))
    else:
        stop = int(rng.choice(later))
    return chunk[:start], chunk[stop:], chunk[start:stop]


def _fim_examples(parts: list[np.ndarray], tokenizer: Tokenizer, context: int) -> list[_Example]:
    if not parts:
        return []
    marks = [*(tokenizer.special_id(name) for name in _FIM), tokenizer.document_end]
    before, after, fill, end = (np.array([mark], dtype=np.int32) for mark in marks)
    examples = []
    for prefix, suffix, middle in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        ids = np.concatenate([before, prefix, after, suffix, fill, middle, end])
        if len(ids) <= context:  # a chunk of many rare characters may be too long
            examples.append((ids, np.ones(len(ids), dtype=bool)))
    return examples


def _repeats(
    tokens: int, tokenizer: Tokenizer, context: int, rng: np.random.Generator
) -> list[_Example]:
    ordinary = np.setdiff1d(np.arange(tokenizer.num_tokens), list(tokenizer.special.values()))
    examples = []
    while tokens > 0:
        length = int(rng.integers(SHORTEST, max(context // 4, SHORTEST) + 1))
        once = rng.choice(ordinary, size=length).astype(np.int32)
        examples.append((np.concatenate([once, once]), np.repeat([False, True], length)))
        tokens -= 2 * length
    return examples


def _programs(
    tokens: int, tokenizer: Tokenizer, context: int, rng: np.random.Generator
) -> list[_Example]:
    """Draw programs that pass their tests; in an infilling example the gap is in the body."""
    if not tokens:
        return []
    drawn = filter(passes, generate(int(rng.integers(2**32))))
    end = np.array([tokenizer.document_end], dtype=np.int32)
    at_once = min(_AT_ONCE, tokens // _CHUNK + 1)
    examples: list[_Example] = []
    tried = 0
    while tokens > 0:
        tried += at_once
        whole: list[str] = []
        parts: list[str] = []  # prefix, suffix, middle; prefix, suffix, middle; ...
        for program in islice(drawn, at_once):
            if rng.random() < FILLED and len(program.body) >= 2 * SHORTEST:
                prefix, suffix, middle = _split(program.body, rng)
                parts += program.prompt + prefix, suffix, middle
            else:
                whole.append(program.code)
        ended = [np.concatenate([ids, end]) for ids in _encode(whole, tokenizer)]
        made = [(ids, np.ones(len(ids), dtype=bool)) for ids in ended if len(ids) <= context]
        made += _fim_examples(_encode(parts, tokenizer), tokenizer, context)
        examples += made
        if not examples and tried >= _AT_ONCE:
            raise InputError(f"context is {context}; generated programs are longer")
        tokens -= sum(len(ids) for ids, _ in made)
    return examples


def pack(epoch: Epoch, length: int, rng: np.random.Generator) -> _Example:
    """Fill windows with a proportion of the examples and with plain text, cut at a random start.

    In every second window, drawn at random, the examples come first: a model is asked to write a
    program where nothing precedes it.

    Returns:
        (N, length) ids and whether the loss counts each. What does not fill a window is left out:
        less than a window of plain text at each end, and the examples that no window had room for.
    """
    plain = epoch.plain[int(rng.integers(0, min(length, len(epoch.plain)))) :]
    total = len(plain) + sum(len(ids) for ids, _ in epoch.examples)
    per_window = len(epoch.examples) / max(total / length, 1.0)
    windows, flags = [], []
    start, used, due = 0, 0, 0.0
    while True:
        due += per_window
        first, room = used, length
        while due >= 1.0 and used < len(epoch.examples):
            if len(epoch.examples[used][0]) > room:
                break
            room -= len(epoch.examples[used][0])
            used += 1
            due -= 1.0
        if start + room > len(plain):
            break
        chosen = epoch.examples[first:used]
        text = (plain[start : start + room], np.ones(room, dtype=bool))
        parts = [*chosen, text] if chosen and rng.random() < 0.5 else [text, *chosen]
        windows.append(np.concatenate([ids for ids, _ in parts]))
        flags.append(np.concatenate([flag for _, flag in parts]))
        start += room
    if not windows:
        return np.zeros((0, length), np.int32), np.zeros((0, length), bool)
    return np.stack(windows), np.stack(flags)
