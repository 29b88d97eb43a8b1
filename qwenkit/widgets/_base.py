"""What all widgets share: one script, a picture that stays without a kernel, and an export.

A widget is a view-model, which knows everything and draws nothing, and a script, which draws it in
the page. `state` is what the reader chose; it travels both ways. `data` is what is drawn.
"""

from __future__ import annotations

import base64
import html
import inspect
import json
import posixpath
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Protocol

import anywidget
import matplotlib as mpl
import matplotlib.pyplot as plt
import traitlets
from IPython.display import display
from matplotlib.figure import Figure

from qwenkit.config import QwenConfig
from qwenkit.errors import InputError, QwenkitError
from qwenkit.files import replacing
from qwenkit.plot import as_png
from qwenkit.progress import stage

# The one form of import that the scripts use: all files of a bundle share one scope, so that no
# name may occur twice at their top level. What the second pattern finds is another form.
_IMPORT = re.compile(r'^import \{(?:(?!\bas\b)[^}])*\} from "(\.\.?/[^"]+)";\n', re.M)
_EXPORT = re.compile(r"^export (?=async function|function|class|const)", re.M)
_UNKNOWN = re.compile(r"""^\s*(?:import|export)\b\s*[\w{*"'].*""", re.M)
ENTRY = """
export default { render: (place) => render({ ...place, model: steady(place.model) }) };
"""  # the end of a widget's script where there is a kernel
TURN = "turn"  # in `state`: the page counts its choices, so that a late answer is known as one
MAPS = ("viridis", "RdBu_r", "cividis")  # safe for the color-blind; RdBu_r for signed values


