"""Folders as other tools write them: ids, texts, templates as in transformers; kept on saving."""

import json

import pytest
from layouts import LAYOUTS, edit, plain, slow
from transformers import AutoTokenizer

from qwenkit.errors import TokenizerError
from qwenkit.tokenizer import Tokenizer

TEXTS = [
    "def area(a, b):\n    return a", "", " ", "a<|im_end|>b<tool_call>c</tool_call><|fim_pad|>",
    "<|endoftext|><|endoftext|>x", "<think>é🙂</think>", "e\u0301 <|PAD_TOKEN|><|vision|>",
]  # fmt: skip
TALK = [
    {"role": "user", "content": "hi <|im_end|>"},
    {"role": "assistant", "content": "yes", "reasoning": "hm", "tool_calls": None},
]
TOOLS = [{"type": "function", "function": {"name": "zähle", "parameters": {"b": 1, "a": [2]}}}]


@pytest.fixture(scope="module", params=LAYOUTS)
def folder(request, tmp_path_factory):
    return LAYOUTS[request.param](tmp_path_factory.mktemp(request.param))


# --- as transformers ---


@pytest.mark.parametrize("text", TEXTS)
def test_ids_and_texts_are_those_of_transformers(tokenizer, theirs, text):
    want = theirs(text).input_ids
    assert tokenizer.encode(text) == tokenizer(text)[0].tolist() == want
    assert tokenizer.decode(want) == theirs.decode(want)
    assert tokenizer.decode(want, True) == theirs.decode(want, skip_special_tokens=True)
    bare = theirs(text, add_special_tokens=False).input_ids
    assert tokenizer.encode(text, add_special_tokens=False) == bare
    letters = tokenizer.encode(text, special=False)  # <tool_call> is no letter either
    assert letters == theirs._encode_without_added_tokens(text)
    assert tokenizer.encode_batch([text, "x"], special=False)[0] == letters


def test_special_tokens_are_those_of_transformers(tokenizer, theirs):
    for ours, name in (
        (tokenizer.eos_id, "eos"),
        (tokenizer.bos_id, "bos"),
        (tokenizer.pad_id, "pad"),
    ):
        assert ours == getattr(theirs, f"{name}_token_id"), name
    assert tokenizer.num_tokens == len(theirs)
    assert tokenizer.special == theirs.added_tokens_encoder
    shown = [token.content for token in theirs.added_tokens_decoder.values() if not token.special]
    assert tokenizer.special.keys() - tokenizer.hidden == set(shown)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"tools": TOOLS},
        {"enable_thinking": False},
        {"chat_template": "{{ messages[0].content }}{{ documents }}", "documents": [{"text": "x"}]},
    ],
)
def test_chats_are_those_of_transformers(tokenizer, theirs, given):
    for opened in (True, False):
        options = {"add_generation_prompt": opened, **given}
        want = theirs.apply_chat_template(TALK, tokenize=False, **options)
        assert tokenizer.chat(TALK, **options) == want
    ids = theirs.apply_chat_template(TALK, tokenize=True, **options).input_ids
    assert tokenizer.encode(tokenizer.chat(TALK, **options)) == ids  # with one BOS, not two
    assert tokenizer.encode(tokenizer.chat(TALK, **options) + "So")[: len(ids) - 1] == ids[:-1]


FLAGS = {"__type": "AddedToken", "lstrip": True, "rstrip": True, "normalized": False}
SETTINGS = {
    "a space before each word": {"add_prefix_space": True},
    "no space": {"add_prefix_space": False},
    "flags of a named token": {"eos_token": {**FLAGS, "content": "<|im_end|>"}},
    "flags of a new one": {"pad_token": {**FLAGS, "content": "<new>"}},
    "flags of a further one": {"additional_special_tokens": [{**FLAGS, "content": "<new>"}]},
}


@pytest.mark.parametrize("make", [plain, slow], ids=lambda make: make.__name__)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_settings_that_change_ids_are_followed(settings, make, tmp_path):
    folder = make(tmp_path)
    edit(folder / "tokenizer_config.json", lambda data: data.update(settings))
    theirs = AutoTokenizer.from_pretrained(folder)
    for text in ("def area(a)", " a <|im_end|> b", " a <new> b", " a <|endoftext|> b"):
        assert Tokenizer(folder).encode(text) == theirs(text).input_ids, text


def test_flags_in_tokenizer_json_of_a_token_with_a_name_are_those_of_transformers(tmp_path):
    folder = plain(tmp_path)
    strip = {"lstrip": True, "rstrip": True}
    edit(folder / "tokenizer.json", lambda d: [t.update(strip) for t in d["added_tokens"]])
    theirs = AutoTokenizer.from_pretrained(folder)
    for text in (" a <|im_end|> b", " a <|endoftext|> b", " a <|im_start|> b"):
        assert Tokenizer(folder).encode(text) == theirs(text).input_ids, text


