"""Edits that break a valid file in the ways that files break, and hypothesis strategies for them.

An edit is a tuple whose `repr` is all that a test needs to make the same file again:

    ("set", FILE, PATH, TEXT)      the value at PATH becomes TEXT, written into the file as it is
    ("near", FILE, PATH, NUMBER)   a number is scaled or shifted, a string or list made longer, ...
    ("drop", FILE, PATH)           the key or entry goes; where PATH is empty, the file
    ("twice", FILE, PATH, TEXT)    the key is written a second time, with TEXT as its value
    ("name", FILE, PATH, NAME)     the key gets another name
    ("copy", FILE, PATH, PATH)     the value becomes the one from the second path
    ("cut", FILE, NUMBER)          the file ends after so many thousandths of its bytes
    ("flip", FILE, NUMBER, BIT)    a bit there changes
    ("insert", FILE, NUMBER, TEXT) text enters there

PATH is a tuple of keys and indices; the document is the JSON or TOML of a file, the header of a
safetensors file, or nothing for other text.
"""

import copy
import functools
import json
import operator
import re
import tomllib
from typing import Any

from hypothesis import strategies as st

Edit = tuple[Any, ...]
_TWICE = "\0twice"  # ends a key that stands for the key before it, written again

# As they are written into a file, whether JSON allows them or not.
ODD = (
    "null", "true", "false", "0", "1", "-1", "2", "3", "64", "65", "300", "1000000", "10000000000",
    "9223372036854775807", "9223372036854775808", "18446744073709551616", "1" + "0" * 30,
    "1" + "0" * 400, "9" * 5000, "0.5", "-0.0", "1.5", "1e-320", "1e-45", "1e38", "1e300", "1e999",
    "-1e999", "NaN", "Infinity", '""', '"a"', '"0"', '"1e5"', '"\\ud800"', '"\\u0000"',
    '"\\u202e<script>"', '"' + "x" * 1000 + '"', '"' + "é" * 100_000 + '"', "[]", "{}", "[[]]",
    "[0]", "[null]", '["a"]', "[1, 2, 3]", '{"a": 1}', "[-1]", "[1e999]", '[["a", "b"]]',
    "[" * 200 + "]" * 200, "[" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000,
    "[" + "0, " * 20_000 + "0]", "\ud800", "'", "", "1 2", "01", "0x10", "1979-05-27T07:32:00Z",
)  # fmt: skip
NAMES = (
    "",
    "a",
    "\x1b[31mred",
    "\0",
    "\ud800",
    "x" * 3000,
    "__metadata__",
    "__proto__",
    "$\\frac$",
    "a.b",
    "\n",
)


class _Raw:
    """A value that is written as it is."""

    def __init__(self, text: str) -> None:
        self.text = text


def document(name: str, data: bytes) -> Any:
    """Return what edits by path change in a file; an empty one for a file without such parts."""
    if name.endswith(".safetensors"):
        return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    if name.endswith(".toml"):
        return tomllib.loads(data.decode())
    return json.loads(data) if name.endswith(".json") else {}


def edited(files: dict[str, bytes], edits: list[Edit]) -> dict[str, bytes]:
    """Return the files after the edits, those by path first; one that finds no such path is idle.

    Files that no edit changes stay as they are, byte by byte.
    """
    files = dict(files)
    for name in {edit[1] for edit in edits}:
        mine = [edit for edit in edits if edit[1] == name]
        by_path = [edit for edit in mine if isinstance(edit[2], tuple)]
        if ("drop", name, ()) in mine:  # the whole file
            del files[name]
            continue
        if by_path:
            root = [document(name, files[name])]
            for kind, _, path, *rest in by_path:
                _change(root, kind, (0, *path), *rest)
            files[name] = _written(name, root[0], files[name])
        for edit in mine:
            if edit not in by_path:
                files[name] = _broken(files[name], edit)
    return files


def _change(root: list[Any], kind: str, path: tuple, given: Any = None) -> None:
    try:
        *above, last = path
        part = functools.reduce(operator.getitem, above, root)
        if kind == "set":
            part[last] = _Raw(given)
        elif kind == "near":
            part[last] = _near(part[last], given)
        elif kind == "drop":
            del part[last]
        elif kind == "twice":
            part[last + _TWICE] = _Raw(given)
        elif kind == "name" and isinstance(part, dict):
            part[given] = part.pop(last)
        elif kind == "copy":
            part[last] = copy.deepcopy(functools.reduce(operator.getitem, (0, *given), root))
    except (LookupError, TypeError):
        pass  # an earlier edit took it away, or an index is not a name


