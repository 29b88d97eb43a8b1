"""A closed loop checks a model once for many tokens, and sees what another thread changes."""

import json
import sys
import threading
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from fixtures_toy import python
from reference import tiny

import qwenkit as qk
from qwenkit.fast import ClosedLoop, swap
from qwenkit.fast._machine import kernels_problem
from qwenkit.fast.closed_loop import AT_MOST
from qwenkit.generate import steps as generate_steps

served = pytest.mark.skipif(kernels_problem() is not None, reason=str(kernels_problem()))
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="no other system tells")
COUNT = 2 * AT_MOST + 2


@contextmanager
def another_thread(act):
    """Give a function that lets another thread act once, and waits until it has."""
    asked, done = threading.Event(), threading.Event()

    def run():
        asked.wait()
        act()
        done.set()

    thread = threading.Thread(target=run)
    thread.start()

    def let_it():
        asked.set()
        assert done.wait(10)

    try:
        yield let_it
    finally:
        asked.set()
        thread.join()


# In a process of its own: tests may run next to threads that Python does not list.
COUNT_CHECKS = """
import json
from unittest import mock

import qwenkit as qk
from qwenkit.fast import decode
from qwenkit.pretrained import EMBEDDED

model, tokenizer = qk.load_pretrained(EMBEDDED, device="cpu", dtype="float32")
options = {"max_new_tokens": COUNT, "stop_ids": ()}
ids = tokenizer("def f")[0]
scheduler = qk.serve.Scheduler(model)
scheduler.submit(ids, qk.GenerationConfig(**options))


def say(**more):
    return qk.Conversation(model, tokenizer).say("hello", **options, **more)


calls = {
    "complete": lambda: qk.complete(model, tokenizer, "def f", **options),
    "fill": lambda: qk.fill(model, tokenizer, "def f(", ")", COUNT),
    "generate_batch": lambda: qk.generate_batch(model, [ids, ids[:1]], **options),
    "complete_batch": lambda: qk.complete_batch(model, tokenizer, ["def f", "a"], **options),
    "say": say,
    "run": scheduler.run,
    "generate": lambda: list(qk.generate(model, ids, **options)),
    "stream": lambda: list(qk.stream(model, tokenizer, "def f", **options)),
    "complete, printed": lambda: qk.complete(model, tokenizer, "def f", stream=True, **options),
    "say, printed": lambda: say(stream=True),
}
found = {}
for name, call in calls.items():
    with mock.patch.object(decode, "memory_of", wraps=decode.memory_of) as counted:
        call()
    found[name] = counted.call_count
print()
print(json.dumps(found))
"""
CLOSED = {"complete", "fill", "generate_batch", "complete_batch", "say", "run"}


