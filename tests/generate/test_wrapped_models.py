"""A model in a wrapper, as torch.compile and parallel training make them, generates like itself."""

import pytest
import torch
from torch import nn

import qwenkit as qk
from qwenkit.arguments import fits
from qwenkit.errors import InputError


class Wrapper(nn.Module):
    """Passes every attribute and every call on to its model."""

    def __init__(self, model):
        super().__init__()
        self.inside = model

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inside"), name)

    def forward(self, *given, **named):
        return self.inside(*given, **named)


def test_a_wrapped_model_generates_as_the_model_does():
    model, tokenizer = qk.load_pretrained()
    with qk.plain(model):
        wrapped, prompt = Wrapper(model), "def add(a, b):"
        want = qk.complete(model, tokenizer, prompt, 4)
        assert qk.complete(wrapped, tokenizer, prompt, 4) == want
        assert qk.complete_batch(wrapped, tokenizer, [prompt], max_new_tokens=4) == [want]
        qk.Conversation(wrapped, tokenizer)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when it imports a part
def test_a_compiled_model_is_taken_for_a_model():
    model, _ = qk.load_pretrained()
    assert fits(torch.compile(model), qk.QwenForCausalLM)


def test_what_is_not_a_model_is_refused():
    _, tokenizer = qk.load_pretrained()
    with pytest.raises(InputError, match="it must be QwenForCausalLM"):
        qk.complete(nn.Linear(2, 2), tokenizer, "def")
