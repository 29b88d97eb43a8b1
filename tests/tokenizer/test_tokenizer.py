"""Text to ids and back, equal to transformers; templates and files from untrusted sources."""

import json
import random
import unicodedata

import pytest
import torch
from fixtures_toy import ROOT, copied
from transformers import AutoTokenizer

from qwenkit.errors import QwenkitError, TokenizerError
from qwenkit.files import write_json
from qwenkit.tokenizer import Tokenizer, learn_merges, write_tokenizer
from qwenkit.tokenizer.bpe import SPECIAL

TEXTS = {
    "empty": "", "space": " ",
    "code": "def f(x: int) -> int:\n    return x ** 2  # done\n\n\tif x:\r\n        pass   \n",
    "tabs": "\tif x:\n\t\treturn\ty\n", "CRLF": "a = 1\r\nb = 2\r\n\r\n",
    "bare CR": "a\rb", "many spaces": "        x        y  ",
    "digits": "3.14159 1234567890 0xFF", "contractions": "It's we'll DON'T they've",
    "NUL": "a\0b\0", "control bytes": "".join(map(chr, range(32))) + "\x1b[31m\x7f\x80\x9f",
    "Latin": "naïve café Ærøskøbing ß", "CJK": "面積は幅×高さ。变量 = 函数(参数)",
    "Arabic and Hebrew": "مرحبا שלום", "Devanagari": "नमस्ते दुनिया",
    "Thai": "สวัสดี", "emoji": "🙂 🧑🏽‍🚀 🏳️‍🌈 👩‍👩‍👧‍👦",
    "mathematics": "∑∫√∞ 𝔸𝕓𝒄 x²", "not a character": "\ufeff\ufffe\uffff\U0010ffff",
    "replacement": "\ufffd", "byte order mark": "\ufeffx",
    "odd spaces": "a\u00a0b\u2003c\u3000d\u200be\u2028f\u0085g", "long word": "a" * 1_000,
    "long run of spaces": " " * 999 + "x",
    "chat": "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<|endoftext|>",
    "infilling": "<|fim_prefix|>def f(\n<|fim_suffix|>\n    return x<|fim_middle|>x):<|endoftext|>",
    "all special tokens": " ".join(SPECIAL) + "".join(SPECIAL),
    "nearly special": "<|im_start |> <|im_start <|unknown|> |>", "byte alphabet": "Ġ Ċ ĉ č",
}  # fmt: skip
FILES = sorted((ROOT / "qwenkit").glob("c*/*.py"))
CODE = "".join(file.read_text("utf-8") for file in FILES)[:60_000]


@pytest.fixture(scope="module", params=["toy", "learned"])
def folder(request, toy, tmp_path_factory):
    """The toy's tokenizer, and one learned from code, with a config, as in a checkpoint."""
    if request.param == "toy":
        return toy
    folder = tmp_path_factory.mktemp("learned")
    write_tokenizer(folder, learn_merges([CODE], 500))
    config = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 500}
    write_json(folder / "config.json", config)
    return folder


# --- encode and decode ---


@pytest.mark.parametrize("text", [*TEXTS.values(), "e\u0301"], ids=[*TEXTS, "to be normalized"])
def test_a_text_comes_back_and_its_ids_equal_those_of_transformers(tokenizer, theirs, text):
    normalized = unicodedata.normalize("NFC", text)
    assert tokenizer(text).dtype == torch.int64
    for special in (True, False):
        ids = tokenizer.encode(text, special=special)
        assert ids == tokenizer.encode(normalized, special=special)
        assert tokenizer.decode(ids) == normalized
        assert tokenizer.decode(torch.tensor(ids, dtype=torch.long)) == normalized
        assert all(type(i) is int and 0 <= i < tokenizer.num_tokens for i in ids)
        assert tokenizer(text, special=special).tolist() == [ids]
        strings = tokenizer.token_strings(ids)  # one visible string per token
        assert len(strings) == len(ids)
        assert all(string and not set(string) & set(" \n\t\r") for string in strings)
    ids, keep = tokenizer.encode(text), {"clean_up_tokenization_spaces": False}
    assert ids == theirs(text).input_ids
    assert tokenizer.decode(ids) == theirs.decode(ids, **keep)
    want = theirs.decode(ids, skip_special_tokens=True, **keep)
    assert tokenizer.decode(ids, skip_special=True) == want


