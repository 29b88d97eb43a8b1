"""Two models for all tests of generation: the toy of random weights, and tiny-coder."""

import pytest
from fixtures_toy import toy_of

import qwenkit as qk
from qwenkit.pretrained import EMBEDDED


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread):
    """Every module here."""


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    return {name: toy_of(tmp_path_factory, tied=name == "tied") for name in ("tied", "untied")}


@pytest.fixture(scope="session")
def toy(folders):
    """The untied toy: a tied one of random weights repeats its last token forever."""
    return qk.load_pretrained(folders["untied"], dtype="float32")


@pytest.fixture(scope="session")
def coder():
    return qk.load_pretrained(EMBEDDED, device="cpu", dtype="float32")
