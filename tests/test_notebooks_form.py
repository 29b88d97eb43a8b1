"""The form that every notebook has: the order of its parts, words before code, checked outputs."""

import re
import statistics
from itertools import pairwise

import nbformat
import pytest
from notebook_cells import FOLDER, LONG, NOTEBOOKS, PREDICT, read, tagged, tags

TAGS = re.compile(r"nbval-ignore-output|raises-exception|(exercise|solution|check)-\d+")
MOST_LINES, MEDIAN_LINES = 25, 6
LEAST_WORDS, MOST_WORDS = 20, 60
MOST_IGNORED = 3  # cells per notebook whose outputs are not compared
LARGEST = 500_000
# Folders of one machine; after a word, as in "and/or", it is not a path.
MACHINE = re.compile(r"(?<![\w.~-])(?:/(?:tmp|var|home|root|Users|private|mnt|opt)/|[A-Z]:\\)")


def words(markdown):
    """Return how many words of prose a cell has: no headings, tables, code or folded parts."""
    text = re.sub(r"<details>.*?</details>|```.*?```", " ", markdown, flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not re.match(r"\s*(#|\|)", line)]
    return len(re.findall(r"[^\W_]+", " ".join(lines)))


def wrong_parts(notebook, label):
    """Say which part is missing or out of order; an appendix ("04b") needs fewer."""
    cells, appendix = notebook.cells, not label.isdigit()
    markdown = [cell.source if cell.cell_type == "markdown" else "" for cell in cells]

    def place(pattern):
        found = re.compile(pattern, re.MULTILINE)
        return next((at for at, text in enumerate(markdown) if found.search(text)), None)

    order = [("title", place(rf"^# {label} · \w"))]
    if not appendix:
        order.append(("you are here", place("^## You are here")))
        if int(label):
            order.append(("shape table", place("^### Shape table")))
        order += [(part, tagged(notebook, part).get(1)) for part in ("exercise", "check")]
    order.append(("recap", place("^## Recap")))
    missing = [name for name, at in order if at is None]
    if missing:
        return [f"has no {name}" for name in missing]
    pairs = [(one, other) for one, other in pairwise(order) if other[1] < one[1]]
    found = [f"{other} comes before {one}" for (one, _), (other, _) in pairs]
    if order[0][1] != 0:
        found.append("does not begin with its title")
    for phrase in ("you will be able to", "**Time:**", "**Before this:**"):
        if phrase not in markdown[0]:
            found.append(f"its title does not say {phrase!r}")
    if not appendix and not any("**Predict first" in text for text in markdown):
        found.append("never asks the reader to predict")
    recap = markdown[order[-1][1]]
    lines = len(re.findall(r"^\d\. ", recap, re.MULTILINE))
    if not (3 if appendix else 5) <= lines <= 5 or "**Where next" not in recap:
        found.append("its recap is not five lines and where next")
    if order[-1][1] != len(cells) - 1:
        found.append("goes on after its recap")
    return found


def wrong_exercises(notebook, label):
    """Say what an exercise lacks: minutes, difficulty, importance, hints, solution or check."""
    found = []
    headings = re.compile(
        r"\A### Exercise (\d+): .+ · (\d+) minutes · (easy|medium|hard) · (?:core|useful|extra)$",
        re.MULTILINE,
    )
    marks = [one for cell in notebook.cells for one in headings.findall(cell.source)]
    numbers = [int(number) for number, *_ in marks]
    parts = [tagged(notebook, part) for part in ("exercise", "solution", "check")]
    if list(parts[0]) != numbers or numbers != list(range(1, len(numbers) + 1)):
        stubs = list(parts[0])
        found.append(f"its stubs are {stubs}, its headings (minutes, difficulty) name {numbers}")
    if label.isdigit() and int(label) >= 4:
        if not any(int(m) >= LONG and how == "hard" for _, m, how in marks):
            found.append("has no hard exercise of half an hour")
    for number in numbers:
        stub, solution, check = (part.get(number) for part in parts)
        if None in (stub, solution, check):
            found.append(f"exercise {number} lacks a stub, a solution or a check")
            continue
        if (solution, check) != (stub + 1, stub + 2):
            found.append(f"exercise {number}: stub, solution and check do not follow each other")
        text = notebook.cells[solution].source
        summaries = re.findall(r"<summary>(.*?)</summary>", text)
        if summaries != ["Hint 1", "Hint 2", "Solution"] or "```python" not in text:
            found.append(f"exercise {number} has {summaries}, expected two hints and a solution")
        outputs = notebook.cells[check].outputs
        if not any(output.get("text", "").startswith("Still empty") for output in outputs):
            found.append(f"check {number} does not say that the stub is still empty")
    return found


