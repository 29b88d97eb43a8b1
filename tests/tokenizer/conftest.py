"""A folder's tokenizer, ours and transformers'; each test file names its own `folder`."""

import pytest
from transformers import AutoTokenizer

from qwenkit.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer(folder)


@pytest.fixture(scope="module")
def theirs(folder):
    return AutoTokenizer.from_pretrained(folder)
