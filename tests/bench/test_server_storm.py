"""Many requests at once, some wrong and some cut off: each is answered rightly, nothing is left."""

import pytest

import qwenkit as qk
import server
from qwenkit.pretrained import EMBEDDED

pytestmark = pytest.mark.usefixtures("one_thread")


def test_answers_are_right_and_nothing_is_left():
    model, tokenizer = qk.load_pretrained(EMBEDDED, device="cpu", dtype="float32")
    storm, _ = server.run(model, tokenizer, requests=200, clients=16)
    assert sum(storm.ended.values()) == 201
    assert storm.ended["answered"] > 120
    assert storm.ended["refused"] > 5
    assert storm.ended["cut off"] > 5
