"""The text to learn from: which files, in which order, and what is held out."""

import os
import re
import sys
import sysconfig
from pathlib import Path

import pytest

from qwenkit.errors import SourceError
from qwenkit.train.documents import Document, _matches, hold_out, read_documents, read_package


def folder_of(tmp_path, files):
    """Write files by name, as text or as bytes."""
    for name, content in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path


def names(documents):
    return [document.name for document in documents]


TREE = {
    "b.py": "b = 1\n", "a.py": "a = 1\n", "Z.py": "z = 1\n", "notes.md": "# Notes\n",
    "sub/c.py": "c = 1\n", "sub/deep/d.py": "d = 1\n", "sub.py": "s = 1\n",
    "tests/e.py": "e = 1\n", "sub/tests/f.py": "f = 1\n", "data.bin": b"\xff\xfe", "x.txt": "x",
    ".hidden/g.py": "g = 1\n",
}  # fmt: skip


def test_files_come_in_the_order_of_their_names(tmp_path):
    found = read_documents(folder_of(tmp_path, TREE), include=["*.py"])
    assert names(found) == [
        ".hidden/g.py", "Z.py", "a.py", "b.py", "sub.py", "sub/c.py", "sub/deep/d.py",
        "sub/tests/f.py", "tests/e.py",
    ]  # fmt: skip
    assert found[5] == Document("sub/c.py", "c = 1\n")


