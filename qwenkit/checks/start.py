"""The checks of notebook 00, start here: the logits' shape, and one step of generation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from qwenkit._deprecated import renamed
from qwenkit.checks._judge import Case, Mistake, Verdict, judge
from qwenkit.checks._same import answer
from qwenkit.checks._samples import HALF_B
from qwenkit.config import QwenConfig
from qwenkit.model import QwenForCausalLM
from qwenkit.tokenizer import Tokenizer

EXERCISES = {"00.1": "the shape of the logits", "00.2": "one step of generation"}


def logits_shape(learner: Callable[..., tuple[int, ...]]) -> Verdict:
    """Check `learner(batch, tokens, config)`: the shape of the logits."""
    small = QwenConfig(320, 32, 64, 2, 4, 2)
    cases = [
        Case("two texts of seven tokens", (2, 7, HALF_B)),
        Case("another model", (3, 5, small)),
        Case("one text of one token", (1, 1, small)),
    ]
    praise = "a score for every token of the vocabulary, at every position of every text."
    mistakes = [*_SHAPE_MISTAKES, _same_for_every_model(learner, cases[0])]
    return judge("00.1", learner, _logits_shape, cases, mistakes, praise)


def most_likely_next(
    learner: Callable[..., str], model: QwenForCausalLM, tokenizer: Tokenizer
) -> Verdict:
    """Check `learner(text)`: the token that the model finds most likely after a text."""

    def logits(text: str) -> Tensor:
        return model(tokenizer(text).to(model.device))[0]

    def read(text: str, positions: slice) -> str:
        return tokenizer.decode(logits(text)[positions].argmax(dim=-1))

    last, first, all_of_them = slice(-1, None), slice(0, 1), slice(None)
    mistakes = [
        Mistake("an id", "that is a number, not a string. tokenizer.decode([number]) turns an id "
            "into text.",
            lambda text: logits(text)[-1].argmax().item()),
        Mistake("an id", "that is a tensor with an id, not a string. tokenizer.decode turns ids "
            "into text.",
            lambda text: logits(text)[-1].argmax()),
        Mistake("all scores", "argmax runs over all positions at once, so it counts through the "
            "whole table of scores. Take the scores of the last position first.",
            lambda text: int(logits(text).argmax())),
        Mistake("all scores", "argmax runs over the positions: for each token of the vocabulary it "
            "names a position. Take the scores of the last position first.",
            lambda text: logits(text).argmax(dim=0)),
        Mistake("all scores", "argmax runs over the wrong dimension of (B, T, V). Take the scores "
            "of the last position first.",
            lambda text: logits(text)[None].argmax(dim=1)),
        Mistake("an id", "that is a list with an id, not a string. tokenizer.decode turns ids "
            "into text.",
            lambda text: [logits(text)[-1].argmax().item()]),
        Mistake("second to last position", "you read the position before the last, which predicts "
            "the last token of the text. Use index -1.",
            lambda text: tokenizer.decode([int(logits(text)[-2].argmax())])),
        Mistake("first position", "the first position has seen one token only. Use the last one, "
            "index -1.",
            lambda text: read(text, first)),
        Mistake("all positions", "those are the predictions of all positions. Only the last one "
            "continues the text.",
            lambda text: read(text, all_of_them)),
        Mistake("with the prompt", "the token is right, but the text comes before it. Return only "
            "what is new.",
            lambda text: text + read(text, last)),
        Mistake("last token of the text", "that is the last token of the text itself: you decoded "
            "the ids that went in. Where are the scores of what comes next?",
            lambda text: tokenizer.decode(tokenizer(text)[0, -1:])),
        Mistake("least likely", "that token has the smallest score of all. Take the largest.",
            lambda text: tokenizer.decode(logits(text)[-1].argmin().reshape(1))),
    ]  # fmt: skip
    cases = [
        Case("a method", ("def size(self):\n    return",)),
        Case("a loop", ("for name in names:\n    print",)),
        Case("a single token", ("import",)),
    ]
    praise = "take the last position and its largest score, decode it, repeat: the model writes."
    return judge("00.2", learner, lambda text: read(text, last), cases, mistakes, praise)


def _logits_shape(batch: int, tokens: int, config: QwenConfig) -> tuple[int, int, int]:
    return batch, tokens, config.vocab_size


_SHAPE_MISTAKES = (
    Mistake("no positions", "the shape is a tuple of three numbers. Each position in each text has "
        "its own scores.",
        lambda batch, tokens, config: (batch, config.vocab_size)),
    Mistake("one text", "the shape is a tuple of three numbers. A batch holds several texts, and "
        "each has its own scores.",
        lambda batch, tokens, config: (tokens, config.vocab_size)),
    Mistake("tokens first", "the texts come first, then the tokens of each.",
        lambda batch, tokens, config: (tokens, batch, config.vocab_size)),
    Mistake("hidden size", "that is the width of the residual stream. Logits are as wide as the "
        "vocabulary.",
        lambda batch, tokens, config: (batch, tokens, config.hidden_size)),
    Mistake("ids' shape", "that is the shape of the ids. Each position has many scores: how many?",
        lambda batch, tokens, config: (batch, tokens)),
    Mistake("scores first", "the right numbers, in another order. The scores of one position come "
        "last.",
        lambda batch, tokens, config: (config.vocab_size, batch, tokens)),
    Mistake("one number", "that is the product: how many scores there are in total. A shape is a "
        "tuple of three numbers.",
        lambda batch, tokens, config: batch * tokens * config.vocab_size),
)  # fmt: skip


def _same_for_every_model(learner: Any, case: Case) -> Mistake:
    """Return the mistake of a last number that does not come from the config, whatever it is."""
    given = answer(learner, case.arguments) if callable(learner) else None
    width = given[-1] if isinstance(given, tuple | list) and len(given) == 3 else 0
    hint = "your last number is the same for every model, perhaps that of the loaded model. "
    return Mistake(
        "not from the config",
        hint + "Take it from `config`.",
        lambda batch, tokens, config: (batch, tokens, width),
    )


__getattr__ = renamed(__name__, likeliest_next="most_likely_next")
