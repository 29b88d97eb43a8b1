"""The bench itself: who takes turns, what is compared, the baselines, and one small run of it."""

import json
import lzma
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from baselines import ByteNgram, xz_bits
from promises import Promise, asked, promises
from qwenkit.pretrained import EMBEDDED
from rows import Spread, ratio, ratios, show, spread
from sizes import SMALL, Sizes
from timing import few, take_turns

NUMBERS = {
    "date", "model", "processor", "cores", "threads", "python", "torch", "transformers", "qwenkit",
    "rounds", "sizes", "others", "rows", "promises",
}  # fmt: skip
GROUPS = (
    "import", "load", "loaded", "the compiler", "all of it", "added to weights", "memory read",
    "prefill", "float32 products", "max |logit", "decode after", "trace", "tiny-coder",
    "decode, batch",
)  # fmt: skip
TEXT = b"abracadabra abracadabra"


def test_sides_take_turns_and_the_warm_up_is_not_counted():
    called = []
    sides = {name: lambda name=name: called.append(name) or len(called) for name in "ab"}
    found = take_turns(sides, rounds=2)
    assert "".join(called) == "ba" + "ab" + "ba"
    assert found == {"a": [3, 6], "b": [4, 5]}


@pytest.mark.parametrize(("rounds", "least", "want"), [(1, 3, 1), (5, 3, 3), (5, 2, 2), (11, 3, 5)])
def test_what_takes_long_gets_half_the_rounds_but_not_too_few(rounds, least, want):
    assert few(rounds, least) == want


def test_a_slow_moment_of_the_machine_does_not_move_the_ratio():
    ours, theirs = [1.0, 9.0, 1.2], [2.0, 18.0, 2.0]  # all was nine times slower in round two
    assert ratio(ours, theirs) == pytest.approx((0.5, 0.5, 0.6))
    assert spread(ours) == (1.2, 1.0, 9.0)
    found = ratios({"qwenkit": ours, "transformers": theirs})
    assert found == {"transformers": ratio(ours, theirs)}
    assert ratios({"float32": ours, "int8": theirs}) == {}
    # nothing to divide by gives NaN and no error
    assert math.isnan(ratio([1.0], [0.0]).median)
    assert not Promise("x", ratio([1.0], [0.0])).holds


def test_a_row_shows_medians_ratio_and_spread(capsys):
    show({"load, s": {"qwenkit": [1.0, 2.0], "transformers": [2.0, 2.5]}, "read": {"machine": [3]}})
    first, second = capsys.readouterr().out.splitlines()
    medians = "qwenkit 1.5   transformers 2.25   = 0.65 (0.5 to 0.8) × transformers"
    assert first.split(maxsplit=2)[2] == medians
    assert second.split() == ["read", "machine", "3"]


def test_a_promise_is_judged_by_the_median_and_its_bounds_belong_to_it():
    found = Spread(1.35, 1.2, 1.5)
    assert Promise("speed", found, least=1.35).holds
    assert not Promise("speed", found, least=1.36).holds
    assert Promise("time", found, most=1.35).holds
    assert not Promise("forecast", found, 0.9, 1.1).holds
    said = "holds speed 1.35 (1.2 to 1.5) asked 1.35 or more"
    assert str(Promise("speed", found, least=1.35)).split() == said.split()
    assert Promise("time", found, most=1.0).as_json() == {
        "what": "time", "median": 1.35, "lowest": 1.2, "highest": 1.5, "least": None, "most": 1.0,
        "holds": False,
    }  # fmt: skip
    # speed is their time divided by ours
    rows = {"decode after 128, s a token, int8": {"qwenkit": [0.1], "transformers": [0.5]}}
    (promise,) = promises(rows, Sizes())
    assert promise.what == "int8 decode, times transformers' speed in float32"
    assert promise.found.median == pytest.approx(5.0)
    assert promise.holds
    # both sides of this one are speeds
    rows = {"decode after 128, GB/s, int4": {"qwenkit": [12.0], "memory": [20.0]}}
    (promise,) = promises(rows, Sizes())
    assert (promise.what, promise.least) == ("int4 decode, times memory's speed", 0.65)
    assert promise.found.median == pytest.approx(0.6)
    assert not promise.holds


def test_lengths_stay_within_what_a_model_can_take():
    lengths = {"lengths": (64, 128, 256, 512, 1024), "pasts": (128, 512)}
    assert Sizes().within(1024) == Sizes(forwards=((512, 1), (512, 0)), **lengths)
    assert Sizes().within(32768) == Sizes()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One small run of the bench on the embedded model: what it printed, and its file."""
    file = tmp_path_factory.mktemp("bench") / "bench.json"
    command = [sys.executable, str(Path(__file__).with_name("run.py")), "--small", "--growth"]
    command += ["--rounds", "1", "--json", str(file)]
    environment = {**os.environ, "QWENKIT_MODEL": str(EMBEDDED), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text(encoding="utf-8"))


def test_a_small_run_has_every_row_with_finite_ratios(run):
    printed, found = run
    assert set(found) == NUMBERS
    assert (found["rounds"], found["model"], found["threads"]) == (1, "tiny-coder", 1)
    assert found["processor"]
    assert 0 <= found["others"] <= 1
    rows = found["rows"]
    assert [group for group in GROUPS if not any(name.startswith(group) for name in rows)] == []
    for name, row in rows.items():
        assert name in printed
        assert all(math.isfinite(value) for [value] in row["values"].values()), name  # one each
        sides = set(row["values"]) - {"qwenkit"} if "qwenkit" in row["values"] else set()
        assert set(row["ratios"]) == sides, name
        assert all(math.isfinite(number) for three in row["ratios"].values() for number in three)
    assert rows["max |logit difference|"]["values"]["qwenkit"][0] < 1e-3


def test_transformers_is_compared_wherever_it_does_the_same(run):
    rows = run[1]["rows"]
    compared = [name for name, row in rows.items() if "transformers" in row["values"]]
    for start in ("import", "load float32", "loaded, one token", "all of it, float32", "trace"):
        assert any(name.startswith(start) for name in compared), start
    for dtype in ("float32", "bfloat16", "int8", "int4"):
        assert sum(name.endswith(f", {dtype}") for name in compared) == len(SMALL.prefills) + 1


def test_every_promise_is_judged_by_rows_that_are_there(run):
    printed, found = run
    cells = {cell for _, *pair, _ in asked(SMALL) for cell in pair}
    there = {(name, side) for name, row in found["rows"].items() for side in row["values"]}
    # a small run loads only float32 in fresh processes
    assert cells - there == {("loaded, one token bfloat16, GB", "qwenkit")}
    judged = [promise["what"] for promise in found["promises"]]
    expected = [what for what, *_ in asked(SMALL) if " memory, times" not in what]
    forwards = ("256 tokens, one logits", f"{SMALL.trace} tokens, traced")
    expected += [f"forecast of float32, {one}, times measured" for one in forwards]
    assert judged == expected
    assert all(what in printed for what in judged)


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


def test_the_probabilities_of_all_bytes_add_up_to_one_and_texts_do_not_run_into_one_another():
    model = ByteNgram([TEXT, b"something else"], 4)
    for before in (b"", b"abr", b"xyz"):
        known = model.bits(before)
        found = [2 ** -(model.bits(before + bytes([b])) - known) for b in range(256)]
        assert sum(found) == pytest.approx(1.0, abs=1e-9)
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
