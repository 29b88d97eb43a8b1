"""Merging under Ctrl-C or without memory: at every line the model is merged or it is not."""

import itertools
from unittest import mock

import pytest
import torch
from interruptions import interrupted
from learned import learned
from reference import ids, relative_error, tiny

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.lora import LoRALinear, lora_layers

TEXT = ids(1, 6)


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
    for number in itertools.count(1):
        then(model)
        if not interrupted(lambda: first(model), number):
            break
        assert relative_error(model(TEXT), separate) < 1e-5
        assert len({part.merged for part in lora_layers(model).values()}) == 1
        first(model)
        assert all(part.merged == merge for part in lora_layers(model).values())
        assert all(p.lora_A.weight.requires_grad != merge for p in lora_layers(model).values())
        assert relative_error(model(TEXT), separate) < 1e-5
    assert number > 20
    assert torch.is_grad_enabled()
    qk.unmerge_lora(model)
    assert torch.equal(model(TEXT), separate)


def frozen(model):
    return [name for name, weight in model.named_parameters() if not weight.requires_grad]


def test_interrupted_while_lora_is_added_or_loaded_the_model_is_as_it_was(tmp_path):
    qk.save_adapter(with_lora(), tmp_path)
    model = tiny(num_hidden_layers=1)
    model.requires_grad_(True).model.norm.requires_grad_(False)
    parts, before, plain = dict(model.named_modules()), frozen(model), model(TEXT)
    for action in (lambda: qk.add_lora(model, rank=2), lambda: qk.load_adapter(model, tmp_path)):
        for number in itertools.count(1, 17):
            if not interrupted(action, number):
                break
            assert dict(model.named_modules()) == parts
            assert frozen(model) == before
            assert torch.equal(model(TEXT), plain)
        assert number > 60
        assert len(lora_layers(model)) == 2
        qk.remove_lora(model)
        model.requires_grad_(True).model.norm.requires_grad_(False)
        parts = dict(model.named_modules())


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
