"""Plain English and the field's terms: phrases that must not occur in the repository's prose.

Prose is everything a person reads: Markdown, notebooks without their outputs, texts and comments
of the code. Each row is a regular expression, and what to write instead.
"""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "notebooks", "qwenkit", "tests", "data/tiny-coder")
ENDINGS = {".md", ".py", ".ipynb", ".js", ".mjs", ".ts", ".css", ".toml", ".yml"}
OTHERS = ("README.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml", "environment.yml")
OLD_NAMES = ("test_deprecated.py",)  # it holds the names that code had before
PHRASES = {
    # the field has a term
    r"open attention": "eager attention",
    r"in a run\b": "repeated consecutively; repeat_interleave",
    r"(is|are|was|were|be) turned (?!on|off|into|to)": "rotated; transposed",
    r"turned (by|back)|a full turn|RoPE turns|pairs? turns?": "rotate, rotation",
    r"widened|widen": "upcast",
    r"in pieces of its own": "in chunks",
    r"one_token\(|through_layers": "decode step",
    r"layer loops?": "fused layer kernel",
    r"few rows": "skinny matmul, GEMV",
    r"the likeliest|likeliest|likelier": "most likely, more likely",
    r"foresees?|foreseen": "predict",
    r"whole numbers?": "integer",
    r"(numbers|pairs|values|heads|bits|bytes|nats) an? (head|token|layer|row|byte|weight)": "per",
    r"(tokens|steps|programs|bytes|samples|times) an? (second|minute|hour)": "per second",
    r"blanks": "padding",
    r"wilder": "more random",
    r"tamed?": "scaled; limited",
    r"who reads|reads whom|whom": "which token attends to which",
    r"tokens? reads|token may read|reads the tokens?|reads kv": "attends to",
    r"the shares|small shares|map of shares|share of attention": "attention weights",
    r"(every|each|last|which|another) places?": "position",
    r"tokens behind|stands before it|tokens stand": "later tokens; comes before it",
    r"makes? (a|the) text end": "stops generation",
    r"habits? of (a|the) heads?|heads?' habits?|heads with a habit": "head type",
    r"side by side": "batch; next to each other",
    r"learned by heart": "memorized",
    r"the model says|model would say": "predicts",
    r"renormali[sz]ed by hand": "divided by the sum",
    r"mates": "the other heads",
    r"the rows of a product|a product's rows": "tokens; in_features",
    r"per-head numbers|numbers of a head": "values of a head",
    # English that makes a reader stumble
    r"anew": "again",
    r"beside": "next to; in addition to",
    r"to the letter": "exact match",
    r"from nothing": "from scratch",
    r"needs no word": "is detected",
    r"(?<!there )(?<!it )(is|are) no (proof|models?|matter|wonder|numbers?|tensors?)": "is not a",
    r"what is no|that (is|are) no(?! longer| more)": "is not a",
    r"has not (a|an|any|the)|that it has not(?= *[.,;)])": "does not have",
    r"says? in words|told in words|named in words|refused in words": "with a clear error",
    r"bit for bit the same bits": "identical",
    r"handed on": "passed on",
    r"in truth|in sooth": "in fact",
    r"a stranger's": "someone else's",
    r"where one cannot": "where it cannot",
    r"hence|thence|whence": "so; from there",
    r"thereof|therein|thereby|thereto": "of it; in it; so",
    r"wherein|whereby|whereof": "in which; by which",
    r"whilst|amongst|amidst": "while; among",
    r"albeit|notwithstanding": "although; despite",
    r"likewise": "also",
    r"upon": "on",
    r"lest": "so that not",
    r"quaint|handsome": "(plain words)",
    r"it is that which|that which": "what",
    r"must needs": "must",
    r"in vain": "without success",
    r"quickest|quicker": "fastest, faster",
    r"everybody": "everyone",
    r"minutes before this": "Before this",
    # American spelling
    r"grey|colou?red in grey": "gray",
    r"colou?rs? of the colour|colour(s|ed|ing)?": "color",
    r"behaviour|favours?|honour|labour(ed)?|neighbour(s|ing)?(?!=)": "-or",
    r"(normal|renormal|penal|recogn|organ|initial|token|optim)is(e|ed|es|ing|ation)(?!=)": "-ize",
    r"analyse(s|d)?": "analyze",
    r"centre(s|d)?|metres?|fibre": "-er",
    r"licences?": "license",
}


def _prose(path):
    """Return what a person reads of a file: of a notebook without its outputs."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])


def _pattern(phrase):
    return re.compile(rf"\b(?:{phrase})(?!\w)", re.IGNORECASE)


def _files():
    found = [ROOT / name for name in OTHERS]
    for folder in FOLDERS:
        found += [path for path in sorted((ROOT / folder).rglob("*")) if path.suffix in ENDINGS]
    found = [path for path in found if not {"node_modules", "explorer"} & {*path.parts}]
    return [path for path in found if path.name not in (Path(__file__).name, *OLD_NAMES)]


@pytest.fixture(scope="module")
def prose():
    return {path: _prose(path) for path in _files()}


def test_the_list_is_long_and_its_patterns_match():
    assert len(PHRASES) >= 60
    for text in ("an Open attention", "it was turned by", "16 bytes a token,", "written anew."):
        assert any(_pattern(phrase).search(text) for phrase in PHRASES), text


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_phrase_does_not_occur(prose, phrase):
    pattern = _pattern(phrase)
    found = []
    for path, text in prose.items():
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            context = text[max(match.start() - 40, 0) : match.end() + 40].replace("\n", " ")
            found.append(f"{path.relative_to(ROOT)}:{line}: {context}")
    assert not found, f"write {PHRASES[phrase]!r} instead:\n" + "\n".join(found)
