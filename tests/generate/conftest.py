"""Two models for all tests of generation: the toy of random weights, and tiny-coder."""

import pytest
import torch
from fixtures_toy import toy_of

import qwenkit as qk
from qwenkit.hub import EMBEDDED


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """A model this small gains nothing from more, and on a busy machine more is far slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """The untied toy: a tied one of random weights repeats its last token for ever."""
    return qk.load_pretrained(toy_of(tmp_path_factory, tied=False), dtype="float32")


@pytest.fixture(scope="session")
def coder():
    return qk.load_pretrained(EMBEDDED, device="cpu", dtype="float32")