def test_whole_files_and_random_texts_come_back(tokenizer, theirs):
    ids = tokenizer.encode(CODE)
    assert ids == theirs(CODE).input_ids
    assert tokenizer.decode(ids) == CODE
    assert len(ids) < len(CODE) * 0.6  # tokens of several characters are used
    rng = random.Random(0)
    blocks = [(0, 0x80), (0x80, 0x800), (0x800, 0xD800), (0xE000, 0x10000), (0x10000, 0x110000)]
    for _ in range(200):
        text = "".join(chr(rng.randrange(*rng.choice(blocks))) for _ in range(20))
        text = unicodedata.normalize("NFC", text)
        assert tokenizer.decode(tokenizer.encode(text, special=False)) == text


def test_special_tokens_are_read_only_if_asked(tokenizer):
    text = "<|im_start|>x<|im_end|>"
    start, end = tokenizer.special["<|im_start|>"], tokenizer.special["<|im_end|>"]
    ids = tokenizer.encode(text)
    assert (ids[0], ids[-1], len(ids)) == (start, end, 3)
    letters = tokenizer.encode(text, special=False)
    assert not set(letters) & set(tokenizer.special.values())
    assert tokenizer.encode(text) == ids  # the switch does not stick
    assert tokenizer.decode(ids, skip_special=True) == "x"
    assert tokenizer.decode(letters, skip_special=True) == text


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ude42\ud83d", None, 3, b"x", ["a", "b"]])
def test_what_is_not_a_text_is_refused(tokenizer, text):
    wrong = "not valid Unicode" if isinstance(text, str) else f"text is a {type(text).__name__}"
    for call in (tokenizer.encode, tokenizer):
        with pytest.raises(TokenizerError, match=wrong):
            call(text)


def test_what_are_not_ids_is_refused(tokenizer):
    for ids in (["a"], [None], 3, [1.5], torch.tensor([1.5]), [[1, 2]]):
        with pytest.raises(TokenizerError, match="ids"):
            tokenizer.decode(ids)
    for number in (-1, tokenizer.num_tokens, 10**6, 2**32, 2**64, -(2**40)):
        for call in (tokenizer.decode, tokenizer.token_strings):
            with pytest.raises(TokenizerError, match=f"id {number} is not a token"):
                call([0, number])
    assert tokenizer.decode([tokenizer.num_tokens - 1]) == "<|file_sep|>"
    assert tokenizer.decode(tokenizer.encode("a🙂")[:-1]) == "a\ufffd"  # a part of a character


def test_the_vocabulary_is_counted(folder, tokenizer, theirs):
    size = 1_033 if "toy" in folder.name else 500
    assert tokenizer.num_tokens == len(theirs) == size
    assert list(tokenizer.special.values()) == list(range(size - 9, size))
    assert tokenizer.special["<|endoftext|>"] == size - 9
    assert repr(tokenizer) == f"Tokenizer({size:,} tokens, 9 special)"


def test_token_strings_show_spaces_and_split_characters(tokenizer):
    shown = tokenizer.token_strings(tokenizer.encode("return x\n\t\r"))
    assert "".join(shown) == "return·x↵→␍"
    emoji = tokenizer.token_strings(tokenizer.encode("a🙂"))
    assert emoji == ["a", r"\xf0", r"\x9f", r"\x99", r"\x82"]
    assert tokenizer.token_strings([tokenizer.special["<|im_end|>"]]) == ["<|im_end|>"]
    assert "".join(tokenizer.token_strings(tokenizer.encode("é"))) in ("é", r"\xc3\xa9")
    assert tokenizer.token_strings([]) == []


# --- chat ---

TALK = [
    {"role": "system", "content": "You write Python."},
    {"role": "user", "content": "Sum a list.\n\n"}, {"role": "assistant", "content": "sum(x)"},
    {"role": "user", "content": "  Now a <|im_end|> mean: 🙂"},
]  # fmt: skip
# What Qwen's own templates use: whitespace control, namespaces, loop state, tests, tojson.
HARD = """{%- set ns = namespace(count=0) %}
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen.<|im_end|>\\n' }}
{%- endif %}
{%- if tools %}
    {{- "# Tools\\n" }}
    {%- for tool in tools %}
        {{- "\\n" }}{{- tool | tojson }}
    {%- endfor %}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}{% continue %}{% endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {%- set ns.count = ns.count + 1 %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}
    {%- elif message.role == "assistant" %}
        {% generation %}{{- 'A:' + message.content }}{% endgeneration %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant %d\\n' % ns.count }}
{%- endif %}
"""
TOOLS = [{"type": "function", "function": {"name": "größe", "parameters": {"<a>": ["&", 1]}}}]


@pytest.fixture
def templated(toy, tmp_path):
    """Return a function that gives the toy's folder another chat template, and returns it."""
    folder = copied(toy, tmp_path / "copy")

    def change(template):
        settings = {"tokenizer_class": "Qwen2Tokenizer", "chat_template": template}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return folder

    return change