def test_python_markdown_and_text_are_read_unless_told_otherwise(tmp_path):
    found = read_documents(folder_of(tmp_path, TREE))
    assert len(found) == len(TREE) - 1  # all but data.bin, which is no text
    assert {"notes.md", "x.txt", "sub/deep/d.py"} <= set(names(found))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An importable package, which must be found without being run."""
    files = {
        "__init__.py": "raise SystemExit\n", "a.py": "a = 1\n", "notes.md": "# Notes\n",
        "sub/b.py": "b = 1\n", "tests/test_a.py": "t = 1\n", "_table.py": "n = 1\n",
    }  # fmt: skip
    folder_of(tmp_path / "notimported", files)
    monkeypatch.syspath_prepend(tmp_path)
    return "notimported"


def test_a_packages_python_files_bear_its_name(package):
    found = read_package(package, leave_out=["*/tests/*", "notimported/_table.py", "a.py"])
    assert names(found) == [f"{package}/__init__.py", f"{package}/a.py", f"{package}/sub/b.py"]
    assert found[1].text == "a = 1\n"
    assert package not in sys.modules


@pytest.mark.parametrize("name", ["no_such_package", "json.decoder", "bisect", "../numpy", ""])
def test_what_is_no_installed_package_is_refused(name):
    with pytest.raises(SourceError, match=r"no package .* is installed here; install it"):
        read_package(name)


@pytest.mark.parametrize(
    ("include", "leave_out", "want"),
    [
        (["a.py"], [], ["a.py"]),
        (["sub/*"], [], ["sub/c.py", "sub/deep/d.py", "sub/tests/f.py"]),  # "*" matches "/"
        (["*/c.py", "x.*"], [], ["sub/c.py", "x.txt"]),
        (["?.py"], [], ["Z.py", "a.py", "b.py"]),
        (["[ab].py"], [], ["a.py", "b.py"]),
        (["z.py", "Z.py"], [], ["Z.py"]),  # capitals count
        (["*.py"], ["*/*"], ["Z.py", "a.py", "b.py", "sub.py"]),
        (["*.py"], ["tests/*", "*/tests/*", "?.py", ".*"], ["sub.py", "sub/c.py", "sub/deep/d.py"]),
        (["a.py", "a.*", "*"], ["[!a]*"], ["a.py"]),  # no file twice
    ],
)
def test_patterns_choose(tmp_path, include, leave_out, want):
    found = read_documents(folder_of(tmp_path, TREE), include=include, leave_out=leave_out)
    assert names(found) == want


def test_one_string_is_one_pattern(tmp_path):
    """Read letter by letter, "*.py" would hold the pattern "*", which matches everything."""
    found = read_documents(folder_of(tmp_path, TREE), include="*.md")
    assert names(found) == ["notes.md"]
    assert _matches("sub/c.py", "*.py")
    assert not _matches("notes.md", "*.py")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"a = 1\r\nb = 2\r\n", "a = 1\nb = 2\n"),
        (b"a\rb\r\n\r\nc\r", "a\rb\n\nc\r"),
        (b"\xef\xbb\xbfa = 1\n", "a = 1\n"),
        (b"a\xef\xbb\xbf", "a\ufeff"),  # inside a text it is a letter as any other
        ("é🙂\0 ".encode(), "é🙂\0 "),
        (b"  x  ", "  x  "),
    ],
)
def test_the_text_is_the_files_but_for_marks_of_editors(tmp_path, raw, text):
    (found,) = read_documents(folder_of(tmp_path, {"a.py": raw}))
    assert found.text == text
    assert found.num_bytes == len(text.encode())


def test_blank_files_are_left_out(tmp_path):
    blank = {"a.py": "", "b.py": " \n\t\r\n", "c.py": b"\xef\xbb\xbf", "d.py": "d"}
    assert names(read_documents(folder_of(tmp_path, blank))) == ["d.py"]


def test_a_folder_may_be_called_like_a_file(tmp_path):
    folder_of(tmp_path, {"package.py/a.py": "a"})
    (tmp_path / "empty.py").mkdir()
    assert names(read_documents(tmp_path)) == ["package.py/a.py"]


def test_links_that_lead_nowhere_or_in_a_circle_are_passed_by(tmp_path):
    folder_of(tmp_path, {"a.py": "a", "sub/b.py": "b"})
    (tmp_path / "loop.py").symlink_to("loop.py")
    (tmp_path / "gone.py").symlink_to("no such file")
    (tmp_path / "sub" / "up").symlink_to("..")
    (tmp_path / "same.py").symlink_to("a.py")
    assert names(read_documents(tmp_path)) == ["a.py", "same.py", "sub/b.py"]


def test_a_pipe_is_not_waited_for(tmp_path):
    folder_of(tmp_path, {"a.py": "a"})
    os.mkfifo(tmp_path / "pipe.py")
    assert names(read_documents(tmp_path)) == ["a.py"]


def test_home_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    folder_of(tmp_path, {"texts/a.py": "a"})
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names(read_documents("~/texts")) == ["a.py"]


# --- what is refused ---


@pytest.mark.parametrize(
    ("raw", "byte"),
    [(b"caf\xe9", 3), (b"\xff\xfea\0", 0), (b"abc\xe2\x82", 3), (b"\xed\xa0\x80", 0)],
)
def test_what_is_not_utf8_is_named_with_the_byte(tmp_path, raw, byte):
    folder_of(tmp_path, {"a.py": "a", "sub/b.py": raw})
    with pytest.raises(SourceError, match=rf"sub/b\.py is not UTF-8 text \(byte {byte}\)"):
        read_documents(tmp_path)
    assert names(read_documents(tmp_path, leave_out=["sub/*"])) == ["a.py"]


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    folder_of(tmp_path, {"a.py": "a", "b.py": "b"})
    read = Path.read_bytes

    def refuse(file):
        if file.name == "b.py":
            raise PermissionError(13, "Permission denied")
        return read(file)

    monkeypatch.setattr(Path, "read_bytes", refuse)  # a test may run as root, who may read all
    with pytest.raises(SourceError, match=r"b\.py cannot be read: Permission denied"):
        read_documents(tmp_path)
    assert names(read_documents(tmp_path, leave_out=["b.py"])) == ["a.py"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(SourceError, match="nowhere is not a folder"):
        read_documents(tmp_path / "nowhere")
    folder_of(tmp_path, {"a.py": "a"})
    with pytest.raises(SourceError, match=r"a\.py is not a folder"):
        read_documents(tmp_path / "a.py")


@pytest.mark.parametrize("include", [["*.rs", "*.c"], [], ["A.py"]])
def test_no_match_is_refused(tmp_path, include):
    folder_of(tmp_path, {"a.py": "a"})
    with pytest.raises(SourceError, match=re.escape(f"matches {', '.join(include)}")):
        read_documents(tmp_path, include=include)


# --- the standard library ---


def test_stdlib_names_the_running_pythons_own():
    found = read_documents("stdlib", include=["o*.py", "json/*.py"], leave_out=["*/*/*"])
    assert {"os.py", "operator.py", "json/decoder.py"} <= set(names(found))
    text = {document.name: document.text for document in found}
    assert text["os.py"] == Path(os.__file__).read_text(encoding="utf-8")


def test_what_was_installed_beside_it_can_be_left_out(tmp_path, monkeypatch):
    library = {"os.py": "o", "json/decoder.py": "j", "site-packages/torch/nn.py": "t"}
    folder_of(tmp_path, {**library, "site-packages/latin.py": b"\xe9"})
    monkeypatch.setattr(sysconfig, "get_path", {"stdlib": str(tmp_path)}.get)
    found = read_documents("stdlib", leave_out=["site-packages/*"])
    assert names(found) == ["json/decoder.py", "os.py"]


@pytest.mark.parametrize(
    ("include", "leave_out", "entered"),
    [
        (["*.py"], ["site-packages/*", "*/tests/*"], {".", "json", "xml", "xml/dom"}),
        (["json/*.py"], [], {".", "json", "json/tests"}),
        (["j*/*.py"], [], {".", "json", "json/tests"}),
        (["xml/dom/*.py", "a.py"], [], {".", "xml", "xml/dom"}),
        (["*.py"], ["*"], {"."}),
    ],
)
def test_folders_in_which_nothing_can_match_are_not_entered(
    tmp_path, monkeypatch, include, leave_out, entered
):
    files = ("a.py", "json/b.py", "json/tests/c.py", "site-packages/d.py", "xml/dom/e.py")
    folder_of(tmp_path, {name: name for name in files})
    want = [n for n in files if _matches(n, include)]
    want = [n for n in want if not _matches(n, leave_out)]
    scan, seen = os.scandir, set()
    monkeypatch.setattr(os, "scandir", lambda path: (seen.add(Path(path)), scan(path))[1])
    if want:
        assert names(read_documents(tmp_path, include=include, leave_out=leave_out)) == want
    else:
        with pytest.raises(SourceError, match="holds no text that matches"):
            read_documents(tmp_path, include=include, leave_out=leave_out)
    assert {path.relative_to(tmp_path).as_posix() for path in seen} == entered


def test_a_path_called_stdlib_is_a_folder(tmp_path, monkeypatch):
    folder_of(tmp_path, {"stdlib/a.py": "a"})
    monkeypatch.chdir(tmp_path)
    assert names(read_documents(Path("stdlib"))) == ["a.py"]


# --- held out ---

DOCUMENTS = [Document(name, name) for name in ("a.py", "b.py", "sub/a.py", "sub/b.py")]


@pytest.mark.parametrize(
    ("patterns", "held"),
    [
        ([], []),
        (["a.py"], ["a.py"]),
        (["sub/*"], ["sub/a.py", "sub/b.py"]),
        (["*b.py", "b.py", "*/a.py"], ["b.py", "sub/a.py", "sub/b.py"]),
        ("*/a.py", ["sub/a.py"]),
    ],
)
def test_held_out_documents_are_not_trained_on(patterns, held):
    kept, found = hold_out(DOCUMENTS, patterns)
    assert names(found) == held
    assert names(kept) == [name for name in names(DOCUMENTS) if name not in held]


@pytest.mark.parametrize("patterns", [["c.py"], ["a.py", "A.py"], ["sub"], ["/a.py"], [""]])
def test_a_pattern_that_holds_out_nothing_is_refused(patterns):
    with pytest.raises(SourceError, match=f"nothing matches '{patterns[-1]}', which was to be"):
        hold_out(DOCUMENTS, patterns)


def test_something_must_be_left_to_train_on():
    with pytest.raises(SourceError, match="every document is held out"):
        hold_out(DOCUMENTS, ["*.py"])
