"""The map of the course and its glossary: each notebook is there, and the minutes are computed."""

import re

import pytest
from notebook_cells import FOLDER, NOTEBOOKS, read

MAP, GLOSSARY = ((FOLDER / name).read_text("utf-8") for name in ("README.md", "glossary.md"))


def minutes(notebook):
    """Return the minutes of a first reading, and of its exercises (as README.md says)."""
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    words = [w for w in re.sub(r"\]\([^)]*\)", "", text).split() if re.search(r"\w", w)]
    exercises = sum(int(m) for m in re.findall(r"^#+ Exercise .*?(\d+) minutes", text, re.M))
    code = sum(cell.cell_type == "code" for cell in notebook.cells)
    predictions = text.count("**Predict first")
    return len(words) / 150 + 0.75 * code + predictions + exercises, exercises


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_map_states_the_minutes_that_are_computed(path):
    row = re.search(rf"^\|.*\({path.name}\).*\| (\d+) \| (\d+) \|$", MAP, re.MULTILINE)
    total, exercises = minutes(read(path))
    assert int(row[2]) == exercises
    assert abs(int(row[1]) - total) <= 5, f"{total:.0f} minutes"


@pytest.mark.parametrize("page", [MAP, GLOSSARY], ids=["map", "glossary"])
def test_every_notebook_is_linked_and_no_heading_is_missing(page):
    links = re.findall(r"\]\(([^)]+)\)|^\[\d\d\]: (\S+)$", page, re.MULTILINE)
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
    assert [row for row in rows if len(re.findall(r"\[\d\d\]", row)) != 1] == []
    terms = [row.split(" | ")[0] for row in rows]
    assert sorted(set(terms)) == sorted(terms)
