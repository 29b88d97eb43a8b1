"""What an epoch is made of: the text itself, and examples of infilling and of copying."""

import itertools
import math
import unicodedata
from collections import Counter

import numpy as np
import pytest

from qwenkit.errors import InputError
from qwenkit.train import Document, Mix
from qwenkit.train._epoch import SHORTEST, _chunks, _split, make_epoch

PREFIX, SUFFIX, MIDDLE = (f"<|fim_{name}|>" for name in ("prefix", "suffix", "middle"))
END = "<|endoftext|>"
MARKED = f"x = '{END}'  # {PREFIX} and {SUFFIX} and {MIDDLE}\n<|im_end|>\n" * 5
ODD = [
    Document("one letter", "x"), Document("blank line", "x\n\n"),
    Document("no line end", "x = 1\ny = 2"), Document("long line", "abc " * 2_000),
    Document("emoji", "🙂🧑🏽‍🚀é\n" * 100), Document("special tokens as plain text", MARKED),
    Document("odd line ends", "a\x0cb\u2028c\x85d\re\n" * 30),
]  # fmt: skip


def epoch(documents, tokenizer, context=256, seed=0, **mix):
    return make_epoch(documents, tokenizer, Mix(**mix), context, np.random.default_rng(seed))


def cut(ids, tokenizer):
    """Return prefix, suffix and middle of an example; only FIM tokens may be between them."""
    special = [tokenizer.special[name] for name in (PREFIX, SUFFIX, MIDDLE, END)]
    places = [place for place, token in enumerate(ids) if token in tokenizer.special.values()]
    assert ids[places].tolist() == special  # Qwen's order, and no special token anywhere else
    assert (places[0], places[-1]) == (0, len(ids) - 1)
    return tuple(tokenizer.decode(ids[a + 1 : b]) for a, b in itertools.pairwise(places))


def fim_examples(made):
    return [ids for ids, counted in made.examples if counted.all()]


def test_the_plain_stream_is_the_documents_and_nothing_else(tokenizer, code):
    documents = code + ODD
    plain = epoch(documents, tokenizer).plain
    parts = np.split(plain, np.flatnonzero(plain == tokenizer.special[END]) + 1)
    assert len(parts.pop()) == 0  # the last document has its end too
    found, texts = [tokenizer.decode(part[:-1]) for part in parts], [one.text for one in documents]
    assert sorted(found) == sorted(texts)
    assert found != texts  # shuffled


def test_special_tokens_are_read_as_plain_text_for_the_epoch_alone(tokenizer, code):
    plain = epoch([Document("a", MARKED)], tokenizer).plain
    assert np.isin(plain, list(tokenizer.special.values())).sum() == 1
    assert tokenizer.decode(plain[:-1]) == MARKED
    assert plain[:-1].tolist() == tokenizer.encode(MARKED, special=False)
    decomposed = "cafe\u0301\n"  # the tokenizer normalizes
    plain = epoch([Document("a", decomposed)], tokenizer).plain
    assert tokenizer.decode(plain[:-1]) == unicodedata.normalize("NFC", decomposed)
    before = tokenizer.backend.to_str()
    epoch(code[:2], tokenizer, fim=1.0)
    assert tokenizer.encode(END) == [tokenizer.special[END]]
    tokenizer.encode(END, special=False)
    epoch(code[:2], tokenizer)
    assert tokenizer(END).tolist() == [[tokenizer.special[END]]]
    assert tokenizer.backend.to_str() == before  # what tells one text's batches from another's


@pytest.mark.parametrize("mix", [{}, {"fim": 1.0, "repeats": 0.3}])
def test_the_same_seed_gives_the_same_epoch(tokenizer, code, mix):
    one, same, other = (epoch(code, tokenizer, seed=seed, **mix) for seed in (3, 3, 4))
    assert np.array_equal(one.plain, same.plain)
    for left, right in zip(one.examples, same.examples, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))
    assert not np.array_equal(one.plain, other.plain)
    assert np.array_equal(one.plain, epoch(code, tokenizer, seed=3, fim=0.5, repeats=0.5).plain)
    assert bool(one.examples) == bool(mix)  # and the plain stream does not depend on the mix


def test_examples_of_infilling_are_parts_of_a_document_with_middles_of_three_kinds(tokenizer, code):
    documents = code + ODD
    made = epoch(documents, tokenizer, fim=1.0)
    assert len(made.examples) > 100
    found = Counter()
    for ids in fim_examples(made):
        prefix, suffix, middle = cut(ids, tokenizer)
        assert all((prefix, suffix, middle))
        chunk = prefix + middle + suffix
        assert len(chunk) >= 2 * SHORTEST
        assert any(chunk in document.text for document in documents)
        found["lines" if "\n" in middle else "end" if suffix.startswith("\n") else "part"] += 1
    assert len(found) == 3
    # one in five may go over several lines, which short chunks often do not have
    assert min(found.values()) > 0.05 * sum(found.values())


def test_two_in_five_middles_are_in_brackets_and_one_in_five_goes_over_lines():
    rng = np.random.default_rng(0)
    chunk = "total = sum(one, two, three)\n" * 10
    middles = [_split(chunk, rng)[2] for _ in range(4_000)]
    assert middles.count("one, two, three") / 4_000 == pytest.approx(0.4, abs=0.03)
    # Of those that may go over lines, about one in five ends in its first.
    assert sum("\n" in middle for middle in middles) / 4_000 == pytest.approx(0.16, abs=0.03)