def wrong_predictions(notebook, label):
    """Say which prediction cannot be recorded, or is never answered."""
    found, cells, asked = [], notebook.cells, []
    for number, cell in enumerate(cells):
        if cell.cell_type == "markdown" and "**Predict first" in cell.source:
            after = cells[number + 1]
            name = PREDICT.match(after.source) if after.cell_type == "code" else None
            if name is None:
                found.append(f"cell {number + 1} should begin with qk.predict(...)")
                continue
            asked.append(name[1])
            answer = cells[_answer(notebook, number)].source
            if f'qk.outcome("{name[1]}", ' not in answer:
                found.append(f"prediction {name[1]} has no qk.outcome where it is answered")
    if asked != [f"{label}.{number + 1}" for number in range(len(asked))]:
        found.append(f"its predictions are {asked}")
    if asked and f'qk.checks.predictions("{label}")' not in cells[-2].source:
        found.append("its last code cell does not count the predictions")
    return found


def _answer(notebook, number):
    """Return the first cell with outputs after a question, and after the buttons to answer it."""
    later = range(number + 1, len(notebook.cells))
    cells = notebook.cells
    return next(n for n in later if cells[n].get("outputs") and not PREDICT.match(cells[n].source))


def wrong_cells(notebook):
    """Say what is wrong with words, lines and counts of single cells."""
    found, lines, count = [], [], 0
    for number, cell in enumerate(notebook.cells):
        strange = [tag for tag in tags(cell) if not TAGS.fullmatch(tag)]
        if strange:
            found.append(f"cell {number} has the tags {strange}")
        if cell.cell_type != "code":
            continue
        count += 1
        before = notebook.cells[number - 1] if number else cell
        if PREDICT.match(before.source):  # the words stand before the question's buttons
            before = notebook.cells[number - 2]
        amount = words(before.source) if before.cell_type == "markdown" else 0
        if not LEAST_WORDS <= amount <= MOST_WORDS:
            found.append(f"cell {number} has {amount} words before it")
        lines.append(len(cell.source.splitlines()))
        if lines[-1] > MOST_LINES:
            found.append(f"cell {number} has {lines[-1]} lines")
        if cell.execution_count != count:
            found.append(f"cell {number} has the count {cell.execution_count}, expected {count}")
    if statistics.median(lines or [0]) > MEDIAN_LINES:
        found.append(f"the median cell has {statistics.median(lines)} lines")
    return found


def wrong_outputs(notebook):
    """Say which outputs must not be there, or lack something."""
    found = []
    if "widgets" in notebook.metadata:
        found.append("has metadata.widgets")
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("its kernel is not python3")
    ignored = sum("nbval-ignore-output" in tags(cell) for cell in notebook.cells)
    if ignored > MOST_IGNORED:
        found.append(f"{ignored} outputs are not compared")
    for number, cell in enumerate(notebook.cells):
        if MACHINE.search(cell.source):
            found.append(f"cell {number} names a folder of one machine")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            texts = [output.get("text", ""), *output.get("traceback", [])]
            texts += [value for kind, value in data.items() if kind.startswith("text/")]
            if any(MACHINE.search(text) for text in texts):
                found.append(f"cell {number} shows a folder of one machine")
            if output.output_type == "error" and "raises-exception" not in tags(cell):
                found.append(f"cell {number} failed")
            if output.get("name") == "stderr":
                found.append(f"cell {number} wrote to stderr")
            if "image/svg+xml" in data or "image/jpeg" in data:
                found.append(f"cell {number} has a picture that is not a PNG")
            alt = output.get("metadata", {}).get("image/png", {}).get("alt", "")
            if "image/png" in data and (len(alt.split()) < 5 or data.get("text/plain") != alt):
                found.append(f"cell {number} has a figure without an alt text")
    return found


def wrong_folds(notebook):
    """Say which answers to a prediction are not folded, and what is folded without one."""
    answers = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown" and "**Predict first" in cell.source:
            answers.append(_answer(notebook, number))
    hidden = [
        number for number, cell in enumerate(notebook.cells)
        if cell.metadata.get("jupyter", {}).get("outputs_hidden")
        and cell.metadata.get("collapsed")  # JupyterLab writes both
    ]  # fmt: skip
    return [f"cell {n}: folded is what answers a prediction" for n in {*answers} ^ {*hidden}]


