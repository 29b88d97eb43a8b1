"""A file is the old one or the new one, never half of either."""

import re

import pytest

from qwenkit.files import clear_leftovers, replacing, temporary_name


def test_the_new_file_takes_the_place_of_the_old_at_the_end(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writing_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_are_what_bears_a_temporary_name(tmp_path):
    left = temporary_name(tmp_path / "table.csv")
    left.write_text("ne")
    (tmp_path / "mine.tmp").write_text("mine")
    clear_leftovers(tmp_path, "other")
    assert left.exists()
    clear_leftovers(tmp_path, re.escape("table.csv"))
    assert [file.name for file in tmp_path.iterdir()] == ["mine.tmp"]
