"""The probabilities a token is sampled from, against transformers' own processors."""

import pytest
import torch
from transformers.generation import logits_process as theirs

from qwenkit.generate import sampling as ours
from qwenkit.generate.sampling import Sampling, keep_min_p, keep_top_k, keep_top_p, penalize

V = 50


def random_logits(seed, scale=3.0):
    return scale * torch.randn(V, generator=torch.Generator().manual_seed(seed))


def random_ids(seed, count=30):
    return torch.randint(V, (count,), generator=torch.Generator().manual_seed(seed))


WARPERS = (  # in the order that generate() of transformers has, and when it leaves them out
    (theirs.RepetitionPenaltyLogitsProcessor, 3, 1), (theirs.TemperatureLogitsWarper, 0, 1),
    (theirs.TopKLogitsWarper, 1, 0), (theirs.TopPLogitsWarper, 2, 1),
    (theirs.MinPLogitsWarper, 4, 0),
)  # fmt: skip
SETTINGS = [  # temperature, top_k, top_p, penalty, min_p
    (1.0, 0, 1.0, 1.0, 0), (0.3, 0, 1.0, 1.0, 0), (2.5, 0, 1.0, 1.0, 0), (1.0, 1, 1.0, 1.0, 0),
    (1.0, 7, 1.0, 1.0, 0), (1.0, V, 1.0, 1.0, 0), (1.0, 0, 0.5, 1.0, 0), (1.0, 0, 0.95, 1.0, 0),
    (1.0, 0, 1.0, 1.3, 0), (1.0, 0, 1.0, 0.7, 0), (1.7, 5, 0.6, 2.0, 0),
    (0.7, 20, 0.8, 1.1, 0),  # the instruct models' own settings
    (1.0, 0, 1.0, 1.0, 0.05), (1.0, 0, 1.0, 1.0, 1.0), (2.5, 0, 1.0, 1.0, 0.5),
    (0.7, 20, 0.8, 1.1, 0.4), (1.5, 30, 0.95, 1.3, 0.7),
]  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_probabilities_equal_those_of_transformers(seed, settings):
    min_p = settings[-1]
    logits, seen = random_logits(seed, scale=1.0 if min_p else 3.0), random_ids(seed)
    before = logits.clone()
    got = Sampling(*settings).probabilities(logits, seen)
    want = logits[None].clone()
    for kind, place, off in WARPERS:
        if settings[place] != off:
            want = kind(settings[place])(seen[None], want)
    want = want[0].softmax(dim=-1)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)
    assert torch.equal(got > 0, want > 0)
    assert torch.equal(logits, before)  # the caller's logits are left alone
    without = Sampling(*settings[:-1]).probabilities(logits, seen)
    assert ((got > 0).sum() < (without > 0).sum()) == (min_p > 0)  # it did drop some
    # and each setting changes something, or the comparison would prove little
    idle = (settings[0], settings[1] % V, *settings[2:]) == (1.0, 0, 1.0, 1.0, 0)
    assert torch.equal(got, Sampling(1.0).probabilities(logits, seen)) == idle


def test_the_penalty_divides_positive_and_multiplies_negative_logits_once():
    logits = torch.tensor([2.0, -2.0, 0.0, 4.0, -4.0])
    seen = torch.tensor([0, 1, 0, 0, 2, 1])  # some of them several times
    assert penalize(logits, seen, 2.0).tolist() == [1.0, -4.0, 0.0, 4.0, -4.0]
    assert penalize(logits, torch.tensor([], dtype=torch.long), 2.0).tolist() == logits.tolist()
    assert logits.tolist() == [2.0, -2.0, 0.0, 4.0, -4.0]


PROBS = torch.tensor([0.1, 0.5, 0.15, 0.25])


@pytest.mark.parametrize(("keep", "value", "kept"), [
    (keep_top_k, 2, [0, 0.5, 0, 0.25]), (keep_top_k, 0, PROBS),
    (keep_top_k, 100, PROBS),
    # the fewest that reach it
    (keep_top_p, 0.3, [0, 0.5, 0, 0]), (keep_top_p, 0.6, [0, 0.5, 0, 0.25]),
    (keep_top_p, 0.8, [0, 0.5, 0.15, 0.25]), (keep_top_p, 0.95, PROBS),
    (keep_top_p, 1.0, PROBS),
    # what is likely enough next to the most likely
    (keep_min_p, 0.0, PROBS), (keep_min_p, 0.19, PROBS),
    (keep_min_p, 0.29, [0, 0.5, 0.15, 0.25]), (keep_min_p, 0.49, [0, 0.5, 0, 0.25]),
    (keep_min_p, 0.51, [0, 0.5, 0, 0]), (keep_min_p, 1, [0, 0.5, 0, 0]),
])  # fmt: skip
def test_what_is_kept_keeps_its_logit_and_the_rest_is_minus_infinity(keep, value, kept):
    assert torch.equal(keep(PROBS.log(), value), torch.as_tensor(kept).log())
    equal = torch.zeros(4)
    assert torch.equal(keep_min_p(equal, 1.0), equal)  # all of them are the most likely


