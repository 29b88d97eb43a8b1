"""What an epoch is made of: the text itself, and examples of infilling and of copying."""

import itertools
import unicodedata

import numpy as np
import pytest
from fixtures_toy import ROOT, toy_of

from qwenkit.errors import InputError
from qwenkit.tokenizer import Tokenizer
from qwenkit.train.documents import Document, read_documents
from qwenkit.train._epoch import SHORTEST, make_epoch
from qwenkit.train import Mix

PREFIX, SUFFIX, MIDDLE = (f"<|fim_{name}|>" for name in ("prefix", "suffix", "middle"))
END = "<|endoftext|>"
MARKED = f"x = '{END}'  # {PREFIX} and {SUFFIX} and {MIDDLE}\n<|im_end|>\n" * 5
ODD = [
    Document("one letter", "x"),
    Document("blank line", "x\n\n"),
    Document("no line end", "x = 1\ny = 2"),
    Document("long line", "abc " * 2_000),
    Document("emoji", "🙂🧑🏽‍🚀é\n" * 100),
    Document("odd line ends", "a\x0cb\u2028c\x85d\re\n" * 30),
    Document("special tokens as letters", MARKED),
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer(toy_of(tmp_path_factory))


@pytest.fixture(scope="module")
def code():
    """Real code; the properties below hold for any."""
    return read_documents(ROOT / "qwenkit", include=["*.py"])


def epoch(documents, tokenizer, context=256, seed=0, **mix):
    return make_epoch(documents, tokenizer, Mix(**mix), context, np.random.default_rng(seed))


def cut(ids, tokenizer):
    """Return prefix, suffix and middle of an example, and see that the marks stand between them."""
    marks = [tokenizer.special[mark] for mark in (PREFIX, SUFFIX, MIDDLE, END)]
    places = [place for place, number in enumerate(ids) if number in tokenizer.special.values()]
    assert ids[places].tolist() == marks  # Qwen's order, and no special token anywhere else
    assert places[0] == 0
    assert places[-1] == len(ids) - 1
    return tuple(tokenizer.decode(ids[a + 1 : b]) for a, b in itertools.pairwise(places))


def fim_examples(made):
    return [ids for ids, counted in made.examples if counted.all()]


def repeats(made):
    return [(ids, counted) for ids, counted in made.examples if not counted.all()]


# --- the plain text ---


def test_the_plain_stream_is_the_documents_and_nothing_else(tokenizer, code):
    documents = code + ODD
    plain = epoch(documents, tokenizer).plain
    parts = np.split(plain, np.flatnonzero(plain == tokenizer.special[END]) + 1)
    assert len(parts.pop()) == 0  # the last document has its end too
    texts = [tokenizer.decode(part[:-1]) for part in parts]
    assert sorted(texts) == sorted(document.text for document in documents)
    assert texts != [document.text for document in documents]  # shuffled


def test_special_tokens_in_the_text_are_read_as_letters(tokenizer):
    plain = epoch([Document("a", MARKED)], tokenizer).plain
    assert np.isin(plain, list(tokenizer.special.values())).sum() == 1
    assert tokenizer.decode(plain[:-1]) == MARKED
    assert plain[:-1].tolist() == tokenizer.encode(MARKED, special=False)


def test_the_stream_is_normalised_to_nfc_as_the_tokenizer_does(tokenizer):
    decomposed = "cafe\u0301\n"
    plain = epoch([Document("a", decomposed)], tokenizer).plain
    assert tokenizer.decode(plain[:-1]) == unicodedata.normalize("NFC", decomposed)


def test_the_plain_stream_does_not_depend_on_the_mix(tokenizer, code):
    alone = epoch(code, tokenizer)
    assert alone.examples == []
    assert np.array_equal(alone.plain, epoch(code, tokenizer, fim=0.5, repeats=0.5).plain)


@pytest.mark.parametrize("mix", [{}, {"fim": 1.0, "repeats": 0.3}])
def test_the_same_seed_gives_the_same_epoch(tokenizer, code, mix):
    one, same, other = (epoch(code, tokenizer, seed=seed, **mix) for seed in (3, 3, 4))
    assert np.array_equal(one.plain, same.plain)
    assert len(one.examples) == len(same.examples)
    for left, right in zip(one.examples, same.examples, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))
    assert not np.array_equal(one.plain, other.plain)


def test_the_tokenizer_reads_special_tokens_afterwards_as_before(tokenizer, code):
    before = tokenizer.backend.to_str()
    epoch(code[:2], tokenizer, fim=1.0)
    assert tokenizer.encode(END) == [tokenizer.special[END]]
    tokenizer.encode(END, special=False)
    epoch(code[:2], tokenizer)
    assert tokenizer(END).tolist() == [[tokenizer.special[END]]]
    assert tokenizer.backend.to_str() == before  # what tells one text's batches from another's


# --- infilling ---


