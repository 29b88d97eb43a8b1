"""Put something else in the place of a part of the model, for as long as a block lasts."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from types import FunctionType
from typing import Any

from torch import nn

from qwenkit.errors import InputError
from qwenkit.model import QwenForCausalLM


@dataclass(frozen=True)
class Replaced:
    """What `replace` has replaced.

    Attributes:
        names: of the modules, such as "layers.0.mlp", or of the functions.
    """

    names: tuple[str, ...]

    def __str__(self) -> str:
        """Return the names in one line, the middle of a long list left out."""
        short = self.names if len(self.names) <= 4 else (*self.names[:2], "...", self.names[-1])
        return f"replaced {len(self.names)}: {', '.join(short)}"


@contextmanager
def replace(
    model: QwenForCausalLM,
    target: str | Sequence[str],
    new: nn.Module | Callable[..., Any],
) -> Iterator[Replaced]:
    """Run a model with a part of it replaced; at the end of the block, all is as it was.

        with qk.replace(model, "layers.*.mlp", lambda x: torch.zeros_like(x)) as replaced:
            print(replaced, model(input_ids))

    It holds for every way to run the model: with a cache and without, traced, generating. The fast
    path steps aside. Blocks may be nested.

    Args:
        model: any Qwen2 model.
        target: names of modules, where * stands for any one part ("layers.*.mlp",
            "layers.3.self_attn.q_proj", "norm"); or of functions of `qwenkit.model`
            ("apply_rope", "fused_attention"), which are replaced for every model in the process.
            With a trace of attention's scores or pattern, the model calls "eager_attention".
        new: a module that takes the place of each; or a function that is called instead of their
            forward, or instead of the function. It takes what that takes, but may leave out
            `trace`. A function whose first parameter is named `self` gets the module first, so
            that it may use its parts, and call `type(self).forward(self, ...)`.

    Raises:
        InputError: nothing has such a name, or `new` does not take the arguments; nothing is
            replaced then.
    """
    targets = [target] if isinstance(target, str) else list(target)
    if not callable(new):
        raise InputError(f"new is {new!r}; it must be a module or a function")
    with ExitStack() as stack:
        names: list[str] = []
        for one in targets:
            functions, modules = _functions(one), _modules(model, one)
            if not functions and not modules:
                raise InputError(_unknown(model, one))
            for name, module in modules.items():
                stack.enter_context(_module_replaced(model, module, name, new))
            for space, name in functions:
                fitted = _fitted(new, space[name], one) or new
                stack.enter_context(_item_replaced(space, name, fitted))
            names += list(modules) or [one]
        yield Replaced(tuple(names))


# Each namespace of `qwenkit.model` with its functions, before anybody replaced one.
_TAUGHT = [
    (vars(module), name, function)
    for where, module in sys.modules.items()
    if f"{where}.".startswith("qwenkit.model.")
    for name, function in vars(module).items()
    if isinstance(function, FunctionType) and function.__module__.startswith("qwenkit.")
]


def _functions(name: str) -> list[tuple[dict[str, Any], str]]:
    """Return each namespace of `qwenkit.model` that has the function, and under which name."""
    meant = [function for _, key, function in _TAUGHT if key == name]
    return [(space, key) for space, key, function in _TAUGHT if function in meant]


def _modules(model: QwenForCausalLM, pattern: str) -> dict[str, nn.Module]:
    """Return name -> module of all that a pattern means, the names without a leading "model."."""
    parts = pattern.removeprefix("model.").split(".")
    return {
        name: module
        for name, module in _named(model)
        if len(name.split(".")) == len(parts) and all(map(fnmatchcase, name.split("."), parts))
    }


def _named(model: QwenForCausalLM) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules(remove_duplicate=False):
        if name:
            yield name.removeprefix("model."), module


@contextmanager
def _module_replaced(
    model: QwenForCausalLM, module: nn.Module, name: str, new: nn.Module | Callable[..., Any]
) -> Iterator[None]:
    forward = partial(type(module).forward, module)
    if isinstance(new, nn.Module):
        names = [found for found, _ in model.named_modules(remove_duplicate=False)]
        full = next(found for found in names if found.removeprefix("model.") == name)
        parent, _, child = full.rpartition(".")
        fitted = _fitted(new.forward, forward, name)
        inside = new if fitted is None else _WithoutTrace(new)
        with _item_replaced(model.get_submodule(parent)._modules, child, inside):
            yield
        return
    takes = _signature(new)
    first = next(iter(takes.parameters), "") if takes else ""
    given = partial(new, module) if first == "self" else new
    with _item_replaced(vars(module), "forward", _fitted(given, forward, name) or given):
        yield


class _WithoutTrace(nn.Module):
    """Calls a module without the recorder that comes last."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *given: Any, **named: Any) -> Any:
        by_name = "trace" in named
        return self.module(*(given if by_name else given[:-1]), **_without_trace(named))


@contextmanager
def _item_replaced(space: dict[str, Any], key: str, value: Any) -> Iterator[None]:
    """Set an item of a dict, and take it back."""
    missing = object()
    before = space.get(key, missing)
    space[key] = value
    try:
        yield
    finally:
        if before is missing:
            space.pop(key, None)
        else:
            space[key] = before


def _fitted(
    new: Callable[..., Any], old: Callable[..., Any], name: str
) -> Callable[..., Any] | None:
    """Return `new` called without the last argument, where it does not take a trace; else None.

    Raises:
        InputError: `new` does not take the arguments that `old` takes.
    """
    takes, names = _signature(new), list(inspect.signature(old).parameters.values())
    if takes is not None and _binds(takes, names):
        return None
    traced = bool(names) and names[-1].name == "trace"
    if traced and (takes is None or _binds(takes, names[:-1])):
        return lambda *given, **more: new(*given[: len(names) - 1], **_without_trace(more))
    if takes is None:
        return None
    asked = ", ".join(one.name for one in names)
    raise InputError(f"what replaces {name} is called with ({asked}); it takes {takes}")


def _binds(takes: inspect.Signature, given: list[inspect.Parameter]) -> bool:
    """Tell whether a function takes these arguments, the optional ones by position or by name."""
    by_name = {one.name: None for one in given if one.kind is one.KEYWORD_ONLY}
    by_place = [one for one in given if one.kind is not one.KEYWORD_ONLY]
    optional = {one.name: None for one in by_place if one.default is not one.empty}
    required = [None for one in by_place if one.name not in optional]
    for place, named in (([None] * len(by_place), by_name), (required, by_name | optional)):
        with suppress(TypeError):
            takes.bind(*place, **named)
            return True
    return False


def _without_trace(named: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in named.items() if name != "trace"}


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return what a function takes; None where it does not say so, as functions written in C."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def _unknown(model: QwenForCausalLM, target: str) -> str:
    names = [name for name, _ in _named(model)]
    functions = {
        key
        for space, key, function in _TAUGHT
        if function.__module__ == space["__name__"] and key[0] != "_"
    }
    near = difflib.get_close_matches(target, [*names, *functions], n=2)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "see model.named_modules()"
    return f"{target!r} is neither a part of this model nor a function of qwenkit.model; {hint}"
