"""The options of generation: one object, and every function refuses what it refuses."""

import pytest
import torch
from reference import tiny
from speaking import tokens

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.generate import Conversation, GenerationConfig, Sampling, row_seed

INF, NAN = float("inf"), float("nan")
WRONG = {
    "temperature": (-0.1, INF, NAN, "1", None, True), "top_k": (-1, 1.5, True, None, NAN),
    "top_p": (0.0, 1.1, -1.0, NAN, "0.9", None), "repetition_penalty": (0.0, -1.0, INF, NAN, None),
    "min_p": (-0.1, 1.1, NAN, "0.1", None, True),
}  # fmt: skip
WRONG_HERE = {
    "max_new_tokens": (0, -5, 1.5, True, None),
    "stop_ids": (3, ("x",), "x", (1.0,), [True], [None]),
    "seed": ("x", -1, 2**63, 2**70, 1.0, True),
}
ROWS = [(Sampling, name, value) for name, values in WRONG.items() for value in values]
ROWS += [(GenerationConfig, *row[1:]) for row in ROWS]
ROWS += [(GenerationConfig, name, value) for name in WRONG_HERE for value in WRONG_HERE[name]]


@pytest.mark.parametrize(("kind", "name", "value"), ROWS)
def test_values_out_of_range_are_refused_by_name(kind, name, value):
    with pytest.raises(InputError) as caught:
        kind(**{name: value})
    assert str(caught.value).startswith(f"{name} is {value!r}; it must be")


CALLS = {
    "generate": lambda model, _, **options: qk.generate(model, [1, 2], **options),
    "speculate": lambda model, _, **options: qk.speculate(model, [1, 2], **options),
    "generate_batch": lambda model, _, **options: qk.generate_batch(model, [[1, 2]], **options),
    "stream": lambda *both, **options: qk.stream(*both, "a", **options),
    "complete": lambda *both, **options: qk.complete(*both, "a", **options),
    "complete_batch": lambda *both, **options: qk.complete_batch(*both, ["a"], **options),
    "fill": lambda *both, **options: qk.fill(*both, "a", "b", **options),
    "stream of a conversation": lambda *both, **o: Conversation(*both).stream("a", **o),
    "say": lambda *both, **options: Conversation(*both).say("a", **options),
    "beam_search": lambda model, _, **options: qk.beam_search(model, [1, 2], **options),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_every_function_refuses_them_at_the_call_and_names_what_it_does_not_know(toy, call):
    for name, (wrong, *_) in (WRONG | WRONG_HERE).items():
        if call != "beam_search" or name in ("max_new_tokens", "stop_ids"):
            with pytest.raises(InputError, match=f"^{name} is "):
                CALLS[call](*toy, **{name: wrong})
    with pytest.raises(TypeError, match="'temprature'"):
        CALLS[call](*toy, temprature=0.5)


def test_what_is_equal_is_equal_and_what_stops_is_the_models_unless_given():
    config, model = GenerationConfig(temperature=0.5, stop_ids=[3, 5, 3]), tiny()
    assert config == GenerationConfig(stop_ids=[3, 5, 3], temperature=0.5)
    assert config != GenerationConfig(temperature=0.5)
    assert GenerationConfig() == GenerationConfig(max_new_tokens=64)
    model.stop_ids = (7, 8)
    for given, stops in ((None, {7, 8}), ((), set()), ([3, 5, 3], {3, 5}), ({9}, {9})):
        assert GenerationConfig(stop_ids=given).stops(model) == stops


def test_seeds_of_rows_are_far_apart_and_none_is_different_each_time():
    """torch's generator reads 32 bits of a seed."""
    seeds = {row_seed(seed, row) % 2**32 for seed in range(50) for row in range(50)}
    assert len(seeds) == 2_500
    assert row_seed(7, 0) == 7
    assert 0 <= row_seed(2**63 - 1, 10**6) < 2**63
    config = GenerationConfig(seed=7)
    assert config.generator(2).initial_seed() == row_seed(7, 2)
    assert config.generator().initial_seed() == 7
    assert len({GenerationConfig().generator().initial_seed() for _ in range(5)}) == 5


@pytest.mark.parametrize(
    "call", [tokens, lambda model, ids, *count, **o: qk.generate_batch(model, [ids], **o)]
)
def test_the_global_random_state_is_left_alone_and_does_not_matter(call):
    model, draws = tiny(), {"temperature": 1.0, "max_new_tokens": 12, "stop_ids": ()}
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = call(model, [1, 2], **draws)
    assert torch.equal(torch.get_rng_state(), before)
    assert call(model, [1, 2], **draws) != first
