"""What notebooks 18 and 18b count by hand is what the package does."""

import random

import pytest
from reference import ids, tiny

import qwenkit as qk
from qwenkit.checks.serving import _planned, _speed_up
from qwenkit.generate import Proposal


@pytest.mark.parametrize("slots", [1, 3, 4])
def test_the_plan_of_the_exercise_is_that_of_the_scheduler(slots):
    rng = random.Random(slots)
    lengths = [rng.randint(1, 9) for _ in range(11)]
    scheduler = qk.serve.Scheduler(tiny(), max_batch_size=slots)
    requests = [
        scheduler.submit([number, 1], qk.GenerationConfig(max_new_tokens=length, stop_ids=()))
        for number, length in enumerate(lengths)
    ]
    first, step = {}, 0
    while not all(request.done for request in requests):
        for request in scheduler.step():
            first.setdefault(request, step)
        step += 1
    plan = _planned()(lengths, slots)
    assert [first[request] for request in requests] == [start for _, start in plan]
    ends = [start + length for (_, start), length in zip(plan, lengths, strict=True)]
    assert step == max(ends)


class Knows:
    """Proposes the tokens of a known text, each one right with probability alpha."""

    def __init__(self, text, alpha, vocab_size):
        self.text, self.alpha, self.size = text, alpha, vocab_size
        self.random = random.Random(0)

    def propose(self, ids, count):
        right = self.text[len(ids) : len(ids) + count]
        return Proposal(
            [t if self.random.random() < self.alpha else (t + 1) % self.size for t in right]
        )


@pytest.mark.parametrize("alpha", [0, 0.5, 0.9, 1])
def test_the_formula_of_the_exercise_is_what_speculate_needs(alpha):
    model, prompt = tiny(), ids(1, 4)
    options = {"max_new_tokens": 120, "stop_ids": ()}
    plain = [step.token_id for step in qk.generate(model, prompt, **options)]
    drafter = Knows(prompt[0].tolist() + plain, alpha, model.num_tokens)
    steps = qk.speculate(model, prompt, drafter, tokens=4, **options)
    assert [step.token_id for step in steps] == plain
    assert 120 / steps.forwards == pytest.approx(_speed_up(alpha, 4, 0), rel=0.12)
