"""Beam search: against transformers, and against every text there is on a tiny vocabulary."""

import itertools

import pytest
import torch
from reference import VARIANTS, ids, pair, tiny
from speaking import fed_to, tokens

from qwenkit.errors import InputError
from qwenkit.generate import beam_search, log_probabilities

LENGTH = 8
SETTINGS = [
    # num_beams, length_penalty, which tokens of the greedy text are stop tokens
    (2, 1.0, (2,)), (4, 1.0, (1, 4, 7)), (4, 0.0, (3,)), (3, 2.0, (2, 6)),
    (5, -0.5, (0, 4)), (4, 1.0, ()),
]  # fmt: skip
MODELS = [("gqa", 0), ("tied", 1), ("mqa", 3)]  # variant, seed


@pytest.mark.parametrize(("num_beams", "length_penalty", "places"), SETTINGS)
@pytest.mark.parametrize(("variant", "seed"), MODELS)
def test_beams_equal_those_of_transformers(variant, seed, num_beams, length_penalty, places):
    theirs, ours = pair(seed=seed, **VARIANTS[variant])
    prompt = ids(1, 6, seed=seed)
    stop_ids = stops_of(ours, prompt, places)
    want = theirs.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, num_beams=num_beams,
        num_return_sequences=num_beams, max_new_tokens=LENGTH, length_penalty=length_penalty,
        eos_token_id=list(stop_ids) or None, pad_token_id=1, return_dict_in_generate=True,
        output_scores=True,
    )  # fmt: skip
    beams = searched(ours, prompt, num_beams, length_penalty, stop_ids)
    assert len(beams) == num_beams
    for beam, sequence, score in zip(beams, want.sequences, want.sequences_scores, strict=True):
        assert list(beam.ids) == sequence[6 : 6 + len(beam.ids)].tolist()
        assert beam.normalized_score == pytest.approx(score.item(), abs=1e-4)
        assert beam.finished == (beam.ids[-1] in stop_ids)
        assert len(beam.ids) == LENGTH or beam.finished


def searched(model, prompt, num_beams=4, length_penalty=1.0, stop_ids=None, length=LENGTH):
    settings = {"num_beams": num_beams, "length_penalty": length_penalty, "stop_ids": stop_ids}
    return beam_search(model, prompt, max_new_tokens=length, **settings)


def greedy_text(model, prompt):
    return tokens(model, prompt, LENGTH, stop_ids=())


def stops_of(model, prompt, places):
    return tuple({greedy_text(model, prompt)[place] for place in places})


def test_these_settings_give_finished_and_unfinished_beams_and_other_texts_than_greedy():
    """Or the comparison above would prove little."""
    model, prompt = tiny(**VARIANTS["tied"], seed=1), ids(1, 6, seed=1)
    found = [searched(model, prompt, *row, stops_of(model, prompt, p)) for *row, p in SETTINGS]
    assert {beam.finished for beams in found for beam in beams} == {True, False}
    assert len({beams[0].ids for beams in found}) >= 3
    text = [*prompt[0].tolist(), *greedy_text(model, prompt)]
    assert found[-1][0].score > log_probabilities(model, text)[0, 5:].sum().item() + 0.1


def every_text(vocab, stop, length):
    """Return each text that ends with the stop token, or has the full length without one."""
    others = [token for token in range(vocab) if token != stop]
    texts = list(itertools.product(others, repeat=length))
    for size in range(length):
        texts += [(*text, stop) for text in itertools.product(others, repeat=size)]
    return texts


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 1.7])
def test_with_enough_beams_it_is_an_exhaustive_search(length_penalty):
    model, prompt, stop = tiny(vocab_size=5), [4, 0, 2], 3
    texts = every_text(5, stop, 4)
    rows = torch.tensor([[*prompt, *text, *[0] * (4 - len(text))] for text in texts])
    given = log_probabilities(model, rows)[:, len(prompt) - 1 :]  # (B, 4)
    scores = [row[: len(text)].sum().item() for row, text in zip(given, texts, strict=True)]
    normal = [s / len(text) ** length_penalty for s, text in zip(scores, texts, strict=True)]
    beams = searched(model, prompt, 400, length_penalty, (stop,), length=4)
    assert len(beams) == len(texts) == 4**4 + 1 + 4 + 16 + 64
    assert {beam.ids for beam in beams} == set(texts)
    want = pytest.approx(sorted(normal, reverse=True), abs=1e-4)
    assert [beam.normalized_score for beam in beams] == want
    best = max(range(len(texts)), key=normal.__getitem__)
    assert beams[0].ids == texts[best]
    assert beams[0].score == pytest.approx(scores[best], abs=1e-4)
    # its probabilities sum to one over all these texts
    assert sum(torch.tensor(scores).exp()).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("stop_ids", [(), (7,), tuple(range(0, 60, 3))])
def test_one_beam_is_greedy(stop_ids):
    model = tiny()
    for seed in range(3):
        prompt = ids(1, 5, seed=seed)
        (beam,) = searched(model, prompt, 1, stop_ids=stop_ids)
        assert list(beam.ids) == tokens(model, prompt, LENGTH, stop_ids=stop_ids)


def test_a_score_is_the_sum_of_the_log_probabilities():
    model, prompt = tiny(), [5, 6, 7]
    beams = searched(model, prompt, length_penalty=0.6)
    for beam in beams:
        given = log_probabilities(model, [*prompt, *beam.ids])[0, 2:]
        assert beam.score == pytest.approx(given.sum().item(), abs=1e-4)
        assert beam.normalized_score == pytest.approx(beam.score / len(beam.ids) ** 0.6, rel=1e-6)
    scores = [beam.normalized_score for beam in beams]
    assert scores == sorted(scores, reverse=True)
    assert searched(model, prompt, length_penalty=0.6) == beams


def test_each_beam_feeds_one_token_until_nothing_better_can_come():
    with fed_to(model := tiny()) as shapes:
        searched(model, ids(1, 6), 3, stop_ids=(), length=5)
    assert shapes == [(1, 6), (3, 1), (3, 1), (3, 1), (3, 1)]  # the prompt is read once
    every = tuple(range(61))  # each text is finished after one token
    with fed_to(model) as shapes:
        beams = searched(model, ids(1, 6), 3, stop_ids=every, length=50)
    assert shapes == [(1, 6)]
    best = model(ids(1, 6))[0, -1].log_softmax(-1).topk(3)
    assert [beam.ids for beam in beams] == [(token,) for token in best.indices.tolist()]
    assert [beam.score for beam in beams] == pytest.approx(best.values.tolist(), abs=1e-5)


def test_padding_rows_of_the_vocabulary_are_never_chosen():
    model = tiny()
    for model.num_tokens in (61, 20):
        beams = searched(model, ids(1, 6), stop_ids=(), length=10)
        assert (max(max(beam.ids) for beam in beams) < 20) == (model.num_tokens == 20)
    few = searched(model, ids(1, 6), 50, stop_ids=(), length=1)
    assert len(few) == 20  # no more texts than there are


BAD = {
    "input_ids": ([], [[1], [2]]), "num_beams": (0, 2.0, True),
    "length_penalty": ("1", float("nan"), None),
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, v) for name in BAD for v in BAD[name]])
def test_bad_arguments_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        beam_search(tiny(), **{"input_ids": [1, 2], "max_new_tokens": 3, name: value})
