"""Is the taught code still the very code that the kernels stand in for?

No list of known differences: at import, every class, function and method of `qwenkit.model` is
noted, and of `qwenkit.fast` what takes part in its forward, with all that their names refer to: in
their own modules, in torch and in Python. One identity that has changed since, and the kernels step
aside. That covers a patched method or function, a reloaded module, another base class, an extension
that rewrites a function's code in place, and whatever nobody has thought of.
"""

from __future__ import annotations

import builtins
import inspect
import math
import os
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import qwenkit.fast.int4
import qwenkit.fast.model  # noqa: F401  with both, all that is noted below is imported

_OURS = ("qwenkit.model.", "qwenkit.trace", "qwenkit.fast.")
_MODULES = [module for name, module in sorted(sys.modules.items()) if name.startswith(_OURS)]
_TORCH = os.path.dirname(torch.__file__)
_ABSENT = object()
# What +, *, x[i] and the like look up on a tensor.
_OPERATORS = {
    f"__{kind}{name}__"
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or")
    for kind in ("", "r", "i")
} | {"__neg__", "__invert__", "__getitem__", "__setitem__", "__iter__", "__len__", "__bool__"}
_OPERATORS |= {f"__{name}__" for name in ("lt", "le", "eq", "ne", "gt", "ge", "int", "index")}
_OPERATORS |= {"__rshift__", "__lshift__"}
_MAKING = {"__init__", "__setstate__"}  # take no part in a forward, and torch.compile patches them


def _own_functions(space: dict[str, Any]) -> Iterator[FunctionType]:
    for value in space.values():
        value = value.fget if isinstance(value, property) else inspect.unwrap(value)
        if isinstance(value, FunctionType) and _is_taught(value):
            yield value


def _is_taught(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).startswith(_OURS)


def _names_in(code: CodeType) -> set[str]:
    """Return the names that code looks up, its inner functions included."""
    inner = (part for part in code.co_consts if isinstance(part, CodeType))
    return set(code.co_names).union(*map(_names_in, inner))


def _is_torchs(value: Any) -> bool:
    """Tell whether torch itself made a function, rather than somebody who replaced it."""
    if isinstance(value, FunctionType):
        return value.__code__.co_filename.startswith(_TORCH)
    return type(value).__module__.partition(".")[0] in ("torch", "builtins")


def _operators() -> set[str]:
    """Return the operators of torch that Python code has taken over (`torch.library`)."""
    return getattr(torch.library, "_impls", set())


class _Noted:
    """What the taught code was at import."""

    def __init__(self, modules: list[ModuleType]) -> None:
        spaces = [dict(vars(module)) for module in modules]
        own = {v for space in spaces for v in space.values() if isinstance(v, type)}
        own = {kind for one in filter(_is_taught, own) for kind in one.__mro__} - {object}
        self.classes = {
            kind: (kind.__mro__, {n: v for n, v in vars(kind).items() if n not in _MAKING})
            for kind in own | {nn.Linear, nn.Embedding}
        }
        spaces += [members for _, members in self.classes.values()]
        functions = [function for space in spaces for function in _own_functions(space)]
        of_modules: list[Any] = [nn.Linear.forward, nn.Embedding.forward, nn.Module._call_impl]
        self.codes = [
            (f, f.__code__, f.__defaults__, dict(f.__kwdefaults__ or {}))
            for f in (*functions, *of_modules)
        ]
        # Every name that the code looks up, in its module, in torch, in Python, or on an object.
        self.used = set[str]().union(*(_names_in(f.__code__) for f in functions))
        names = {(f.__module__, n): f.__globals__ for f in functions for n in _names_in(f.__code__)}
        of_torch = {"torch": torch, "F": F, "torch._C._nn": torch._C._nn, "Tensor": torch.Tensor}
        for where, outside in {**of_torch, "math": math, "builtins": builtins}.items():
            names |= {(where, n): vars(outside) for n in self.used if hasattr(outside, n)}
        for where, kind in (("Tensor", torch.Tensor), ("Parameter", nn.Parameter)):
            names |= {(where, n): vars(kind) for n in _OPERATORS}  # type: ignore[misc]
        found = [(where, space, n, space.get(n, _ABSENT)) for (where, n), space in names.items()]
        self.names = [  # functions, classes and modules, not the constants
            one
            for one in found
            if one[3] is _ABSENT or callable(one[3]) or inspect.ismodule(one[3])
        ]
        self.operators = set(_operators())
        self.foreign = [
            f"{where}.{name} had been replaced before qwenkit was imported"
            for where, _, name, value in self.names
            if where in of_torch and value is not _ABSENT and not _is_torchs(value)
        ]


_noted = _Noted(_MODULES)


def changed_code() -> str | None:
    """Say what of the taught code is no longer what it was at import; None: nothing."""
    if _noted.foreign:
        return _noted.foreign[0]
    for where, space, name, value in _noted.names:
        if space.get(name, _ABSENT) is not value:
            return f"{where}.{name} was replaced"
    for kind, (mro, members) in _noted.classes.items():
        now = vars(kind)
        if kind.__mro__ != mro:
            return f"the base classes of {kind.__name__} were replaced"
        for name, value in members.items():
            if now.get(name) is not value:
                return f"{kind.__name__}.{name} was replaced"
        for name in now.keys() - members.keys() - _MAKING:
            if _matters(kind, name):
                return f"{kind.__name__}.{name} was added"
    for function, code, defaults, more in _noted.codes:
        same = function.__defaults__ is defaults and (function.__kwdefaults__ or {}) == more
        if function.__code__ is not code or not same:
            return f"the code of {function.__qualname__} was rewritten"
    operators = sorted(_operators() - _noted.operators)
    return next(
        (f"the operator {name} was replaced" for name in operators if _is_overridden(name)), None
    )


def _is_overridden(name: str) -> bool:
    """Tell whether an operator computes something else now.

    torch itself adds those for tensors without memory, and for transforms of `torch.func`, during
    which the kernels step aside.
    """
    return "aten/" in name and "/Meta" not in name and "/FuncTorch" not in name


def _matters(kind: type, name: str) -> bool:
    """Tell whether a new member of a class can change what the class does.

    Libraries add methods of their own, and Python adds data such as `__annotations__`.
    """
    value = vars(kind)[name]
    asked = name in _noted.used or name.startswith("__")
    inherited = any(name in vars(base) for base in kind.__mro__[1:])
    return (asked or inherited) and (callable(value) or hasattr(value, "__get__"))
