"""The checks of notebook 00: each wrong idea is named, however it is written."""

import pytest
import torch

import qwenkit as qk
from qwenkit.checks import start


@pytest.fixture(scope="module")
def loaded():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("QWENKIT_MODEL", raising=False)
        return qk.load_pretrained(device="cpu")


# --- 1: the shape of the logits ---

SHAPE_RIGHT = {
    "tuple": lambda b, t, c: (b, t, c.vocab_size),
    "list": lambda b, t, c: [b, t, c.vocab_size],
    "torch": lambda b, t, c: torch.empty(b, t, c.vocab_size, device="meta").shape,
}
SHAPE_WRONG = {
    "no places": lambda b, t, c: (b, c.vocab_size),
    "one text": lambda b, t, c: torch.Size((t, c.vocab_size)),
    "tokens first": lambda b, t, c: (t, b, c.vocab_size),
    "stream's width": lambda b, t, c: (b, t, c.head_dim * c.num_attention_heads),
    "ids' shape": lambda b, t, c: [b, t],
    "scores first": lambda b, t, c: (c.vocab_size, b, t),
    "one number": lambda b, t, c: c.vocab_size * t * b,
    "not from the config": lambda b, t, c: (b, t, 2048),
    "kind": lambda b, t, c: b,
    "values": lambda b, t, c: (b, t, c.intermediate_size),
}


@pytest.mark.parametrize("style", SHAPE_RIGHT)
def test_the_right_shape_in_any_form(style):
    found = start.logits_shape(SHAPE_RIGHT[style])
    assert (found.outcome, found.mistake) == ("right", None), str(found)


@pytest.mark.parametrize("name", SHAPE_WRONG)
def test_each_wrong_shape_is_named(name):
    found = start.logits_shape(SHAPE_WRONG[name])
    assert found.mistake == name, str(found)
    assert str(found).startswith("Not yet: ")


# --- 2: one step of writing ---


def _in_steps(model, tokenizer):
    def likeliest(text):
        with torch.no_grad():
            logits = model(tokenizer(text))
        probabilities = torch.softmax(logits[0, -1], dim=0)
        return tokenizer.decode([int(probabilities.argmax())])

    return likeliest


def _by_topk(model, tokenizer):
    return lambda text: tokenizer.decode(model(tokenizer(text))[:, -1].topk(1).indices)


def _by_generating(model, tokenizer):
    return lambda text: tokenizer.decode(
        [next(qk.generate(model, tokenizer(text), max_new_tokens=1)).token_id]
    )


STEP_RIGHT = {"steps": _in_steps, "topk": _by_topk, "generate": _by_generating}
STEP_WRONG = {
    "an id": lambda m, t: lambda text: int(m(t(text))[0, -1].argmax()),
    "an id, as a tensor": lambda m, t: lambda text: m(t(text))[0, -1].argmax(),
    "first place": lambda m, t: lambda text: t.decode([int(m(t(text))[0, 0].argmax())]),
    "all places": lambda m, t: lambda text: t.decode(m(t(text)).argmax(-1)),
    "with the prompt": lambda m, t: lambda text: text + _in_steps(m, t)(text),
    "last token read": lambda m, t: lambda text: t.decode(t.encode(text)[-1:]),
    "unlikeliest": lambda m, t: lambda text: t.decode([int((-m(t(text)))[0, -1].argmax())]),
    "values": lambda m, t: lambda text: "no token at all",
    "error": lambda m, t: lambda text: t.decode(m(text).argmax()),
}


@pytest.mark.parametrize("style", STEP_RIGHT)
def test_the_right_step_in_any_style(style, loaded):
    found = start.likeliest_next(STEP_RIGHT[style](*loaded), *loaded)
    assert (found.outcome, found.mistake) == ("right", None), str(found)


@pytest.mark.parametrize("name", STEP_WRONG)
def test_each_wrong_step_is_named(name, loaded):
    found = start.likeliest_next(STEP_WRONG[name](*loaded), *loaded)
    assert found.mistake == name.removesuffix(", as a tensor"), str(found)
    assert str(found).startswith("Not yet: ")


# --- both alike ---


def test_an_empty_stub_is_told_so_kindly(loaded):
    assert str(start.logits_shape(lambda b, t, c: None)).startswith("Still empty")
    assert str(start.likeliest_next(lambda text: None, *loaded)).startswith("Still empty")
    assert "without brackets" in str(start.logits_shape((1, 2, 3)))


def test_every_exercise_is_listed():
    assert list(start.EXERCISES) == ["00.1", "00.2"]
