"""The tokenizer of a GGUF file: the same ids as the folder's, and what is refused."""

import json

import pytest
from fixtures_toy import small_config
from folder_parts import FIRST, QWEN_TEMPLATE, QWEN_TOKENS
from gguf_writing import convert, tokenizer_metadata, write_gguf
from layouts import LAYOUTS
from test_tokenizer import CODE, TALK, TEXTS

import qwenkit as qk
from qwenkit.errors import TokenizerError
from qwenkit.tokenizer import Tokenizer

KEYS = ("model", "pre", "tokens", "token_type", "merges")


@pytest.fixture(scope="module")
def ours(toy):
    return Tokenizer(toy)


@pytest.fixture(scope="module")
def read(toy, tmp_path_factory):
    return Tokenizer(convert(toy, tmp_path_factory.mktemp("gguf") / "a.gguf"))


@pytest.mark.parametrize("text", [*TEXTS.values(), "e\u0301"], ids=[*TEXTS, "to be normalized"])
def test_ids_and_texts_are_those_of_the_folder(ours, read, text):
    for special in (True, False):
        ids = read.encode(text, special=special)
        assert ids == ours.encode(text, special=special)
        assert read.decode(ids) == ours.decode(ids)
        assert read.decode(ids, skip_special=True) == ours.decode(ids, skip_special=True)
        assert read.token_strings(ids) == ours.token_strings(ids)


def test_whole_files_chats_and_special_tokens_are_those_of_the_folder(ours, read):
    assert read.encode(CODE) == ours.encode(CODE)
    assert read.chat(TALK) == ours.chat(TALK)
    assert (read.special, read.hidden) == (ours.special, ours.hidden)
    assert (read.num_tokens, repr(read)) == (ours.num_tokens, repr(ours))
    assert (read.eos_id, read.pad_id, read.bos_id) == (ours.eos_id, ours.pad_id, ours.bos_id)
    assert read.fim("a", "b") == ours.fim("a", "b")


def layout(name, tmp_path, **changes):
    """Return a published folder's tokenizer, ours and from GGUF metadata."""
    tmp_path.mkdir(exist_ok=True)
    folder = LAYOUTS[name](tmp_path / name)
    config = small_config(vocab_size=512)
    data = {**tokenizer_metadata(folder, 512), **changes}
    return Tokenizer(folder), write_gguf(tmp_path / "a.gguf", config, {}, **data)


def test_tokens_of_qwens_own_files_are_those_of_the_folder(tmp_path):
    """Some are added without being special, as <tool_call>; then come rows of no token."""
    ours, path = layout("instruct", tmp_path, tokenizer__ggml__eos_token_id=FIRST + 2)
    read = Tokenizer(path)
    assert read.special == ours.special
    assert read.num_tokens == ours.num_tokens < 512
    assert QWEN_TOKENS.keys() <= set(read.special.values())
    shown = set(read.special) - read.hidden
    assert "<tool_call>" in shown
    assert all(token.startswith("<|") for token in read.hidden - ours.hidden)
    text = "<|im_start|>a<tool_call>b</tool_call><|fim_prefix|>c <|PAD_TOKEN|> [PAD400]"
    assert read.encode(text) == ours.encode(text)
    assert read.encode(text, special=False) == ours.encode(text, special=False)


def test_padding_that_older_converters_call_user_defined_is_no_token(tmp_path):
    ours, path = layout("plain", tmp_path)
    kinds = tokenizer_metadata(tmp_path / "plain", 512)["tokenizer.ggml.token_type"]
    kinds = [4 if kind == 5 else kind for kind in kinds]
    _, path = layout("plain", tmp_path / "b", tokenizer__ggml__token_type=kinds)
    read = Tokenizer(path)
    assert read.num_tokens == ours.num_tokens
    assert read.encode("[PAD400] <tool_call>") == ours.encode("[PAD400] <tool_call>")


