"""The layouts' facts on the real Qwen2.5-Coder-0.5B. Needs QWENKIT_MODEL to name its folder."""

import ast
import os
import unicodedata
from pathlib import Path

import pytest
import torch
from against_transformers import TALKS, TEXTS, Both, changed, resaved
from test_real import REASON

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(REASON), reason=REASON)]
SOURCES = sorted(Path(ast.__file__).parent.glob("*.py"))
LARGE = "".join(file.read_text(encoding="utf-8") for file in SOURCES[:40])[:500_000]


@pytest.fixture(scope="module")
def both():
    return Both(Path(os.environ["QWENKIT_MODEL"]).expanduser())


@pytest.mark.parametrize("text", [LARGE, *TEXTS], ids=lambda text: ascii(text[:20]))
def test_ids_and_text(both, text):
    ids = both.hf_tokenizer(text).input_ids
    assert both.tokenizer.encode(text) == ids
    assert both.tokenizer.decode(ids) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("talk", TALKS)
def test_chats(both, talk):
    for theirs, ours in both.chats(talk):
        assert ours == theirs


def test_load_and_save_is_the_identity(both, tmp_path):
    saved = Both(resaved(both.folder, tmp_path))
    assert changed(both.folder, saved.folder) == []
    ids = both.hf_tokenizer(LARGE[:20_000]).input_ids
    assert saved.hf_tokenizer(LARGE[:20_000]).input_ids == ids
    with torch.no_grad():
        here, there = (one.hf_model(torch.tensor([ids[:8]])).logits for one in (both, saved))
    assert torch.equal(here, there)
