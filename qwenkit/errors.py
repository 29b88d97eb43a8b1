"""The package's exceptions, and its warnings.

Every error that qwenkit raises on purpose derives from `QwenkitError`, so one `except` catches them
all. Where Python has a built-in of the same meaning (`ValueError`, `FileNotFoundError`), the class
derives from that as well. A message says what was expected, what came, and what to do.
"""

import sys
import warnings
from collections.abc import Iterable

# Frames of these packages are not the reader's own code.
_FOREIGN = ("qwenkit", "torch", "jaxtyping", "importlib", "contextlib")


class QwenkitError(Exception):
    """Base of all errors raised by qwenkit."""

    def __str__(self) -> str:
        """Return the message itself (a `KeyError` would otherwise show it quoted)."""
        return str(self.args[0]) if self.args else ""


class ConfigError(QwenkitError, ValueError):
    """A config.json, or a `QwenConfig`, with values that no Qwen2 model can have."""


class CheckpointError(QwenkitError, ValueError):
    """A checkpoint whose files are damaged, unsafe, or do not fit its config."""


class SourceError(QwenkitError, FileNotFoundError):
    """A folder or Hub id where no model was found."""


class TokenizerError(QwenkitError, ValueError):
    """A tokenizer file that cannot be read, or text or ids that a tokenizer cannot take."""


class InputError(QwenkitError, ValueError):
    """An argument of the wrong shape, type or range."""


class CacheFullError(InputError):
    """A KV cache that is too small for the tokens to be added."""


class TraceError(QwenkitError, KeyError):
    """A trace point that does not exist, was not recorded, or was edited into another shape."""


class MemoryForecastError(QwenkitError, MemoryError):
    """A model that would not fit into the free memory."""


class TrainingError(QwenkitError, ArithmeticError):
    """A training run whose loss or gradient became NaN or infinite, or that cannot resume."""


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn, and name the line of the reader's own code that led here."""
    frame, level = sys._getframe(), 1
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in _FOREIGN:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def shown(value: object, most: int = 500) -> str:
    r"""Return a value's `repr`, for a message: one line without control characters, cut if long.

    >>> shown("\x1b[2J"), shown("x" * 1000, most=10)
    ("'\\x1b[2J'", "'xxxxxxxxx... (1,002 characters)")
    """
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def printable(text: str, most: int = 200) -> str:
    r"""Return a name from a file, safe for a terminal: escaped where needed, cut if long.

    >>> printable("model.norm"), printable("\x1b[2J")
    ('model.norm', '\\x1b[2J')
    """
    plain = text if text.isprintable() else shown(text, 10 * most)[1:-1]
    return plain if len(plain) <= most else f"{plain[:most]}..."


def few(items: Iterable[str], most: int = 5, between: str = ", ") -> str:
    """Join the items of a message; of many, only the first and the number of the others.

    >>> few(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    every = list(items)
    more = len(every) - most
    return between.join(every[:most]) + (f" and {more:,} more" if more > 0 else "")
