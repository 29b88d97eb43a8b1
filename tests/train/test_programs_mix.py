"""Generated programs among the text: whole ones, and infilling of their bodies."""

import ast
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from qwenkit.errors import InputError
from qwenkit.programs import generator
from qwenkit.programs.checking import passes
from qwenkit.programs.generator import generate
from qwenkit.train import Batches, Document, Mix
from qwenkit.train._epoch import make_epoch

END = "<|endoftext|>"
TEXT = [Document("a", "x = 1\n" * 4000)]


def examples(tokenizer, seed=0, context=256):
    made = make_epoch(TEXT, tokenizer, Mix(programs=2.0), context, np.random.default_rng(seed))
    assert all(counted.all() for _, counted in made.examples)
    return len(made.plain), [tokenizer.decode(ids) for ids, _ in made.examples], made


def test_programs_are_whole_or_have_a_gap_in_their_body(tokenizer):
    plain, texts, made = examples(tokenizer)
    assert 2 * plain <= sum(len(ids) for ids, _ in made.examples) <= 2.5 * plain
    filled = [text for text in texts if text.startswith("<|fim_prefix|>")]
    assert 0.2 < len(filled) / len(texts) < 0.3
    for text in texts:
        assert text.endswith(END)
        if text in filled:
            prefix, rest = text.removeprefix("<|fim_prefix|>").split("<|fim_suffix|>")
            suffix, middle = rest.removesuffix(END).split("<|fim_middle|>")
            assert prefix.lstrip("#").strip()  # at least the signature
            text = prefix + middle + suffix
        ast.parse(text.removesuffix(END))
    assert texts != examples(tokenizer, seed=1)[1]
    assert texts == examples(tokenizer)[1]


def test_a_context_too_short_for_any_program_is_refused(tokenizer):
    with pytest.raises(InputError, match="context is 4; generated programs are longer"):
        examples(tokenizer, context=4)


@pytest.mark.parametrize("families", [None, ["read_lines"]])
def test_a_program_passes_its_tests_and_a_wrong_one_does_not(families, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for program in islice(generate(4, families=families), 20):
        assert passes(program), program.code
        assert not passes(replace(program, body="    pass\n")), program.code
    assert not list(tmp_path.iterdir())  # files are kept in memory


def test_short_epochs_have_windows_of_half_the_context(tokenizer, code):
    sizes = {"context": 32, "batch_size": 4, "seed": 7, "mix": Mix(0.5)}
    batches = Batches(code, tokenizer, **sizes, short_epochs=1)
    shapes = set()
    while batches.epoch < 2:
        shape = next(batches).input_ids.shape
        shapes.add((batches.epoch, *shape))
    assert {shape for shape in shapes if shape[0] < 2} == {(0, 8, 16), (1, 4, 32)}
    other = Batches(code, tokenizer, **sizes, short_epochs=1)
    for position in ({"epoch": 1, "index": 4}, {"epoch": 0, "index": 16}):
        batches.seek(position)
        other.seek(position)
        assert next(batches).input_ids.equal(next(other).input_ids)
    with pytest.raises(InputError, match="position 4 does not start a batch"):
        batches.seek({"epoch": 0, "index": 4})


def test_a_training_is_not_resumed_with_programs_of_other_families(tokenizer, code, monkeypatch):
    sizes = {"context": 64, "batch_size": 4}
    plain, programs = Mix(), Mix(programs=0.5)
    before = [Batches(code, tokenizer, **sizes, mix=mix).describe() for mix in (plain, programs)]
    monkeypatch.setattr(generator, "FAMILIES", generator.FAMILIES[:200])
    after = [Batches(code, tokenizer, **sizes, mix=mix).describe() for mix in (plain, programs)]
    assert before[0] == after[0]
    assert {n for n in before[1] if before[1][n] != after[1][n]} == {"sha256"}


@pytest.mark.parametrize("value", [-0.1, 10.1, float("nan"), float("inf"), "0.5", True, None])
def test_the_amount_of_programs_is_a_number_that_memory_can_hold(value):
    with pytest.raises(InputError, match=f"programs is {value!r}; it must be a number from 0 to 1"):
        Mix(programs=value)
    assert Mix(programs=10).programs == 10


@pytest.mark.parametrize("value", [-1, 0.5, None])
def test_short_epochs_are_counted(tokenizer, code, value):
    with pytest.raises(InputError, match=f"short_epochs is {value!r}; it must be"):
        Batches(code, tokenizer, context=32, batch_size=4, short_epochs=value)
