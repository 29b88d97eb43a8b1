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


def close_call(model, prompt, got, want):
    """Whether two greedy texts first differ where two tokens are equally likely but for rounding.

    Sums over several rows are taken in another order than over one.
    """
    first = next(i for i, pair in enumerate(zip(got, want, strict=False)) if pair[0] != pair[1])
    logits = model(torch.tensor([[*prompt, *want[:first]]]))[0, -1]
    return abs(logits[got[first]] - logits[want[first]]).item() < 1e-4