# --- saving ---


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "config.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_load_and_save_change_no_byte_and_leave_nothing_of_another(folder, tokenizer, tmp_path):
    tokenizer.encode("x", special=False)
    out = LAYOUTS["saved_by_transformers"](tmp_path / "out")
    (out / "README.md").write_text("kept")
    (out / "additional_chat_templates" / "rag.jinja").write_text("another tokenizer's")
    tokenizer.save(out)
    assert contents(out) == contents(folder) | {"README.md": b"kept"}
    tokenizer.save(out)
    assert contents(out) == contents(folder) | {"README.md": b"kept"}


def test_what_was_changed_is_saved_and_nothing_else(folder, tmp_path):
    tokenizer = Tokenizer(folder)
    tokenizer.chat_template = "new {{ messages[0].content }}"
    tokenizer.save(tmp_path / "a")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "a")
    assert theirs.apply_chat_template(TALK, tokenize=False) == "new hi <|im_end|>"
    before, after = contents(folder), contents(tmp_path / "a")
    same = before.keys() - {"tokenizer_config.json", "chat_template.jinja"}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    old, new = (json.loads(f["tokenizer_config.json"]) for f in (before, after))
    assert [k for k in old | new if k != "chat_template" and old.get(k, 0) != new.get(k, 0)] == []
    assert list(new) == list(old)
    if isinstance(old.get("chat_template"), list):  # the others stay next to it
        assert new["chat_template"][1:] == old["chat_template"][1:]
    tokenizer.backend.add_tokens(["<new>"])
    tokenizer.save(tmp_path / "b")
    (tmp_path / "b" / "config.json").write_bytes((folder / "config.json").read_bytes())
    for text in ("a<new>b<|im_end|>", "def area"):
        want = AutoTokenizer.from_pretrained(tmp_path / "b")(text).input_ids
        assert tokenizer.encode(text) == Tokenizer(tmp_path / "b").encode(text) == want


def test_no_template_and_others_of_any_name_are_saved(tmp_path):
    tokenizer = Tokenizer(plain(tmp_path / "a"))
    tokenizer.chat_template = None
    tokenizer.save(tmp_path / "a")
    assert Tokenizer(tmp_path / "a").chat_templates == {}
    tokenizer.chat_templates = {"default": "d", "tool_use": "t"}
    tokenizer.save(tmp_path / "a")
    assert Tokenizer(tmp_path / "a").chat_templates == {"default": "d", "tool_use": "t"}
    tokenizer.chat_templates = {"../x": "d"}
    with pytest.raises(TokenizerError, match="cannot be named"):
        tokenizer.save(tmp_path / "a")
    assert Tokenizer(tmp_path / "a").chat_templates == {"default": "d", "tool_use": "t"}


# --- which template ---


def test_a_template_is_chosen_by_name_and_unknown_names_are_refused(tmp_path):
    tokenizer = Tokenizer(LAYOUTS["named_templates"](tmp_path))
    assert tokenizer.chat(TALK, tools=TOOLS, chat_template="default") == "plain"
    assert tokenizer.chat(TALK, chat_template="tool_use").startswith("<|im_start|>user")
    with pytest.raises(TokenizerError, match="named 'tools'; there are: default, tool_use"):
        tokenizer.chat(TALK, chat_template="tools")
    del tokenizer.chat_templates["default"]
    with pytest.raises(TokenizerError, match=r"no chat template is named default; .*: tool_use"):
        tokenizer.chat(TALK)
    with pytest.raises(TokenizerError, match="continue_final_message is not an argument"):
        tokenizer.chat(TALK, continue_final_message=True)


# --- refused ---


def no_vocabulary(folder):
    (slow(folder) / "merges.txt").unlink()


def id_twice(folder):
    edit(plain(folder) / "tokenizer.json", lambda d: d["model"]["vocab"].update({"zz": 7}))


def gap(folder):
    more = {"900": {"content": "<late>", "special": True}}
    edit(plain(folder) / "tokenizer_config.json", lambda d: d.update(added_tokens_decoder=more))


def two_ids(folder):
    more = {"900": {"content": "<|im_end|>", "special": True}}
    edit(plain(folder) / "tokenizer_config.json", lambda d: d.update(added_tokens_decoder=more))


def odd_eos(folder):
    edit(plain(folder) / "tokenizer_config.json", lambda d: d.update(eos_token=["x"]))


def odd_decoder(folder):
    edit(plain(folder) / "tokenizer_config.json", lambda d: d.update(added_tokens_decoder={"1": 2}))


def odd_map(folder):
    (slow(folder) / "special_tokens_map.json").write_text("[1]")
    edit(folder / "tokenizer_config.json", lambda d: d.pop("added_tokens_decoder"))


def odd_merges(folder):
    (slow(folder) / "merges.txt").write_text("a b c\n")


REFUSED = {
    no_vocabulary: "nor do vocab.json and merges.txt.*save_pretrained",
    gap: "'<late>' has the id 900 in the file, and would get", id_twice: "both have the id 7",
    two_ids: "900 in the settings and",
    odd_eos: "eos_token is .'x'.", odd_decoder: "token 1 is 2", odd_map: "special_tokens_map.json",
    odd_merges: "a merge has two tokens",
}  # fmt: skip


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_files_that_contradict_one_another_are_refused(make, tmp_path):
    make(tmp_path / "a")
    with pytest.raises(TokenizerError, match=REFUSED[make]):
        Tokenizer(tmp_path / "a")