def problems(notebook, label):
    """Return every breach of the form, as sentences; the label is "04", or "04b"."""
    return [
        *wrong_parts(notebook, label),
        *wrong_exercises(notebook, label),
        *wrong_predictions(notebook, label),
        *wrong_cells(notebook),
        *wrong_outputs(notebook),
        *wrong_folds(notebook),
    ]


def test_names_are_numbered_in_the_order_of_reading():
    assert NOTEBOOKS[0].stem.startswith("00_")
    assert all(re.fullmatch(r"\d\d[b-z]?_[a-z0-9_]+", path.stem) for path in NOTEBOOKS)
    labels = [path.stem.partition("_")[0] for path in NOTEBOOKS]
    assert len(set(labels)) == len(labels)
    assert {label[:2] for label in labels} == {label for label in labels if label.isdigit()}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_form_and_links(path):
    notebook = read(path)
    assert problems(notebook, path.stem.partition("_")[0]) == []
    assert path.stat().st_size < LARGEST
    links = [t for c in notebook.cells for t in re.findall(r"\]\(([\w./-]+)\)", c.source)]
    assert [link for link in links if not (FOLDER / link).exists()] == []


# --- each breach is found in a notebook that is otherwise correct ---


def _edit(number, change):
    def apply(notebook):
        change(notebook.cells[number])

    return apply


def _drop(heading):
    def apply(notebook):
        for cell in notebook.cells:
            cell.source = cell.source.replace(heading, "## Something else")

    return apply


def _first(notebook, part):
    return notebook.cells[tagged(notebook, part)[1]]


def _first_figure(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return next(output for output in outputs if "image/png" in output.get("data", {}))


def _first_code(notebook):
    return next(cell for cell in notebook.cells if cell.cell_type == "code")


def _first_buttons(notebook):
    return next(cell for cell in notebook.cells if PREDICT.match(cell.source))


def _printed(text, name="stdout"):
    return lambda nb: _first_code(nb).outputs.append(
        nbformat.v4.new_output("stream", name=name, text=text)
    )


BREACHES = {
    "has no you are here": _drop("## You are here"),
    "has no shape table": _drop("### Shape table"),
    "has no recap": _drop("## Recap"),
    "has no title": _drop("# 01 · "),
    "does not say '**Time:**'": _edit(0, lambda c: c.update(source=c.source.replace("Time", "x"))),
    "goes on after its recap": lambda nb: nb.cells.append(nbformat.v4.new_markdown_cell("More.")),
    "words before it": _edit(1, lambda c: c.update(source="## You are here\n\nToo few words.")),
    "lines": lambda nb: _first_code(nb).update(source="x = 1\n" * 26),
    "expected 1": lambda nb: _first_code(nb).update(execution_count=7),
    "metadata.widgets": lambda nb: nb.metadata.update(widgets={}),
    "without an alt text": lambda nb: _first_figure(nb).update(metadata={}),
    "shows a folder of one machine": _printed("in /" + "tmp/x12/config.json"),
    "wrote to stderr": _printed("careful", name="stderr"),
    "outputs are not compared": lambda nb: [
        cell.metadata.update(tags=["nbval-ignore-output"]) for cell in nb.cells[-20:]
    ],
    "has the tags ['nbval-skip']": _edit(1, lambda c: c.metadata.update(tags=["nbval-skip"])),
    "stubs are": lambda nb: _first(nb, "exercise").metadata.pop("tags"),
    "lacks a stub, a solution or a check": lambda nb: _first(nb, "check").metadata.pop("tags"),
    "still empty": lambda nb: _first(nb, "check").update(outputs=[]),
    "expected two hints": _drop("<summary>Hint 1</summary>"),
    "should begin with qk.predict": lambda nb: nb.cells.remove(_first_buttons(nb)),
    "has no qk.outcome": lambda nb: [
        cell.update(source=cell.source.replace("qk.outcome", "print")) for cell in nb.cells
    ],
    "its predictions are": lambda nb: _first_buttons(nb).update(
        source=_first_buttons(nb).source.replace(".1", ".7")
    ),
    "does not count the predictions": lambda nb: nb.cells[-2].update(source="pass"),
    "folded is what": lambda nb: _first_code(nb).metadata.update(
        collapsed=True, jupyter={"outputs_hidden": True}
    ),
}


@pytest.mark.parametrize("words_expected", BREACHES)
def test_a_breach_is_found(words_expected):
    notebook = read(NOTEBOOKS[1])
    BREACHES[words_expected](notebook)
    assert any(words_expected in problem for problem in problems(notebook, "01"))


def test_from_04_on_a_hard_exercise_is_missed():
    assert "has no hard exercise of half an hour" in problems(read(NOTEBOOKS[0]), "04")
