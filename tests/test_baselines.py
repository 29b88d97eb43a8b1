"""The baselines that the embedded model is measured against."""

import lzma
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "bench"))
from baselines import ByteNgram, xz_bits

TEXT = b"abracadabra abracadabra"


def witten_bell(train, history, byte, order):
    """The formula itself, slowly: counts over the text with order - 1 zero bytes before it."""
    padded = bytes(order - 1) + train
    probability = 1 / 256
    for n in range(1, order + 1):
        context = history[len(history) - n + 1 :] if n > 1 else b""
        ends = range(order - 1, len(padded))
        followers = [padded[e] for e in ends if padded[e - n + 1 : e] == context]
        if not followers:
            break
        kinds = len(set(followers))
        probability = (followers.count(byte) + kinds * probability) / (len(followers) + kinds)
    return probability


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("text", [b"abracadabra", b"zebra", b"a", "é\n".encode()])
def test_the_n_gram_model_follows_its_formula(order, text):
    padded = bytes(order - 1) + text
    ends = range(order - 1, len(padded))
    expected = -sum(math.log2(witten_bell(TEXT, padded[:e], padded[e], order)) for e in ends)
    assert ByteNgram([TEXT], order).bits(text) == pytest.approx(expected, rel=1e-9)


def test_the_probabilities_of_all_bytes_add_up_to_one():
    model = ByteNgram([TEXT, b"something else"], 4)
    for before in (b"", b"abr", b"xyz"):
        known = model.bits(before)
        found = [2 ** -(model.bits(before + bytes([b])) - known) for b in range(256)]
        assert sum(found) == pytest.approx(1.0, abs=1e-9)


def test_texts_do_not_run_into_one_another():
    apart, joined = ByteNgram([b"ab", b"cd"], 2), ByteNgram([b"abcd"], 2)
    assert apart.bits(b"bc") > joined.bits(b"bc")


def test_xz_is_what_the_command_gives(tmp_path):
    text = TEXT * 50
    assert lzma.decompress(lzma.compress(text)) == text
    if shutil.which("xz") is None:
        pytest.skip("there is no xz command to compare with")
    (tmp_path / "text").write_bytes(text)
    command = ["xz", "-9e", "--stdout", str(tmp_path / "text")]
    assert xz_bits(text) == 8 * len(subprocess.check_output(command))
