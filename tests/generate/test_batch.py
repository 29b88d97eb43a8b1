"""Batches: each row is what its prompt gives alone, whatever rows are next to it."""

import pytest
import torch
from reference import VARIANTS, ids, tiny
from speaking import close_call, fed_to, tokens

from qwenkit.errors import InputError
from qwenkit.generate import complete, complete_batch, generate_batch, row_seed

PROMPTS = [ids(1, length, seed=length)[0].tolist() for length in (5, 1, 12, 3)]
CODE = [
    "def add(a, b):\n    return", "import",
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(",
]  # fmt: skip
SAMPLED = {
    "temperature": 1.0, "top_k": 30, "top_p": 0.95, "min_p": 0.01, "repetition_penalty": 1.2,
    "max_new_tokens": 8, "stop_ids": (7,),
}  # fmt: skip


@pytest.mark.parametrize("variant", ["gqa", "mqa", "tied", "yarn", "sliding"])
def test_greedy_rows_equal_single_generation(variant):
    model = tiny(**VARIANTS[variant])
    rows = generate_batch(model, PROMPTS, max_new_tokens=10, stop_ids=())
    assert rows == [tokens(model, prompt, 10, stop_ids=()) for prompt in PROMPTS]
    assert [len(row) for row in rows] == [10] * 4
    assert len({tuple(row) for row in rows}) == 4


def test_on_tiny_coder_too(coder):
    model, tokenizer = coder
    prompts = [tokenizer.encode(text) for text in CODE]
    assert len({len(prompt) for prompt in prompts}) == 3
    rows = generate_batch(model, prompts, max_new_tokens=12)
    for prompt, row in zip(prompts, rows, strict=True):
        alone = tokens(model, prompt, 12)
        assert row == alone or close_call(model, prompt, row, alone)


def test_prompts_come_as_lists_or_tensors():
    forms = [torch.tensor(PROMPTS[0]), tuple(PROMPTS[1]), torch.tensor([PROMPTS[2]]), PROMPTS[3]]
    rows = generate_batch(tiny(), forms, max_new_tokens=3, stop_ids=())
    assert rows == generate_batch(tiny(), PROMPTS, max_new_tokens=3, stop_ids=())


def test_each_row_stops_by_itself_and_leaves_the_batch():
    model = tiny()
    free = generate_batch(model, PROMPTS, max_new_tokens=12, stop_ids=())
    stops = (free[0][2], free[3][6])
    with fed_to(model) as shapes:
        rows = generate_batch(model, PROMPTS, max_new_tokens=12, stop_ids=stops)
    for row, alone in zip(rows, free, strict=True):
        end = next((i + 1 for i, token in enumerate(alone) if token in stops), 12)
        assert row == alone[:end]
    assert len(rows[0]) <= 3
    assert len(rows[3]) <= 7
    assert shapes[0] == (4, 12)
    assert len(shapes) == max(map(len, rows))
    for index, shape in enumerate(shapes[1:], start=1):
        assert shape == (sum(len(row) > index for row in rows), 1)
    first = [row[0] for row in free]
    with fed_to(model) as shapes:
        rows = generate_batch(model, PROMPTS, max_new_tokens=50, stop_ids=first)
    assert rows == [[token] for token in first]
    assert shapes == [(4, 12)]  # nothing is computed after the last row has stopped


@pytest.mark.parametrize("seed", [1, 2**63 - 1])
def test_a_sampled_row_is_that_of_generate_with_its_own_seed(seed):
    model = tiny()
    rows = generate_batch(model, PROMPTS, seed=seed, **SAMPLED)
    for place, prompt in enumerate(PROMPTS):
        assert rows[place] == tokens(model, prompt, seed=row_seed(seed, place), **SAMPLED)
    assert rows[0] == tokens(model, PROMPTS[0], seed=seed, **SAMPLED)


def test_a_sampled_row_does_not_depend_on_its_neighbors():
    row = generate_batch(tiny(), PROMPTS, seed=3, **SAMPLED)[1]
    for others in ([[9] * 30, PROMPTS[1]], [[1], PROMPTS[1], [2, 3], [4]]):
        assert generate_batch(tiny(), others, seed=3, **SAMPLED)[1] == row


def test_equal_prompts_give_different_rows_and_the_seed_repeats_them():
    def sampled(**seed):
        settings = {"max_new_tokens": 8, "stop_ids": (), "temperature": 1.0}
        rows = generate_batch(model, [PROMPTS[0]] * 3, **settings, **seed)
        return [tuple(row) for row in rows]

    model = tiny()
    rows = sampled(seed=4)
    assert len(set(rows)) == 3
    assert sampled(seed=4) == rows
    assert set(rows) & set(sampled(seed=5)) == set()
    assert sampled() != sampled()


def test_padding_rows_of_the_vocabulary_are_never_chosen():
    model, settings = tiny(), {"max_new_tokens": 20, "temperature": 5.0, "seed": 0, "stop_ids": ()}
    for model.num_tokens in (20, 61):  # without the limit the test would fail
        largest = max(map(max, generate_batch(model, PROMPTS, **settings)))
        assert (largest < 20) == (model.num_tokens == 20)


@pytest.mark.parametrize(("prompts", "words"), [
    ([], "prompts is"), ("abc", "prompts is 'abc'"), ([1, 2, 3], r"prompts\[0\]: input_ids"),
    ([[1], []], r"prompts\[1\]: input_ids"), ([[1], [2, 61]], r"prompts\[1\]: input_ids holds 61"),
    ([torch.ones(2, 3).long()], r"prompts\[0\]: input_ids"),
])  # fmt: skip
def test_bad_prompts_are_refused(prompts, words):
    with pytest.raises(InputError, match=words):
        generate_batch(tiny(), prompts)


# --- text ---


def test_texts_equal_those_of_complete(toy):
    settings = {"max_new_tokens": 20, "temperature": 1.2, "min_p": 0.001}
    texts = complete_batch(*toy, CODE, seed=8, **settings)
    for place, text in enumerate(CODE):
        assert texts[place] == complete(*toy, text, seed=row_seed(8, place), **settings)
    assert len(set(texts)) == 3


def test_stop_tokens_are_not_text(toy):
    model, tokenizer = toy
    free = generate_batch(model, list(map(tokenizer.encode, CODE)), max_new_tokens=4, stop_ids=())
    texts = complete_batch(*toy, CODE, max_new_tokens=4, stop_ids=(free[1][0],))
    assert texts[1] == ""
    assert all(texts[place] for place in (0, 2) if free[place][0] != free[1][0])


def test_each_text_ends_before_its_own_stop_string_and_its_row_stops(toy):
    settings = {"max_new_tokens": 30, "temperature": 1.0, "seed": 2, "stop_ids": ()}
    free = complete_batch(*toy, CODE, **settings)
    stops = [free[0][5:7], free[2][9:11]]
    ended = [min((t.find(s) for s in stops if s in t), default=len(t)) for t in free]
    assert ended[0] <= 5
    with fed_to(toy[0]) as shapes:
        texts = complete_batch(*toy, CODE, stop_strings=stops, **settings)
    assert texts == [text[:end] for text, end in zip(free, ended, strict=True)]
    assert shapes[-1][0] < 3


@pytest.mark.parametrize(("settings", "words"), [
    ({"prompts": "abc"}, "prompts is 'abc'"), ({"prompts": []}, "prompts is"),
    ({"prompts": ["a", ""]}, r"prompts\[1\]"), ({"prompts": 3}, "prompts is 3"),
    ({"stop_strings": "x"}, "stop_strings is 'x'"),
])  # fmt: skip
def test_bad_arguments_of_complete_batch_are_refused(toy, settings, words):
    with pytest.raises(InputError, match=words):
        complete_batch(*toy, **{"prompts": ["a"], **settings})