class View(Protocol):
    """A view-model: it can be tested, and asked for text, without any browser.

    A subclass is a dataclass; the fields that `chosen` names are the reader's choice.
    """

    chosen: ClassVar[tuple[str, ...]]

    def state(self) -> dict[str, Any]:
        """Return what is chosen now, as plain JSON values."""
        return {name: getattr(self, name) for name in self.chosen}

    def choose(self, **state: Any) -> None:
        """Choose other values; what is not named stays.

        Raises:
            InputError: a value that is not allowed; then nothing changes.
        """
        for name in state:
            if name not in self.chosen:
                raise InputError(f"{name!r} cannot be chosen; {', '.join(self.chosen)} can")
        vars(self).update(self.checked(state))  # all at once: Ctrl-C leaves no mixture

    def checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the values to set, or refuse one that is not allowed."""
        for name, most in self.largest().items():
            if name in state:
                check_integer(name, state[name], 0, most)
        return state

    def largest(self) -> dict[str, int]:
        """Return the largest value of each choice that counts from 0."""
        return {}

    def data(self) -> dict[str, Any]:
        """Return what the script draws: plain JSON values, and `bytes`."""

    def title(self) -> str:
        """Return a line that names what is shown."""

    def alt(self) -> str:
        """Return what is shown as text."""


def check_integer(name: str, value: Any, least: int, most: int) -> None:
    """Refuse what is not an integer from `least` to `most`."""
    if type(value) is not int or not least <= value <= most:
        raise InputError(f"{name} is {value!r}; it must be an integer from {least:,} to {most:,}")


def words_of(error: BaseException) -> str:
    """Return what the page shows of an error."""
    words = str(error)
    if isinstance(error, QwenkitError):
        return words
    name = type(error).__name__
    return f"{name}: {words}" if words else name


def check_config(config: object) -> None:
    """Refuse what is not a config."""
    if not isinstance(config, QwenConfig):
        raise InputError(f"config is a {type(config).__name__}; it must be a QwenConfig")


class Inspector(anywidget.AnyWidget):
    """Base of all widgets; a subclass names its script and draws its snapshot.

    Attributes:
        view: the view-model.
        script: static/SCRIPT.js in this folder exports `render({model, el})`.
        styles: its style sheets in static/, in order.
    """

    script: ClassVar[str]
    styles: ClassVar[tuple[str, ...]] = ("style.css",)
    state = traitlets.Dict().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)

    def __init__(self, view: View) -> None:
        self.view = view
        self._turn: dict[str, int] = {}  # the number of the page's last choice; empty before it
        self._esm = source(self.script) + ENTRY
        self._css = style(self)
        super().__init__(state=view.state(), data=view.data())
        self.observe(self._chosen, "state")
        self.on_msg(self._asked)

    def choose(self, **state: Any) -> None:
        """Choose by code what a reader chooses with the mouse; the page follows.

        Raises:
            InputError: a value that is not allowed.
        """
        self.view.choose(**state)
        self.tell()
        self.answer()  # even if nothing changed: Ctrl-C may have lost an earlier answer

    def _chosen(self, change: dict[str, Any]) -> None:
        """Apply what the page chose; if that is refused or interrupted, reset the page."""
        state = dict(change["new"])
        turn = state.pop(TURN, None)
        try:
            try:
                stale = turn is not None and turn < self._turn.get(TURN, 0)
                if turn is not None and not stale:
                    self._turn = {TURN: turn}
                if state != self.view.state() and not stale:
                    self.view.choose(**state)
            finally:
                self.tell()
            self.answer()
        except BaseException as error:  # whoever waits in the page does not see the kernel's log
            self.send({"error": words_of(error)})
            raise

    def tell(self) -> None:
        """Send what is chosen now, and which of the page's choices was the last one heard.

        The page keeps a choice of its own that is newer than that: see `steady` in common.js.
        """
        self.state = self.view.state() | self._turn

    def _asked(self, _: Any, message: dict[str, Any], buffers: Any) -> None:
        """Tell the page at once that the kernel is there, then do what it asks for."""
        if "ask" in message:
            self.send({"heard": message["ask"]})
            self.asked(message)

    def asked(self, message: dict[str, Any]) -> None:
        """Do what a message of the page asks for, if it asks for more than whether one is there.

        Its "ask" is an id, which the answer repeats as "done".
        """

    def answer(self) -> None:
        """Send what the page cannot compute, if there is anything."""

    def snapshot(self) -> Figure:
        """Draw what is shown now with matplotlib, for pages without a kernel."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Return the same text on every machine: notebooks are compared."""
        return f"{type(self).__name__}: {self.view.title()}"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Add a picture and its alt text: they are what a page without a kernel shows."""
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if bundle is not None else ({}, {})
        alt = self.view.alt()
        data |= {"text/plain": alt, "image/png": base64.b64encode(self._png()).decode()}
        return data, {**metadata, "image/png": {"alt": alt}}

    def _ipython_display_(self, **kwargs: Any) -> None:
        """Display the widget, and below it the picture as an output of its own.

        When a notebook is opened again without its kernel, JupyterLab shows only an error instead
        of the widget, whatever else the same output holds. While the widget lives, its style sheet
        hides the picture.
        """
        data, metadata = self._repr_mimebundle_(**kwargs)
        picture = {"image/png": data.pop("image/png"), "text/plain": data["text/plain"]}
        data["text/plain"] = repr(self)
        alone = {"image/png": metadata.pop("image/png")}
        display(data, metadata=metadata, raw=True)  # type: ignore[no-untyped-call]
        display(picture, metadata=alone, raw=True)  # type: ignore[no-untyped-call]

    @stage("Drawing the picture")
    def _png(self) -> bytes:
        figure = self.snapshot()
        png = as_png(figure)
        plt.close(figure)
        return png

    def exported(self) -> dict[str, Any]:
        """Return what an exported page holds: the widget's values by name."""
        return {"state": self.view.state(), "data": self.data}

    def to_html(self, path: str | Path) -> Path:
        """Write one page that shows this widget from disk: no kernel, no network.

        Returns:
            The file's path. An existing file is replaced only once the page is complete.

        Raises:
            InputError: the file cannot be written there.
        """
        return self._write(path, page(self, self._png()))

    def _write(self, path: str | Path, text: str) -> Path:
        """Write a page; an existing file is replaced only once it is complete."""
        try:
            path = Path(path)
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        except (OSError, TypeError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            rule = "give the path of a file in an existing, writable folder"
            raise InputError(
                f"the page cannot be written to {str(path)!r}: {why}; {rule}"
            ) from None
        return path


def page(widget: Inspector, png: bytes, engine: dict[str, Any] | None = None) -> str:
    """Return the page: the widget's script, its values, and a picture as a fallback.

    With an engine, SCRIPT_live.js runs the model there; it exports `renderLive`.
    """
    title, alt = type(widget).__name__, html.escape(widget.view.alt(), quote=True)
    about = html.escape((inspect.getdoc(type(widget)) or "").split("\n\n")[0])
    values = widget.exported() | ({"engine": engine} if engine else {})
    render, script = (
        ("renderLive", f"{widget.script}_live") if engine else ("render", widget.script)
    )
    text = json.dumps(values, default=_as_text, allow_nan=False)
    text = text.replace("<", r"\u003c")  # no string may end the script, or begin a comment
    picture = base64.b64encode(png).decode()
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>:root {{ color-scheme: light dark; }}
body {{ margin: 16px 6px; background: light-dark(#fff, #15171c); }}
.qk-page {{ color: light-dark(#1b1b1b, #ececec); }}
{style(widget)}</style>
<main>
<h1 class="qk-page">{title}</h1>
<p class="qk-page">{about}</p>
<div id="widget"></div>
<noscript><img alt="{alt}" src="data:image/png;base64,{picture}"></noscript>
</main>
<script type="application/json" id="values">{text}</script>
<script type="module">
{source(script)}
const values = JSON.parse(document.getElementById("values").textContent);
{render}({{ model: standalone(values), el: document.getElementById("widget") }});
</script>
</html>
"""


def _as_text(value: Any) -> dict[str, str]:
    """Write bytes as text; `standalone` in common.js reads them."""
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"{type(value).__name__} is neither JSON nor bytes")
    return {"base64": base64.b64encode(value).decode()}


def style(widget: Inspector) -> str:
    """Return a widget's style sheets as one."""
    return "\n".join(static(name) for name in widget.styles)


@cache
def static(name: str) -> str:
    """Return a file of the folder static/."""
    return (resources.files("qwenkit.widgets") / "static" / name).read_text(encoding="utf-8")


@cache
def source(script: str) -> str:
    """Return static/SCRIPT.js as one module: the color maps, what it imports, and itself.

    Raises:
        InputError: the scripts import in a circle, or in a form that cannot be joined.
    """
    colors = {name: _hex(name) for name in MAPS}
    joined = "\n".join(_joinable(name) for name in _in_order(f"{script}.js", [], ()))
    return f"const MAPS = {json.dumps(colors)};\n{joined}"


def _joinable(name: str) -> str:
    """Return a script without its imports and exports."""
    text = _EXPORT.sub("", _IMPORT.sub("", static(name)))
    if unknown := _UNKNOWN.search(text):
        raise InputError(
            f"{name} has the line {unknown[0].strip()!r}, which cannot be joined with other "
            'scripts; write import { a, b } from "./x.js"; with the very names that x.js exports, '
            "and export in front of a function, a class or a const"
        )
    return text


def _in_order(name: str, before: list[str], parents: tuple[str, ...]) -> list[str]:
    """Return the names of a script and of all it imports, each after those that it needs."""
    if name in parents:
        circle = " imports ".join([*parents[parents.index(name) :], name])
        raise InputError(f"{circle}; move what both need into a script of its own")
    if name in before:
        return before
    for imported in _IMPORT.findall(static(name)):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(name), imported))
        before = _in_order(path, before, (*parents, name))
    return [*before, name]


def _hex(name: str) -> str:
    """Return a color map as 256 times six hexadecimal digits."""
    return "".join(mpl.colors.to_hex(mpl.colormaps[name](i)).lstrip("#") for i in range(256))
