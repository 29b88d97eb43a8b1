"""Tokens that the kernels compute at once are those that a greedy loop computes one by one."""

import sys
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace
from unittest import mock

import numba
import numpy as np
import pytest
import torch
from kernel_runs import in_python, threads
from reference import ids, tiny
from test_closed_loop import another_thread
from test_decode import DTYPES, toy

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.fast import ClosedLoop, Greedy, decode, kernels, swap, team
from qwenkit.fast._machine import kernels_problem
from qwenkit.fast.closed_loop import AT_MOST, others
from qwenkit.fast.tiles import HALF
from qwenkit.generate import GenerationConfig
from qwenkit.generate.steps import continued, expect, next_logits

pytestmark = [
    pytest.mark.skipif(kernels_problem() is not None, reason=str(kernels_problem())),
    pytest.mark.skipif(sys.platform != "linux", reason="no other system tells who has computed"),
]
COUNT = 3 * AT_MOST


@contextmanager
def counting():
    """Give a list to which each job adds how many steps it has computed."""
    found, lead = [], kernels.lead_step

    def counted(*given):
        found.append(lead(*given))
        return found[-1]

    with mock.patch.object(kernels, "lead_step", counted):
        yield found


@pytest.fixture
def steps():
    with counting() as found:
        yield found


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Leave out the threads of the test run, which compute whenever they like."""
    me = threading.get_ident()
    monkeypatch.setattr(sys, "_current_frames", lambda: {me: None})


def greedily(model, prompt, loop, count=COUNT, stop_ids=(), **options):
    """Return the tokens and logits of a text that is continued."""
    config = GenerationConfig(max_new_tokens=count, stop_ids=stop_ids, **options)
    cache = qk.KVCache(model.config, 1, prompt.shape[1] + count)
    expect(loop, model, config, prompt.shape[1])
    made = list(continued(model, prompt, cache, config, loop))
    return [step.token_id for step in made], torch.stack([step.logits for step in made])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_logits_are_those_of_one_token_after_the_other(dtype, tmp_path, steps):
    model = toy(tmp_path, dtype)
    prompt = ids(1, 5) % 50
    want = greedily(model, prompt, ClosedLoop(most=1))
    assert steps == [1] * (COUNT - 1)
    steps.clear()
    got = greedily(model, prompt, ClosedLoop())
    assert 1 < max(steps) <= AT_MOST  # fewer where the system takes a core away
    assert sum(steps) == COUNT - 1  # none that nobody asked for
    assert got[0] == want[0]
    assert len(set(got[0])) > 1
    assert torch.equal(got[1], want[1])


@pytest.mark.parametrize("texts", [3, 20])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_batch_gets_the_tokens_that_it_gets_one_after_the_other(texts, dtype, tmp_path, steps):
    model = toy(tmp_path, dtype)
    prompts = [ids(1, 2 + n % 5, seed=n)[0] % 50 for n in range(texts)]
    first = qk.generate_batch(model, prompts, max_new_tokens=COUNT, stop_ids=())
    assert 1 < max(steps) <= AT_MOST
    assert sum(steps) == COUNT  # the prompts are read by one of them
    stop = first[1][COUNT // 2]  # ends some texts earlier, some later, and some not at all
    options = {"max_new_tokens": COUNT, "stop_ids": (stop,)}
    got = qk.generate_batch(model, prompts, **options)
    steps.clear()
    with mock.patch("qwenkit.generate.batch.expect"):
        want = qk.generate_batch(model, prompts, **options)
    assert set(steps) == {1}
    assert got == want
    assert len({len(row) for row in got}) > 1
    for row, whole in zip(got, first, strict=True):
        end = whole.index(stop) + 1 if stop in whole else COUNT
        assert row[: end if dtype == "float32" else 1] == whole[: end if dtype == "float32" else 1]


def test_after_a_stop_nothing_is_computed(tmp_path, steps):
    model, prompt = toy(tmp_path, "float32"), ids(1, 5) % 50
    tokens, _ = greedily(model, prompt, None)
    steps.clear()
    stop = tokens[7]
    got, _ = greedily(model, prompt, ClosedLoop(), stop_ids=(stop, 3_000_000))
    assert got == tokens[: tokens.index(stop) + 1]
    assert sum(steps) == len(got) - 1


@pytest.mark.parametrize("options", [{"temperature": 1.0, "seed": 0}, {"repetition_penalty": 1.3}])
def test_one_by_one_where_another_token_than_that_of_the_largest_may_be_chosen(
    options, tmp_path, steps
):
    model, prompt = toy(tmp_path, "float32"), ids(1, 5) % 50
    want = greedily(model, prompt, None, **options)
    steps.clear()
    got = greedily(model, prompt, ClosedLoop(), **options)
    assert steps == [1] * (COUNT - 1)
    assert got[0] == want[0]
    assert torch.equal(got[1], want[1])


def after(model, tokens, loop):
    """Return the logits after each of some tokens that are fed one by one, after the first two."""
    cache, found = qk.KVCache(model.config, 1, 40), []
    with torch.no_grad():
        model(tokens[:, :2], cache=cache)
        for i in range(2, tokens.shape[1]):
            found.append(decode.decode_step(model, tokens[:, i : i + 1], cache, None, loop))
    return torch.cat(found)


def test_a_loop_that_feeds_other_tokens_gets_their_logits(steps):
    model = swap(tiny(seed=3).requires_grad_(False))
    loop = ClosedLoop()
    loop.greedy = Greedy(model.num_tokens, (), 40)
    tokens = ids(1, 12)
    want = after(model, tokens, None)
    assert (want.argmax(-1)[:-1, 0] != tokens[0, 3:]).any()
    steps.clear()
    assert torch.equal(after(model, tokens, loop), want)
    assert steps[0] > 1


def test_what_was_computed_is_forgotten_once_another_thread_has_run(monkeypatch, steps):
    """Twice: by a thread that changes the model, and by what the kernels ask the system."""
    model = swap(tiny(seed=3).requires_grad_(False))
    prompt, count, at = ids(1, 3), 20, 4
    frames = {threading.get_ident(): None}
    monkeypatch.setattr(sys, "_current_frames", lambda: frames)

    def text(act, loop):
        config = GenerationConfig(max_new_tokens=count, stop_ids=())
        cache, found = qk.KVCache(model.config, 1, 40), []
        expect(loop, model, config, 3)
        for step in continued(model, prompt, cache, config, loop):
            found.append(step.logits)
            if step.index == at:
                act()
        return torch.stack(found)

    def negate():
        model.model.norm.weight.data *= -1

    want = text(negate, None)
    negate()
    steps.clear()
    with another_thread(negate) as let_it:
        frames |= {one.ident: None for one in threading.enumerate() if "(run)" in one.name}
        assert len(others()) == 1

        def act():
            let_it()
            for ident in frames.keys() - {threading.get_ident()}:  # the thread ends
                del frames[ident]

        got = text(act, ClosedLoop())
    assert sum(steps) > 19  # some were computed twice
    assert torch.equal(got, want)


def test_next_to_a_thread_that_computes_the_logits_are_the_same(monkeypatch, steps):
    model = swap(tiny(seed=3).requires_grad_(False))
    want = greedily(model, ids(1, 3), ClosedLoop())
    steps.clear()
    going = threading.Event()

    def compute():
        while not going.is_set():
            sum(range(1000))

    thread = threading.Thread(target=compute)
    thread.start()
    frames = {threading.get_ident(): None, thread.ident: None}
    monkeypatch.setattr(sys, "_current_frames", lambda: frames)
    try:
        got = greedily(model, ids(1, 3), ClosedLoop())
    finally:
        going.set()
        thread.join()
    assert torch.equal(got[1], want[1])


def test_the_caller_waits_for_a_moment_at_most(monkeypatch, tmp_path):
    model, prompt = toy(tmp_path, "float32"), ids(1, 5) % 50
    want = greedily(model, prompt, None, count=6)
    with in_python(), counting() as steps:
        found = greedily(model, prompt, ClosedLoop(), count=6)  # 0.2 seconds for each
    assert steps == [1] * 5
    assert found[0] == want[0]
    monkeypatch.setattr(kernels, "MOMENT", 10**12)
    with in_python(), counting() as steps:
        assert greedily(model, prompt, ClosedLoop(), count=6)[0] == want[0]
    assert steps == [5]


@pytest.mark.filterwarnings("ignore:.*more than the 12 this model was made for")
def test_no_step_goes_beyond_the_room_there_is(steps):
    model = swap(tiny(seed=3, max_position_embeddings=12).requires_grad_(False))
    want = greedily(model, ids(1, 3), None, count=20)
    steps.clear()
    got = greedily(model, ids(1, 3), ClosedLoop(), count=20)
    assert steps[-10:] == [1] * 10
    assert (sum(steps), max(steps) > 1) == (19, True)
    assert torch.equal(got[1], want[1])
    loop = ClosedLoop()
    loop.greedy = Greedy(model.num_tokens, (), 100)  # more than there is room for
    cache = qk.KVCache(model.config, 1, 8)
    next_logits(model, ids(1, 3), cache, 0)
    steps.clear()
    next_logits(model, ids(1, 1), cache, 1, None, loop)
    assert 1 <= steps[0] <= 5


def test_logits_that_are_not_finite_are_refused_at_their_token(tmp_path):
    model, prompt = toy(tmp_path, "float32 untied"), ids(1, 5) % 50
    tokens, _ = greedily(model, prompt, None)
    place = next(i for i in range(3, COUNT) if tokens[i] not in tokens[:i] + prompt[0].tolist())
    model.model.embed_tokens.weight.data[tokens[place], 0] = float("inf")
    for loop in (None, ClosedLoop()):
        found = []
        config, cache = GenerationConfig(max_new_tokens=COUNT), qk.KVCache(model.config, 1, 120)
        expect(loop, model, config, 5)
        with pytest.raises(InputError, match=f"not finite at step {place + 1}"):
            found.extend(step.token_id for step in continued(model, prompt, cache, config, loop))
    with pytest.raises(InputError, match=f"not finite at step {place + 1}"):
        qk.generate_batch(model, [prompt], max_new_tokens=COUNT)


def test_an_embedding_that_does_more_than_to_look_up_is_asked_for_each_token(steps, tmp_path):
    prompt, found = ids(1, 5) % 50, []
    toy(tmp_path, "float32 untied")
    for loop in (None, ClosedLoop()):
        model = swap(qk.load_model(tmp_path, device="cpu", dtype="float32"))
        model.model.embed_tokens.max_norm = 0.1
        found.append(greedily(model, prompt, loop, count=8)[1])
    assert steps == [1] * 14
    assert torch.equal(*found)
    model.model.embed_tokens.max_norm = None
    greedily(model, prompt, ClosedLoop(), count=8)
    assert max(steps[14:]) > 1


def test_the_index_of_the_largest_is_numpys():
    random = np.random.default_rng(0)
    sizes = (1, 1), (5, 3), (128, 128), (300, 290), (513, 257), (700, 128), (2048, 2048)
    for size, count in sizes:
        for _ in range(20):  # many numbers are alike
            numbers = np.round(random.standard_normal(size) * 3).astype(np.float32)
            numbers[random.integers(size)] *= -0.0
            want = numbers[:count].argmax()
            assert kernels.index_of_largest(numbers, count) == want
            assert kernels.index_of_largest.py_func(numbers, count) == want
            halves = (numbers.view(np.uint32) >> 16).astype(np.uint16)
            assert kernels.index_of_largest(halves, count) == want
    numbers = np.array([-0.0, 0.0, -1e-45], np.float32)
    assert kernels.index_of_largest(numbers, 3) == 0
    assert kernels.index_of_largest(-np.ones(4, np.float32), 4) == 0
    for wrong in (np.inf, -np.inf, np.nan, -np.nan):
        for place in (0, 3, 299):  # beyond the tokens, too, as `check_finite` has it
            numbers = np.zeros(300, np.float32)
            numbers[place] = wrong
            assert kernels.index_of_largest(numbers, 200) == -1


def test_the_compiled_clock_is_the_systems():
    clock = kernels.clock
    asked = numba.njit(lambda number: clock(number))
    before = time.clock_gettime_ns(kernels.STEADY)
    shown = asked(kernels.STEADY)
    assert before <= shown <= time.clock_gettime_ns(kernels.STEADY)
    assert asked(12345) == kernels.clock(12345) == -1  # there is none


def test_no_step_begins_while_a_thread_may_be_at_work_or_after_another_has_run():
    board = kernels.board(3)
    job = SimpleNamespace(
        logits=np.zeros((2, 1, 4), np.float32),
        ahead=SimpleNamespace(
            tokens=np.zeros((2, 1), np.int64), num_tokens=4, stops=np.empty(0, np.int64),
            others=np.empty((0, 2), np.int64), most=np.array([2]),
        ),
    )  # fmt: skip
    place = kernels.TICKETS + kernels.APART * (3 + 2)
    asked = board, job, 1, kernels.clock(kernels.STEADY)
    assert kernels.may_go_on.py_func(*asked)
    board[place] = 5
    with mock.patch.object(kernels, "LOOKS", 10):
        assert not kernels.may_go_on.py_func(*asked)
    board[place] = kernels.NOWHERE
    assert kernels.may_go_on.py_func(*asked)
    for shown, goes_on in ((0, False), (-1, True)):  # no such clock shows -1
        job.ahead.others = np.array([[12345, shown]])
        assert kernels.may_go_on.py_func(*asked) == goes_on
    job.ahead.others = np.array([[kernels.STEADY, 0]])
    assert not kernels.may_go_on.py_func(*asked)


# --- texts that fill tiles: each thread goes through all layers with its own ---


@pytest.fixture
def many(tmp_path):
    """Give a model, and prompts of as many texts as two threads have half tiles for."""
    with threads(2):
        yield (
            toy(tmp_path, "bfloat16"),
            [ids(1, 2 + n % 3, seed=n)[0] % 50 for n in range(2 * HALF)],
        )


def written(model, prompts, **options):
    """Return what is added to prompts, and how many parts their texts were cut into each time."""
    parts, own = [], team.each_alone

    def counted(jobs):
        parts.append(len(jobs))
        return own(jobs)

    with mock.patch("qwenkit.fast.decode.each_alone", counted):
        new = qk.generate_batch(model, prompts, **{"max_new_tokens": 70, "stop_ids": (), **options})
    return new, parts


def test_texts_of_a_thread_get_the_same_tokens(many, monkeypatch):
    got, parts = written(*many)
    assert set(parts) == {2}
    assert len(parts) < 35
    assert len({*map(tuple, got)}) > HALF
    monkeypatch.setattr(decode, "CACHED", 0)  # too large a model: threads share each product
    assert written(*many) == (got, [])


@pytest.mark.parametrize("texts", [2 * HALF - 1, 2 * HALF + 2])
def test_texts_that_do_not_fill_tiles_share_each_product(many, texts):
    model, prompts = many
    _, parts = written(model, [*prompts, *prompts][:texts])
    assert parts == []


def test_a_text_that_ends_ends_the_steps_of_all(many, tmp_path):
    model, prompts = toy(tmp_path, "float32"), many[1]  # in bfloat16 fewer texts round otherwise
    whole, _ = written(model, prompts)
    for place in (1, HALF + 1):  # of this thread, and of the other one
        stop = whole[place][40]
        got, _ = written(model, prompts, stop_ids=(stop,))
        for row, own in zip(got, whole, strict=True):
            end = own.index(stop) + 1 if stop in own else len(own)
            assert row == own[:end]
        assert len(got[place]) == whole[place].index(stop) + 1


@pytest.mark.parametrize("case", ["never", "too late", "at work"])
def test_a_thread_that_does_not_get_on_is_done_without(many, case):
    want, _ = written(*many)
    begun, threads_made = threading.Event(), []

    def call(job):
        function, given = job
        board = next(one for one in given if isinstance(one, np.ndarray))
        inside = board[kernels.INSIDE :]

        def begin():
            begun.wait(10 if case == "too late" else 0.02)  # a step takes less than a millisecond
            function(*given)
            inside[0] -= case == "at work"

        inside[0] += case == "at work"
        if case != "never":
            threads_made.append(threading.Thread(target=begin))
            threads_made[-1].start()

    with mock.patch.object(team._team, "call", call):
        got, parts = written(*many)
    begun.set()
    for one in threads_made:
        one.join()
    assert got == want
    assert set(parts) == {2}
    assert len(parts) < 35  # what is done here is done for all steps, not one by one


@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_threads_computes_the_same(count, steps, tmp_path):
    model = toy(tmp_path, "bfloat16")
    prompts = [ids(1, 4, seed=n)[0] % 50 for n in range(12)]
    want = qk.generate_batch(model, prompts, max_new_tokens=40, stop_ids=())
    with threads(count):
        assert qk.generate_batch(model, prompts, max_new_tokens=40, stop_ids=()) == want
