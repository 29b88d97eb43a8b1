"""ModelExplorer's panels: every line of source that they quote stands in its file."""

import json
import re
from pathlib import Path

import pytest

import qwenkit
from qwenkit.widgets._base import static

PACKAGE = Path(qwenkit.__file__).parent
TEXT = r"\"(?:[^\"\\]|\\.)*\"|'[^'\\]*'"  # of JavaScript, in quotes of either kind
QUOTED = re.compile(rf"^    source: ((?:{TEXT})(?:\s+\+ (?:{TEXT}))*),$", re.M)
NAMES = (
    "tokens", "embed", "attn_norm", "qkv", "rope", "scores", "pattern", "heads", "attn_out",
    "add_attn", "mlp_norm", "gate_up", "mlp_out", "add_mlp", "final_norm", "logits", "sampling",
    "cache",
)  # fmt: skip


def _parts():
    script = static("explorer_panels.js")
    return script[script.index("export const PARTS") : script.index("\n};\n")]


def _sources():
    return ["".join(map(_read, re.findall(TEXT, found))) for found in QUOTED.findall(_parts())]


def _read(text):
    return text[1:-1] if text[0] == "'" else json.loads(text)


@pytest.mark.parametrize("source", _sources(), ids=lambda source: source[:40])
def test_a_quoted_line_stands_in_its_file(source):
    file, line = source.split(": ", 1)
    lines = (PACKAGE / file).read_text(encoding="utf-8").splitlines()
    assert line in [one.strip() for one in lines]


def test_every_part_has_a_title_a_sentence_and_a_source():
    assert tuple(re.findall(r"^  (\w+): \{$", _parts(), re.M)) == NAMES
    assert len(_sources()) == len(NAMES)
    assert len(re.findall(r'^    title: "[^"]+",\n    short: "[^"]+\.",$', _parts(), re.M)) == len(
        NAMES
    )
