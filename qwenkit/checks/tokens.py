"""The checks of notebook 02, tokens and embeddings: BPE, safe chats, bytes to text, neighbors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from qwenkit._deprecated import renamed
from qwenkit.checks._judge import Case, Mistake, Verdict, judge
from qwenkit.checks._tokens_encode import ENCODE_CASES, ENCODE_MISTAKES, Merges, encoded
from qwenkit.checks._tokens_neighbors import NEIGHBOR_CASES, NEIGHBOR_MISTAKES, nearest
from qwenkit.checks._tokens_text import TEXT_CASES, TEXT_MISTAKES, text_from
from qwenkit.checks._tokens_train import TRAIN_CASES, TRAIN_MISTAKES, trained
from qwenkit.checks._tokens_turn import TURN_MISTAKES, TURN_TEXTS, chat_turn
from qwenkit.tokenizer import Tokenizer

EXERCISES = {
    "02.1": "split a new word",
    "02.2": "train a byte-pair encoding",
    "02.3": "an untrusted message",
    "02b.1": "tokens to text",
    "02c.1": "nearest neighbors",
}
_NOT_IDS = "floating-point numbers"


def encode(learner: Callable[..., Sequence[str]]) -> Verdict:
    """Check `learner(word, merges)`: the pieces of a word, by merges in the order learned."""
    praise = "merges apply in the order in which they were learned, wherever the pair occurs."
    return judge("02.1", _list_too(learner), encoded, ENCODE_CASES, ENCODE_MISTAKES, praise)


def train(learner: Callable[..., Merges]) -> Verdict:
    """Check `learner(words, count)`: the pairs that are learned from counted words, in order."""
    praise = (
        "you trained a tokenizer. The published ones differ in speed, and in how much they read."
    )
    return judge("02.2", _list_too(learner), trained, TRAIN_CASES, TRAIN_MISTAKES, praise)


def safe_turn(learner: Callable[..., Sequence[int]], tokenizer: Tokenizer) -> Verdict:
    """Check `learner(tokenizer, text)`: the ids of a chat; the text cannot fake special tokens."""
    cases = [Case(label, (tokenizer, text)) for label, text in TURN_TEXTS.items()]
    praise = "the frame has the special tokens, and no message can add one."
    return _judge_ids("02.3", learner, chat_turn, cases, TURN_MISTAKES, praise)


def text_of(learner: Callable[..., str]) -> Verdict:
    """Check `learner(pieces)`: the text of tokens that are given as bytes."""
    praise = "first join all bytes, then decode. A token need not be a whole character."
    return judge("02b.1", learner, text_from, TEXT_CASES, TEXT_MISTAKES, praise)


def neighbors(learner: Callable[..., Sequence[int]]) -> Verdict:
    """Check `learner(table, number, count)`: the ids of the rows most like one, by cosine."""
    praise = "only the direction counts, and no row is its own neighbor."
    return _judge_ids("02c.1", learner, nearest, NEIGHBOR_CASES, NEIGHBOR_MISTAKES, praise)


__getattr__ = renamed(__name__, neighbours="neighbors")


def _judge_ids(
    exercise: str,
    learner: Callable[..., Any],
    right: Callable[..., Any],
    cases: Sequence[Case],
    mistakes: Sequence[Mistake],
    praise: str,
) -> Verdict:
    """Judge a function that returns ids: a list, a tuple or a tensor of them, also (1, T)."""
    known = [replace(mistake, function=_as_ids(mistake.function)) for mistake in mistakes]
    return judge(exercise, _as_ids(learner), _as_ids(right), cases, known, praise)


def _as_ids(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn what a function returns into a tensor of ids, if it is ids."""
    if not callable(function):
        return function

    @wraps(function)
    def as_ids(*arguments: Any) -> Any:
        found = function(*arguments)
        if isinstance(found, list | tuple) and all(type(one) in (int, float) for one in found):
            found = torch.tensor(found, dtype=None if found else torch.int64)
        if not isinstance(found, Tensor):
            return found
        if found.is_floating_point():
            return _NOT_IDS
        return found.cpu()[0] if found.dim() == 2 and len(found) == 1 else found.cpu()

    return as_ids


def _list_too(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a tuple that a function returns into a list."""
    if not callable(function):
        return function

    @wraps(function)
    def listed(*arguments: Any) -> Any:
        found = function(*arguments)
        return list(found) if isinstance(found, tuple) else found

    return listed
