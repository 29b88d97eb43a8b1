"""The source of a function and of what it needs, and a file into which such source is merged."""

from __future__ import annotations

import ast
import inspect
import linecache
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from qwenkit.errors import InputError

NAME = "my_qwen"  # of the reader's file, as a module
_HEADER = '"""My model: the functions that I wrote in the notebooks of qwenkit."""\n'
_CONSTANTS = (bool, int, float, str, bytes, type(None))


@dataclass
class Written:
    """Source to keep: lines that import, and name -> definition in an order that runs."""

    imports: set[str] = field(default_factory=set)
    definitions: dict[str, str] = field(default_factory=dict)


def written(function: Callable[..., Any]) -> Written:
    """Return the source of a function or class, with all that it needs from its notebook.

    Raises:
        InputError: its source is not known, or it needs a value that has no source.
    """
    found = Written()
    _add(function, found)
    return found


def merged(text: str, new: Written, path: Path) -> str:
    """Return a file's text with definitions replaced or appended, and missing imports added.

    Raises:
        InputError: the text is not valid Python.
    """
    text = text or _HEADER
    for name, source in new.definitions.items():
        lines = text.splitlines()
        first, last = _lines_of(text, path).get(name, (len(lines), len(lines)))
        gap = [] if first < len(lines) else ["", ""]
        lines[first:last] = [*gap, *source.splitlines()]
        text = "\n".join(lines) + "\n"
    return _with_imports(text, new.imports, path)


def _with_imports(text: str, imports: set[str], path: Path) -> str:
    """Add the lines that are not there yet, after the imports that are, or after the docstring."""
    lines = text.splitlines()
    missing = sorted(imports - set(lines))
    if not missing:
        return text
    body = _parsed(text, path).body
    before = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    begins = bool(body) and isinstance(body[0], ast.Expr)  # with a docstring
    last = before[-1] if before else body[0] if begins else None
    at = (last.end_lineno or 0) if last else 0
    lines[at:at] = missing if before else ["", *missing] if begins else [*missing, ""]
    return "\n".join(lines) + "\n"


def _add(value: Any, found: Written) -> None:
    """Add a function or class, and before it whatever it uses."""
    name = value.__name__
    source, tree = _source(value)
    found.definitions[name] = ""  # begun: a function may call itself, or two each other
    for used, other in _used(value, tree):
        if getattr(other, "__module__", None) == NAME:
            continue  # the file has it already
        if isinstance(other, ModuleType):
            found.imports.add(_import(used, other.__name__))
        elif isinstance(other, _CONSTANTS):
            found.definitions.setdefault(used, f"{used} = {other!r}")
        elif isinstance(other, FunctionType | type) and other.__module__ == value.__module__:
            if used not in found.definitions:
                _add(other, found)
        elif callable(other) and getattr(other, "__module__", None) and hasattr(other, "__name__"):
            found.imports.add(f"from {other.__module__} import {_renamed(other.__name__, used)}")
        else:
            raise InputError(
                f"{name} uses `{used}`, a {type(other).__name__} of the notebook, which cannot be "
                f"kept. Give it to {name} as an argument instead."
            )
    del found.definitions[name]
    found.definitions[name] = source


def _source(value: Any) -> tuple[str, ast.stmt]:
    """Return the source of a function or class, as it stands in its cell or file."""
    name = value.__name__
    inside = [one for one in vars(value).values() if inspect.isfunction(one)]
    code = getattr(value, "__code__", None) or (inside[0].__code__ if inside else None)
    text = "".join(linecache.getlines(code.co_filename)) if code else ""
    for node in ast.parse(text).body if text else []:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            return "\n".join(text.splitlines()[first - 1 : node.end_lineno]), node
    raise InputError(
        f"the source of {name} is not known. Write it with `def` or `class` in a cell of its own, "
        f"run that cell, then its check, then this one."
    )


def _used(value: Any, tree: ast.stmt) -> Iterator[tuple[str, Any]]:
    """Yield the names of its notebook that a function or class uses, with their values."""
    inside = (
        value
        if inspect.isfunction(value)
        else next(filter(inspect.isfunction, vars(value).values()))
    )
    space = inside.__globals__
    nodes = list(ast.walk(tree))
    own = {node.arg for node in nodes if isinstance(node, ast.arg)}
    own |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    own |= {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    read = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    for name in sorted((read - own) & space.keys()):
        yield name, space[name]


def _import(used: str, module: str) -> str:
    package, _, name = module.rpartition(".")
    if used == module:
        return f"import {module}"
    if used == name:
        return f"from {package} import {name}"
    return f"import {module} as {used}"


def _renamed(name: str, used: str) -> str:
    return name if name == used else f"{name} as {used}"


def _parsed(text: str, path: Path) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise InputError(
            f"line {error.lineno} of {path} is not valid Python: {error.msg}. Correct it, or move "
            f"the file away to begin again."
        ) from error


def _lines_of(text: str, path: Path) -> dict[str, tuple[int, int]]:
    """Return name -> the lines (from, to, counted from 0) of each definition of a file."""
    found = {}
    for node in _parsed(text, path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            found[node.name] = (first - 1, node.end_lineno or node.lineno)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = (node.lineno - 1, node.end_lineno or node.lineno)
    return found
