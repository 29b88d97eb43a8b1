"""Downloaded tokenizers and templates that would crash, hang or fill the memory."""

import sys
import time
from contextlib import nullcontext
from pathlib import Path

import jinja2
import pytest
import tokenizers
from layouts import edit, instruct, plain, truncating
from transformers import AutoTokenizer

from qwenkit.errors import TokenizerError
from qwenkit.tokenizer import Tokenizer, _budget
from qwenkit.tokenizer._sandbox import render

try:
    import resource
except ImportError:  # Windows
    resource = None

# --- tokenizer.json ---

LONG = "def aaaa " * 40


def replace(old, new):
    return {"type": "Replace", "pattern": old, "content": new}


def sequence(key, parts):
    return {"type": "Sequence", key: parts}


TEXT = {"Sequence": {"id": "A", "type_id": 0}}
TWICE = {
    "type": "TemplateProcessing",
    "single": [TEXT, TEXT],
    "pair": [TEXT, TEXT],
    "special_tokens": {},
}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
EXPLODES = {
    "type": "Split",
    "pattern": {"Regex": "(a|aa)+$"},
    "behavior": "Isolated",
    "invert": False,
}
DOUBLE = replace({"String": "a"}, "aa")
NO_TOKEN = {"type": "WordLevel", "vocab": {"x": 0}, "unk_token": "[UNK]"}
HOSTILE = {
    "doubles": ("normalizer", sequence("normalizers", [DOUBLE] * 30)),
    "grows": ("normalizer", replace({"String": "a"}, "b" * 1000)),
    "grows by an expression": ("normalizer", replace({"Regex": "a*"}, "b" * 1000)),
    "doubles when decoded": ("decoder", sequence("decoders", [DOUBLE] * 30)),
    "bytes of bytes": ("pre_tokenizer", sequence("pretokenizers", [BYTES] * 30)),
    "the text twice": ("post_processor", TWICE),
    "deep": ("normalizer", sequence("normalizers", [sequence("normalizers", [])] * 3)),
    "a merge of millions": ("model", {
        "type": "BPE", "vocab": {"a": 0}, "merges": [["a"] * 3_000_000]}),
    "a prefix of no token": ("model", {
        "type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]],
        "continuing_subword_prefix": "long"}),
    "random": ("model", {"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.5}),
    "a large id": ("model", {"type": "BPE", "vocab": {"a": 2**32 - 1}, "merges": []}),
    "a negative id": ("model", {"type": "BPE", "vocab": {"a": -1}, "merges": []}),
    "ids not numbers": ("model", {"type": "BPE", "vocab": {"a": True}, "merges": []}),
    "no token for others": ("model", NO_TOKEN),
    "an exploding expression": ("pre_tokenizer", EXPLODES),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tokenizer_is_refused_or_works_in_bounds(name, tmp_path):
    key, value = HOSTILE[name]
    edit(plain(tmp_path / "a") / "tokenizer.json", lambda d: d.update({key: value}))
    start = time.monotonic()
    with pytest.raises(TokenizerError) if name != "deep" else nullcontext() as caught:
        tokenizer = Tokenizer(tmp_path / "a")
        assert tokenizer.decode(tokenizer.encode(LONG + "a" * 5_000 + "!")).startswith(LONG)
    assert caught is None or len(str(caught.value)) < 600
    assert time.monotonic() - start < 5


# Even where the settings complete a token: the tokenizers library refuses the file.
@pytest.mark.parametrize(("flag", "value"), [
    ("lstrip", None), ("rstrip", "a"), ("special", 1), ("normalized", ...), ("single_word", ...),
])  # fmt: skip
def test_an_added_token_needs_all_its_flags(flag, value, tmp_path):
    file = instruct(tmp_path / "a") / "tokenizer.json"

    def change(data):
        token = data["added_tokens"][0]
        token.update({flag: value}) if value is not ... else token.pop(flag)

    edit(file, change)
    with pytest.raises(Exception, match=r"expected a boolean|missing field"):
        tokenizers.Tokenizer.from_file(str(file))
    with pytest.raises(TokenizerError, match=rf"added_tokens needs .*{flag}"):
        Tokenizer(tmp_path / "a")


def test_padding_to_a_trillion_is_ignored(tmp_path):
    folder = truncating(tmp_path / "a")
    edit(folder / "tokenizer.json", lambda d: d["padding"].update(strategy={"Fixed": 10**12}))
    assert Tokenizer(folder).decode(Tokenizer(folder).encode(LONG)) == LONG


# --- templates ---

LOOP = "{% for i in range(40) %}"
DOUBLED = "{% set ns = namespace(x='ab') %}" + LOOP + "{% set ns.x = CODE %}{% endfor %}{{ ns.x }}"
MACROS = (
    "{% macro a(n) %}{{ b(n) }}{{ b(n) }}{% endmacro %}"
    "{% macro b(n) %}{% if n %}{{ a(n - 1) }}{{ a(n - 1) }}{% endif %}{% endmacro %}{{ a(15) }}"
)
BILLION, MILLION = "1000000000", "'a' * 1000000"
WIDE = [
    f"'x'|center({BILLION})", f"'x'.center({BILLION})", f"'x'.ljust({BILLION})",
    f"'x'.zfill({BILLION})", f"'\\t'.expandtabs({BILLION})", f"'%{BILLION}d'|format(1)",
    f"'%{BILLION}d' % 1", f"'%*d' % ({BILLION}, 1)", f"'{{:{BILLION}}}'.format(1)",
    f"'{{:{{}}}}'.format(1, {BILLION})", f"'{{a:{BILLION}}}'.format_map({{'a': 1}})",
    f"'%.*f' % ({BILLION}, 1.5)", f"'a\\n'|indent({BILLION})", f"[[1]]|tojson(indent={BILLION})",
    f"[1]|batch({BILLION}, 0)|list", f"[1]|slice({BILLION})|list", f"5|round(-{BILLION})",
    f"(1).to_bytes({BILLION}, 'big')", f"'a' * {BILLION}", f"[1] * {BILLION}", "9 ** 9 ** 9",
    f"({MILLION}).replace('a', {MILLION})", f"({MILLION})|replace('', {MILLION})",
    f"({MILLION}).join([1] * 1000)", f"range(100000)|join({MILLION})", f"lipsum({BILLION})",
    f"({MILLION}).translate({{97: {MILLION}}})", f"'a'.encode().ljust({BILLION})",
    f"range(100000)|map('center', {BILLION})|list", "+".join([f"({MILLION})"] * 100),
    "~".join([f"({MILLION})"] * 100), "1" + "+1" * 5_000, "+" * 5_000 + "1", "(" * 5_000 + "1",
]  # fmt: skip
TEMPLATES = [
    *("{{ " + wide + " }}" for wide in WIDE),
    *(DOUBLED.replace("CODE", code) for code in (
        "ns.x + ns.x", "ns.x ~ ns.x", "ns.x.replace('a', 'aa')", "ns.x|replace('a', 'aa')",
        "ns.x|join(ns.x)", "'%s%s' % (ns.x, ns.x)", "'{0}{0}'.format(ns.x)", "[ns.x, ns.x]",
        "(ns.x, ns.x)", "{'a': ns.x, 'b': ns.x}", "dict(a=ns.x, b=ns.x)")),
    "{% set x = 'ab' %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 40,
    "{% macro f(n) %}{% if n %}{{ f(n-1, varargs, varargs) }}{% else %}{{ varargs }}{% endif %}"
    "{% endmacro %}{{ f(40) }}",
    "{% filter center(1000000000) %}x{% endfilter %}",
]  # fmt: skip
ENDLESS = [
    "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "{% for a in range(100000) %}{% for b in range(100000) %}xxxx{% endfor %}{% endfor %}",
    "{{ range(100000)|select('in', range(100000)|list)|list|length }}", MACROS,
]  # fmt: skip


@pytest.fixture
def little_memory():
    """Leave this process 400 MB more than it has, for as long as a test runs."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 400_000_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory as Linux does")
@pytest.mark.parametrize("template", TEMPLATES, ids=range(len(TEMPLATES)))
def test_no_template_makes_endless_text(template, little_memory, monkeypatch):
    monkeypatch.setattr(_budget, "_SECONDS", 2.0)
    start = time.monotonic()
    try:
        assert len(render(template, {})) < 30_000_000
    except MemoryError as error:
        assert "parser" in str(error)  # Python's own, about parentheses  # noqa: PT017
    except Exception as error:
        assert len(str(error)) < 10_000  # noqa: PT017
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("template", ENDLESS)
def test_no_template_runs_forever(template, monkeypatch):
    monkeypatch.setattr(_budget, "_SECONDS", 0.1)
    start = time.monotonic()
    with pytest.raises(jinja2.TemplateError, match=r"it takes more than 0\.1 seconds"):
        render(template, {})
    assert time.monotonic() - start < 3


USUAL = [
    "{{ 'x'|center(9) }}|{{ 'a\\nb'|indent(2) }}|{{ 'ab'.zfill(5) }}",
    "{{ '%5.2f|%s'|format(1.5, 'x') }}",
    "{{ '%s-%s' % ('a', 1) }}{{ '{}:{:>4}{{}}'.format('k', 'v') }}{{ 'a-b'.replace('-', '+') }}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 2 ** 3 %}{% endfor %}"
    "{{ ns.n }}",
    "{{ messages|map(attribute='role')|join(', ') }}{{ [1, [2]] + [3] }}",
    "{{ (1, 2) }}{{ {'a': [1]} }}",
    "{% for a, b in {'x': 1}.items() %}{{ a ~ b ~ loop.index }}{% endfor %}",
    "{{ 'ab' * 3 }}{{ 7 % 4 }}",
    "{% macro f(x, y=[1]) %}{{ x }}{{ y }}{{ varargs }}{% endmacro %}"
    "{{ f('a') }}{{ f('b', [], 3) }}",
    "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}",
    "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 4 %}{% break %}"
    "{% endif %}{{ i }}{% endfor %}{{ messages[::-1][0].role }}{{ messages|tojson(indent=2) }}",
    "{{ 'a b c'|wordwrap(3) }}{{ 'abcdef'|truncate(4) }}{{ [3, 1]|sort|list }}{{ 2.567|round(1) }}",
    "{{ [1, 2, 3, 4, 5]|batch(2)|list }}",
    "{{ messages|selectattr('role', 'equalto', 'user')|list|length }}",
    "{% macro g() %}<{{ caller('in') }}>{% endmacro %}{% call(x) g() %}{{ x }}{% endcall %}",
    "{{ messages|groupby('role') |map(attribute='grouper')|list }}{{ 'x' is string }}{{ nothing }}",
]  # fmt: skip


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    return AutoTokenizer.from_pretrained(plain(tmp_path_factory.mktemp("plain")))


@pytest.mark.parametrize("template", USUAL)
def test_what_templates_usually_do_is_as_in_transformers(template, theirs):
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "é <'>"}]
    want = theirs.apply_chat_template(talk, chat_template=template, tokenize=False)
    assert render(template, {"messages": talk}) == want


# transformers prints its contents, without limits.
@pytest.mark.parametrize("code", ["{{ ns }}", "{{ 'a' ~ ns }}", "{{ [ns] }}", "{{ ns|string }}"])
def test_a_namespace_is_not_printed(code):
    with pytest.raises(jinja2.TemplateError, match="namespace cannot be printed"):
        render("{% set ns = namespace(n=1) %}" + code, {})


def test_long_messages_have_a_larger_budget(tmp_path):
    template = "{% for m in messages %}{{ '<' + m.role + '>' + m.content + '\\n' }}{% endfor %}"
    talk = [{"role": "user", "content": "x" * 4_000_000}] * 10
    assert len(render(template, {"messages": talk})) == 40_000_070
    assert len(render("{% for m in messages %}{{ messages|length }}{% endfor %}",
                      {"messages": [{"role": "user"}] * 1_000})) == 4_000  # fmt: skip
