"""A completion cut in the wrong place, each way that is often met (exercise 15.2)."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from qwenkit.checks._judge import Mistake
from qwenkit.programs import first_function


def without_end(cutting: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return the function, its answer without whitespace at the end, which does not count."""

    @wraps(cutting)
    def judged(text: str) -> Any:
        found = cutting(text)
        return found.rstrip() if isinstance(found, str) else found

    return judged


def _until(stops: Callable[[str, int], bool], also: int = 0) -> Callable[[str], str]:
    """Return a cut before the first line that stops it, given with its number; `also`: after."""

    def cutting(text: str) -> str:
        lines = text.split("\n")
        ends = [i for i, line in enumerate(lines) if stops(line, i)]
        return "\n".join(lines[: ends[0] + also] if ends else lines).rstrip()

    return cutting


def _starts(*words: str) -> Callable[[str, int], bool]:
    return lambda line, _: line.startswith(words)


def _flush(line: str, _: int) -> bool:
    return bool(line) and not line[0].isspace()


def _before_a_dedent(text: str) -> str:
    lines = text.split("\n")
    depths = [len(line) - len(line.lstrip()) if line.strip() else None for line in lines]
    kept, before = [], 0
    for line, depth in zip(lines, depths, strict=True):
        if depth is not None and depth < before:
            break
        before = before if depth is None else depth
        kept.append(line)
    return "\n".join(kept).rstrip()


CUT_MISTAKES = (
    Mistake("unchanged", "nothing is cut. What the model wrote after the function is run, too.",
        lambda text: text.rstrip()),
    Mistake("blank line", "you cut at the first blank line. A function may hold blank lines, and "
        "the next statement may follow without one.",
        lambda text: text.split("\n\n")[0].rstrip()),
    Mistake("two blank lines", "you cut at two blank lines. Models do not always write them.",
        lambda text: text.split("\n\n\n")[0].rstrip()),
    Mistake("def only", "you cut at the next def. A class, a print or an assert may follow, too.",
        _until(_starts("def"))),
    Mistake("def and class only", "you cut at def and class. A print, a comment or a decorator "
        "may follow, too. What do all these lines have in common?",
        _until(_starts("def", "class"))),
    Mistake("a list of words", "you cut at a list of words, and a line that begins with another "
        "one is kept. What do all lines outside the function have in common?",
        _until(_starts("def", "class", "print", "if", "assert"))),
    Mistake("any def", "you cut at a def inside the function, too. Look at the indentation.",
        lambda text: text.split("def ")[0].rstrip()),
    Mistake("first return", "you cut after the first return. A function may have several.",
        _until(lambda line, _: line.strip().startswith("return"), also=1)),
    Mistake("last return", "you keep everything up to the last return, which may belong to "
        "another function.",
        lambda text: (text[: text.rfind("return")] + text[text.rfind("return"):].split("\n")[0])),
    Mistake("one line", "you keep one line. A body may have many.", lambda text:
        text.split("\n")[0].rstrip()),
    Mistake("one line too many", "you keep the first line that is outside the function.",
        _until(_flush, also=1)),
    Mistake("indentation lost", "the function ends in the right place, but the spaces at the start "
        "are gone. After the prompt, that is an IndentationError.",
        lambda text: first_function(text).strip()),
    Mistake("the rest", "you return what comes after the function.",
        lambda text: text[len(first_function(text)):].rstrip()),
    Mistake("any dedent", "you cut where the indentation gets smaller. A loop ends that way, too; "
        "the function ends at a line in column 0.",
        _before_a_dedent),
)  # fmt: skip
