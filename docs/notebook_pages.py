"""What a notebook needs to be a page: live widgets, folded answers, predictions to make."""

import ast
import html

import nbformat
from widget_pages import VIEW, is_widget

FRAME = """<figure class="widget">
<iframe src="../widgets/{name}" title="{title}" loading="lazy"></iframe>
<figcaption><a href="../widgets/{name}">This widget on a page of its own</a></figcaption>
</figure>"""
PREDICTION = """<fieldset class="prediction"><legend>Your prediction</legend>
{choices}
</fieldset>"""
CHOICE = '<label><input type="radio" name="{name}"> {text}</label>'
ABOUT = """```{note}
This page shows stored outputs. The widgets work here; the code does not run. To write the exercises
and have them checked, open the notebook in JupyterLab: `make lab`.
```"""


def changed(text: str, widgets: dict[int, list[tuple[str, str]]]) -> str:
    """Return a notebook's text with each output as the page shows it.

    Args:
        text: the notebook's file.
        widgets: for the cells that show widgets, their pages and titles; without, the picture of
            the widget is shown.
    """
    notebook = nbformat.reads(text, as_version=4)
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        if index in widgets:
            cell.outputs = in_frames(cell.outputs, widgets[index])
        if is_prediction(cell):
            cell.outputs = [as_output(buttons(cell.source))]
        cell.outputs = [output for output in cell.outputs if VIEW not in output.get("data", {})]
        if cell.metadata.get("jupyter", {}).get("outputs_hidden"):
            cell.metadata.setdefault("tags", []).append("hide-output")
        alt = [
            output.metadata["image/png"]["alt"]
            for output in cell.outputs
            if "alt" in output.get("metadata", {}).get("image/png", {})
        ]
        shown = {"code_prompt_show": "Show the answer", "code_prompt_hide": "Hide the answer"}
        cell.metadata["mystnb"] = {**shown, **({"image": {"alt": alt[0]}} if alt else {})}
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell(ABOUT))
    return nbformat.writes(notebook)


def in_frames(outputs: list, pages: list[tuple[str, str]]) -> list:
    """Return outputs with each widget, and the picture of it that follows, as a frame."""
    remaining, kept, after_widget = iter(pages), [], False
    for output in outputs:
        if is_widget(output):
            name, title = next(remaining)
            kept.append(as_output(FRAME.format(name=name, title=html.escape(title, quote=True))))
        elif not (after_widget and "image/png" in output.get("data", {})):
            kept.append(output)
        after_widget = is_widget(output)
    return kept


def is_prediction(cell: nbformat.NotebookNode) -> bool:
    """Tell whether a cell asks for a prediction."""
    return cell.source.startswith("qk.predict(") and any(
        VIEW in output.get("data", {}) for output in cell.outputs
    )


def buttons(source: str) -> str:
    """Return the choices of `qk.predict(name, options)` as radio buttons."""
    name, options = ast.parse(source).body[0].value.args
    choices = [
        CHOICE.format(name=html.escape(name.value), text=html.escape(option))
        for option in ast.literal_eval(options)
    ]
    return PREDICTION.format(choices="\n".join(choices))


def as_output(markup: str) -> nbformat.NotebookNode:
    """Return markup as an output of a cell."""
    return nbformat.v4.new_output("display_data", {"text/html": markup})