def test_min_p_is_measured_after_the_temperature():
    logits = torch.tensor([0.0, -1.0, -2.0])  # e^-1 is 0.37, e^-0.5 is 0.61
    for temperature, kept in ((1.0, [True, False, False]), (2.0, [True, True, False])):
        probs = Sampling(temperature, min_p=0.5).probabilities(logits, torch.empty(0).long())
        assert (probs > 0).tolist() == kept


def test_each_transform_is_given_by_name_in_order():
    logits, seen = random_logits(0, scale=1.0), random_ids(0)
    settings = {"repetition_penalty": 1.3, "temperature": 0.7, "top_k": 20, "top_p": 0.9}
    found = Sampling(**settings, min_p=0.4).transforms(logits, seen)
    want = {"repetition_penalty": penalize(logits, seen, 1.3)}
    want["temperature"] = want["repetition_penalty"] / 0.7
    want["top_k"] = keep_top_k(want["temperature"], 20)
    want["top_p"] = keep_top_p(want["top_k"], 0.9)
    want["min_p"] = keep_min_p(want["top_p"], 0.4)
    assert list(found) == list(want)
    for name in want:
        torch.testing.assert_close(found[name], want[name], rtol=0, atol=0)
    counts = [int(one.isfinite().sum()) for one in found.values()]
    assert counts[:3] == [V, V, 20]
    assert 20 > counts[3] > counts[4] >= 1
    for sampling, names in (  # what is off is left out
        (Sampling(1.0), []), (Sampling(1.0, top_p=0.9), ["top_p"]),
        (Sampling(0.5, min_p=0.1), ["temperature", "min_p"]),
        (Sampling(0.0, 5, 0.5, repetition_penalty=1.1, min_p=0.5), ["repetition_penalty"]),
    ):  # fmt: skip
        assert list(sampling.transforms(logits, seen)) == names


@pytest.mark.parametrize("temperature", [0.3, 1e-30, 1e-37, 1e-300])
@pytest.mark.parametrize("shift", [0.0, 300.0, -300.0])
def test_dividing_by_a_temperature_never_overflows(temperature, shift):
    logits = torch.tensor([1.0, 3.0, float("-inf"), 2.0]) + shift
    divided = ours.divide_by_temperature(logits, temperature)
    assert not divided.isnan().any()
    assert divided.max().isfinite()
    if temperature > 1e-30 or (temperature == 1e-30 and shift == 0):
        torch.testing.assert_close(divided, logits / temperature)
    want = ((logits.double() - logits.max()) / max(temperature, 1e-37)).softmax(-1).float()
    torch.testing.assert_close(divided.softmax(-1), want, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("tiny", [1e-3, 1e-12, 1e-30, 1e-45, 1e-300])
def test_a_tiny_top_p_or_temperature_keeps_the_most_likely_one_and_is_never_nan(tiny):
    for sampling, scale in ((Sampling(1.0, top_p=tiny), 3.0), (Sampling(tiny), 30.0)):
        logits = random_logits(4, scale)
        logits[7:] = float("-inf")
        probs = sampling.probabilities(logits, random_ids(4))
        assert probs.isfinite().all()
        assert probs.argmax() == logits.argmax()
        assert probs.max() == 1
        assert (probs > 0).sum() == 1


def test_greedy_ignores_what_only_sampling_needs_but_not_the_penalty():
    logits, seen = torch.tensor([1.0, 3.0, 2.9]), torch.tensor([1])
    plain, penalizing = Sampling(0.0, top_k=1, top_p=0.1), Sampling(0.0, repetition_penalty=1.5)
    assert torch.equal(plain.probabilities(logits, seen), logits.softmax(-1))
    for sampling, choice in ((plain, 1), (penalizing, 2)):
        probs = sampling.probabilities(logits, seen)
        assert sampling.choose(probs, torch.Generator().manual_seed(0)) == choice


def test_samples_follow_the_probabilities():
    probs, counts = torch.tensor([0.6, 0.0, 0.3, 0.1]), torch.zeros(4)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4_000):
        counts[Sampling(1.0).choose(probs, generator)] += 1
    assert counts[1] == 0
    # four standard deviations of a count of 4,000 samples are 0.031 at most
    torch.testing.assert_close(counts / 4_000, probs, atol=0.031, rtol=0)
