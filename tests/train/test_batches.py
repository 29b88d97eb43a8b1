"""Windows and batches: nothing lost but what is documented, and the same again from a position."""

import functools
import itertools
import json

import numpy as np
import pytest
import torch

from qwenkit.errors import InputError
from qwenkit.tokenizer import write_tokenizer
from qwenkit.train import IGNORE, Batches, Document, Mix
from qwenkit.train._epoch import Epoch, pack

EXAMPLE = 100_000  # ids of examples lie above those of the made-up plain stream


def batches_of(documents, tokenizer, **changes):
    values = {"context": 32, "batch_size": 4, "seed": 7, "mix": Mix(0.5, 0.2)}
    return Batches(documents, tokenizer, **{**values, **changes})


@pytest.fixture(scope="module")
def code(code):
    return code[4:9]


@pytest.fixture
def make(code, tokenizer):
    """Make batches of the code."""
    return functools.partial(batches_of, code, tokenizer)


def whole_epoch(batches):
    """Return every batch of the present epoch, which must be at its start."""
    return [next(batches) for _ in range(len(batches))]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def made_up(rng, plain, examples, longest):
    """Return an epoch of recognizable ids: example k begins with the id EXAMPLE × k."""
    sizes = rng.integers(2, longest + 1, size=examples)
    made = [EXAMPLE * k + np.arange(size) for k, size in enumerate(sizes, start=1)]
    return Epoch(np.arange(plain), [(ids, rng.random(len(ids)) < 0.5) for ids in made])


