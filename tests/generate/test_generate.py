"""Generation: which tokens come, when they are computed, and where a text ends."""

import pytest
import torch
from fixtures_toy import copied
from reference import ids, tiny
from speaking import fed_to, tokens
from transformers import Qwen2ForCausalLM

import qwenkit as qk
from qwenkit.config import QwenConfig
from qwenkit.errors import InputError, QwenkitError
from qwenkit.files import write_json
from qwenkit.generate import complete, generate
from qwenkit.generate.sampling import penalize

PROMPT = "def resolve(source):\n    return "


@pytest.fixture(scope="module")
def prompt(toy):
    return toy[1](PROMPT)


@pytest.fixture
def fresh(folders):
    """Another toy, which a test may change."""
    return qk.load_pretrained(folders["untied"], dtype="float32")


@pytest.mark.parametrize("which", ["tied", "untied"])
@pytest.mark.parametrize("text", [PROMPT, "class ", "面積 = 3"])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_equals_that_of_transformers(folders, which, text, penalty):
    model, tokenizer = qk.load_pretrained(folders[which], dtype="float32")
    theirs = Qwen2ForCausalLM.from_pretrained(folders[which], dtype=torch.float32)
    ids = tokenizer(text)
    want = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False,
        repetition_penalty=penalty, eos_token_id=None, pad_token_id=0,
        suppress_tokens=list(range(tokenizer.num_tokens, model.config.vocab_size)),
    )[0, ids.shape[1] :]  # fmt: skip
    ours = tokens(model, ids, 40, repetition_penalty=penalty, stop_ids=())
    assert ours == want.tolist()
    assert len(ours) == 40
    if which == "untied":  # a tied one of random weights may repeat a token forever
        assert len(set(ours)) > 5


def test_each_step_equals_a_full_forward(toy, prompt):
    ids = prompt
    for step in generate(toy[0], ids, 12, stop_ids=()):
        torch.testing.assert_close(step.logits, toy[0](ids)[0, -1], atol=1e-5, rtol=1e-5)
        assert step.token_id == step.probs.argmax()
        assert step.probability == step.probs[step.token_id]
        ids = torch.cat([ids, torch.tensor([[step.token_id]])], dim=1)


@pytest.mark.parametrize("settings", [
    {}, {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.8}, {"repetition_penalty": 1.2},
])  # fmt: skip
def test_probabilities_of_every_step_sum_to_one(toy, prompt, settings):
    model, tokenizer = toy
    steps = list(generate(model, prompt, 10, seed=0, stop_ids=(), **settings))
    assert [step.index for step in steps] == list(range(10))
    for step in steps:
        assert step.probs.shape == step.logits.shape == (model.config.vocab_size,)
        assert step.probs.sum().item() == pytest.approx(1, abs=1e-5)
        assert step.probability > 0
        assert (step.probs[tokenizer.num_tokens :] == 0).all()
        assert step.logits.isfinite().all()
        assert step.probs.dtype == step.logits.dtype == torch.float32


def test_a_seed_reproduces_and_none_does_not(toy, prompt):
    def sampled(**seed):
        return tokens(toy[0], prompt, 12, temperature=1.0, stop_ids=(), **seed)

    assert sampled(seed=5) == sampled(seed=5) != sampled(seed=6)
    assert sampled() != sampled()


# --- an account of each choice ---

ALL = {
    "repetition_penalty": 1.2, "temperature": 0.8, "top_k": 50, "top_p": 0.9, "min_p": 0.02,
}  # fmt: skip


def test_a_step_tells_what_was_done_to_its_logits(toy, prompt):
    text = prompt[0].tolist()
    # all steps first: what came later must not change what one tells
    for step in list(generate(toy[0], prompt, 6, seed=1, stop_ids=(), **ALL)):
        done = step.transforms
        assert list(done) == ["padding_rows", *ALL]
        assert step.seen.tolist() == text
        text.append(step.token_id)
        want = step.logits.clone()
        want[toy[1].num_tokens :] = float("-inf")
        assert torch.equal(done["padding_rows"], want)
        want = penalize(want, step.seen, 1.2)
        assert torch.equal(done["repetition_penalty"], want)
        torch.testing.assert_close(done["temperature"], want / 0.8)
        assert done["top_k"].isfinite().sum() == 50
        assert torch.equal(done["min_p"].softmax(-1), step.probs)
        assert done["min_p"].isfinite()[step.token_id]


@pytest.mark.parametrize(("settings", "names"), [
    ({}, []), ({"repetition_penalty": 1.5}, ["repetition_penalty"]),
    ({"top_k": 3, "top_p": 0.5, "min_p": 0.5}, []),  # greedy: nothing is sampled
    ({"temperature": 1.0}, []), ({"temperature": 1.0, "min_p": 0.1}, ["min_p"]),
    ({"temperature": 0.5, "top_k": 3}, ["temperature", "top_k"]),
])  # fmt: skip
@pytest.mark.parametrize("padded", [True, False])
def test_the_softmax_of_the_last_transform_is_what_was_chosen_from(
    toy, prompt, settings, names, padded, monkeypatch
):
    if not padded:
        monkeypatch.setattr(toy[0], "num_tokens", toy[0].config.vocab_size)
    for step in generate(toy[0], prompt, 3, seed=1, stop_ids=(), **settings):
        assert list(step.transforms) == ["padding_rows"] * padded + names
        last = [step.logits, *step.transforms.values()][-1]
        assert torch.equal(last.softmax(-1), step.probs)
        if not settings.get("temperature"):
            assert step.token_id == last.argmax()


