"""The text to learn from: which files, in which order, and what is held out."""

import contextlib
import os
import re
import sys
import sysconfig
from pathlib import Path

import pytest

from qwenkit.errors import SourceError
from qwenkit.train import Document, hold_out, read_documents, read_package
from qwenkit.train.documents import _matches


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes files by name, as text or as bytes."""

    def write(files, below=""):
        for name, content in files.items():
            file = tmp_path / below / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return write


def names(documents):
    return [document.name for document in documents]


TREE = {
    "b.py": "b = 1\n", "a.py": "a = 1\n", "Z.py": "z = 1\n", "notes.md": "# Notes\n",
    "sub/c.py": "c = 1\n", "sub/deep/d.py": "d = 1\n", "sub.py": "s = 1\n",
    "tests/e.py": "e = 1\n", "sub/tests/f.py": "f = 1\n", "data.bin": b"\xff\xfe", "x.txt": "x",
    ".hidden/g.py": "g = 1\n",
}  # fmt: skip
PYTHON = sorted(name for name in TREE if name.endswith(".py"))


@pytest.mark.parametrize(("include", "leave_out", "want"), [
    (["*.py"], [], PYTHON),  # in the order of their names
    (["sub/*"], [], ["sub/c.py", "sub/deep/d.py", "sub/tests/f.py"]),  # "*" matches "/"
    (["a.py"], [], ["a.py"]), (["*/c.py", "x.*"], [], ["sub/c.py", "x.txt"]),
    (["?.py"], [], ["Z.py", "a.py", "b.py"]), (["[ab].py"], [], ["a.py", "b.py"]),
    (["z.py", "Z.py"], [], ["Z.py"]),  # capitals count
    (["*.py"], ["*/*"], ["Z.py", "a.py", "b.py", "sub.py"]),
    (["*.py"], ["tests/*", "*/tests/*", "?.py", ".*"], ["sub.py", "sub/c.py", "sub/deep/d.py"]),
    (["a.py", "a.*", "*"], ["[!a]*"], ["a.py"]),  # no file twice
    ("*.md", [], ["notes.md"]),  # one pattern; read by letters, "*" would match everything
])  # fmt: skip
def test_patterns_choose(folder, include, leave_out, want):
    found = read_documents(folder(TREE), include=include, leave_out=leave_out)
    assert names(found) == want
    if want == PYTHON:
        assert found[5] == Document("sub/c.py", "c = 1\n")
    found = names(read_documents(folder(TREE)))  # Python, Markdown and text
    assert sorted(found) == sorted(set(TREE) - {"data.bin"})
    assert _matches("sub/c.py", "*.py")
    assert not _matches("notes.md", "*.py")


def test_the_python_files_of_a_package_begin_with_its_name(folder, monkeypatch):
    files = {
        "__init__.py": "raise SystemExit\n", "a.py": "a = 1\n", "notes.md": "# Notes\n",
        "sub/b.py": "b = 1\n", "tests/test_a.py": "t = 1\n", "_table.py": "n = 1\n",
    }  # fmt: skip
    monkeypatch.syspath_prepend(folder(files, below="notimported"))
    leave_out = ["*/tests/*", "notimported/_table.py", "a.py"]
    found = read_package("notimported", leave_out=leave_out)
    assert names(found) == [f"notimported/{name}" for name in ("__init__.py", "a.py", "sub/b.py")]
    assert found[1].text == "a = 1\n"
    assert "notimported" not in sys.modules
    for name in ("no_such_package", "json.decoder", "bisect", "../numpy", ""):
        with pytest.raises(SourceError, match=r"no package .* is installed here; install it"):
            read_package(name)


@pytest.mark.parametrize(("raw", "text"), [
    (b"a = 1\r\nb = 2\r\n", "a = 1\nb = 2\n"), (b"a\rb\r\n\r\nc\r", "a\rb\n\nc\r"),
    (b"\xef\xbb\xbfa = 1\n", "a = 1\n"), ("é🙂\0 ".encode(), "é🙂\0 "), (b"  x  ", "  x  "),
    (b"a\xef\xbb\xbf", "a\ufeff"),  # inside a text it is a character as any other
])  # fmt: skip
def test_the_text_is_the_file_without_what_editors_add(folder, raw, text):
    (found,) = read_documents(folder({"a.py": raw}))
    assert (found.text, found.num_bytes) == (text, len(text.encode()))


def test_blank_files_folders_pipes_and_broken_or_circular_links_are_skipped(folder):
    root = folder({"a.py": "", "b.py": " \n\t\r\n", "c.py": b"\xef\xbb\xbf", "d.py": "d"})
    assert names(read_documents(root)) == ["d.py"]
    folder({"package.py/a.py": "a", "sub/b.py": "b"})
    (root / "empty.py").mkdir()
    os.mkfifo(root / "pipe.py")
    links = {"loop.py": "loop.py", "gone.py": "no such file", "sub/up": "..", "same.py": "d.py"}
    for link, target in links.items():
        (root / link).symlink_to(target)
    assert names(read_documents(root)) == ["d.py", "package.py/a.py", "same.py", "sub/b.py"]


def test_home_may_be_written_as_a_tilde_and_a_path_called_stdlib_is_a_folder(folder, monkeypatch):
    root = folder({"texts/a.py": "a", "stdlib/b.py": "b"})
    monkeypatch.setenv("HOME", str(root))
    assert names(read_documents("~/texts")) == ["a.py"]
    monkeypatch.chdir(root)
    assert names(read_documents(Path("stdlib"))) == ["b.py"]


@pytest.mark.parametrize(("raw", "byte"), [
    (b"caf\xe9", 3), (b"\xff\xfea\0", 0), (b"abc\xe2\x82", 3), (b"\xed\xa0\x80", 0),
])  # fmt: skip
def test_what_is_not_utf8_or_cannot_be_read_is_named(folder, monkeypatch, raw, byte):
    root = folder({"a.py": "a", "sub/b.py": raw})
    with pytest.raises(SourceError, match=rf"sub/b\.py is not UTF-8 text \(byte {byte}\)"):
        read_documents(root)

    def refuse(file, read=Path.read_bytes):
        if file.name == "b.py":
            raise PermissionError(13, "Permission denied")
        return read(file)

    monkeypatch.setattr(Path, "read_bytes", refuse)  # a test may run as root, who may read all
    with pytest.raises(SourceError, match=r"b\.py cannot be read: Permission denied"):
        read_documents(root)
    assert names(read_documents(root, leave_out=["sub/*"])) == ["a.py"]


@pytest.mark.parametrize("include", [["*.rs", "*.c"], [], ["A.py"]])
def test_no_match_is_refused_and_what_is_not_a_folder(folder, include):
    root = folder({"a.py": "a"})
    with pytest.raises(SourceError, match=re.escape(f"matches {', '.join(include)}")):
        read_documents(root, include=include)
    for name in ("nowhere", "a.py"):
        with pytest.raises(SourceError, match=rf"{name} is not a folder"):
            read_documents(root / name)


def test_stdlib_names_the_library_of_the_running_python(folder, monkeypatch):
    found = read_documents("stdlib", include=["o*.py", "json/*.py"], leave_out=["*/*/*"])
    assert {"os.py", "operator.py", "json/decoder.py"} <= set(names(found))
    assert Document("os.py", Path(os.__file__).read_text(encoding="utf-8")) in found
    library = {"os.py": "o", "json/decoder.py": "j", "site-packages/torch/nn.py": "t"}
    root = folder({**library, "site-packages/latin.py": b"\xe9"})
    monkeypatch.setattr(sysconfig, "get_path", {"stdlib": str(root)}.get)
    found = names(read_documents("stdlib", leave_out=["site-packages/*"]))
    assert found == ["json/decoder.py", "os.py"]


@pytest.mark.parametrize(("include", "leave_out", "entered"), [
    (["*.py"], ["site-packages/*", "*/tests/*"], {".", "json", "xml", "xml/dom"}),
    (["json/*.py"], [], {".", "json", "json/tests"}), (["*.py"], ["*"], {"."}),
    (["j*/*.py"], [], {".", "json", "json/tests"}),
    (["xml/dom/*.py", "a.py"], [], {".", "xml", "xml/dom"}),
])  # fmt: skip
def test_folders_without_a_match_are_not_entered(folder, monkeypatch, include, leave_out, entered):
    files = ("a.py", "json/b.py", "json/tests/c.py", "site-packages/d.py", "xml/dom/e.py")
    root = folder({name: name for name in files})
    want = [n for n in files if _matches(n, include) and not _matches(n, leave_out)]
    scan, seen = os.scandir, set()
    monkeypatch.setattr(os, "scandir", lambda path: (seen.add(Path(path)), scan(path))[1])
    nothing = pytest.raises(SourceError, match="holds no text that matches")
    with contextlib.nullcontext() if want else nothing:
        assert names(read_documents(root, include=include, leave_out=leave_out)) == want
    assert {path.relative_to(root).as_posix() for path in seen} == entered


DOCUMENTS = [Document(name, name) for name in ("a.py", "b.py", "sub/a.py", "sub/b.py")]


@pytest.mark.parametrize(("patterns", "held"), [
    ([], []), (["a.py"], ["a.py"]), (["sub/*"], ["sub/a.py", "sub/b.py"]),
    (["*b.py", "b.py", "*/a.py"], ["b.py", "sub/a.py", "sub/b.py"]), ("*/a.py", ["sub/a.py"]),
])  # fmt: skip
def test_held_out_documents_are_not_trained_on(patterns, held):
    kept, found = map(names, hold_out(DOCUMENTS, patterns))
    assert found == held
    assert kept == [name for name in names(DOCUMENTS) if name not in held]


@pytest.mark.parametrize("patterns", [["c.py"], ["a.py", "A.py"], ["sub"], ["/a.py"], [""]])
def test_a_pattern_that_holds_out_nothing_is_refused_and_one_that_leaves_nothing(patterns):
    with pytest.raises(SourceError, match=f"nothing matches '{patterns[-1]}', which was to be"):
        hold_out(DOCUMENTS, patterns)
    with pytest.raises(SourceError, match="every document is held out"):
        hold_out(DOCUMENTS, ["*.py"])