@served
@on_linux
def test_loops_of_ours_check_once_for_many_tokens_and_a_caller_of_each_has_each_checked():
    done = python(COUNT_CHECKS.replace("COUNT", str(COUNT)), QWENKIT_QUIET="1")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    least = -(-(COUNT - 1) // AT_MOST)
    for name, checks in found.items():
        if name in CLOSED:
            assert checks <= least + 2, name  # the system may have run a thread of torch's
            assert checks >= least or name == "fill", name  # which stops by itself
        else:
            assert checks >= COUNT - 1, name
    assert found.keys() > CLOSED


@pytest.fixture
def listed(monkeypatch):
    """Leave out threads that Python does not list: with them each token is checked anyway."""
    every = sys._current_frames

    def frames():
        known = {one.ident for one in threading.enumerate()}
        return {ident: frame for ident, frame in every().items() if ident in known}

    monkeypatch.setattr(sys, "_current_frames", frames)


@served
@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize("way", ["a new Parameter", "a hook", "a method"])
def test_the_next_token_sees_what_another_thread_changed(way):
    """After each token the loop is held until the other thread has changed the model."""
    model = swap(tiny(seed=3).requires_grad_(False))
    prompt, count, at = torch.tensor([[1, 2, 3]]), 8, 4

    def change():
        if way == "a new Parameter":
            weight = model.model.layers[0].mlp.down_proj.weight
            new = torch.nn.Parameter(-3 * weight, requires_grad=False)
            model.model.layers[0].mlp.down_proj.weight = new
        elif way == "a hook":
            model.model.norm.register_forward_hook(lambda module, given, out: -out)
        else:
            model.model.norm.forward = lambda x: -x

    def text(let_it):
        chosen = []
        loop = ClosedLoop()
        config = qk.GenerationConfig(max_new_tokens=count, stop_ids=())
        cache = qk.KVCache(model.config, 1, 16)
        for step in generate_steps.continued(model, prompt, cache, config, loop):
            chosen.append(step.logits)
            if step.index == at:
                let_it()
        return torch.stack(chosen)

    before = text(lambda: None)
    with another_thread(change) as let_it:
        changed = text(let_it)
    assert torch.equal(changed[: at + 1], before[: at + 1])
    assert (changed[at + 1] - before[at + 1]).abs().max() > 0.01


OTHERS = """
import threading, torch
import qwenkit as qk
from qwenkit.fast.closed_loop import others
from qwenkit.pretrained import EMBEDDED

torch.set_num_threads(2)
assert others() == {}
asked, acted = threading.Event(), threading.Event()


def act():
    asked.wait()
    acted.set()
    threading.Event().wait()


threading.Thread(target=act, daemon=True).start()
first = others()
while first != (first := others()):  # until it has begun to wait
    pass
assert len(first) == 1
assert others() == first, "it has waited"
asked.set()
acted.wait()
assert others() != first, "it has run"
model, tokenizer = qk.load_pretrained(EMBEDDED, device="cpu")
qk.complete(model, tokenizer, "def f", 4)
names = {one.native_id: one.name for one in threading.enumerate()}
print(*(names[number] for number in others()), *names.values(), sep="|")
"""


@served
@on_linux
def test_others_are_threads_that_run_python_and_have_computed():
    done = python(OTHERS, QWENKIT_QUIET="1")
    assert done.returncode == 0, done.stderr
    seen = done.stdout.strip().split("|")
    assert seen[0] == "Thread-1 (act)"
    assert seen.count("Thread-1 (act)") == 2
    assert seen.count("kernels of qwenkit") == 1  # it helps the kernels, and is not among others


@pytest.mark.parametrize("case", ["another system", "a thread that Python does not list"])
def test_without_an_answer_every_token_is_checked(case):
    asked = []
    loop = ClosedLoop()
    with pytest.MonkeyPatch.context() as patch:
        if case == "another system":
            patch.setattr(sys, "platform", "darwin")
        else:
            frames = {**sys._current_frames(), -1: None}
            patch.setattr(sys, "_current_frames", lambda: frames)
        for _ in range(3):
            loop.ask(asked.append, "model")
    assert len(asked) == 3


def test_an_error_is_no_answer_and_another_model_is_asked_about():
    loop, asked = ClosedLoop(), []

    def check(model):
        asked.append(model)
        if model == "broken" and len(asked) < 3:
            raise ValueError("broken")
        return model.upper()

    with mock.patch("qwenkit.fast.closed_loop.others", return_value={}):
        for _ in range(2):
            with pytest.raises(ValueError, match="broken"):
                loop.ask(check, "broken")
        assert [loop.ask(check, name) for name in ("broken", "broken", "other")] == [
            "BROKEN", "BROKEN", "OTHER",
        ]  # fmt: skip
    assert asked == ["broken", "broken", "broken", "other"]


def test_what_was_found_is_checked_again_once_another_thread_has_run():
    loop, asked, clocks = ClosedLoop(), [], {7: 0}
    check = asked.append
    with mock.patch("qwenkit.fast.closed_loop.others", side_effect=lambda: dict(clocks)):
        for time in (0, 0, 1, 1, 1, 2):
            clocks[7] = time
            loop.ask(check, "model")
    assert len(asked) == 3


def test_what_nobody_has_thought_of_is_seen_after_some_tokens():
    loop, asked = ClosedLoop(), []
    check = asked.append
    with mock.patch("qwenkit.fast.closed_loop.others", return_value={}):
        for _ in range(2 * AT_MOST):
            loop.ask(check, "model")
    assert len(asked) == 2