@pytest.mark.parametrize("fraction", [0.25, 0.5, 1.0, 1.5, 2.0])
def test_the_fraction_of_infilling_is_the_one_asked_for(tokenizer, code, fraction):
    made = [fim_examples(epoch(code, tokenizer, seed=seed, fim=fraction)) for seed in range(5)]
    chunks = [["".join(cut(ids, tokenizer)) for ids in some] for some in made]
    shown, whole = sum(map(len, itertools.chain(*chunks))), sum(len(one.text) for one in code)
    # Some chunks are too long once they are tokens; which are drawn is chance.
    assert shown / (5 * whole) == pytest.approx(fraction, rel=0.15)
    assert len({*chunks[0]} & {*chunks[1]}) < 0.1 * len(chunks[0])  # epochs differ


def test_some_examples_of_infilling_are_nearly_as_long_as_the_context(tokenizer, code):
    lengths = [len(ids) for ids in fim_examples(epoch(code, tokenizer, context=512, fim=1.0))]
    assert max(lengths) > 0.8 * 512
    assert sum(length for length in lengths if length > 256) > 0.3 * sum(lengths)


def test_lengths_of_infilling_are_log_uniform_or_the_square_of_an_even_draw():
    text, rng = "x = 1234\n" * 60_000, np.random.default_rng(0)
    for lengths, below in (
        ("log-uniform", lambda size: math.log(size / 32) / math.log(1024 / 32)),
        ("quadratic", lambda size: math.sqrt((size - 32) / (1024 - 32))),
    ):
        drawn = [len(chunk) for chunk in _chunks(text, 512, lengths, rng)]
        for size in (64, 200, 500, 900):  # a chunk ends with its line, 4.5 characters later
            found = sum(one < size for one in drawn) / len(drawn)
            assert found == pytest.approx(below(size - 4.5), abs=0.03), (lengths, size)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 31, 32, 33, 500])
def test_chunks_that_are_too_short_or_too_long_are_left_out(tokenizer, length):
    made = epoch([Document("a", "é" * length)], tokenizer, context=64, fim=1.0)
    tokens = len(tokenizer.encode("é" * length)) + 4  # the FIM tokens; a cut may cost some more
    assert len(made.examples) <= (length >= 2 * SHORTEST and tokens <= 64)
    if length == 2 * SHORTEST:
        assert len(made.examples) == 1


def test_copying_examples_are_random_tokens_twice(tokenizer, code):
    made = epoch(code, tokenizer, context=64, repeats=1.0)
    special = list(tokenizer.special.values())
    lengths, seen = set(), set()
    for ids, counted in made.examples:
        half = len(ids) // 2
        assert np.array_equal(ids[:half], ids[half:])
        assert counted.tolist() == [False] * half + [True] * half
        assert not np.isin(ids, special).any()
        lengths.add(half)
        seen.update(ids.tolist())
    assert lengths == set(range(SHORTEST, 64 // 4 + 1))
    assert seen == set(range(tokenizer.num_tokens)) - set(special)  # no token is left out


@pytest.mark.parametrize("fraction", [0.01, 0.06, 0.5, 1.0])
def test_the_fraction_of_copying_is_the_one_asked_for(tokenizer, code, fraction):
    made = epoch(code, tokenizer, context=64, fim=0.25, repeats=fraction)
    tokens = sum(len(ids) for ids, counted in made.examples if not counted.all())
    wanted = int(fraction * len(made.plain))
    assert wanted <= tokens < wanted + 64 // 2  # all but the last example's length is exact


@pytest.mark.parametrize("context", [1, 8, 15])
def test_copying_needs_a_context_that_holds_it(tokenizer, context):
    documents = [Document("a", "x = 1\n" * 20)]
    with pytest.raises(InputError, match=rf"context is {context}; copying examples take at least"):
        epoch(documents, tokenizer, context=context, repeats=0.1)
    assert epoch(documents, tokenizer, context=context, fim=1.0).plain.size  # nothing else does
    with pytest.raises(InputError, match="there are no documents; at least one is needed"):
        epoch([], tokenizer)


@pytest.mark.parametrize("context", [16, 17, 31, 32, 64, 300])
def test_no_example_is_longer_than_the_context_and_both_kinds_are_mixed(tokenizer, code, context):
    made = epoch(code[:8] + ODD, tokenizer, context=context, fim=1.0, repeats=0.5)
    assert made.examples
    for ids, counted in made.examples:
        assert len(ids) <= context
        assert (ids.shape, ids.dtype, counted.dtype) == (counted.shape, np.int32, bool)
    kinds = [counted.all() for _, counted in made.examples]
    assert sum(a != b for a, b in itertools.pairwise(kinds)) > 20


@pytest.mark.parametrize("name", ["fim", "repeats"])
@pytest.mark.parametrize("value", [-0.1, 10.1, float("nan"), float("inf"), "0.5", True, None])
def test_what_is_not_a_share_of_the_text_is_refused(name, value):
    rule = "a fraction from 0 to 1" if name == "repeats" else "a number from 0 to 10"
    with pytest.raises(InputError, match=f"{name} is {value!r}; it must be {rule}"):
        Mix(**{name: value})
    with pytest.raises(InputError, match=r"repeats is 1\.1; it must be a fraction"):
        Mix(repeats=1.1)
    assert (Mix(0, 0), Mix(1, 1.0)) == (Mix(), Mix(1.0, 1))  # the ends of the range are fractions
