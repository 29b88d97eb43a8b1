"""Scripts joined with what they import: bundles are valid modules; other forms are refused."""

import re
import subprocess
from collections import Counter

import pytest

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.widgets import _base

WIDGETS = [getattr(qk.widgets, name) for name in qk.widgets.__all__]
TOP = re.compile(r"^(?:async )?(?:function\*?|class|const|let) +(\w+)(?:(?= =)|\b)", re.M)
LISTS = re.compile(r"^(?:const|let) (.+);", re.M)


def names(text):
    """Return the names at the top level, also of `const a = 1, b = 2;`."""
    more = [name for line in LISTS.findall(text) for name in re.findall(r", (\w+) = ", line)]
    return TOP.findall(text) + more


def inspectors():
    """Return the scripts of all widgets; one that the package does not offer counts, too."""
    found, more = set(), [_base.Inspector]
    while more:
        kind = more.pop()
        found |= {kind.script} if "script" in vars(kind) else set()
        more += kind.__subclasses__()
    return sorted(found)


def test_every_widget_has_a_script():
    assert {widget.script for widget in WIDGETS} <= set(inspectors())
    assert len(inspectors()) >= 7


@pytest.mark.parametrize("script", inspectors())
def test_a_bundle_is_one_valid_module(script, node, tmp_path):
    text = _base.source(script) + "\nexport default { render };\n"
    assert re.findall(r"^\s*(?:import|export)\b.*", text, re.M) == ["\nexport default { render };"]
    assert [name for name, count in Counter(names(text)).items() if count > 1] == []
    assert {"MAPS", "render", "frame"} <= set(names(text))
    (tmp_path / "bundle.mjs").write_text(text, encoding="utf-8")
    command = [node, "--check", tmp_path / "bundle.mjs"]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.fixture
def joined(monkeypatch):
    """Give a function that joins files given as name=text, starting from a.js."""

    def join(**files):
        monkeypatch.setattr(_base, "static", lambda name: files[name.removesuffix(".js")])
        return _base.source.__wrapped__("a").partition("\n")[2]

    return join


def test_a_script_comes_after_what_it_imports_and_each_once(joined):
    text = joined(
        a='import { b } from "./b.js";\nimport {\n  c,\n} from "./c.js";\n\nexport const a = b;\n',
        b='import { c } from "./c.js";\nexport function b() { return c; }\n',
        c="/** @import { X } from './x.d.ts' */\nexport class c {}\nexport async function d() {}\n",
    )
    expected = "/** @import { X } from './x.d.ts' */\nclass c {}\nasync function d() {}\n"
    assert text == f"{expected}\nfunction b() {{ return c; }}\n\n\nconst a = b;\n"


@pytest.mark.parametrize(
    "line",
    [
        'import b from "./b.js";',
        'import * as b from "./b.js";',
        'import { x as y } from "./b.js";',
        'import {\n  x,\n  y as z,\n} from "./b.js";',
        'import "./b.js";',
        "import { x } from './b.js';",
        'import { x } from "./b.js"',
        'import { x } from "b";',
        'import { x } from "https://example.org/b.js";',
        '  import { x } from "./b.js";',
        "export { x };",
        "export { x as y };",
        "export default x;",
        "export default function x() {}",
        "export * from './b.js';",
        "export let x = 1;",
        "export var x = 1;",
    ],
)
def test_a_form_that_cannot_be_joined_is_refused(joined, line):
    with pytest.raises(InputError) as refused:
        joined(a=f"// A script.\n\n{line}\n", b="export const x = 1;\n")
    first = line.strip().partition("\n")[0]
    assert str(refused.value).startswith(f"a.js has the line {first!r}, which cannot be joined")
    assert 'write import { a, b } from "./x.js";' in str(refused.value)


def test_text_that_only_looks_like_an_import_stays(joined):
    text = 'const text = "import os\\n";\n// import x from "y"\nconst later = import.meta;\n'
    assert joined(a=text) == text


def test_a_circle_is_refused(joined):
    line = 'import {{ x }} from "./{}.js";\n'
    message = "^b.js imports c.js imports b.js; move what both need into a script of its own$"
    with pytest.raises(InputError, match=message):
        joined(a=line.format("b"), b=line.format("c"), c=line.format("b"))
    with pytest.raises(InputError, match=r"^a.js imports a.js; move"):
        joined(a=line.format("a"))