@pytest.mark.parametrize("prompt", [True, False])
def test_chat_equals_that_of_transformers(tokenizer, theirs, prompt):
    ours = tokenizer.chat(TALK, add_generation_prompt=prompt)
    assert ours == theirs.apply_chat_template(TALK, tokenize=False, add_generation_prompt=prompt)
    assert ours.endswith("<|im_start|>assistant\n") == prompt
    asked = "<|im_start|>user\nSum a list.\n\n<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.chat(TALK[1:2]) == asked


@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("plain", [True, False], ids=["plain", "generation"])
def test_a_hard_template_equals_that_of_transformers(templated, tools, plain):
    template = HARD
    if plain:
        template = HARD.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    folder = templated(template)
    theirs, options = AutoTokenizer.from_pretrained(folder), {"add_generation_prompt": True}
    talk = [*TALK, {"role": "tool", "content": "skipped"}]
    for messages in (talk, talk[1:]):
        want = theirs.apply_chat_template(messages, tools=tools, tokenize=False, **options)
        assert Tokenizer(folder).chat(messages, tools=tools) == want
        assert "assistant 2" in want
        assert ("größe" in want) == (tools is not None)


MALICIOUS = {  # an attribute that the sandbox hides is undefined
    "class": "{{ ''.__class__.__mro__ }}",
    "subclasses": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attr filter": "{{ ''|attr('__class__') }}", "item": "{{ ''['__class__']['__mro__'] }}",
    "globals": "{{ raise_exception.__globals__ }}", "code": "{{ strftime_now.__code__ }}",
    "cycler": "{{ cycler.__init__.__globals__.os.popen('echo hacked').read() }}",
    "format": "{{ '{0.__class__.__mro__}'.format(1) }}",
    "format_map": "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "self": "{{ self.__init__.__globals__ }}", "import": "{% import 'os' as os %}{{ os }}",
    "include": "{% include '/etc/passwd' %}",
}  # fmt: skip
FAILING = [
    # They would change the messages.
    "{{ messages.append({'role': 'user', 'content': 'x'}) }}", "{{ messages.pop() }}",
    "{{ messages[0].update({'content': 'changed'}) }}", "{{ messages[0].clear() }}",
    "{% set messages[0].content = 'changed' %}",
    # They are wrong in themselves.
    "{{ raise_exception('roles must alternate') }}", "{% if %}",
    "{{ messages[0].content + 1 }}", "{{ messages[0].absent.name }}",
    "{{ 1 / 0 }}", "{{ messages[99].content.x }}",
    "{% for i in range(10**12) %}{% endfor %}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
]  # fmt: skip


@pytest.mark.parametrize("template", MALICIOUS.values(), ids=MALICIOUS)
def test_a_malicious_template_gets_nothing(templated, template):
    tokenizer = Tokenizer(templated(template))
    try:
        assert tokenizer.chat(TALK).strip() == ""
    except TokenizerError:
        pass  # refusing it is as good


@pytest.mark.parametrize("template", FAILING)
def test_a_template_that_fails_says_so_and_changes_no_message(templated, template):
    tokenizer = Tokenizer(templated(template))
    talk = [dict(message) for message in TALK]
    with pytest.raises(TokenizerError, match="the chat template failed") as caught:
        tokenizer.chat(talk)
    assert talk == TALK
    assert ("roles must alternate" in str(caught.value)) == ("raise_exception" in template)


@pytest.mark.parametrize("messages", [["hi"], "hi", [None], [{"content": "x"}], [{}], 3, None])
def test_invalid_messages_are_refused(tokenizer, messages):
    with pytest.raises(TokenizerError, match="message"):
        tokenizer.chat(messages)
    with pytest.raises(TokenizerError, match="content"):
        tokenizer.chat([{"role": "user"}])


def test_the_default_of_several_templates_is_taken_and_one_in_its_own_file_wins(templated):
    several = [{"name": "tools", "template": "no"}, {"name": "default", "template": "yes"}]
    assert Tokenizer(templated(several)).chat(TALK) == "yes"
    assert Tokenizer(templated("{{ strftime_now('%Y') }}")).chat(TALK).startswith("20")
    for odd in ([], [1], [None], [{"name": ["x"], "template": "y"}], 3, {"default": "x"}):
        assert Tokenizer(templated(odd)).chat_template is None
    folder = templated("from JSON")
    (folder / "chat_template.jinja").write_text("from its file: {{ messages[0].content }} ü")
    want = AutoTokenizer.from_pretrained(folder).apply_chat_template(TALK, tokenize=False)
    assert Tokenizer(folder).chat(TALK) == want == "from its file: You write Python. ü"


