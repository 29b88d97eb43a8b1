"""Generation: which tokens come, when they are computed, and how text is streamed."""

import json
import warnings

import pytest
import torch
from fixtures_toy import copied, toy_of
from transformers import Qwen2ForCausalLM

import qwenkit as qk
from qwenkit.errors import InputError, QwenkitError
from qwenkit.generate import complete, generate, stream
from qwenkit.generate.sampling import penalize

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPT = "def resolve(source):\n    return "


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_of(tmp_path_factory)


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    return toy_of(tmp_path_factory, tied=False)


@pytest.fixture(scope="module")
def both(untied):
    """The untied toy: a tied one of random weights repeats its last token for ever."""
    return qk.load_pretrained(untied, dtype="float32")


def tokens(*args, **settings):
    return [step.token_id for step in generate(*args, **settings)]


@pytest.mark.parametrize("which", ["toy", "untied"])
@pytest.mark.parametrize("prompt", [PROMPT, "class ", "面積 = 3"])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_equals_that_of_transformers(request, which, prompt, penalty):
    folder = request.getfixturevalue(which)
    model, tokenizer = qk.load_pretrained(folder, dtype="float32")
    theirs = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = tokenizer(prompt)
    want = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False,
        repetition_penalty=penalty, eos_token_id=None, pad_token_id=0,
        suppress_tokens=list(range(tokenizer.num_tokens, model.config.vocab_size)),
    )[0, ids.shape[1] :]  # fmt: skip
    ours = tokens(model, ids, 40, repetition_penalty=penalty, stop_ids=())
    assert ours == want.tolist()
    assert len(ours) == 40
    if which == "untied":  # a tied one of random weights may repeat a token for ever
        assert len(set(ours)) > 5


def test_each_step_equals_a_full_forward(both):
    model, tokenizer = both
    ids = tokenizer(PROMPT)
    for step in generate(model, ids, 12, stop_ids=()):
        want = model(ids)[0, -1]
        torch.testing.assert_close(step.logits, want, atol=1e-5, rtol=1e-5)
        assert step.token_id == step.probs.argmax()
        assert step.probability == step.probs[step.token_id]
        ids = torch.cat([ids, torch.tensor([[step.token_id]])], dim=1)


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 1.0}, {"temperature": 0.7, "top_k": 20, "top_p": 0.8},
     {"repetition_penalty": 1.2}],
)  # fmt: skip
def test_probabilities_of_every_step_sum_to_one(both, settings):
    model, tokenizer = both
    steps = list(generate(model, tokenizer(PROMPT), 10, seed=0, stop_ids=(), **settings))
    assert [step.index for step in steps] == list(range(10))
    for step in steps:
        assert step.probs.shape == step.logits.shape == (model.config.vocab_size,)
        assert step.probs.sum().item() == pytest.approx(1, abs=1e-5)
        assert step.probability > 0
        assert (step.probs[tokenizer.num_tokens :] == 0).all()
        assert step.logits.isfinite().all()
        assert step.probs.dtype == step.logits.dtype == torch.float32


def test_a_seed_reproduces_and_none_does_not(both):
    model, tokenizer = both
    ids = tokenizer(PROMPT)
    draws = {"temperature": 1.0, "stop_ids": ()}
    assert tokens(model, ids, 12, seed=5, **draws) == tokens(model, ids, 12, seed=5, **draws)
    assert tokens(model, ids, 12, seed=5, **draws) != tokens(model, ids, 12, seed=6, **draws)
    assert tokens(model, ids, 12, **draws) != tokens(model, ids, 12, **draws)
    torch.manual_seed(0)
    first = tokens(model, ids, 12, **draws)
    torch.manual_seed(0)
    assert tokens(model, ids, 12, **draws) != first  # fresh, whatever the global seed


def test_the_global_random_state_is_left_alone(both):
    model, tokenizer = both
    before = torch.get_rng_state()
    tokens(model, tokenizer(PROMPT), 5, temperature=1.0)
    assert torch.equal(torch.get_rng_state(), before)


# --- an account of each choice ---

ALL = {
    "repetition_penalty": 1.2, "temperature": 0.8, "top_k": 50, "top_p": 0.9, "min_p": 0.02,
}  # fmt: skip


