"""Names from before, which notebooks or the README used: they work for one release more."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from qwenkit.errors import warn

MOVED = {
    "qwenkit.bpe": "qwenkit.tokenizer.bpe",
    "qwenkit.hub": "qwenkit.pretrained.hub",
    "qwenkit.model.reading": "qwenkit.fast._machine",
    "qwenkit.sampling": "qwenkit.generate.sampling",
}


class _Moved(MetaPathFinder, Loader):
    """Finds a module under its old name, and says its new one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        _warn(spec.name, MOVED[spec.name])
        return importlib.import_module(MOVED[spec.name])

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the module ran under its new name."""


def install() -> None:
    """Let the old modules be imported."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.append(_Moved())


def renamed(module: str, **names: str) -> Callable[[str], Any]:
    """Return a module's `__getattr__` that gives old names: old="new"."""

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        _warn(f"{module}.{name}", names[name])
        return getattr(sys.modules[module], names[name])

    return get


def _warn(old: str, new: str) -> None:
    warn(f"{old} is now {new}; the old name goes with the next release", DeprecationWarning)