def test_examples_of_infilling_are_pieces_of_a_document(tokenizer, code):
    documents = code + ODD
    made = epoch(documents, tokenizer, fim=1.0)
    texts = [document.text for document in documents]
    assert len(made.examples) > 100
    for ids in fim_examples(made):
        prefix, suffix, middle = cut(ids, tokenizer)
        assert prefix
        assert suffix
        assert middle
        piece = prefix + middle + suffix
        assert len(piece) >= 2 * SHORTEST
        assert any(piece in text for text in texts)


def test_a_middle_is_part_of_a_line_or_its_end_or_several_lines(tokenizer, code):
    found = {"part": 0, "end": 0, "lines": 0}
    for ids in fim_examples(epoch(code, tokenizer, fim=1.0)):
        _, suffix, middle = cut(ids, tokenizer)
        kind = "lines" if "\n" in middle else "end" if suffix.startswith("\n") else "part"
        found[kind] += 1
    # a third each is asked for; in short pieces several lines are often not to be had
    assert min(found.values()) > 0.1 * sum(found.values())


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_the_share_of_infilling_is_the_one_asked_for(tokenizer, code, share):
    made = epoch(code, tokenizer, fim=share)
    shown = sum(len("".join(cut(ids, tokenizer))) for ids in fim_examples(made))
    whole = sum(len(document.text) for document in code)
    # Some pieces are too long once they are tokens; which are drawn is chance.
    assert shown / whole == pytest.approx(share, rel=0.15)


def test_pieces_differ_from_epoch_to_epoch(tokenizer, code):
    one, other = (
        {"".join(cut(ids, tokenizer)) for ids in fim_examples(epoch(code, tokenizer, fim=0.5, **s))}
        for s in ({"seed": 1}, {"seed": 2})
    )
    assert len(one & other) < 0.1 * len(one)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 31, 32, 33, 500])
def test_pieces_that_are_too_short_or_too_long_are_left_out(tokenizer, length):
    made = epoch([Document("a", "é" * length)], tokenizer, context=64, fim=1.0)
    tokens = len(tokenizer.encode("é" * length)) + 4  # the marks; a cut may cost some more
    assert len(made.examples) <= (length >= 2 * SHORTEST and tokens <= 64)
    if length == 2 * SHORTEST:
        assert len(made.examples) == 1


# --- copying ---


def test_copying_examples_are_random_tokens_twice(tokenizer, code):
    made = epoch(code, tokenizer, context=64, repeats=0.3)
    special = list(tokenizer.special.values())
    lengths, seen = set(), set()
    for ids, counted in made.examples:
        half = len(ids) // 2
        assert np.array_equal(ids[:half], ids[half:])
        assert not counted[:half].any()
        assert counted[half:].all()
        assert not np.isin(ids, special).any()
        lengths.add(half)
        seen.update(ids.tolist())
    assert lengths == set(range(SHORTEST, 64 // 4 + 1))
    assert seen == set(range(tokenizer.num_tokens)) - set(special)  # no token is left out


@pytest.mark.parametrize("share", [0.01, 0.06, 0.5, 1.0])
def test_the_share_of_copying_is_the_one_asked_for(tokenizer, code, share):
    made = epoch(code, tokenizer, context=64, fim=0.25, repeats=share)
    tokens = sum(len(ids) for ids, _ in repeats(made))
    wanted = int(share * len(made.plain))
    assert wanted <= tokens < wanted + 64 // 2  # all but the last example's length is exact


@pytest.mark.parametrize("context", [1, 8, 15])
def test_copying_needs_a_context_that_holds_it(tokenizer, context):
    documents = [Document("a", "x = 1\n" * 20)]
    with pytest.raises(InputError, match=rf"context is {context}; copying examples take at least"):
        epoch(documents, tokenizer, context=context, repeats=0.1)
    assert epoch(documents, tokenizer, context=context, fim=1.0).plain.size  # nothing else does


# --- both ---


@pytest.mark.parametrize("context", [16, 17, 31, 32, 64, 300])
def test_no_example_is_longer_than_the_context(tokenizer, code, context):
    made = epoch(code[:8] + ODD, tokenizer, context=context, fim=1.0, repeats=0.5)
    assert made.examples
    for ids, counted in made.examples:
        assert len(ids) <= context
        assert ids.shape == counted.shape
        assert (ids.dtype, counted.dtype) == (np.int32, bool)


def test_examples_of_both_kinds_are_mixed(tokenizer, code):
    kinds = [counted.all() for _, counted in epoch(code, tokenizer, fim=0.5, repeats=0.2).examples]
    assert sum(a != b for a, b in itertools.pairwise(kinds)) > 20


def test_no_documents_make_no_epoch(tokenizer):
    with pytest.raises(InputError, match="there are no documents; at least one is needed"):
        epoch([], tokenizer)


@pytest.mark.parametrize("name", ["fim", "repeats"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf"), "0.5", True, None])
def test_what_is_no_share_is_refused(name, value):
    with pytest.raises(InputError, match=f"{name} is {value!r}; it must be a fraction from 0 to 1"):
        Mix(**{name: value})


def test_the_ends_of_the_range_are_shares():
    assert (Mix(0, 0), Mix(1, 1.0)) == (Mix(), Mix(1.0, 1))