def _near(value: Any, by: int) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + by if abs(by) < 3 else value * by
    if isinstance(value, str):
        return value + "x" if by > 0 else value[:-1]
    return value * abs(by) if isinstance(value, list) else value


def _written(name: str, tree: Any, old: bytes) -> bytes:
    """Return a file with this document; of a safetensors file the data stay."""
    if name.endswith(".toml") and isinstance(tree, dict):
        text = "".join(_toml(*item) for item in tree.items())
    else:
        text = _json(tree)
    data = text.encode("utf-8", "surrogatepass")
    if not name.endswith(".safetensors"):
        return data
    rest = old[8 + int.from_bytes(old[:8], "little") :]
    return len(data).to_bytes(8, "little") + data + rest


def _json(tree: Any) -> str:
    raw: list[str] = []

    def placed(value: _Raw) -> str:
        raw.append(value.text)
        return f"\0{len(raw) - 1}\0"

    text = json.dumps(tree, default=placed).replace("\\u0000twice", "")
    return re.sub(r'"\\u0000(\d+)\\u0000"', lambda found: raw[int(found[1])], text)


def _toml(name: str, value: Any) -> str:
    if not isinstance(value, dict):
        return f"{_json(name)} = {_json(value)}\n"
    return f"[{_json(name)}]\n" + "".join(f"{_json(k)} = {_json(v)}\n" for k, v in value.items())


def _broken(data: bytes, edit: Edit) -> bytes:
    kind, _, thousandth, *rest = edit
    at = thousandth * len(data) // 1000
    if kind == "cut":
        return data[:at]
    if kind == "insert":
        return data[:at] + rest[0].encode("utf-8", "surrogatepass") + data[at:]
    return data[:at] + bytes([data[at] ^ 1 << rest[0]]) + data[at + 1 :] if data else data


def paths(tree: Any, above: tuple = ()) -> list[tuple]:
    """List the paths of a document; of a long list or object only the first and last three."""
    pairs = list(tree.items()) if isinstance(tree, dict) else []
    pairs = list(enumerate(tree)) if isinstance(tree, list) else pairs
    found = [above]
    for key, value in pairs if len(pairs) < 40 else pairs[:3] + pairs[-3:]:
        found += paths(value, (*above, key))
    return found


def edits(
    files: dict[str, bytes], names: tuple[str, ...], hints: dict[str, Any], odd: tuple[str, ...]
) -> st.SearchStrategy[list[Edit]]:
    """Return one to three edits of the named files.

    Args:
        files: name -> bytes of the valid ones.
        names: of the files to edit; one that is named twice is edited twice as often.
        hints: "FILE key key" -> texts, or a strategy of texts, that mean something at that path.
        odd: texts that are set and inserted anywhere.
    """
    some_json = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner,
                                                                    max_size=2), max_leaves=4,
    ).map(json.dumps)  # fmt: skip
    texts = st.sampled_from(odd) | some_json
    at = st.integers(0, 999)
    kinds = []
    for name in names:
        every = st.just(name), st.sampled_from(paths(document(name, files[name])))
        near = st.sampled_from([1, -1, 2, -2, 0, 3, 7, -3, 0.5, 100])
        by_path = [
            st.tuples(st.just("set"), *every, texts), st.tuples(st.just("near"), *every, near),
            st.tuples(st.just("drop"), *every), st.tuples(st.just("twice"), *every, texts),
            st.tuples(st.just("name"), *every, st.sampled_from(NAMES) | st.text(max_size=4)),
            st.tuples(st.just("copy"), *every, every[1]),
        ]  # fmt: skip
        by_byte = [
            st.tuples(st.just("cut"), st.just(name), at),
            st.tuples(st.just("flip"), st.just(name), at, st.integers(0, 7)),
            st.tuples(st.just("insert"), st.just(name), at, texts | st.text(max_size=4)),
        ]
        plain = document(name, files[name]) == {}
        kinds += [st.one_of(by_byte)] if plain else [st.one_of(by_path)] * 4 + [st.one_of(by_byte)]
    hinted = [
        st.tuples(st.just("set"), st.just(place.split()[0]), st.just(_path(place)),
                  st.sampled_from(meant) if isinstance(meant, tuple) else meant)
        for place, meant in hints.items()
    ]  # fmt: skip
    one = st.one_of(kinds)
    if hinted:
        one = st.one_of(one, st.one_of(hinted))
    return st.lists(one, min_size=1, max_size=3)


def _path(place: str) -> tuple:
    return tuple(int(key) if key.isdecimal() else key for key in place.split()[1:])
