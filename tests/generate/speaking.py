"""What tests of generation share: models that say what they are told to, and what was fed."""

from contextlib import contextmanager

import torch

from qwenkit.generate import generate


def says(model, monkeypatch, ids):
    """Make a model say these ids one after another; its forward, and so its cache, stay real."""
    script = iter(ids)

    def spoken(input_ids, **options):
        logits = torch.zeros_like(type(model).forward(model, input_ids, **options))
        logits[..., next(script)] = 10.0
        return logits

    monkeypatch.setattr(model, "forward", spoken)


@contextmanager
def fed_to(model):
    """Collect the shape of everything a model is fed."""
    shapes = []
    with model.register_forward_hook(lambda module, args, out: shapes.append(args[0].shape)):
        yield shapes


def tokens(model, ids, max_new_tokens=64, **settings):
    """Return the new tokens of a single generation."""
    return [step.token_id for step in generate(model, ids, max_new_tokens, **settings)]
