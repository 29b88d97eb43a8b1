"""Answers to the exercises of notebook 00."""

import functools

import pytest
import torch

import qwenkit as qk


@functools.cache
def loaded():
    """Return the embedded model and its tokenizer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("QWENKIT_MODEL", raising=False)
        return qk.load_pretrained(device="cpu")


def _ids(text):
    return loaded()[1](text)


def _logits(text):
    return loaded()[0](_ids(text))[0]


def _decoded(ids):
    return loaded()[1].decode(ids)


def _in_steps(text):
    with torch.no_grad():
        logits = loaded()[0](_ids(text))
    probabilities = torch.softmax(logits[0, -1], dim=0)
    return _decoded([int(probabilities.argmax())])


GIVEN = {"most_likely_next": loaded}
RIGHT = {
    "logits_shape": [
        lambda b, t, c: (b, t, c.vocab_size), lambda b, t, c: [b, t, c.vocab_size],
        lambda b, t, c: torch.empty(b, t, c.vocab_size, device="meta").shape,
    ],
    "most_likely_next": [
        _in_steps, lambda text: _decoded(_logits(text)[None, -1].topk(1).indices[0]),
        lambda text:
            _decoded([next(qk.generate(loaded()[0], _ids(text), max_new_tokens=1)).token_id]),
    ],
}  # fmt: skip
WRONG = {
    "logits_shape": [
        ("no positions", lambda b, t, c: (b, c.vocab_size)),
        ("one text", lambda b, t, c: torch.Size((t, c.vocab_size))),
        ("tokens first", lambda b, t, c: (t, b, c.vocab_size)),
        ("hidden size", lambda b, t, c: (b, t, c.head_dim * c.num_attention_heads)),
        ("ids' shape", lambda b, t, c: [b, t]),
        ("scores first", lambda b, t, c: (c.vocab_size, b, t)),
        ("one number", lambda b, t, c: c.vocab_size * t * b),
        ("not from the config", lambda b, t, c: (b, t, 2048)),
        ("values: unchanged", lambda b, t, c: b, "argument 1 unchanged"),
        ("values", lambda b, t, c: (b, t, c.intermediate_size)),
        ("error: a name", lambda batch, tokens, config: (B, T, V), "name 'B'"),  # noqa: F821
        ("not from the config", lambda b, t, c: (b, t, loaded()[0].config.vocab_size)),
        ("no return", lambda b, t, c: print(b, t, c.vocab_size)),
        ("kind", lambda b, t, c: str((b, t, c.vocab_size))),
    ],
    "most_likely_next": [
        ("an id", lambda text: int(_logits(text)[-1].argmax())),
        ("an id", lambda text: _logits(text)[-1].argmax()),
        ("first position", lambda text: _decoded([int(_logits(text)[0].argmax())])),
        ("all positions", lambda text: _decoded(_logits(text)[None].argmax(-1))),
        ("with the prompt", lambda text: text + _in_steps(text)),
        ("last token of the text", lambda text: _decoded(loaded()[1].encode(text)[-1:])),
        ("least likely", lambda text: _decoded([int((-_logits(text))[-1].argmax())])),
        ("values", lambda text: "no token at all"),
        ("error", lambda text: _decoded(loaded()[0](text).argmax())),
        ("all scores", lambda text: int(_logits(text).argmax())),
        ("all scores", lambda text: _logits(text).argmax(dim=0)),
        ("all scores", lambda text: loaded()[0](_ids(text)).argmax(dim=1)),
        ("an id", lambda text: [int(_logits(text)[-1].argmax())]),
        ("second to last position", lambda text: _decoded([int(_logits(text)[-2].argmax())])),
        ("no return", lambda text: print(_in_steps(text))),
    ],
}  # fmt: skip
