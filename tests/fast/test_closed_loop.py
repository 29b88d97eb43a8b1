"""A closed loop checks a model once for many tokens, and sees what another thread changes."""

import sys
import threading
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from reference import tiny

import qwenkit as qk
from qwenkit.fast import ClosedLoop, decode, swap
from qwenkit.fast._machine import kernels_problem
from qwenkit.fast.closed_loop import AT_MOST, others
from qwenkit.generate import steps as generate_steps
from qwenkit.pretrained import EMBEDDED

served = pytest.mark.skipif(kernels_problem() is not None, reason=str(kernels_problem()))
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="no other system tells")
COUNT = 2 * AT_MOST + 2


@pytest.fixture(scope="module")
def coder():
    return qk.load_pretrained(EMBEDDED, device="cpu", dtype="float32")


@pytest.fixture
def checks():
    """Count how often all of a model is checked."""
    with mock.patch.object(decode, "memory_of", wraps=decode.memory_of) as counted:
        yield counted


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


def conversation(model, tokenizer):
    return qk.Conversation(model, tokenizer)


def schedule(model, ids, count):
    scheduler = qk.serve.Scheduler(model)
    options = qk.GenerationConfig(max_new_tokens=count, stop_ids=())
    return scheduler, scheduler.submit(ids, options)


CLOSED = {
    "complete": lambda m, t, n: qk.complete(m, t, "def f", n, stop_ids=()),
    "generate_batch": lambda m, t, n: qk.generate_batch(
        m, [t("def f")[0], t("a")[0]], max_new_tokens=n, stop_ids=()
    ),
    "complete_batch": lambda m, t, n: qk.complete_batch(
        m, t, ["def f", "a"], max_new_tokens=n, stop_ids=()
    ),
    "say": lambda m, t, n: conversation(m, t).say("hello", max_new_tokens=n, stop_ids=()),
    "run": lambda m, t, n: schedule(m, t("def f"), n)[0].run(),
}
OPEN = {
    "generate": lambda m, t, n: list(qk.generate(m, t("def f"), n, stop_ids=())),
    "stream": lambda m, t, n: list(qk.stream(m, t, "def f", max_new_tokens=n, stop_ids=())),
    "complete, printed": lambda m, t, n: qk.complete(m, t, "def f", n, stop_ids=(), stream=True),
    "say, printed": lambda m, t, n: conversation(m, t).say(
        "hello", max_new_tokens=n, stop_ids=(), stream=True
    ),
}


@served
@on_linux
@pytest.mark.parametrize("call", CLOSED.values(), ids=CLOSED)
def test_a_closed_loop_checks_once_for_many_tokens(call, coder, checks):
    call(*coder, COUNT)
    least = -(-(COUNT - 1) // AT_MOST)
    assert least <= checks.call_count <= least + 3  # a progress bar or the system may run others


@served
@pytest.mark.parametrize("call", OPEN.values(), ids=OPEN)
def test_whoever_gets_each_token_has_each_checked(call, coder, checks):
    call(*coder, COUNT)
    assert checks.call_count >= COUNT - 1


@served
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


@on_linux
def test_a_thread_that_waits_has_not_run_and_one_that_acts_has():
    with another_thread(lambda: None) as let_it:
        first = others()
        while first != (first := others()):  # until it has begun to wait
            pass
        assert len(first) >= 1
        assert others() == first
        let_it()
        assert others() != first


def test_a_thread_that_ends_or_begins_is_noticed():
    before = others()
    with another_thread(lambda: None):
        assert others() != before or before is None


def test_helpers_of_the_kernels_are_not_others(coder):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        qk.complete(*coder, "def f", 2)
        names = {one.native_id: one.name for one in threading.enumerate()}
        assert not any(names[number].startswith("kernels") for number in others() or {})
    finally:
        torch.set_num_threads(before)


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


def test_what_nobody_has_thought_of_is_seen_after_some_tokens():
    loop, asked = ClosedLoop(), []
    with mock.patch("qwenkit.fast.closed_loop.others", return_value={}):
        for _ in range(2 * AT_MOST):
            loop.ask(asked.append, "model")
    assert len(asked) == 2
