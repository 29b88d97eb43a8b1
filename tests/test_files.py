"""A file is the old one or the new one, never half of either."""

import re
from contextlib import suppress

import pytest

from qwenkit.files import clear_leftovers, replacing, temporary_name


@pytest.mark.parametrize("fails", [False, True])
def test_the_new_file_replaces_the_old_at_the_end_unless_writing_fails(tmp_path, fails):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with suppress(KeyError), replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        if fails:
            raise KeyError
    assert path.read_text() == ("old" if fails else "new")
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_are_the_files_with_a_temporary_name(tmp_path):
    left = temporary_name(tmp_path / "table.csv")
    left.write_text("ne")
    (tmp_path / "mine.tmp").write_text("mine")
    clear_leftovers(tmp_path, "other")
    assert left.exists()
    clear_leftovers(tmp_path, re.escape("table.csv"))
    assert [file.name for file in tmp_path.iterdir()] == ["mine.tmp"]