def test_a_step_tells_what_was_done_to_its_logits(both):
    model, tokenizer = both
    ids = tokenizer(PROMPT)
    steps = list(generate(model, ids, 6, seed=1, stop_ids=(), **ALL))
    text = ids[0].tolist()
    for step in steps:  # afterwards: what came later must not change what is told
        done = step.transforms
        assert list(done) == ["padding_rows", *ALL]
        assert step.seen.tolist() == text
        text.append(step.token_id)
        want = step.logits.clone()
        want[tokenizer.num_tokens :] = float("-inf")
        assert torch.equal(done["padding_rows"], want)
        want = penalize(want, step.seen, 1.2)
        assert torch.equal(done["repetition_penalty"], want)
        torch.testing.assert_close(done["temperature"], want / 0.8)
        assert done["top_k"].isfinite().sum() == 50
        assert torch.equal(done["min_p"].softmax(-1), step.probs)
        assert done["min_p"].isfinite()[step.token_id]


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, []),
        ({"repetition_penalty": 1.5}, ["repetition_penalty"]),
        ({"top_k": 3, "top_p": 0.5, "min_p": 0.5}, []),  # greedy: nothing is drawn
        ({"temperature": 1.0}, []),
        ({"temperature": 1.0, "min_p": 0.1}, ["min_p"]),
        ({"temperature": 0.5, "top_k": 3}, ["temperature", "top_k"]),
    ],
)
@pytest.mark.parametrize("padded", [True, False])
def test_the_softmax_of_the_last_transform_is_what_was_chosen_from(both, settings, names, padded):
    model, tokenizer = both
    before = model.num_tokens
    try:
        model.num_tokens = before if padded else model.config.vocab_size
        for step in generate(model, tokenizer(PROMPT), 3, seed=1, stop_ids=(), **settings):
            assert list(step.transforms) == ["padding_rows"] * padded + names
            last = [step.logits, *step.transforms.values()][-1]
            assert torch.equal(last.softmax(-1), step.probs)
            if not settings.get("temperature"):
                assert step.token_id == last.argmax()
    finally:
        model.num_tokens = before


# --- padding rows of the vocabulary ---


@pytest.fixture
def tempting(untied):
    """A model whose padding rows have by far the largest logits."""
    model, tokenizer = qk.load_pretrained(untied, dtype="float32")
    model.lm_head.weight[tokenizer.num_tokens :] *= 1_000
    return model, tokenizer


@pytest.mark.parametrize("settings", [{}, {"temperature": 3.0, "seed": 0}])
def test_padding_rows_are_never_chosen(tempting, settings):
    model, tokenizer = tempting
    ids = tokenizer(PROMPT)
    steps = list(generate(model, ids, 30, stop_ids=(), **settings))
    assert all(step.token_id < tokenizer.num_tokens for step in steps)
    assert all((step.probs[tokenizer.num_tokens :] == 0).all() for step in steps)
    assert all(step.logits.argmax() >= tokenizer.num_tokens for step in steps)  # they do tempt
    model.num_tokens = model.config.vocab_size  # without the mask the test would fail
    bare = tokens(model, ids, 30, stop_ids=(), **settings)
    assert all(token >= tokenizer.num_tokens for token in bare)


def test_a_text_of_tempted_model_can_be_read(tempting):
    model, tokenizer = tempting
    assert complete(model, tokenizer, PROMPT, 20, stop_ids=())


# --- where a text ends ---


def test_stop_ids_of_generation_config_win_over_config(tmp_path, untied):
    folder = copied(untied, tmp_path / "copy")
    in_config = tuple(json.loads((folder / "config.json").read_text())["eos_token_id"])
    for value, want in (([5, 7], (5, 7)), (9, (9,)), (None, in_config)):
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
        assert qk.load_pretrained(folder)[0].stop_ids == want
    (folder / "generation_config.json").unlink()
    assert qk.load_pretrained(folder)[0].stop_ids == in_config


@pytest.mark.parametrize("value", [[1.5], "x", -1, True, 10**9, {"a": 1}, [None]])
def test_a_wrong_stop_id_is_refused(tmp_path, untied, value):
    folder = copied(untied, tmp_path / "copy")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(QwenkitError, match=r"generation_config\.json: eos_token_id is"):
        qk.load_pretrained(folder)


def test_the_stop_token_comes_and_then_the_iterator_ends(both):
    model, tokenizer = both
    ids = tokenizer(PROMPT)
    free = tokens(model, ids, 20, stop_ids=())
    place = next(i for i in range(5, 20) if free[i] not in free[:i])
    stop = free[place]
    steps = list(generate(model, ids, 20, stop_ids=(stop,)))
    assert [step.token_id for step in steps] == free[: place + 1]
    assert [step.is_stop for step in steps] == [False] * place + [True]
    assert steps[-1].token_id == stop


def test_the_models_own_stop_ids_hold_unless_others_are_given(both):
    model, tokenizer = both
    ids = tokenizer(PROMPT)
    free = tokens(model, ids, 10, stop_ids=())
    assert len(free) == 10
    before = model.stop_ids
    try:
        model.stop_ids = (free[0],)
        assert tokens(model, ids, 10) == free[:1]
        assert tokens(model, ids, 10, stop_ids=()) == free
        assert complete(model, tokenizer, PROMPT, 10) == ""  # a stop token is no text
    finally:
        model.stop_ids = before


