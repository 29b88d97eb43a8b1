"""Training text spells every added token, and other families' tokenizers serve as well."""

import json

import numpy as np
import pytest
from fixtures_toy import copied, toy_of

from qwenkit.errors import TokenizerError
from qwenkit.files import write_json
from qwenkit.tokenizer import Tokenizer
from qwenkit.train import Document, Mix
from qwenkit.train._epoch import make_epoch

TEXT = "x = '<tool_call><|end|>'\n" * 40


@pytest.fixture
def folder(tmp_path, tmp_path_factory):
    """A tokenizer as R1-Distill's: <|end|> for <|endoftext|>, and <tool_call> not special."""
    folder = copied(toy_of(tmp_path_factory), tmp_path / "copy")
    data = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    data["added_tokens"][0]["content"] = "<|end|>"
    data["added_tokens"][-1] |= {"content": "<tool_call>", "special": False}
    write_json(folder / "tokenizer.json", data)
    write_json(folder / "tokenizer_config.json", {"eos_token": "<|end|>"})
    return folder


def test_added_tokens_in_training_text_are_letters(folder):
    tokenizer = Tokenizer(folder)
    mix, rng = Mix(fim=1.0, repeats=0.1), np.random.default_rng(0)
    made = make_epoch([Document("a", TEXT)], tokenizer, mix, 128, rng)
    assert tokenizer.decode(made.plain[:-1]) == TEXT
    assert np.isin(made.plain, list(tokenizer.special.values())).nonzero()[0].tolist() == [
        len(made.plain) - 1]  # fmt: skip
    assert made.plain[-1] == tokenizer.special["<|end|>"] == tokenizer.document_end
    marks = [tokenizer.special[f"<|fim_{name}|>"] for name in ("prefix", "suffix", "middle")]
    infilling = [ids for ids, counted in made.examples if counted.all()]
    for ids in infilling:
        special = ids[np.isin(ids, list(tokenizer.special.values()))]
        assert special.tolist() == [*marks, tokenizer.document_end]
    assert infilling


def test_without_fim_tokens_only_infilling_is_refused(folder):
    data = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    for token in data["added_tokens"]:
        token["content"] = token["content"].replace("fim_", "hole_")
    write_json(folder / "tokenizer.json", data)
    tokenizer, rng = Tokenizer(folder), np.random.default_rng(0)
    made = make_epoch([Document("a", TEXT)], tokenizer, Mix(fim=0.0), 128, rng)
    assert tokenizer.decode(made.plain[:-1]) == TEXT
    with pytest.raises(TokenizerError, match=r"no special token <\|fim_prefix\|>"):
        make_epoch([Document("a", TEXT)], tokenizer, Mix(fim=1.0), 128, rng)


def test_without_an_end_training_says_so(folder):
    write_json(folder / "tokenizer_config.json", {})
    with pytest.raises(TokenizerError, match=r"no special token <\|endoftext\|>"):
        _ = Tokenizer(folder).document_end
