"""The checks of notebook 00, start here: one step of generation, and the loop around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from qwenkit._deprecated import renamed
from qwenkit.checks._judge import Case, Mistake, Verdict, judge
from qwenkit.checks._start_loop import LOOP_CASES, LOOP_MISTAKES, continued
from qwenkit.model import QwenForCausalLM
from qwenkit.tokenizer import Tokenizer

EXERCISES = {"00.1": "one step of generation", "00.2": "the generation loop"}


def most_likely_next(
    learner: Callable[..., str], model: QwenForCausalLM, tokenizer: Tokenizer
) -> Verdict:
    """Check `learner(model, tokenizer, text)`: the token that is most likely after a text."""
    texts = {
        "a method": "def size(self):\n    return",
        "a loop": "for name in names:\n    print",
        "a single token": "import",
    }
    cases = [Case(label, (model, tokenizer, text)) for label, text in texts.items()]
    praise = "take the last position and its largest score, decode it, repeat: the model writes."
    return judge("00.1", learner, _most_likely, cases, _NEXT_MISTAKES, praise)


def continue_ids(learner: Callable[..., list[int]]) -> Verdict:
    """Check `learner(model, ids, count, stop)`: the new ids, greedily, up to a stop token."""
    praise = "this loop is all that generation is; what comes later makes it fast and varied."
    return judge("00.2", learner, continued, LOOP_CASES, LOOP_MISTAKES, praise, 0.0, ("generate",))


# --- 00.1 ---


def _logits(model: Any, tokenizer: Any, text: str) -> Tensor:
    logits: Tensor = model(tokenizer(text).to(model.device))[0]
    return logits


def _at(positions: slice) -> Callable[[Any, Any, str], str]:
    """Return the decoding of the best tokens at some positions."""

    def read(model: Any, tokenizer: Any, text: str) -> str:
        best = _logits(model, tokenizer, text)[positions].argmax(dim=-1)
        return str(tokenizer.decode(best))

    return read


_most_likely = _at(slice(-1, None))
_NEXT_MISTAKES = (
    Mistake("an id", "that is a number, not a string. tokenizer.decode([number]) turns an id "
        "into text.",
        lambda *given: _logits(*given)[-1].argmax().item()),
    Mistake("an id", "that is a tensor with an id, not a string. tokenizer.decode turns ids "
        "into text.",
        lambda *given: _logits(*given)[-1].argmax()),
    Mistake("all scores", "argmax runs over all positions at once, so it counts through the "
        "whole table of scores. Take the scores of the last position first.",
        lambda *given: int(_logits(*given).argmax())),
    Mistake("all scores", "argmax runs over the positions: for each token of the vocabulary it "
        "names a position. Take the scores of the last position first.",
        lambda *given: _logits(*given).argmax(dim=0)),
    Mistake("all scores", "argmax runs over the wrong dimension of (B, T, V). Take the scores "
        "of the last position first.",
        lambda *given: _logits(*given)[None].argmax(dim=1)),
    Mistake("an id", "that is a list with an id, not a string. tokenizer.decode turns ids "
        "into text.",
        lambda *given: [_logits(*given)[-1].argmax().item()]),
    Mistake("the score", "that is the largest score itself. At which number in the vocabulary does "
        "it stand?",
        lambda *given: _logits(*given)[-1].max().item()),
    Mistake("second to last position", "you read the position before the last, which predicts "
        "the last token of the text. Which position has seen the whole text?",
        lambda model, tokenizer, text: tokenizer.decode(
            [int(_logits(model, tokenizer, text)[-2].argmax())])),
    Mistake("first position", "the first position has seen one token only. Which position has seen "
        "the whole text?",
        _at(slice(0, 1))),
    Mistake("all positions", "those are the predictions of all positions. Only the last one "
        "continues the text.",
        _at(slice(None))),
    Mistake("with the prompt", "the token is right, but the text comes before it. Return only "
        "what is new.",
        lambda model, tokenizer, text: text + _most_likely(model, tokenizer, text)),
    Mistake("last token of the text", "that is the last token of the text itself: you decoded "
        "the ids that went in. Where are the scores of what comes next?",
        lambda model, tokenizer, text: tokenizer.decode(tokenizer(text)[0, -1:])),
    Mistake("least likely", "that token has the smallest score of all. Take the largest.",
        lambda model, tokenizer, text: tokenizer.decode(
            _logits(model, tokenizer, text)[-1].argmin().reshape(1))),
)  # fmt: skip

__getattr__ = renamed(__name__, likeliest_next="most_likely_next")