def test_added_tokens_within_the_vocabulary_keep_their_ids(tmp_path):
    ours, _ = layout("plain", tmp_path)
    data = tokenizer_metadata(tmp_path / "plain", 512)
    tokens, kinds = data["tokenizer.ggml.tokens"], data["tokenizer.ggml.token_type"]
    tokens[500], kinds[500] = "<late>", 3  # after a gap
    tokens[505], kinds[505] = "Ġlater", 1  # the vocabulary goes on
    _, path = layout("plain", tmp_path / "b", tokenizer__ggml__tokens=tokens,
                     tokenizer__ggml__token_type=kinds)  # fmt: skip
    read = Tokenizer(path)
    assert read.special == {**ours.special, "<late>": 500}
    assert read.encode("a<late>b") == [*ours.encode("a"), 500, *ours.encode("b")]
    assert "<late>" not in [read.backend.id_to_token(i) for i in read.encode("<late>", False)]
    assert read.decode([500, 505]) == "<late> later"


def test_named_tokens_and_templates(tmp_path):
    template = {"tokenizer__chat_template": QWEN_TEMPLATE, "tokenizer__chat_template__rag": "rag"}
    _, path = layout("plain", tmp_path, tokenizer__ggml__bos_token_id=FIRST, **template)
    read = Tokenizer(path)
    assert read.chat_templates == {"default": QWEN_TEMPLATE, "rag": "rag"}
    assert read.bos_id is None  # Qwen's files name one, and its tokenizer does not have it
    _, path = layout("plain", tmp_path / "b", tokenizer__chat_template=None,
                     tokenizer__ggml__eos_token_id=2**32 - 1)  # fmt: skip
    assert Tokenizer(path).chat_templates == {}
    assert Tokenizer(path).eos_id == Tokenizer(path).special["<|endoftext|>"]


def test_it_is_saved_as_a_folder(read, tmp_path):
    read.save(tmp_path)
    again = Tokenizer(tmp_path)
    assert again.encode(CODE) == read.encode(CODE)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["unk_token"] is None


def test_files_of_a_tokenizer_next_to_the_gguf_file_are_read_instead(toy, tmp_path, ours):
    convert(toy, tmp_path / "a.gguf")
    ours.save(tmp_path)
    assert Tokenizer(tmp_path).encode("a") == ours.encode("a")
    model, tokenizer = qk.load_pretrained(tmp_path)
    assert model.num_tokens == tokenizer.num_tokens


def test_without_the_name_of_the_split_qwen2_is_assumed_with_a_warning(tmp_path, ours):
    _, path = layout("plain", tmp_path, tokenizer__ggml__pre=None)
    with pytest.warns(UserWarning, match=r"does not say how it splits a text"):
        Tokenizer(path)


REFUSED = [
    ({"model": "llama"}, "model is 'llama'; Qwen2's is 'gpt2'"), ({"model": None}, "model is None"),
    ({"pre": "llama-bpe"}, "pre is 'llama-bpe'; it must be 'qwen2'"), ({"pre": 3}, "pre is 3"),
    *(({key: None}, f"{key} is not a list") for key in KEYS[2:]),
    ({"tokens": [1, 2]}, "tokens is not a list of str"), ({"tokens": "x"}, "tokens is not a list"),
    ({"token_type": ["x"]}, "token_type is not a list of int"),
    ({"token_type": [1]}, "it has 512 tokens and 1 token types"),
    ({"token_type": [6] * 512}, "token 0 is of the type 6"),
    ({"tokens": ["a"] * 512}, "the token 'a' twice"),
    ({"merges": ["a b c"]}, "a merge is 'a b c'; it has two tokens"),
    ({"merges": ["ab"]}, "a merge is 'ab'"), ({"merges": ["zz zzz"]}, "cannot be read"),
    ({"eos_token_id": 512}, "eos_token_id is 512, which is not a token"),
    ({"eos_token_id": 511}, "eos_token_id is 511, which is not"), ({"eos_token_id": "x"}, "is 'x'"),
    ({"add_bos_token": True}, "add_bos_token is true"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "says"), REFUSED, ids=[str(row)[:60] for row in REFUSED])
def test_other_tokenizers_are_refused(tmp_path, changes, says):
    changes = {f"tokenizer__ggml__{key}": value for key, value in changes.items()}
    _, path = layout("plain", tmp_path, **changes)
    with pytest.raises(TokenizerError) as caught:
        Tokenizer(path)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 600
