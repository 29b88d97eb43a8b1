"""The map of the course and its glossary: each notebook is there, and the minutes are computed."""

import re

import pytest
from notebook_cells import FOLDER, NOTEBOOKS, main_line, minutes, read

MAP, GLOSSARY = ((FOLDER / name).read_text("utf-8") for name in ("README.md", "glossary.md"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_stated_minutes_are_computed(path):
    """The map and the title say what the words, cells and exercises add up to, within 5."""
    reading, exercises, long = minutes(read(path))
    computed = f"{reading:.0f} + {exercises} + {long}"
    row = re.search(rf"^\|.*\({path.name}\).*?\| (\d+) \| (\d*) \| (\d*) \|$", MAP, re.MULTILINE)
    assert row, f"not in the table: {path.name}, {computed}"
    assert (int(row[2] or 0), int(row[3] or 0)) == (exercises, long), computed
    assert abs(int(row[1]) - reading - exercises) <= 5, computed
    title = read(path).cells[0].source
    time = re.search(r"\*\*Time:\*\* about (\d+) minutes(.*?)\*\*Before", title, re.DOTALL)
    assert time, "**Time:** about 45 minutes, 15 of them for exercises, and 30 for the long one."
    assert abs(int(time[1]) - reading - exercises) <= 5, computed
    assert [int(n) for n in re.findall(r"\d+", time[2])] == [n for n in (exercises, long) if n]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short(path):
    """At most 65 cells in the main line, and an hour with all exercises but the long ones."""
    notebook = read(path)
    reading, exercises, long = minutes(notebook)
    print(f"{path.stem}: {len(main_line(notebook))} cells, {reading:.0f} + {exercises} (+ {long})")
    assert len(main_line(notebook)) <= 65
    assert reading + exercises <= 60


@pytest.mark.parametrize("page", [MAP, GLOSSARY], ids=["map", "glossary"])
def test_every_notebook_is_linked_and_no_heading_is_missing(page):
    links = re.findall(r"\]\(([^)]+)\)|^\[\d\d[a-z]?\]: (\S+)$", page, re.MULTILINE)
    links = {inline or reference for inline, reference in links}
    assert {path.name for path in NOTEBOOKS} <= links
    headings = re.findall(r"^#+ (.*)$", page.lower(), re.MULTILINE)
    anchors = {"#" + re.sub(r"[^\w-]", "", line.replace(" ", "-")) for line in headings}
    assert {link for link in links if link.startswith("#")} <= anchors
    pages = {link for link in links if link.endswith(".md")}
    assert {name for name in pages if not (FOLDER / name).is_file()} == set()


def test_each_row_of_the_glossary_names_one_notebook():
    rows = re.findall(r"^\| (?!term \|).*$", GLOSSARY.partition("## Model")[2], re.MULTILINE)
    assert len(rows) > 100
    assert [row for row in rows if len(re.findall(r"\[\d\d[a-z]?\]", row)) != 1] == []
    terms = [row.split(" | ")[0] for row in rows]
    assert sorted(set(terms)) == sorted(terms)