@pytest.mark.parametrize("settings", [{}, {"temperature": 3.0, "seed": 0}])
def test_padding_rows_of_the_vocabulary_are_never_chosen(fresh, prompt, settings):
    model, tokenizer = fresh
    count = tokenizer.num_tokens
    model.lm_head.weight[count:] *= 1_000  # now they have by far the largest logits
    steps = list(generate(model, prompt, 30, stop_ids=(), **settings))
    assert all(step.token_id < count for step in steps)
    assert all((step.probs[count:] == 0).all() for step in steps)
    assert all(step.logits.argmax() >= count for step in steps)  # they do tempt
    assert complete(model, tokenizer, PROMPT, 20, stop_ids=())
    model.num_tokens = model.config.vocab_size  # without the mask the test would fail
    bare = tokens(model, prompt, 30, stop_ids=(), **settings)
    assert all(token >= count for token in bare)


# --- where a text ends ---


def test_stop_ids_of_generation_config_win_and_wrong_ones_are_refused(tmp_path, folders):
    folder = copied(folders["untied"], tmp_path / "copy")
    settings, in_config = folder / "generation_config.json", QwenConfig.from_file(folder)
    ours = in_config.eos_token_id
    for value, want in (([5, 7], (5, 7)), (9, (9,)), (None, ours), (-1, ours)):
        write_json(settings, {"eos_token_id": value})
        assert qk.load_pretrained(folder)[0].stop_ids == want
    for value in ([1.5], "x", -2, [-1], True, {"a": 1}, [None]):
        write_json(settings, {"eos_token_id": value})
        with pytest.raises(QwenkitError, match=r"generation_config\.json: eos_token_id is"):
            qk.load_pretrained(folder)
    settings.unlink()
    assert qk.load_pretrained(folder)[0].stop_ids == in_config.eos_token_id


def test_a_stop_token_comes_and_then_the_iterator_ends(toy, prompt, monkeypatch):
    free = tokens(toy[0], prompt, 20, stop_ids=())
    place = next(i for i in range(5, 20) if free[i] not in free[:i])
    steps = list(generate(toy[0], prompt, 20, stop_ids=(free[place],)))
    assert [step.token_id for step in steps] == free[: place + 1]
    assert [step.is_stop for step in steps] == [False] * place + [True]
    monkeypatch.setattr(toy[0], "stop_ids", (free[0],))  # the model's own
    assert tokens(toy[0], prompt, 20) == free[:1]
    assert tokens(toy[0], prompt, 20, stop_ids=()) == free
    assert len(free) == 20
    assert complete(*toy, PROMPT, 10) == ""  # a stop token is not text


# --- lazy, and checked at once ---


def test_only_the_steps_asked_for_are_computed(toy, prompt):
    with fed_to(toy[0]) as shapes:
        steps = generate(toy[0], prompt, 50, stop_ids=())
        assert shapes == []
        next(steps)
        assert shapes == [prompt.shape]
        next(steps)
        next(steps)
        assert shapes == [prompt.shape, (1, 1), (1, 1)]  # the cache holds the rest
        steps.close()
        assert len(list(generate(toy[0], prompt, 4, stop_ids=()))) == 4
        assert len(shapes) == 3 + 4  # none after the last


BAD = {
    "no ids": [], "an empty tensor": torch.zeros(1, 0, dtype=torch.long),
    "two prompts": torch.zeros(2, 3, dtype=torch.long), "one number": torch.tensor(3),
    "three dimensions": torch.zeros(1, 1, 3, dtype=torch.long), "floats": torch.zeros(1, 3),
    "booleans": torch.ones(1, 3, dtype=torch.bool), "text": "def f():",
    "ragged lists": [[1, 2], [3]], "an id past the vocabulary": [1, 10**6],
    "a negative id": [1, -1],
}  # fmt: skip


@pytest.mark.parametrize("ids", BAD.values(), ids=BAD)
def test_bad_ids_are_refused_at_the_call(toy, ids):
    with pytest.raises(InputError, match="input_ids"):
        generate(toy[0], ids)


@pytest.mark.parametrize("ids", [[1, 2, 3], (1, 2, 3), torch.tensor([1, 2, 3]),
                                 torch.tensor([[1, 2, 3]], dtype=torch.int32)])  # fmt: skip
def test_ids_come_in_several_forms(toy, ids):
    want = tokens(toy[0], torch.tensor([[1, 2, 3]]), 5, stop_ids=())
    assert tokens(toy[0], ids, 5, stop_ids=()) == want


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damaged_weights_give_a_clear_error(fresh, prompt, value):
    fresh[0].model.norm.weight[0] = value
    with pytest.raises(InputError, match="not finite at step 0"):
        next(generate(fresh[0], prompt))


@pytest.mark.parametrize("enabled", [True, False])
def test_a_model_that_is_being_trained_can_generate_in_either_gradient_mode(fresh, prompt, enabled):
    want = tokens(fresh[0], prompt, 4, stop_ids=())
    fresh[0].requires_grad_(True)
    with torch.set_grad_enabled(enabled):
        for steps_read in (4, 1):
            steps = generate(fresh[0], prompt, 4, stop_ids=())
            for token, step in zip(want[:steps_read], steps, strict=False):
                assert step.token_id == token
                assert torch.is_grad_enabled() == enabled  # the caller's mode is left alone
                assert not step.logits.requires_grad
            steps.close()
            assert torch.is_grad_enabled() == enabled


def test_a_text_longer_than_the_model_was_made_for_is_warned_of(toy):
    length = toy[0].config.max_position_embeddings
    with pytest.warns(UserWarning, match="expect nonsense"):
        next(generate(toy[0], torch.ones(1, length + 1, dtype=torch.long), 1))


def test_a_model_in_float64_is_refused_with_what_to_do():
    with pytest.raises(InputError, match=r"dtype is 'float64'.*model\.float\(\)"):
        qk.generate(tiny().double(), ids(1, 3))
