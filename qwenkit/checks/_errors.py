"""What common errors mean, in plain words, and what to look at."""

from __future__ import annotations

import re

from qwenkit.checks._same import Raised

# (name, pattern of "kind: message", explanation): the first that fits is used
_MEANINGS = (
    ("not UTF-8", r"UnicodeDecodeError", "Some of these bytes are not UTF-8 text: binary data, or "
        "a character that is incomplete. Which bytes do you read or decode here?"),
    ("not ASCII", r"UnicodeEncodeError", "The text has a character that this encoding lacks."),
    ("not JSON", r"JSONDecodeError: Extra data", "After the JSON comes more: read only as many "
        "bytes as the JSON has."),
    ("not JSON", r"JSONDecodeError", "What you parse does not start as JSON. Where does the JSON "
        "begin and end?"),
    ("too few or too many bytes", r"unpack requires a buffer|buffer size must be", "The format "
        "needs another number of bytes than it gets."),
    ("arguments", r"TypeError: .*(positional argument|unexpected keyword)", "A function is "
        "called with other arguments than it takes: keep the first line of the stub, and count "
        "the arguments of your own calls."),
    ("arguments", r"invalid combination of arguments|must be .*, not |missing .* argument",
        "A function is called with arguments of a type or number that it does not take."),
    ("a name", r"(NameError|UnboundLocalError)", "Use the function's arguments, or give that name "
        "a value before this line."),
    ("a None", r"'?NoneType'?", "One value is None. Does a function that you call "
        "return nothing?"),
    ("an attribute", r"AttributeError", "A value is of another type than you think: print "
        "type(...) of it."),
    ("not a number", r"TypeError: .*('str'|'bytes').*('int'|'float')|ValueError: (invalid literal|"
        "could not convert)", "Text and numbers are mixed: convert one of them first."),
    ("bytes and text", r"TypeError: .*(bytes.*str|str.*bytes)", "Bytes and text are mixed: decode "
        "turns bytes into text."),
    ("more than one value", r"only one element tensors|only (integer|length-1)|a Tensor with \d+ "
        r"elements cannot be converted|(Boolean value|bool value) of (Tensor|NoneType)|"
        r"truth value of an array", "A tensor with several values stands where one number is "
        "expected."),
    ("the dtype", r"dtype|scalar type|not implemented for|can only be created from", "Two dtypes "
        "do not fit, or the operation does not take this one: print the dtypes, and convert with "
        ".to(...)."),
    ("the shapes", r"must match|cannot be multiplied|size mismatch|not broadcastable|broadcast|"
        r"is invalid for input of size|[Ss]izes of tensors|Expected size|expanded size|"
        r"shape mismatch|inconsistent tensor size",
        "The shapes do not fit: print the shapes of both sides of this line."),
    ("the dimensions", r"Dimension out of range|too many indices|number of dimensions|"
        r"permute|at least two dimensions",
        "The tensor has more or fewer dimensions than you think: print its shape."),
    ("unpacking", r"values to unpack", "It has more or fewer parts than you give names to: print "
        "its shape or its length."),
    ("an index", r"(IndexError|out of range|out of bounds)", "An index lies outside: "
        "positions count from 0, and the last one is the length minus 1."),
    ("a key", r"KeyError", "The dictionary has no such key: print its keys."),
    ("division by zero", r"ZeroDivisionError", "Which value can be 0 here?"),
    ("no end", r"RecursionError", "The function calls itself without end."),
    ("too large", r"(MemoryError|OverflowError|allocate memory|out of memory)", "A size became "
        "huge: print the sizes and shapes that go into this line."),
    ("not a function", r"not callable", "A value is called like a function: are the parentheses "
        "meant as brackets, or is a * missing?"),
    ("operands", r"TypeError: (unsupported operand|can only concatenate|can't multiply)", "The "
        "two values are of types that do not go together: print type(...) of both."),
)  # fmt: skip


def explained(error: Raised) -> tuple[str, str, str]:
    """Return the name of an error ("error: the shapes", or "error"), what it says, and advice."""
    if error.ours:
        return "error", error.message, ""
    whole = f"{error.kind}: {error.message}"
    said = f"it raises {whole.removesuffix(': ').rstrip('.')}"
    if error.line:
        line = error.line if len(error.line) <= 70 else f"{error.line[:69]}…"
        said += f", in the line `{line}`"
    for name, pattern, meaning in _MEANINGS:
        if re.search(pattern, whole):
            return f"error: {name}", said, meaning
    return "error", said, ""
