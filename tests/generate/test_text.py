"""Stop strings, wherever the borders of the tokens lie, and filling in."""

import itertools
import random

import pytest
import torch
from speaking import fed_to, says

from qwenkit.errors import InputError, TokenizerError
from qwenkit.generate import complete, fill, stream
from qwenkit.generate.text import TextWriter
from qwenkit.tokenizer import Tokenizer


class Pieces(Tokenizer):
    """A tokenizer whose token i is the i-th of some byte strings."""

    special = {"<|end|>": 99}  # noqa: RUF012

    def __init__(self, pieces):
        self.pieces = [p.encode() if isinstance(p, str) else p for p in pieces]

    def decode(self, ids, skip_special=False):
        assert skip_special
        return b"".join(self.pieces[i] for i in ids).decode(errors="replace")


def write(pieces, stops):
    """Feed pieces one by one; return what came after each, and at the end, and the writer."""
    writer = TextWriter(Pieces(pieces), stops)
    out = []
    for token in range(len(pieces)):
        out.append(writer.add(token))
        if writer.stopped:
            break
    return out, writer.end(), writer


CASES = {
    "in one token": (["a", "b\n\nc", "d"], ["\n\n"], "ab"),
    "a token itself": (["a", "END", "d"], ["END"], "a"),
    "at the very start": (["END", "d"], ["END"], ""),
    "across two tokens": (["aE", "NDb"], ["END"], "a"),
    "across many": (["a", "E", "N", "D"], ["END"], "a"),
    "a false start": (["EN", "ENDx"], ["END"], "EN"),
    "start within a start": (["aa", "ab", "c"], ["aab"], "a"),
    "never": (["EN", "E", "N"], ["END"], "ENEN"),
    "never, held to the end": (["x", "EN"], ["END"], "xEN"),
    "none asked for": (["a", "b"], [], "ab"),
    "two, the first to be complete": (["x", "abc"], ["abc", "b"], "xa"),
    "two that end together": (["x", "ab", "c"], ["bc", "abc"], "x"),
    "of letters of many bytes": ([b"\xe9\x9d", b"\xa2x", "yz"], ["面x"], ""),
    "before half a letter": (["a", b"]\xf0\x9f", b"\x99\x82"], ["]"], "a"),
    "in the rest of half a letter": (["a", b"\xf0\x9f", b"\x99\x82;b"], [";"], "a🙂"),
    "after broken bytes": ([b"\xff", b"\x80|", "x"], ["|"], "\ufffd\ufffd"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_text_ends_before_a_stop_string(name):
    pieces, stops, want = CASES[name]
    out, rest, writer = write(pieces, stops)
    assert "".join(out) + rest == want
    assert writer.stopped == (not name.startswith(("never", "none")))


def test_it_ends_with_the_token_that_completes_it():
    assert write(["a", "b\n\nc", "d"], ["\n\n"])[0] == ["a", "b"]
    assert write(["a", "E", "N", "D", "x"], ["END"])[0] == ["a", "", "", ""]
    assert write(["a", b"]\xf0\x9f", b"\x99\x82"], ["]"])[0] == ["a", ""]  # no wait for the letter


def test_only_what_may_still_be_a_start_is_kept_back():
    out, rest, _ = write(["a", "E", "N", "E", "b", "EN"], ["END"])
    assert out == ["a", "", "", "EN", "Eb", ""]
    assert rest == "EN"
    assert write(["E", "N"], ["<END>"])[0] == ["E", "N"]
    assert write(["a", b"\xf0\x9f", b"\x99\x82", "b"], [])[0] == ["a", "", "🙂", "b"]


def letter_by_letter(text, stops):
    """Return the text before the stop string that is complete first, the longest of several."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))]
    return text


@pytest.mark.parametrize("seed", range(30))
def test_the_result_is_the_same_however_the_text_is_cut_into_tokens(seed):
    draw = random.Random(seed)
    text = "".join(draw.choices("ab\né🙂", k=25))
    stops = ["".join(draw.choices("ab\né🙂", k=draw.randint(2, 4))) for _ in range(3)]
    want = letter_by_letter(text, stops)
    raw = text.encode()
    for _ in range(10):
        cuts = sorted(draw.sample(range(1, len(raw)), draw.randint(0, len(raw) - 1)))
        pieces = [raw[a:b] for a, b in itertools.pairwise([0, *cuts, len(raw)])]
        out, rest, writer = write(pieces, stops)
        assert "".join(out) + rest == want
        assert writer.stopped == (want != text or any(text.endswith(stop) for stop in stops))


# --- stream and complete ---


def test_generation_ends_as_soon_as_a_stop_string_is_complete(toy, monkeypatch):
    model, tokenizer = toy
    ids = tokenizer.encode("x = 1\n\ndef f():\n    pass\n")
    says(model, monkeypatch, ids)
    place = next(i for i in range(len(ids)) if "\n\n" in tokenizer.decode(ids[: i + 1]))
    with fed_to(model) as shapes:
        pieces = list(stream(*toy, "a", stop_strings=["\n\n"], max_new_tokens=len(ids)))
    assert "".join(pieces) == "x = 1"
    assert all(pieces)
    assert len(shapes) == place + 1


def test_a_stop_token_ends_the_text_and_lets_out_what_was_kept_back(toy, monkeypatch):
    model, tokenizer = toy
    ids = [*tokenizer.encode("one EN"), tokenizer.special["<|im_end|>"]]
    says(model, monkeypatch, ids)
    assert complete(*toy, "x", stop_strings=["END"]) == "one EN"


@pytest.mark.parametrize("seed", range(5))
def test_random_texts_end_where_their_full_text_says(toy, seed):
    settings = {"max_new_tokens": 40, "temperature": 1.0, "seed": seed, "stop_ids": ()}
    full = complete(*toy, "def ", **settings)
    stops = [full[12:15], full[20:22]]
    got = list(stream(*toy, "def ", stop_strings=stops, **settings))
    assert "".join(got) == letter_by_letter(full, stops)
    assert len("".join(got)) <= 12


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("\n", "must be a list of texts"),
        (["a", ""], "none of them empty"),
        ([1], "must be a list of texts"),
        (None, "must be a list of texts"),
        (3, "must be a list of texts"),
        (b"ab", "must be a list of texts"),
        (["<|im_end|>"], "a special token, which is not text; put its id"),
    ],
)
def test_wrong_stop_strings_are_refused_at_the_call(toy, wrong, words):
    with pytest.raises(InputError, match=f"stop_strings .*{words}"):
        stream(*toy, "x", stop_strings=wrong)


# --- fill ---


def test_fill_asks_as_the_model_was_trained_and_ends_at_the_next_file(toy, monkeypatch):
    model, tokenizer = toy
    says(model, monkeypatch, [*tokenizer.encode("a, b"), tokenizer.special["<|file_sep|>"], 0, 0])
    asked = []
    hook = model.register_forward_pre_hook(lambda module, args: asked.append(args[0]))
    assert fill(*toy, "def add(", "):\n    return a + b\n") == "a, b"
    hook.remove()
    assert torch.equal(asked[0], tokenizer(tokenizer.fim("def add(", "):\n    return a + b\n")))
    assert asked[0][0, 0] == tokenizer.special["<|fim_prefix|>"]


@pytest.mark.parametrize("name", ["<|endoftext|>", "<|im_end|>", "<|fim_pad|>", "<|fim_prefix|>"])
def test_fill_ends_at_the_models_own_stop_tokens_and_at_those_of_fim(toy, monkeypatch, name):
    model, tokenizer = toy
    says(model, monkeypatch, [*tokenizer.encode("one"), tokenizer.special[name], 40, 41])
    assert fill(*toy, "a", "b") == "one"


def test_fill_takes_other_stops_beside_those_of_fim(toy, monkeypatch):
    model, tokenizer = toy
    end, pad = tokenizer.special["<|im_end|>"], tokenizer.special["<|fim_pad|>"]
    one, two = tokenizer.encode("one"), tokenizer.encode("two")
    says(model, monkeypatch, [*one, end, *two, pad, 40])
    assert fill(*toy, "a", "b", stop_ids=()) == "onetwo"  # the model's own no longer end it
    says(model, monkeypatch, [*one, *two])
    assert fill(*toy, "a", "b", stop_ids=(two[0],)) == "one"
    says(model, monkeypatch, [*one, *two])
    assert fill(*toy, "a", "b", stop_strings=["et"]) == "on"
    says(model, monkeypatch, one)
    assert fill(*toy, "a", "b", len(one)) == "one"


def test_tiny_coder_fills_in_as_complete_does(coder):
    model, tokenizer = coder
    before, after = "def area(", "):\n    return width * height\n"
    stops = (*model.stop_ids, *tokenizer.fim_stop_ids)
    want = complete(*coder, tokenizer.fim(before, after), 16, stop_ids=stops)
    assert fill(*coder, before, after, 16) == want


def test_bad_arguments_of_fill_are_refused(toy):
    with pytest.raises(InputError, match="stop_ids is 3"):
        fill(*toy, "a", "b", stop_ids=3)
    with pytest.raises(InputError, match="max_new_tokens"):
        fill(*toy, "a", "b", 0)
    with pytest.raises(TokenizerError, match=r"no <\|fim_prefix"):
        fill(toy[0], Pieces([]), "a", "b")
