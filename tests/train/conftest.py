"""Real text and its tokenizer."""

import pytest
from fixtures_toy import ROOT, toy_of

from qwenkit.tokenizer import Tokenizer
from qwenkit.train import read_documents


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    return Tokenizer(toy_of(tmp_path_factory))


@pytest.fixture(scope="session")
def code():
    """Real code; what is tested with it holds for any."""
    return read_documents(ROOT / "qwenkit", include=["train/*.py"])
