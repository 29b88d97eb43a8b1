"""What only one notebook's checks need."""

import pytest
import torch
from table_sampling import largest_subtracted
from torch import nn
from whole_models import Small

from qwenkit import QwenConfig
from qwenkit.checks import layer, model
from qwenkit.generate.sampling import Sampling, keep_top_p, penalize
from qwenkit.model import DecoderLayer, RotaryEmbedding


def test_the_right_layer_is_that_of_the_package():
    """The check's own answer, given the package's parts, is what the package's layer returns."""
    block = DecoderLayer(QwenConfig(10, 8, 12, 1, 2, 1), 0)
    first, second = block.input_layernorm, block.post_attention_layernorm
    for norm in (first, second):
        nn.init.normal_(norm.weight)
    x = torch.randn(2, 5, 8)
    rope = RotaryEmbedding(block.self_attn.config)(torch.arange(5)[None])
    parts = first, lambda normed: block.self_attn(normed, rope, None), second, block.mlp
    answer = layer.wired_layer(x, *parts)
    assert torch.equal(answer, block(x, rope, None))
    assert not torch.allclose(answer, x, atol=0.1)


def test_the_right_sampling_is_that_of_generation():
    logits, seen = torch.tensor([2.0, -1.0, 1.0, 0.0]), torch.tensor([0, 1])
    chain = keep_top_p(penalize(logits, seen, 1.5) / 0.7, 0.8)
    settings = Sampling(temperature=0.7, top_p=0.8, repetition_penalty=1.5)
    wanted = settings.probabilities(logits, seen)
    assert torch.allclose(largest_subtracted(chain, 1.0), wanted, atol=1e-6)


def test_a_model_is_judged_by_its_class():
    config = QwenConfig(**model._SIZES)
    assert model.whole(Small(config)).outcome == "right"


@pytest.mark.parametrize("base", [nn.Module, Small])
def test_an_empty_class_is_recognized(base):
    class Stub(base):
        def __init__(self, config):
            super().__init__(*[config] if base is Small else [])

        def forward(self, ids):
            return None

    assert model.whole(Stub).outcome == "empty"


class Renamed(Small):
    def __init__(self, config):
        super().__init__(config)
        self.model.final_norm = self.model.norm
        del self.model.norm


class Wide(Small):
    def __init__(self, config):
        super().__init__(config)
        self.model.norm.weight = nn.Parameter(torch.ones(config.hidden_size + 1))


@pytest.mark.parametrize(("kind", "message"), [
    (Renamed, "no parameter for model.norm.weight; no tensor for model.final_norm.weight"),
    (Wide, "model.norm.weight is (33,), in the file (32,)"),
])  # fmt: skip
def test_names_and_shapes_that_do_not_fit_are_reported(kind, message):
    found = model.whole(kind)
    assert found.mistake == "error"
    assert message in found.message


def test_a_message_of_a_check_names_no_class_of_its_own():
    from qwenkit.checks._cache_loop import TooMuchWork
    from qwenkit.checks._errors import explained
    from qwenkit.checks._same import answer
    from qwenkit.checks._whole_model import LayersNotRegistered

    def raising(error):
        def learner():
            raise error

        return explained(answer(learner, ()))[1]

    assert raising(TooMuchWork("the tokens are right, but too many")) == (
        "the tokens are right, but too many"
    )
    assert raising(LayersNotRegistered()) == LayersNotRegistered.__doc__
    assert "ValueError: mine" in raising(ValueError("mine"))  # a learner's own error is named
