"""The checks of notebook 00, start here: the logits' shape, and one step of writing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from qwenkit.checks.judge import Case, Mistake, Verdict, judge
from qwenkit.checks.same import answer
from qwenkit.config import QwenConfig
from qwenkit.model import QwenForCausalLM
from qwenkit.tokenizer import Tokenizer

EXERCISES = {"00.1": "the shape of the logits", "00.2": "one step of writing"}


def logits_shape(learner: Callable[..., tuple[int, ...]]) -> Verdict:
    """Check `learner(batch, tokens, config)`: the shape of the logits."""
    real = QwenConfig(151_936, 896, 4864, 24, 14, 2)
    small = QwenConfig(320, 32, 64, 2, 4, 2)
    cases = [
        Case("two texts of seven tokens", (2, 7, real)),
        Case("another model", (3, 5, small)),
        Case("one text of one token", (1, 1, small)),
    ]
    praise = "a score for every vocabulary row, at every place of every text."
    mistakes = [*SHAPE_MISTAKES, _same_for_every_model(learner, cases[0])]
    return judge("00.1", learner, _logits_shape, cases, mistakes, praise)


def likeliest_next(
    learner: Callable[..., str], model: QwenForCausalLM, tokenizer: Tokenizer
) -> Verdict:
    """Check `learner(text)`: the token that the model finds likeliest after a text."""

    def places(text: str) -> Tensor:
        return model(tokenizer(text).to(model.device))[0]  # type: ignore[no-any-return]

    def read(text: str, where: slice) -> str:
        return tokenizer.decode(places(text)[where].argmax(dim=-1))

    last, first, whole = slice(-1, None), slice(0, 1), slice(None)
    mistakes = [
        Mistake(
            "an id",
            "that is a number and no string. tokenizer.decode([number]) turns an id into text.",
            lambda text: places(text)[-1].argmax().item(),
        ),
        Mistake(
            "an id",
            "that is a tensor with an id and no string. tokenizer.decode turns ids into text.",
            lambda text: places(text)[-1].argmax(),
        ),
        Mistake(
            "first place",
            "the first place has seen one token only. Read the last one, index -1.",
            lambda text: read(text, first),
        ),
        Mistake(
            "all places",
            "those are the guesses of all places. Only the last continues the text.",
            lambda text: read(text, whole),
        ),
        Mistake(
            "with the prompt",
            "the token is right, but the text stands before it. Return what is new.",
            lambda text: text + read(text, last),
        ),
        Mistake(
            "last token read",
            "that is the last token of the text itself: the ids that went in were decoded. Where "
            "are the scores of what comes next?",
            lambda text: tokenizer.decode(tokenizer(text)[0, -1:]),
        ),
        Mistake(
            "unlikeliest",
            "that token has the smallest score of all. Take the largest.",
            lambda text: tokenizer.decode(places(text)[-1].argmin().reshape(1)),
        ),
    ]
    cases = [
        Case("a method", ("def size(self):\n    return",)),
        Case("a loop", ("for name in names:\n    print",)),
        Case("one token alone", ("import",)),
    ]
    praise = "read the last place, take the largest score, decode it. Repeat, and it writes."
    right = lambda text: read(text, last)  # noqa: E731
    return judge("00.2", learner, right, cases, mistakes, praise)


def _logits_shape(batch: int, tokens: int, config: QwenConfig) -> tuple[int, int, int]:
    return batch, tokens, config.vocab_size


SHAPE_MISTAKES = (
    Mistake(
        "no places",
        "three numbers in a tuple. Each place in each text has its own scores.",
        lambda batch, tokens, config: (batch, config.vocab_size),
    ),
    Mistake(
        "one text",
        "three numbers in a tuple. Several texts go in side by side, and each has its own scores.",
        lambda batch, tokens, config: (tokens, config.vocab_size),
    ),
    Mistake(
        "tokens first",
        "texts come first, then the tokens of each.",
        lambda batch, tokens, config: (tokens, batch, config.vocab_size),
    ),
    Mistake(
        "stream's width",
        "that is the residual stream's width. Logits are as wide as the vocabulary.",
        lambda batch, tokens, config: (batch, tokens, config.hidden_size),
    ),
    Mistake(
        "ids' shape",
        "that is the shape of the ids. At each place stand many scores: how many?",
        lambda batch, tokens, config: (batch, tokens),
    ),
    Mistake(
        "scores first",
        "the right numbers, in another order. The scores of one place come last.",
        lambda batch, tokens, config: (config.vocab_size, batch, tokens),
    ),
    Mistake(
        "one number",
        "that is the product: how many scores there are in all. A shape is three numbers in a "
        "tuple.",
        lambda batch, tokens, config: batch * tokens * config.vocab_size,
    ),
)


def _same_for_every_model(learner: Any, case: Case) -> Mistake:
    """Return the mistake of a last number that does not come from the config, whatever it is."""
    given = answer(learner, case.arguments) if callable(learner) else None
    width = given[-1] if isinstance(given, tuple | list) and len(given) == 3 else 0
    return Mistake(
        "not from the config",
        "your last number is the same for every model, perhaps the loaded model's. Take it from "
        "`config`.",
        lambda batch, tokens, config: (batch, tokens, width),
    )
