"""Whole characters, stop strings wherever the borders of the tokens lie, and filling in."""

import itertools
import random

import pytest
import torch
from speaking import fed_to, says, tokens

from qwenkit.errors import InputError, TokenizerError
from qwenkit.generate import complete, fill, stream
from qwenkit.generate.text import TextWriter
from qwenkit.tokenizer import Tokenizer, byte_alphabet


class Pieces(Tokenizer):
    """A tokenizer whose token i is the i-th of some byte strings."""

    special = {"<|end|>": 99}  # noqa: RUF012
    hidden = frozenset(special)

    def __init__(self, pieces):
        self.pieces = [p.encode() if isinstance(p, str) else p for p in pieces]

    def decode(self, ids, skip_special=False):
        assert skip_special
        return b"".join(self.pieces[i] for i in ids).decode(errors="replace")


def write(pieces, stops):
    """Feed pieces one by one; return what came after each, and at the end, and the writer."""
    writer = TextWriter(Pieces(pieces), stops)
    out = []
    while len(out) < len(pieces) and not writer.stopped:
        out.append(writer.add(len(out)))
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


def test_it_ends_with_the_token_that_completes_it_and_only_a_possible_start_is_kept_back():
    assert write(["a", "b\n\nc", "d"], ["\n\n"])[0] == ["a", "b"]
    assert write(["a", "E", "N", "D", "x"], ["END"])[0] == ["a", "", "", ""]
    assert write(["a", b"]\xf0\x9f", b"\x99\x82"], ["]"])[0] == ["a", ""]  # no wait for the letter
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


@pytest.fixture
def said(toy, monkeypatch):
    """Return a function: the pieces of a text whose tokens are dictated."""

    def pieces(ids, prompt="x", **options):
        says(toy[0], monkeypatch, ids)
        return list(stream(*toy, prompt, **options))

    return pieces


