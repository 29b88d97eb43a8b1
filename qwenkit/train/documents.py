"""The text to learn from: a folder's files, and those of them held out for evaluation."""

import importlib.util
import os
import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from qwenkit.errors import SourceError
from qwenkit.files import expanded

_STDLIB = "stdlib"  # names the standard library of the running Python


@dataclass(frozen=True)
class Document:
    """One file's text."""

    name: str  # its path from the folder, with "/"
    text: str

    @property
    def num_bytes(self) -> int:
        """Length in UTF-8."""
        return len(self.text.encode("utf-8"))


def read_documents(
    folder: str | Path,
    *,
    include: Sequence[str] = ("*.py", "*.md", "*.txt"),
    leave_out: Sequence[str] = (),
) -> list[Document]:
    """Read the files below a folder, in the order of their names.

    Args:
        folder: or "stdlib": the standard library of the running Python.
        include: patterns of paths from the folder, one of which must match; "*" matches "/" too.
        leave_out: patterns of which none may match.

    Returns:
        Each file that holds more than whitespace. A byte order mark is left out, and CRLF becomes a
        newline: editors put them there, and they are not text to learn.

    Raises:
        SourceError: no such folder, no such file, or one that cannot be read or is not UTF-8.
    """
    root = Path(sysconfig.get_path("stdlib")) if folder == _STDLIB else expanded(folder)
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder; name one that holds the text to train on")
    documents = []
    for name in sorted(_names(root, include, leave_out)):
        file = root / name
        try:
            text = file.read_bytes().decode("utf-8").removeprefix("\ufeff")
        except OSError as error:
            raise SourceError(f"{file} cannot be read: {error.strerror}; leave it out") from None
        except UnicodeDecodeError as error:
            raise SourceError(
                f"{file} is not UTF-8 text (byte {error.start}); convert it, or leave it out"
            ) from None
        if text.strip():
            documents.append(Document(name, text.replace("\r\n", "\n")))
    if not documents:
        raise SourceError(f"{root} holds no text that matches {', '.join(_as_list(include))}")
    return documents


def read_package(name: str, *, leave_out: Sequence[str] = ()) -> list[Document]:
    """Read the Python files of an installed package, in the order of their names.

    Args:
        name: as it is imported, such as "numpy". The package is found, but not imported. Each
            document's name begins with it.
        leave_out: patterns of names of which none may match.

    Raises:
        SourceError: no such package, or as in `read_documents`.
    """
    found = importlib.util.find_spec(name) if name.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise SourceError(f"no package {name!r} is installed here; install it, or leave it out")
    files = read_documents(found.submodule_search_locations[0], include=("*.py",))
    documents = [Document(f"{name}/{file.name}", file.text) for file in files]
    return [one for one in documents if not _matches(one.name, leave_out)]


def hold_out(
    documents: Sequence[Document], patterns: Sequence[str]
) -> tuple[list[Document], list[Document]]:
    """Split documents into those to train on and those whose names match a pattern.

    Raises:
        SourceError: a pattern matches nothing (its text would be trained on), or none are left.
    """
    for pattern in _as_list(patterns):
        if not any(_matches(document.name, pattern) for document in documents):
            raise SourceError(
                f"nothing matches {pattern!r}, which was to be held out; "
                "patterns are of paths from the folder"
            )
    held = [document for document in documents if _matches(document.name, patterns)]
    kept = [document for document in documents if not _matches(document.name, patterns)]
    if not kept:
        raise SourceError("every document is held out; none is left to train on")
    return kept, held


def _matches(name: str, patterns: Sequence[str]) -> bool:
    """Tell whether a path matches one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in _as_list(patterns))


def _names(root: Path, include: Sequence[str], leave_out: Sequence[str]) -> Iterator[str]:
    """Yield the names below a folder that match, without entering folders where none can."""
    starts = [re.split(r"[*?[]", pattern, maxsplit=1)[0] for pattern in _as_list(include)]
    whole = [pattern for pattern in _as_list(leave_out) if pattern.endswith("*")]

    def may_match(folder: str) -> bool:
        reached = any(s.startswith(folder) or folder.startswith(s) for s in starts)
        return reached and not _matches(folder, whole)

    for path, folders, files in os.walk(root):
        here = "" if Path(path) == root else f"{Path(path).relative_to(root).as_posix()}/"
        folders[:] = [folder for folder in folders if may_match(f"{here}{folder}/")]
        names = (f"{here}{file}" for file in files)
        wanted = (n for n in names if _matches(n, include) and not _matches(n, leave_out))
        yield from (name for name in wanted if (root / name).is_file())


def _as_list(patterns: Sequence[str]) -> Sequence[str]:
    """Take one string as one pattern; read by letters, its "*" would match everything."""
    return (patterns,) if isinstance(patterns, str) else patterns
