"""Checks for the exercises: each runs the reader's function and names the mistake.

`print(qk.checks.rope.rotate(rotate))` judges the function `rotate` that the reader wrote;
`qk.checks.progress()` lists the exercises of the whole course, and the mistakes that were named.
"""

from qwenkit.checks import (
    attention,
    cache,
    checkpoint,
    gqa,
    inside,
    layer,
    lora,
    mlp,
    model,
    norm,
    precision,
    programs,
    rewards,
    rope,
    sampling,
    serving,
    start,
    tokens,
    training,
)
from qwenkit.checks._judge import Case, Mistake, Verdict, is_right, judge
from qwenkit.checks._predictions import Predictions, outcome, predict, predictions
from qwenkit.checks._progress import Progress, recorded

__all__ = [
    "EXERCISES",
    "Case",
    "Mistake",
    "Predictions",
    "Progress",
    "Verdict",
    "attention",
    "cache",
    "checkpoint",
    "gqa",
    "inside",
    "is_right",
    "judge",
    "layer",
    "lora",
    "mlp",
    "model",
    "norm",
    "outcome",
    "precision",
    "predict",
    "predictions",
    "programs",
    "progress",
    "rewards",
    "rope",
    "sampling",
    "serving",
    "start",
    "tokens",
    "training",
]

_TOPICS = (
    start, checkpoint, tokens, norm, rope, attention, gqa, mlp, layer, model, cache, sampling,
    training, lora, inside, programs, rewards, precision, serving,
)  # fmt: skip
EXERCISES = {name: title for topic in _TOPICS for name, title in topic.EXERCISES.items()}


def progress() -> Progress:
    """Return what is solved, tried or still to come, and the mistakes: a table in a notebook."""
    return Progress(EXERCISES, recorded())
