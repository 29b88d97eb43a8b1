"""Is the taught code still the very code that the kernels stand in for?

No list of known differences: at import, every class, function and method of `qwenkit.model` is
noted, and of `qwenkit.fast` what takes part in its forward, with what their code calls in torch.
One identity that has changed since, and the kernels step aside. That covers a patched method or
function, a reloaded module, an extension that rewrites a function's code where it stands, and
whatever nobody has thought of.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import qwenkit.fast.model  # noqa: F401  with it, all that is noted below is imported

_OURS = ("qwenkit.model.", "qwenkit.trace", "qwenkit.fast.")
_MODULES = [module for name, module in sorted(sys.modules.items()) if name.startswith(_OURS)]


def _own_functions(space: dict[str, Any]) -> Iterator[FunctionType]:
    for value in space.values():
        value = value.fget if isinstance(value, property) else inspect.unwrap(value)
        if isinstance(value, FunctionType):
            yield value


def _names_in(code: CodeType) -> set[str]:
    """Return the names that code looks up, its inner functions included."""
    inner = (part for part in code.co_consts if isinstance(part, CodeType))
    return set(code.co_names).union(*map(_names_in, inner))


class _Noted:
    """What the taught code was at import."""

    def __init__(self, modules: list[ModuleType]) -> None:
        spaces = {module.__name__: vars(module) for module in modules}
        # What the code refers to by name: functions and classes, not the constants.
        self.names: list[tuple[str, dict[str, Any], str, Any]] = [
            (where, space, name, value)
            for where, space in spaces.items()
            for name, value in space.items()
            if callable(value)
        ]
        own = {v for _, _, _, v in self.names if isinstance(v, type) and _is_taught(v)}
        self.classes = {
            kind: dict(vars(kind)) for one in own for kind in one.__mro__ if kind is not object
        }
        self.classes |= {kind: dict(vars(kind)) for kind in (nn.Linear, nn.Embedding)}
        functions = [f for space in spaces.values() for f in _own_functions(dict(space))]
        functions += [f for space in self.classes.values() for f in _own_functions(space)]
        functions = [f for f in functions if _is_taught(f)]
        self.codes = [(f, f.__code__, f.__defaults__, f.__kwdefaults__) for f in functions]
        # Every name that the code looks up, in torch's modules or on an object.
        self.used = set[str]().union(*(_names_in(code) for _, code, _, _ in self.codes))
        for module in (torch, F):
            space = vars(module)
            self.names += [(module.__name__, space, n, space[n]) for n in self.used & space.keys()]
        self.used.update(*self.classes.values())


def _is_taught(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).startswith(_OURS)


_noted = _Noted(_MODULES)


def changed_code() -> str | None:
    """Say what of the taught code is no longer what it was at import; None: nothing."""
    for where, space, name, value in _noted.names:
        if space.get(name) is not value:
            return f"{where}.{name} was replaced"
    for kind, members in _noted.classes.items():
        now = vars(kind)
        for name, value in members.items():
            if now.get(name) is not value:
                return f"{kind.__name__}.{name} was replaced"
        if len(now) != len(members):
            for name in sorted(now.keys() - members.keys()):
                # Libraries add methods of their own, and Python adds __annotations__.
                asked = name in _noted.used or name.startswith("__")
                if asked and hasattr(now[name], "__get__"):
                    return f"{kind.__name__}.{name} was added"
    for function, code, defaults, more in _noted.codes:
        same = function.__defaults__ is defaults and function.__kwdefaults__ is more
        if function.__code__ is not code or not same:
            return f"the code of {function.__qualname__} was rewritten"
    return None
