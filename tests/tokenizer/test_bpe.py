"""Learned merges against a BPE written by hand, and the order of the vocabulary."""

import json
import os
import random
import re
from collections import Counter
from itertools import pairwise

import pytest
from fixtures_toy import ROOT
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from qwenkit.errors import CheckpointError, InputError
from qwenkit.tokenizer import byte_alphabet
from qwenkit.tokenizer.bpe import SMALLEST, SPECIAL, SPLIT, learn_merges, write_tokenizer

# GPT-2's alphabet: printable bytes stand for themselves, the others for U+0100 and up.
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
ALPHABET = [chr(byte) for byte in PRINTABLE] + [chr(256 + n) for n in range(256 - len(PRINTABLE))]


@pytest.fixture(scope="module")
def source():
    return [file.read_text("utf-8") for file in sorted((ROOT / "qwenkit" / "model").glob("*.py"))]


# --- learning ---


def by_hand(text, vocab_size):
    """Merge the most frequent pair again and again; among equal ones that of the smallest ids.

    The text has lowercase letters only, each word after one space or newline.
    """
    words = Counter(re.findall(r" ?[a-z]+|\n", text))
    words = {tuple(w.replace(" ", "Ġ").replace("\n", "Ċ")): count for w, count in words.items()}
    ids = {letter: number for number, letter in enumerate(ALPHABET)}
    merges = []
    while len(ids) + len(SPECIAL) < vocab_size:
        pairs = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        best = min(pairs, key=lambda p: (-pairs[p], ids[p[0]], ids[p[1]]), default=None)
        if best is None or pairs[best] < 2:
            break
        merges.append(best)
        ids.setdefault("".join(best), len(ids))
        words = Counter({merged(word, best): count for word, count in words.items()})
    return merges


def merged(word, pair):
    """Join the pair wherever it occurs, from left to right."""
    if len(word) < 2:
        return word
    size = 2 if word[:2] == pair else 1
    return ("".join(word[:size]), *merged(word[size:], pair))


def test_the_papers_example():
    """The words of Sennrich et al., algorithm 1: es and est occur 9 times there, lo and low 7."""
    text = ("low " * 5 + "lower " * 2 + "newest " * 6 + "widest " * 3).strip()
    merges = [("e", "s"), ("es", "t"), ("l", "o"), ("lo", "w")]
    assert by_hand(text, SMALLEST + 4) == merges
    assert learn_merges([text], SMALLEST + 4) == merges


@pytest.mark.parametrize("vocab_size", [SMALLEST, SMALLEST + 1, SMALLEST + 40, 10_000])
@pytest.mark.parametrize("letters", ["ab", "abcde", "etaoinshr"])
@pytest.mark.parametrize("seed", range(4))
def test_merges_equal_those_by_hand(seed, letters, vocab_size):
    rng = random.Random(seed)
    words = ["".join(rng.choices(letters, k=rng.randint(1, 9))) for _ in range(40)]
    text = " ".join(rng.choices(words, k=300)).replace(" " + words[0], "\n" + words[0])
    assert learn_merges([text], vocab_size) == by_hand(text, vocab_size)


def test_ties_go_to_the_smaller_ids_and_runs_are_counted_as_they_are():
    assert learn_merges(["cd ab", "ab cd"], SMALLEST + 1) == [("a", "b")]
    assert learn_merges(["cd ab cd"], SMALLEST + 1) == [("c", "d")]
    assert learn_merges(["aaaa"], 10_000) == by_hand("aaaa", 10_000) == [("a", "a")]
    assert learn_merges(["aaaaaaa bb"], 10_000) == by_hand("aaaaaaa bb", 10_000)


def test_words_are_not_merged_with_what_follows():
    for left, right in learn_merges(["a1b2 c\n\nd\n"] * 50, 10_000):
        token = left + right
        assert not re.search("[0-9]", token)  # digits stay single
        assert token in ("Ġc", "ĊĊ")


