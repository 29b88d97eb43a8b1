"""What the exercises call: it runs the reader's function, and names the mistake.

`print(qk.checks.rope.rotate(rotate))` judges the function `rotate` that the reader wrote;
`print(qk.checks.progress())` lists the exercises of the whole course.
"""

from qwenkit.checks import (
    attention,
    checkpoint,
    gqa,
    layer,
    mlp,
    model,
    norm,
    rope,
    start,
    tokens,
    training,
)
from qwenkit.checks.course import progress
from qwenkit.checks.judge import Case, Mistake, Verdict, judge

__all__ = [
    "Case",
    "Mistake",
    "Verdict",
    "attention",
    "checkpoint",
    "gqa",
    "judge",
    "layer",
    "mlp",
    "model",
    "norm",
    "progress",
    "rope",
    "start",
    "tokens",
    "training",
]
