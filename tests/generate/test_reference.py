"""Greedy generation gives the tokens of the ten lines that define it, by every path."""

import pytest
from reference import VARIANTS, ids, tiny
from speaking import tokens

import qwenkit as qk
from qwenkit.fast import swap
from qwenkit.fast._machine import kernels_problem
from qwenkit.generate import generate_batch, reference_generate

COUNT = 8


def check(model, prompts):
    """Compare without a stop token, and with one in the middle of the first text."""
    model.stop_ids = ()
    free = [reference_generate(model, prompt, COUNT) for prompt in prompts]
    place = next(i for i in range(2, COUNT) if free[0][i] not in free[0][:i])
    for stop_ids in ((), (free[0][place], 10**6)):
        model.stop_ids = stop_ids
        want = [reference_generate(model, prompt, COUNT) for prompt in prompts]
        assert want[0] == (free[0][: place + 1] if stop_ids else free[0])
        assert [tokens(model, prompt, COUNT) for prompt in prompts] == want
        assert generate_batch(model, [p[0] for p in prompts], max_new_tokens=COUNT) == want
    assert [len(text) for text in free] == [COUNT] * len(prompts)
    assert reference_generate(model, prompts[0], 1) == free[0][:1]


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_on_random_models(variant, fast):
    model = tiny(**VARIANTS[variant])
    if fast:
        assert type(swap(model)) is not qk.QwenForCausalLM
        assert qk.explain(model).fast == (kernels_problem() is None)
    check(model, [ids(1, length, seed=length) for length in (5, 2)])


@pytest.mark.parametrize("fast", [False, True])
def test_on_tiny_coder(fast):
    model, tokenizer = qk.load_pretrained(qk.pretrained.EMBEDDED, device="cpu", dtype="float32")
    model = swap(model) if fast else model
    check(model, [tokenizer("def add(a, b):\n    return"), tokenizer("if")])


def test_padding_rows_are_not_tokens():
    model = tiny()
    model.stop_ids, model.num_tokens = (), 20
    want = reference_generate(model, ids(1, 4), 20)
    assert max(want) < 20
    assert tokens(model, ids(1, 4), 20) == want
