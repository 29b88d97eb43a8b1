"""The models that are served here compute in one thread."""

import pytest

import qwenkit as qk
from qwenkit.pretrained import EMBEDDED


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread):
    """Every module here."""


@pytest.fixture(scope="module")
def coder():
    return qk.load_pretrained(EMBEDDED, device="cpu", dtype="float32")
