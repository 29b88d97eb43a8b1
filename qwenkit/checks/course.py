"""The exercises of the whole course, and which of them are solved."""

from __future__ import annotations

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
from qwenkit.checks.progress import RIGHT, TRIED, solved

TOPICS = (start, checkpoint, tokens, norm, rope, attention, gqa, mlp, layer, model, training)
EXERCISES = {name: title for topic in TOPICS for name, title in topic.EXERCISES.items()}


def progress() -> str:
    """Return a line for each exercise of the course: solved, tried, or still to come."""
    found = solved()
    marks = {RIGHT: "solved", TRIED: "tried"}
    lines = [
        f"{marks.get(found.get(name, ''), '-'):<7} {name}  {title}"
        for name, title in sorted(EXERCISES.items())
    ]
    done = sum(found.get(name) == RIGHT for name in EXERCISES)
    return "\n".join([*lines, f"{done} of {len(EXERCISES)} exercises solved"])
