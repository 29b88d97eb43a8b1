"""What ends a chat: the tokenizer's own eos as well; tokens that show in text; one BOS, not two."""

import copy
import json

import pytest
from speaking import fed_to, says

from qwenkit.cli import main
from qwenkit.errors import InputError
from qwenkit.files import write_json
from qwenkit.generate import Conversation, complete, complete_batch, fill, stream
from qwenkit.pretrained import save_pretrained
from qwenkit.tokenizer import Tokenizer

TALK = [{"role": "user", "content": "hi"}]
BOS = "<|repo_name|>"


@pytest.fixture(scope="module")
def tuned(toy, tmp_path_factory):
    """A model whose own stop token is <|endoftext|>, and whose tokenizer's eos is <|file_sep|>.

    Two more tokens, <tool_call> and </tool_call>, show in text.
    """
    model, folder = copy.deepcopy(toy[0]), tmp_path_factory.mktemp("tuned")
    model.stop_ids = (toy[1].special["<|endoftext|>"],)
    save_pretrained(model, folder, toy[1])
    data = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    for token in ("<tool_call>", "</tool_call>"):
        last = data["added_tokens"][-1]
        data["added_tokens"].append(
            last | {"id": last["id"] + 1, "content": token, "special": False}
        )
    first, text = (
        {"SpecialToken": {"id": BOS, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    )
    named = {BOS: {"id": BOS, "ids": [toy[1].special[BOS]], "tokens": [BOS]}}
    data["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text],
        "special_tokens": named,
    }
    write_json(folder / "tokenizer.json", data)
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    template = "{{ bos_token }}" + settings["chat_template"]
    more = {"eos_token": "<|file_sep|>", "bos_token": BOS, "chat_template": template}
    write_json(folder / "tokenizer_config.json", settings | more)
    tokenizer = Tokenizer(folder)
    model.num_tokens = tokenizer.num_tokens
    return model, tokenizer, folder


WAYS = {
    "complete": lambda both, **k: complete(*both, both[1].chat(TALK), **k),
    "stream": lambda both, **k: "".join(stream(*both, both[1].chat(TALK), **k)),
    "batch": lambda both, **k: complete_batch(*both, [both[1].chat(TALK)], **k)[0],
    "conversation": lambda both, **k: Conversation(*both).say("hi", **k),
    "fill": lambda both, **k: fill(*both, "a", "b", **k),
}


@pytest.mark.parametrize("end", ["<|file_sep|>", "<|endoftext|>"])
@pytest.mark.parametrize("way", WAYS)
def test_the_tokenizers_eos_ends_a_text_and_so_does_the_models(tuned, way, end, monkeypatch):
    both = tuned[:2]
    says(
        both[0],
        monkeypatch,
        [*both[1].encode("one", add_special_tokens=False), both[1].special[end]],
    )
    assert WAYS[way](both) == "one"


@pytest.mark.parametrize("way", ["complete", "stream", "batch", "conversation"])
def test_stop_ids_that_are_given_replace_it(tuned, way, monkeypatch):
    both = tuned[:2]
    ids = both[1].encode("one<|file_sep|>two<|endoftext|>three;", add_special_tokens=False)
    says(both[0], monkeypatch, ids)
    assert WAYS[way](both, stop_ids=[ids[-1]]) == "onetwothree"


def test_the_command_line_ends_there(tuned, monkeypatch, capsys):
    model, tokenizer, folder = tuned
    ids = [*tokenizer.encode("one", add_special_tokens=False), tokenizer.eos_id]
    says(model, monkeypatch, ids)
    monkeypatch.setattr("qwenkit.cli._main.load_pretrained", lambda *a, **k: (model, tokenizer))
    assert main(["generate", "--chat", "hi", "--model", str(folder)]) == 0
    assert capsys.readouterr().out == "one\n"


def test_a_chat_has_one_bos_and_a_plain_prompt_has_one_too(tuned):
    model, tokenizer, _ = tuned
    bos = tokenizer.bos_id
    for prompt in (tokenizer.chat(TALK), "hi"):
        assert tokenizer.encode(prompt).count(bos) == 1
        assert tokenizer.encode(prompt)[0] == bos
    assert tokenizer.encode("hi", special=False).count(bos) == 0
    talk = Conversation(model, tokenizer)
    with fed_to(model) as shapes:
        talk.say("hi", max_new_tokens=2)
    assert talk.ids.count(bos) == 1
    assert shapes[0][1] == len(tokenizer.encode(tokenizer.chat(TALK)))


def test_a_token_that_shows_in_text_may_be_a_stop_string(tuned, monkeypatch):
    both = tuned[:2]
    ids = both[1].encode("a<tool_call>b</tool_call>c", add_special_tokens=False)
    for stops, want in (
        [["</tool_call>"], "a<tool_call>b"],
        [["l>b"], "a<tool_cal"],
        [["<tool"], "a"],
    ):
        says(both[0], monkeypatch, [*ids, both[1].eos_id])
        assert complete(*both, "x", stop_strings=stops) == want


@pytest.mark.parametrize(
    "stop", ["<|im_end|>", "<|im_end|>\n", "x<|file_sep|>", "<|im_end|><tool_call>"]
)
def test_a_stop_string_with_a_special_token_is_refused(tuned, stop):
    with pytest.raises(
        InputError, match=r"special token.* which is not text; put its id, \d+, into"
    ):
        complete(*tuned[:2], "x", stop_strings=[stop])