def test_learning_is_deterministic_and_gives_what_was_asked_where_the_text_suffices(source):
    merges = learn_merges(source, 600)
    for size in (SMALLEST, 300, 400, 600):
        assert learn_merges(source, size) == merges[: size - SMALLEST]
    assert len(merges) == 600 - SMALLEST
    assert learn_merges((text for text in reversed(source)), 400) == merges[: 400 - SMALLEST]
    assert learn_merges([], 700) == learn_merges([""], 700) == []
    assert learn_merges(["a b c"], 700) == []  # no pair occurs twice
    assert learn_merges(["ab ab"], 700) == [("a", "b")]  # the space before ab occurs once


def test_special_tokens_in_the_text_are_characters():
    for left, right in learn_merges([token * 9 for token in SPECIAL], 10_000):
        assert left + right not in SPECIAL


def test_too_small_a_vocabulary_and_a_single_string_are_refused():
    for size in (264, 0, -1):
        wrong = f"vocab_size is {size}; it must be at least 265: 256 byt"
        with pytest.raises(InputError, match=wrong):
            learn_merges(["text"], size)
    with pytest.raises(InputError, match="texts is one str; it must be a list of texts"):
        learn_merges("low low low", 300)


# --- the vocabulary ---


def test_the_vocabulary_and_the_split_are_those_of_qwens(tmp_path):
    tokenizer = write_tokenizer(tmp_path, [("l", "o"), ("lo", "w"), ("Ġ", "low")])
    tokens = [tokenizer.backend.id_to_token(number) for number in range(tokenizer.num_tokens)]
    assert tokens == [*ALPHABET, "lo", "low", "Ġlow", *SPECIAL]
    assert tokens[:3] == ["!", '"', "#"]  # Qwen's first three
    assert SPLIT == PRETOKENIZE_REGEX
    assert tokenizer.special == {token: 259 + place for place, token in enumerate(SPECIAL)}
    assert tokenizer.encode("low low<|im_end|>") == [257, 258, 261]


def test_a_token_of_two_merges_has_one_id(tmp_path):
    tokenizer = write_tokenizer(tmp_path, [("a", "b"), ("b", "c"), ("a", "bc"), ("ab", "c")])
    assert tokenizer.num_tokens == 256 + 3 + len(SPECIAL)
    assert tokenizer.encode("ab bc abc<|endoftext|>")[-2:] == [258, 259]
    assert tokenizer.decode(tokenizer.encode("ab bc abc")) == "ab bc abc"


def test_no_merges_leave_the_bytes(tmp_path):
    tokenizer = write_tokenizer(tmp_path, [])
    assert tokenizer.num_tokens == SMALLEST
    assert len(tokenizer.encode("é🙂")) == 2 + 4
    assert list(byte_alphabet()) == ALPHABET
    assert bytes(byte_alphabet()[char] for char in "Ġé") == b" \xe9"


@pytest.mark.parametrize("merges", [[("a", "bc")], [("a b", "c")], ["abc"], [("a",)], [(1, 2)]])
def test_merges_that_do_not_build_on_one_another_are_refused(tmp_path, merges):
    with pytest.raises(InputError, match="merges make no vocabulary"):
        write_tokenizer(tmp_path, merges)
    assert list(tmp_path.iterdir()) == []


# --- files ---


def test_writing_replaces_all_and_a_write_that_fails_nothing(tmp_path, monkeypatch):
    folder = tmp_path / "new" / "folder"
    write_tokenizer(folder, [("a", "b")])
    assert write_tokenizer(folder, []).num_tokens == SMALLEST
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert before.keys() == {"tokenizer.json", "tokenizer_config.json"}

    def refuse(source, target):  # the one step of a save: its folder gets another name
        json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))  # complete before that
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refuse)
        with pytest.raises(CheckpointError, match=r"nothing was saved .*No space left"):
            write_tokenizer(folder, [("a", "b")])
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
