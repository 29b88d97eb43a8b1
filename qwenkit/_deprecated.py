"""Names that notebooks or the README used before they moved: they work for one release more."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from qwenkit.errors import warn

MOVED = {
    "qwenkit.bpe": "qwenkit.tokenizer.bpe",
    "qwenkit.hub": "qwenkit.pretrained.hub",
    "qwenkit.sampling": "qwenkit.generate.sampling",
}


class _Moved(MetaPathFinder, Loader):
    """Finds a module under its old name, and says its new one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        warn_of_old(spec.name, MOVED[spec.name])
        return importlib.import_module(MOVED[spec.name])

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the module ran under its new name."""


def warn_of_old(old: str, new: str) -> None:
    """Say that a name will go."""
    warn(f"{old} is now {new}; the old name goes with the next release", DeprecationWarning)


def install() -> None:
    """Let the old names be imported."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.append(_Moved())