@pytest.mark.parametrize(("plain", "examples", "longest", "seed"), [
    *itertools.product([1, 9, 10, 11, 57, 400], [0, 1, 7, 60], [2, 10], range(3)),
])  # fmt: skip
def test_windows_hold_the_text_in_order_and_whole_examples(plain, examples, longest, seed):
    rng = np.random.default_rng(seed)
    epoch = made_up(rng, plain, examples, longest)
    length = 10
    ids, counted = pack(epoch, length, rng)
    assert ids.shape == counted.shape == (len(ids), length)
    text, found = [], []
    for window, flags in zip(ids, counted, strict=True):
        is_plain = window < EXAMPLE
        assert np.abs(np.diff(is_plain.astype(int))).sum() <= 1  # all examples first, or the text
        assert flags[is_plain].all()
        text += window[is_plain].tolist()
        for number in dict.fromkeys((window[~is_plain] // EXAMPLE).tolist()):
            whole, flag = epoch.examples[number - 1]
            here = window // EXAMPLE == number
            assert np.array_equal(window[here], whole)
            assert np.array_equal(flags[here], flag)
            found.append(number)
    assert found == list(range(1, len(found) + 1))  # each once, in order
    if text:
        assert text == list(range(text[0], text[-1] + 1))  # each once, in order
        assert max(text[0], plain - 1 - text[-1]) < length
    else:
        assert plain < 2 * length
    if not examples:  # the cut at the start may cost one window, never more
        assert len(ids) in (plain // length - 1, plain // length) if plain >= length else not text


def test_few_examples_are_left_out_and_they_are_spread_over_the_windows():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        ids, _ = pack(made_up(rng, plain=5_000, examples=300, longest=10), 20, rng)
        assert len(set((ids // EXAMPLE).ravel().tolist()) - {0}) >= 0.98 * 300
    ids, _ = pack(made_up(rng, 5_000, 100, 10), 20, rng)
    holding = np.flatnonzero((ids >= EXAMPLE).any(1))
    assert np.diff(holding).max() <= 4  # there is one for every two or three windows
    assert holding[0] <= 4
    assert holding[-1] >= len(ids) - 5
    alone = Epoch(np.arange(50), [])
    firsts = (pack(alone, 8, np.random.default_rng(seed))[0][0, 0] for seed in range(200))
    assert set(map(int, firsts)) == set(range(8))  # every cut of the stream comes up


@pytest.mark.parametrize("mix", [Mix(), Mix(1.0, 0.0), Mix(0.0, 0.5), Mix(0.5, 0.5)])
def test_a_label_is_the_token_that_follows(make, mix):
    ignored = 0
    for inputs, labels in whole_epoch(make(mix=mix)):
        assert inputs.shape == labels.shape == (4, 32)
        assert inputs.dtype == labels.dtype == torch.int64
        follows, counted = inputs[:, 1:], labels[:, :-1] != IGNORE
        assert torch.equal(labels[:, :-1][counted], follows[counted])
        assert (labels[labels != IGNORE] >= 0).all()
        ignored += int((labels == IGNORE).sum())
    assert bool(ignored) == bool(mix.repeats)


def test_only_the_first_half_of_a_copy_is_ignored(make):
    runs = 0
    for batch in whole_epoch(make(mix=Mix(repeats=0.3), context=64)):
        for inputs, labels in zip(*batch, strict=True):
            row = torch.cat([inputs, labels[-1:]])  # the last label is the window's last token
            ignored = (torch.cat([labels[:1] * 0, labels]) == IGNORE).int()
            edges = torch.diff(ignored, prepend=torch.zeros(1), append=torch.zeros(1))
            starts, stops = (torch.nonzero(edges == sign).flatten() for sign in (1, -1))
            for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
                if start > 1:  # a window's very first token is not a label: its run seems shorter
                    assert torch.equal(row[start:stop], row[stop : 2 * stop - start])
                    runs += 1
    assert runs > 20


def windows_of(batches):
    """Return the windows of the present epoch as tuples of T + 1 ids."""
    seen = [torch.cat([one, labels[:, -1:]], dim=1) for one, labels in whole_epoch(batches)]
    return [tuple(window) for window in torch.cat(seen).tolist()]


def test_an_epoch_loses_only_the_ends_and_holds_each_token_once(make, tokenizer, code):
    """With batches of one, an epoch is a section of the stream, in another order."""
    end = tokenizer.special["<|endoftext|>"]
    texts = [[*tokenizer.encode(document.text, special=False), end] for document in code]
    batches, total = make(mix=Mix()), sum(map(len, texts))
    for epoch in range(5):
        batches.seek({"epoch": epoch, "index": 0})
        held = 33 * len(windows_of(batches))
        assert held <= total <= held + 32 + 32 + 3 * 33
    found = windows_of(make(mix=Mix(), batch_size=1))
    order = np.random.default_rng([7, 0]).permutation(len(texts))  # what the seed gives first
    stream = [token for number in order for token in texts[number]]
    (start,) = (at for at in range(33) if tuple(stream[at : at + 33]) in set(found))
    windows = [tuple(stream[at : at + 33]) for at in range(start, len(stream) - 32, 33)]
    assert sorted(found) == sorted(windows)
    assert found != windows


def test_no_window_cuts_an_example(make, tokenizer):
    fim = [tokenizer.special[f"<|fim_{name}|>"] for name in ("prefix", "suffix", "middle")]
    end = tokenizer.special["<|endoftext|>"]
    count = firsts = 0
    for window in windows_of(make(mix=Mix(fim=1.0), context=64)):
        found = [token for token in window if token in fim]
        assert found == fim * (len(found) // 3)
        count += len(found) // 3
        if found:
            first, last = window.index(fim[0]), len(window) - 1 - window[::-1].index(fim[2])
            stop = window.index(end, last)
            assert window[first : stop + 1].count(end) == len(found) // 3  # one each
            assert first == 0 or stop == len(window) - 1
            firsts += first == 0
    assert count > 50
    assert 0.3 < firsts / count < 0.7


def test_seeds_and_epochs_differ_and_nothing_else_does(make):
    one = make(seed=1)
    first = whole_epoch(one)
    assert all(same(a, b) for a, b in zip(first, whole_epoch(make(seed=1)), strict=True))
    one.seek({"epoch": 1, "index": 0})
    for other in (make(seed=2), one):
        assert not any(same(a, b) for a, b in zip(first, whole_epoch(other), strict=False))


def test_a_position_leads_to_the_very_next_batches(tokenizer, code):
    batches, other = (batches_of(code[:2], tokenizer) for _ in range(2))
    positions, seen = [], []
    while batches.epoch < 3:
        positions.append(json.loads(json.dumps(batches.position)))
        seen.append(next(batches))
    back_and_forth = np.random.default_rng(0).permutation(len(seen) - 3)[:20].tolist()
    for place in [0, *back_and_forth]:
        other.seek(positions[place])
        assert other.position == positions[place]
        assert all(same(next(other), wanted) for wanted in seen[place : place + 3])
    assert sum(a["epoch"] != b["epoch"] for a, b in itertools.pairwise(positions)) >= 2  # borders


def test_positions_count_windows_and_the_end_of_an_epoch_is_one(make):
    batches = make()
    assert iter(batches) is batches
    assert batches.position == {"epoch": 0, "index": 0}
    batch = next(batches)
    assert batches.position == {"epoch": 0, "index": 4}
    before = batch.input_ids.clone()
    batch.input_ids.zero_()  # a batch belongs to its taker
    batch.labels.zero_()
    batches.seek({"epoch": 0, "index": 0})
    assert torch.equal(next(batches).input_ids, before)
    batches.seek({"epoch": 5, "index": 8})
    assert batches.position == {"epoch": 5, "index": 8}
    batches.seek({"epoch": 0, "index": 0})
    whole_epoch(batches)
    position, following = batches.position, next(batches)
    batches.seek(position)
    assert same(next(batches), following)


NONE = [
    {}, {"epoch": 0}, {"index": 0}, None, [0, 0], "start", {"epoch": "0", "index": 0},
    {"epoch": 0, "index": 1.0}, {"epoch": True, "index": 0}, {"epoch": 0, "index": None},
    {"epoch": -1, "index": 0}, {"epoch": 0, "index": -4},
]  # fmt: skip
REFUSED = [(position, "position is .*; it must hold an epoch and an index") for position in NONE]
for index in (1, 2, 4_000_000):
    message = f"position {index} does not start a .*, 4 in a batch"
    REFUSED.append(({"epoch": 0, "index": index}, message))


@pytest.mark.parametrize(("position", "message"), REFUSED)
def test_what_is_not_a_position_in_the_text_is_refused(make, position, message):
    batches = make()
    next(batches)
    with pytest.raises(InputError, match=message):
        batches.seek(position)
    assert batches.position == {"epoch": 0, "index": 4}


def test_too_little_text_is_refused_at_once_or_never(tmp_path):
    """Epochs differ by a window, so what is enough for the first must be enough for them all."""
    tokenizer = write_tokenizer(tmp_path, [])  # one token per letter
    sizes = {"context": 9, "batch_size": 3, "mix": Mix()}
    # Enough: three windows of ten, nine tokens before the first one's cut, and the text's end.
    for letters in range(1, 70):
        documents = [Document("a", "x" * letters)]
        if letters < 38:
            with pytest.raises(InputError, match="windows of 9 tokens, fewer than one batch of 3"):
                batches_of(documents, tokenizer, **sizes)
        else:
            batches = batches_of(documents, tokenizer, **sizes)
            assert all(next(batches).input_ids.shape == (3, 9) for _ in range(60))


@pytest.mark.parametrize(("name", "value"), [("context", 0), ("batch_size", 0), ("seed", -1)])
def test_sizes_out_of_range_and_no_documents_are_refused(make, tokenizer, name, value):
    with pytest.raises(InputError, match=f"{name} is {value}; it must be at least"):
        make(**{name: value})
    with pytest.raises(InputError, match=f"{name} is 2.5; it must be an integer"):
        make(**{name: 2.5})
    with pytest.raises(InputError, match="there are no documents"):
        batches_of([], tokenizer)
    with pytest.raises(InputError, match="gives 0 windows of 10000000000000 tokens"):
        make(context=10**13)  # as long as an example of copying would be


def test_the_description_tells_other_batches_apart(make, tokenizer, code, tmp_path):
    batches, described = make(), make().describe()
    assert described == batches.describe() == json.loads(json.dumps(described))
    name, text = code[0].name, code[0].text
    firsts = [], [Document("other", text)], [Document(name, text + " ")]
    others = [batches_of([*first, *code[1:]], tokenizer) for first in firsts]
    changes = {"seed": 8}, {"context": 33}, {"batch_size": 5}, {"mix": Mix(0.5, 0.3)}
    others += [make(**change) for change in (*changes, {"mix": Mix(0.4, 0.2)})]
    others.append(batches_of([*code[1:], code[0]], tokenizer))
    others.append(batches_of(code, write_tokenizer(tmp_path, [("a", "b")])))
    assert all(described != other.describe() for other in others)
    next(batches)
    assert batches.describe() == described  # the position is not part of it
    odd = Document(b"caf\xe9.py".decode("utf-8", "surrogateescape"), text)
    assert batches_of([odd], tokenizer).describe()["sha256"]