# --- lazy, and checked at once ---


def counted(model):
    calls = []
    hook = model.register_forward_hook(lambda module, args, out: calls.append(args[0].shape))
    return calls, hook


def test_only_the_steps_asked_for_are_computed(both):
    model, tokenizer = both
    ids = tokenizer(PROMPT)
    calls, hook = counted(model)
    try:
        steps = generate(model, ids, 50, stop_ids=())
        assert calls == []
        next(steps)
        assert calls == [ids.shape]
        next(steps)
        next(steps)
        assert calls == [ids.shape, (1, 1), (1, 1)]  # the cache holds the rest
        steps.close()
        calls.clear()
        assert len(list(generate(model, ids, 4, stop_ids=()))) == 4
        assert len(calls) == 4  # none after the last
    finally:
        hook.remove()


BAD = {
    "no ids": ({"input_ids": []}, "input_ids"),
    "an empty tensor": ({"input_ids": torch.zeros(1, 0, dtype=torch.long)}, "input_ids"),
    "two prompts": ({"input_ids": torch.zeros(2, 3, dtype=torch.long)}, "input_ids"),
    "one number": ({"input_ids": torch.tensor(3)}, "input_ids"),
    "three dimensions": ({"input_ids": torch.zeros(1, 1, 3, dtype=torch.long)}, "input_ids"),
    "floats": ({"input_ids": torch.zeros(1, 3)}, "input_ids"),
    "booleans": ({"input_ids": torch.ones(1, 3, dtype=torch.bool)}, "input_ids"),
    "text": ({"input_ids": "def f():"}, "input_ids"),
    "ragged lists": ({"input_ids": [[1, 2], [3]]}, "input_ids"),
    "an id past the vocabulary": ({"input_ids": [1, 10**6]}, "input_ids"),
    "a negative id": ({"input_ids": [1, -1]}, "input_ids"),
    "no new tokens": ({"max_new_tokens": 0}, "max_new_tokens"),
    "negative count": ({"max_new_tokens": -5}, "max_new_tokens"),
    "half a token": ({"max_new_tokens": 1.5}, "max_new_tokens"),
    "count True": ({"max_new_tokens": True}, "max_new_tokens"),
    "temperature": ({"temperature": -1.0}, "temperature"),
    "top_k": ({"top_k": -1}, "top_k"),
    "top_p": ({"top_p": 0.0}, "top_p"),
    "penalty": ({"repetition_penalty": 0.0}, "repetition_penalty"),
    "min_p": ({"min_p": 1.5}, "min_p"),
    "stop ids are no ids": ({"stop_ids": ("x",)}, "stop_ids"),
    "one stop id, bare": ({"stop_ids": 3}, "stop_ids"),
    "a seed that is text": ({"seed": "x"}, "seed"),
    "a seed too large": ({"seed": 2**70}, "seed"),
}


@pytest.mark.parametrize(("settings", "name"), BAD.values(), ids=BAD)
def test_bad_arguments_are_refused_at_the_call(both, settings, name):
    model, _ = both
    with pytest.raises(InputError, match=name):
        generate(model, **{"input_ids": [1, 2, 3], **settings})


def test_stream_refuses_bad_arguments_at_the_call_too(both):
    with pytest.raises(InputError, match="temperature"):
        stream(*both, PROMPT, temperature=-1.0)
    with pytest.raises(InputError, match="input_ids"):
        stream(*both, "")


@pytest.mark.parametrize("ids", [[1, 2, 3], (1, 2, 3), torch.tensor([1, 2, 3]),
                                 torch.tensor([[1, 2, 3]], dtype=torch.int32)])  # fmt: skip
def test_ids_come_in_several_forms(both, ids):
    model, _ = both
    want = tokens(model, torch.tensor([[1, 2, 3]]), 5, stop_ids=())
    assert tokens(model, ids, 5, stop_ids=()) == want


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damaged_weights_give_a_clear_error(untied, value):
    model, tokenizer = qk.load_pretrained(untied, dtype="float32")
    model.model.norm.weight[0] = value
    with pytest.raises(InputError, match="not finite at step 0"):
        next(generate(model, tokenizer(PROMPT)))


