"""Merging under Ctrl-C or without memory: at every line the model is merged or it is not."""

import sys
from unittest import mock

import pytest
import torch
from learned import learned
from reference import ids, relative_error, tiny

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.lora import LoRALinear, layers, lora_layers

TEXT = ids(1, 6)


def at_line(work, number):
    """Do the work; before the given line of layers.py raise KeyboardInterrupt; return the lines."""
    seen = 0

    def trace(frame, event, _):
        nonlocal seen
        if frame.f_code.co_filename != layers.__file__:
            return None
        seen += event == "line"
        if event == "line" and seen == number:
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
    return seen


def with_lora():
    model = tiny(num_hidden_layers=1)
    qk.add_lora(model, rank=2)
    return learned(model)


@pytest.mark.parametrize("merge", [True, False])
def test_interrupted_at_every_line_the_logits_and_the_next_calls_are_right(merge):
    model = with_lora()
    separate = model(TEXT)
    first, then = (qk.merge_lora, qk.unmerge_lora)[:: 1 if merge else -1]
    if not merge:
        qk.merge_lora(model)
    lines = at_line(lambda: first(model), -1)
    assert lines > 20
    for number in range(1, lines + 1):
        then(model)
        with pytest.raises(KeyboardInterrupt):
            at_line(lambda: first(model), number)
        assert relative_error(model(TEXT), separate) < 1e-5
        assert len({part.merged for part in lora_layers(model).values()}) == 1
        first(model)
        assert all(part.merged == merge for part in lora_layers(model).values())
        assert all(p.lora_A.weight.requires_grad != merge for p in lora_layers(model).values())
        assert relative_error(model(TEXT), separate) < 1e-5
    qk.unmerge_lora(model)
    assert torch.equal(model(TEXT), separate)


def test_without_memory_nothing_is_merged():
    model, real = with_lora(), LoRALinear.update
    separate, calls = model(TEXT), []

    def update(layer):
        calls.append(layer)
        if len(calls) == 2:
            raise MemoryError
        return real(layer)

    with mock.patch.object(LoRALinear, "update", update), pytest.raises(MemoryError):
        qk.merge_lora(model)
    assert not any(part.merged for part in lora_layers(model).values())
    assert torch.equal(model(TEXT), separate)


def test_a_rank_no_matrix_has_and_an_alpha_no_float_holds_are_refused():
    with pytest.raises(InputError, match="at most 32 rows or columns"):
        qk.add_lora(tiny(), rank=10**9)
    with pytest.raises(InputError, match="alpha is 1000"):
        qk.add_lora(tiny(), alpha=10**400)