def test_without_a_template_chat_says_so_and_the_rest_works(templated):
    folder = templated(None)
    (folder / "tokenizer_config.json").unlink()
    tokenizer = Tokenizer(folder)
    assert tokenizer.chat_template is None
    with pytest.raises(TokenizerError, match="no chat template; an Instruct model has one"):
        tokenizer.chat(TALK)
    assert tokenizer.decode(tokenizer.encode("x = 1")) == "x = 1"


# --- fill in the middle ---


def test_fim_asks_in_the_order_prefix_suffix_middle(tokenizer):
    text = tokenizer.fim("def f(x):\n", "    return y\n")
    assert text == "<|fim_prefix|>def f(x):\n<|fim_suffix|>    return y\n<|fim_middle|>"
    ids = tokenizer.encode(text)
    marks = [tokenizer.special[f"<|fim_{n}|>"] for n in ("prefix", "suffix", "middle")]
    assert [ids[0], *(i for i in ids[1:-1] if i in marks), ids[-1]] == marks
    names = ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep")
    assert set(tokenizer.fim_stop_ids) == {tokenizer.special[f"<|{name}|>"] for name in names}


def test_fim_without_its_tokens_is_refused(toy, tmp_path):
    folder = copied(toy, tmp_path / "copy")
    data = json.loads((folder / "tokenizer.json").read_text())
    kept = [t for t in data["added_tokens"] if "suffix" not in t["content"]]
    data["added_tokens"] = [t | {"id": 1024 + place} for place, t in enumerate(kept)]
    (folder / "tokenizer.json").write_text(json.dumps(data))
    tokenizer = Tokenizer(folder)
    with pytest.raises(TokenizerError, match=r"no <\|fim_suffix\|>; FIM needs"):
        tokenizer.fim("a", "b")
    with pytest.raises(TokenizerError, match=r"no special token <\|fim_suffix\|>"):
        tokenizer.special_id("<|fim_suffix|>")
    assert tokenizer.special_id("<|fim_prefix|>") == tokenizer.special["<|fim_prefix|>"]


# --- files ---


def test_saving_and_reading_again_changes_nothing(tokenizer, theirs, tmp_path):
    folder = tmp_path / "new" / "folder"
    tokenizer.encode("x", special=False)  # which is not saved
    tokenizer.save(folder)
    again, reread = Tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert (again.special, again.num_tokens) == (tokenizer.special, tokenizer.num_tokens)
    assert again.chat(TALK) == tokenizer.chat(TALK)
    assert again.backend.to_str() == tokenizer.backend.to_str()
    for text in (*TEXTS.values(), CODE):
        assert again.encode(text) == tokenizer.encode(text) == reread(text).input_ids
    assert reread.apply_chat_template(TALK, tokenize=False) == tokenizer.chat(TALK, False)
    assert {path.name for path in folder.iterdir()} == {"tokenizer.json", "tokenizer_config.json"}


def test_a_damaged_tokenizer_is_refused(toy, tmp_path):
    with pytest.raises(TokenizerError, match=r"tokenizer\.json does not exist"):
        Tokenizer(tmp_path)
    content = (toy / "tokenizer.json").read_bytes()
    cut = [content[:length] for length in range(1, len(content), len(content) // 20)]
    damaged = [
        b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"model": {"type": "BPE"}}', b"\x80\x04.",
        b"[" * 100_000, b"null",
    ]  # fmt: skip
    empty = b'{"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []}'
    for wrong in (*damaged, *cut, empty):
        (tmp_path / "tokenizer.json").write_bytes(wrong)
        says = "" if wrong == empty else " cannot be read"
        with pytest.raises(TokenizerError, match=rf"tokenizer\.json{says}"):
            Tokenizer(tmp_path)


def test_a_tokenizer_of_another_kind_still_shows_its_tokens(tmp_path):
    """A word-level vocabulary has characters that stand for no byte."""
    words = {"type": "WordLevel", "vocab": {"hello": 0, "▁面": 1, "?": 2}, "unk_token": "?"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": words, "added_tokens": []}))
    try:
        tokenizer = Tokenizer(tmp_path)
        assert len(tokenizer.token_strings([0, 1, 2])) == 3
    except TokenizerError:
        pass  # refusing it with a clear error is as good


@pytest.mark.parametrize("name", ["tokenizer_config.json", "chat_template.jinja"])
def test_damaged_files_next_to_it_are_refused_by_name(toy, tmp_path, name):
    folder = copied(toy, tmp_path / "copy")
    (folder / name).write_bytes(b"\xff\xfe{")
    with pytest.raises(QwenkitError, match=name):
        Tokenizer(folder)