@pytest.mark.parametrize("enabled", [True, False])
def test_the_callers_gradient_mode_is_untouched_between_steps(both, enabled):
    model, tokenizer = both
    with torch.set_grad_enabled(enabled):
        steps = generate(model, tokenizer(PROMPT), 4, stop_ids=())
        for step in steps:
            assert torch.is_grad_enabled() == enabled
            assert not step.logits.requires_grad
        assert torch.is_grad_enabled() == enabled
        steps = generate(model, tokenizer(PROMPT), 4, stop_ids=())
        next(steps)
        steps.close()
        assert torch.is_grad_enabled() == enabled


def test_a_model_that_is_being_trained_can_generate(untied):
    model, tokenizer = qk.load_pretrained(untied, dtype="float32")
    want = tokens(model, tokenizer(PROMPT), 5)
    model.requires_grad_(True)
    assert tokens(model, tokenizer(PROMPT), 5) == want


# --- text ---


def scripted(model, monkeypatch, ids):
    """Make a model say these ids, whatever the prompt."""
    script = iter(ids)

    def forward(input_ids, **_):
        logits = torch.zeros(1, 1, model.config.vocab_size)
        logits[0, 0, next(script)] = 10.0
        return logits

    monkeypatch.setattr(model, "forward", forward)


TEXTS = [
    "plain words and code()\n",
    "é",
    "naïve café — “quotes”",
    "面積は幅×高さ",
    "🙂🧑🏽‍🚀🏳️‍🌈!",
    "a🙂b面c",
    "\t\r\n  \n",
    "  leading blanks",
    "e\u0301 is normalised",
    "ends within 🙂"[:-1] + "🙂",
]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_whole_characters_and_join_to_the_text(both, monkeypatch, text):
    model, tokenizer = both
    ids = tokenizer.encode(text)
    scripted(model, monkeypatch, ids)
    pieces = list(stream(model, tokenizer, "x", max_new_tokens=len(ids), stop_ids=()))
    assert "".join(pieces) == tokenizer.decode(ids)
    assert all(pieces)
    assert not any("\ufffd" in piece for piece in pieces)
    if len(text) > 9:
        assert len(pieces) > 3  # it did stream
    scripted(model, monkeypatch, ids)
    assert complete(model, tokenizer, "x", len(ids), stop_ids=()) == tokenizer.decode(ids)


def test_a_character_cut_short_shows_at_the_end(both, monkeypatch):
    model, tokenizer = both
    ids = tokenizer.encode("a🙂")
    assert len(ids) == 5  # the toy's vocabulary has no emoji: one token a byte
    for count in (2, 3, 4):
        scripted(model, monkeypatch, ids)
        pieces = list(stream(model, tokenizer, "x", max_new_tokens=count, stop_ids=()))
        assert pieces[0] == "a"
        assert "".join(pieces) == tokenizer.decode(ids[:count])
        assert pieces[-1].startswith("\ufffd")


@pytest.mark.parametrize("broken", [[0xE9, 0x61], [0x80, 0x80, 0x61], [0xF0, 0x9F, 0x61, 0x62]])
def test_broken_bytes_in_the_middle_join_to_what_decode_says(both, monkeypatch, broken):
    model, tokenizer = both
    alphabet = {raw: char for char, raw in qk.tokenizer.byte_alphabet().items()}
    ids = [tokenizer.backend.token_to_id(alphabet[byte]) for byte in broken]
    ids += tokenizer.encode(" and so on")
    scripted(model, monkeypatch, ids)
    out = complete(model, tokenizer, "x", len(ids), stop_ids=())
    assert out == tokenizer.decode(ids)
    assert out.endswith("a and so on") or out.endswith("ab and so on")


@pytest.mark.parametrize("seed", range(8))
def test_pieces_of_random_tokens_join_to_complete(both, seed):
    model, tokenizer = both
    settings = {"max_new_tokens": 60, "temperature": 1.5, "seed": seed, "stop_ids": ()}
    ids = tokens(model, tokenizer(PROMPT), **settings)
    want = tokenizer.decode(ids, skip_special=True)
    assert "".join(stream(model, tokenizer, PROMPT, **settings)) == want
    assert complete(model, tokenizer, PROMPT, **settings) == want


def test_special_tokens_and_stop_tokens_are_no_text(both, monkeypatch):
    model, tokenizer = both
    end, start = tokenizer.special["<|im_end|>"], tokenizer.special["<|im_start|>"]
    ids = [*tokenizer.encode("one"), start, *tokenizer.encode("two"), end]
    scripted(model, monkeypatch, ids)
    assert complete(model, tokenizer, "x", 50) == "onetwo"


def test_a_text_longer_than_the_model_was_made_for_is_warned_of(both):
    model, _ = both
    length = model.config.max_position_embeddings
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        next(generate(model, torch.ones(1, length + 1, dtype=torch.long), 1))
    assert "expect nonsense" in str(caught[0].message)