TEXTS = [
    "plain words and code()\n", "é", "naïve café — “quotes”", "面積は幅×高さ", "🙂🧑🏽‍🚀🏳️‍🌈!",
    "a🙂b面c", "\t\r\n  \n", "  leading spaces", "e\u0301 is normalized", "ends within 🙂",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_whole_characters_and_join_to_the_text(toy, said, monkeypatch, text):
    ids = toy[1].encode(text)
    pieces = said(ids, max_new_tokens=len(ids), stop_ids=())
    assert "".join(pieces) == toy[1].decode(ids)
    assert all(pieces)
    assert not any("\ufffd" in piece for piece in pieces)
    if len(text) > 9:
        assert len(pieces) > 3  # it did stream
    says(toy[0], monkeypatch, ids)
    assert complete(*toy, "x", len(ids), stop_ids=()) == toy[1].decode(ids)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_character_cut_short_shows_at_the_end(toy, said, count):
    ids = toy[1].encode("a🙂")
    assert len(ids) == 5  # the toy's vocabulary has no emoji: one token per byte
    pieces = said(ids, max_new_tokens=count, stop_ids=())
    assert pieces[0] == "a"
    assert "".join(pieces) == toy[1].decode(ids[:count])
    assert pieces[-1].startswith("\ufffd")


@pytest.mark.parametrize("broken", [[0xE9, 0x61], [0x80, 0x80, 0x61], [0xF0, 0x9F, 0x61, 0x62]])
def test_broken_bytes_in_the_middle_join_to_what_decode_says(toy, said, broken):
    alphabet = {raw: char for char, raw in byte_alphabet().items()}
    ids = [toy[1].backend.token_to_id(alphabet[byte]) for byte in broken]
    ids += toy[1].encode(" and so on")
    out = "".join(said(ids, max_new_tokens=len(ids), stop_ids=()))
    assert out == toy[1].decode(ids)
    assert out.endswith(("a and so on", "ab and so on"))


@pytest.mark.parametrize("seed", range(8))
def test_pieces_of_random_tokens_join_to_complete(toy, seed):
    settings = {"max_new_tokens": 60, "temperature": 1.5, "seed": seed, "stop_ids": ()}
    want = toy[1].decode(tokens(toy[0], toy[1]("def "), **settings), skip_special=True)
    assert "".join(stream(*toy, "def ", **settings)) == want
    assert complete(*toy, "def ", **settings) == want


def test_special_and_stop_tokens_are_not_text_and_let_out_what_was_kept_back(toy, said):
    encode = toy[1].encode
    assert "".join(said(encode("one<|im_start|>two<|im_end|>"))) == "onetwo"
    assert "".join(said(encode("one EN<|im_end|>"), stop_strings=["END"])) == "one EN"


def test_generation_ends_as_soon_as_a_stop_string_is_complete(toy, said):
    ids = toy[1].encode("x = 1\n\ndef f():\n    pass\n")
    place = next(i for i in range(len(ids)) if "\n\n" in toy[1].decode(ids[: i + 1]))
    with fed_to(toy[0]) as shapes:
        pieces = said(ids, stop_strings=["\n\n"], max_new_tokens=len(ids))
    assert "".join(pieces) == "x = 1"
    assert all(pieces)
    assert len(shapes) == place + 1


@pytest.mark.parametrize("seed", range(5))
def test_random_texts_end_where_their_full_text_says(toy, seed):
    settings = {"max_new_tokens": 40, "temperature": 1.0, "seed": seed, "stop_ids": ()}
    full = complete(*toy, "def ", **settings)
    stops = [full[12:15], full[20:22]]
    got = "".join(stream(*toy, "def ", stop_strings=stops, **settings))
    assert got == letter_by_letter(full, stops)
    assert len(got) <= 12


@pytest.mark.parametrize(("wrong", "words"), [
    *((wrong, "must be a list of texts") for wrong in ("\n", [1], None, 3, b"ab")),
    (["a", ""], "none of them empty"),
    (["<|im_end|>"], "a special token, which is not text; put its id"),
])  # fmt: skip
def test_wrong_stop_strings_and_no_prompt_are_refused_at_the_call(toy, wrong, words):
    with pytest.raises(InputError, match=f"stop_strings .*{words}"):
        stream(*toy, "x", stop_strings=wrong)
    with pytest.raises(InputError, match="input_ids"):
        stream(*toy, "")


# --- fill ---


def test_fill_asks_as_the_model_was_trained_and_ends_at_the_next_file(toy, monkeypatch):
    model, tokenizer = toy
    says(model, monkeypatch, tokenizer.encode("a, b<|file_sep|>!!"))
    asked = []
    with model.register_forward_pre_hook(lambda module, args: asked.append(args[0])):
        assert fill(*toy, "def add(", "):\n    return a + b\n") == "a, b"
    assert torch.equal(asked[0], tokenizer(tokenizer.fim("def add(", "):\n    return a + b\n")))
    assert asked[0][0, 0] == tokenizer.special["<|fim_prefix|>"]


@pytest.mark.parametrize("name", ["<|endoftext|>", "<|im_end|>", "<|fim_pad|>", "<|fim_prefix|>"])
def test_fill_ends_at_the_models_own_stop_tokens_and_at_those_of_fim(toy, monkeypatch, name):
    says(toy[0], monkeypatch, toy[1].encode(f"one{name}IJ"))
    assert fill(*toy, "a", "b") == "one"


def test_fill_takes_other_stops_in_addition_to_those_of_fim(toy, monkeypatch):
    def filled(text, **options):
        says(toy[0], monkeypatch, toy[1].encode(text))
        return fill(*toy, "a", "b", **options)

    # the model's own stop tokens no longer end it
    assert filled("one<|im_end|>two<|fim_pad|>I", stop_ids=()) == "onetwo"
    assert filled("one;two", stop_ids=toy[1].encode(";")) == "one"
    assert filled("onetwo", stop_strings=["et"]) == "on"
    assert filled("one", max_new_tokens=len(toy[1].encode("one"))) == "one"
    with pytest.raises(TokenizerError, match=r"no <\|fim_prefix"):
        fill(toy[0], Pieces([]), "a", "b")


def test_tiny_coder_fills_in_as_complete_does(coder):
    model, tokenizer = coder
    before, after = "def area(", "):\n    return width * height\n"
    stops = (*model.stop_ids, *tokenizer.fim_stop_ids)
    want = complete(*coder, tokenizer.fim(before, after), 16, stop_ids=stops)
    assert fill(*coder, before, after, 16) == want
