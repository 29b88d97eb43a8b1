"""Continuous batching: each request's tokens are those of `generate` for it alone."""

import random

import pytest
import torch
from reference import VARIANTS, VOCAB, ids, tiny
from serving import alone, consistent, finish
from speaking import close_call, fed_to

import qwenkit as qk
from qwenkit.errors import InputError, MemoryForecastError
from qwenkit.generate import GenerationConfig
from qwenkit.serve import Scheduler

CODE = (
    "def add(a, b):\n    return", "import", "class Stack:\n    def __init__(self):\n",
    "def is_even(number):\n    if number % 2 ==", "for i in", "x", "def largest(values):\n",
)  # fmt: skip
SAMPLED = {
    "temperature": 1.0, "top_k": 30, "top_p": 0.95, "min_p": 0.01, "repetition_penalty": 1.2,
}  # fmt: skip


def text(length, seed=1):
    return ids(1, length, seed=seed)[0].tolist()


def greedy(count, **options):
    return GenerationConfig(max_new_tokens=count, stop_ids=(), **options)


def equal(model, requests):
    for request in requests:
        assert request.state == "finished"
        assert request.new == alone(model, request)


# --- the same tokens, whatever else runs ---


@pytest.mark.parametrize("variant", VARIANTS)
def test_mixed_lengths_give_the_tokens_of_single_generation(variant):
    model, lengths = tiny(**VARIANTS[variant]), random.Random(0)
    scheduler = Scheduler(model, max_tokens=400, page_size=4, max_batch_size=5, chunk_tokens=16)
    requests = []
    for number in range(10):
        options = SAMPLED if number % 2 else {}
        count, stops = lengths.randrange(1, 16), range(0, VOCAB, 5) if number % 3 else ()
        config = GenerationConfig(max_new_tokens=count, stop_ids=stops, seed=number, **options)
        requests.append(scheduler.submit(text(lengths.randrange(1, 40), number), config))
    finish(scheduler)
    equal(model, requests)
    assert len({len(request.new) for request in requests}) > 3
    assert any(len(one.new) < one.config.max_new_tokens for one in requests) or variant == "tied"


def test_on_tiny_coder_too(coder):
    model, tokenizer = coder
    scheduler = Scheduler(model, max_batch_size=3, chunk_tokens=16)
    requests = [
        scheduler.submit(tokenizer.encode(code), GenerationConfig(max_new_tokens=8 + 3 * number))
        for number, code in enumerate(CODE)
    ]
    finish(scheduler)
    for request in requests:
        want = alone(model, request)
        assert request.new == want or close_call(model, request.prompt, request.new, want)


def test_a_sampled_request_does_not_depend_on_its_neighbors_or_on_when_it_comes():
    model, config = tiny(), GenerationConfig(max_new_tokens=12, stop_ids=(), seed=5, **SAMPLED)
    found = []
    for before, others in ((0, 0), (3, 2), (7, 6)):
        scheduler = Scheduler(model, max_batch_size=4)
        for number in range(others):
            scheduler.submit(text(5 + number, number), greedy(9))
        for _ in range(before):
            scheduler.step()
        found.append(scheduler.submit(text(6), config))
        finish(scheduler)
    equal(model, found)


def test_seeds_repeat_a_text_and_without_one_each_is_different():
    scheduler, prompt = Scheduler(tiny()), text(5)
    seeds = (1, 1, 2, None, None)
    configs = [greedy(10, temperature=1.0, seed=seed) for seed in seeds]
    one, same, *others = [scheduler.submit(prompt, config) for config in configs]
    finish(scheduler)
    assert one.new == same.new
    assert len({tuple(request.new) for request in (one, *others)}) == 4


def test_without_a_config_it_is_that_of_generate():
    model = tiny()
    model.stop_ids = (3,)
    scheduler = Scheduler(model)
    request = scheduler.submit(torch.tensor([text(4)]))
    assert request.config == GenerationConfig()
    finish(scheduler)
    equal(model, [request])


def test_padding_rows_of_the_vocabulary_are_never_chosen():
    model = tiny()
    for model.num_tokens in (20, VOCAB):  # without the limit the test would fail
        scheduler = Scheduler(model)
        hot = [greedy(30, temperature=5.0, seed=seed) for seed in range(3)]
        requests = [scheduler.submit([1, 2], config) for config in hot]
        finish(scheduler)
        largest = max(max(request.new) for request in requests)
        assert (largest < 20) == (model.num_tokens == 20)


# --- who is fed what, and when ---


def test_requests_join_at_the_next_step_and_leave_at_once():
    model = tiny()
    scheduler = Scheduler(model)
    first = scheduler.submit(text(3, 1), greedy(4))
    with fed_to(model) as shapes:
        assert scheduler.step() == [first]
        second = scheduler.submit(text(5, 2), greedy(2))
        third = scheduler.submit([9], greedy(3))
        assert second.state == third.state == "waiting"
        assert scheduler.step() == [first, second, third]
        assert scheduler.step() == [first, second, third]
        assert second.state == "finished"
        assert scheduler.step() == [first, third]
        assert scheduler.step() == []
    # decoding requests and chunks of prompts are fed apart; a prompt of one token decodes
    assert shapes == [(1, 3), (2, 1), (1, 5), (3, 1), (2, 1)]
    assert scheduler.running == scheduler.waiting == []
    equal(model, (first, second, third))


def test_a_long_prompt_holds_nobody_up():
    model = tiny()
    scheduler = Scheduler(model, chunk_tokens=8)
    short = scheduler.submit(text(4, 1), greedy(20))
    scheduler.step()
    long = scheduler.submit(text(60, 2), greedy(3))
    with fed_to(model) as shapes:
        for number in range(7):
            assert scheduler.step() == [short], number
        assert scheduler.step() == [short, long]
    assert shapes == [(1, 1), (1, 8)] * 7 + [(1, 1), (1, 4)]
    finish(scheduler)
    equal(model, (short, long))


@pytest.mark.parametrize("most", [1, 2, 7, 24, 100])
def test_a_step_reads_at_most_so_many_prompt_tokens_with_padding(most):
    model = tiny()
    scheduler = Scheduler(model, page_size=4, chunk_tokens=most)
    requests = [scheduler.submit(text(n, n), greedy(2)) for n in (30, 3, 17, 2, 9)]
    with fed_to(model) as shapes:
        finish(scheduler)
    equal(model, requests)
    read = [batch * length for batch, length in shapes if length > 1]
    assert max(read, default=0) <= most
    if most == 100:
        assert shapes[:3] == [(3, 30), (3, 1), (2, 9)]


def test_no_more_run_at_once_than_asked_for_and_the_first_come_first():
    scheduler = Scheduler(tiny(), max_batch_size=2)
    requests = [scheduler.submit(text(3, n), greedy(2 + n)) for n in range(5)]
    scheduler.step()
    assert scheduler.running == requests[:2]
    assert scheduler.waiting == requests[2:]
    done = []
    while len(done) < 5:
        scheduler.step()
        assert len(scheduler.running) <= 2
        done += [request for request in requests if request.done and request not in done]
    assert done == requests


# --- shared beginnings ---


def run_all(model, prompts, config, **options):
    """Return the requests, the most pages that were used at once, and how many tokens were fed."""
    scheduler, most = Scheduler(model, page_size=4, **options), 0
    requests = [scheduler.submit(prompt, config) for prompt in prompts]
    with fed_to(model) as shapes:
        while scheduler.running or scheduler.waiting:
            scheduler.step()
            consistent(scheduler.cache)
            most = max(most, scheduler.cache.used)
    return requests, most, sum(batch * length for batch, length in shapes)


def test_a_shared_beginning_gives_the_same_tokens_from_fewer_pages():
    model, beginning = tiny(), text(24)
    shared = [[*beginning, *text(3, seed)] for seed in range(2, 8)]
    unlike = [[seed, *beginning[1:], *text(3, seed)] for seed in range(2, 8)]
    one, pages, fed = run_all(model, shared, greedy(5))
    other, more_pages, more_fed = run_all(model, unlike, greedy(5))
    equal(model, one + other)
    assert [request.shared_tokens for request in one] == [0] + [24] * 5
    assert [request.shared_tokens for request in other] == [0] * 6
    # 27 + 4 tokens fill 8 pages, 6 of which are the beginning
    assert more_pages == 6 * 8
    assert pages == 6 + 6 * 2
    assert fed == 27 + 5 * 3 + 6 * 4
    assert more_fed == 6 * 27 + 6 * 4


def test_a_prompt_that_many_ask_for_is_read_once():
    model, prompt = tiny(), text(16)  # four pages: the last token is fed to a copy of the fourth
    config = greedy(6, temperature=1.0)
    requests, pages, fed = run_all(model, [prompt] * 5, config)
    assert len({tuple(request.new) for request in requests}) > 1
    assert [request.shared_tokens for request in requests] == [0] + [15] * 4
    assert fed == 16 + 4 * 1 + 5 * 5
    assert pages == 4 + 5 * 1
    seeded, _, _ = run_all(model, [prompt] * 5, greedy(6, temperature=1.0, seed=3))
    equal(model, seeded)


def test_a_conversation_finds_its_earlier_turns():
    model = tiny()
    scheduler = Scheduler(model, page_size=4)
    first = scheduler.submit(text(9), greedy(8))
    finish(scheduler)
    second = scheduler.submit([*first.text, 5, 6], greedy(8))
    finish(scheduler)
    equal(model, (first, second))
    assert second.shared_tokens == 16  # the last of 17 tokens was never fed


def test_a_shared_beginning_is_read_in_chunks_by_one_of_them():
    model = tiny()
    prompts = [[*text(22), seed] for seed in range(4)]
    requests, _, fed = run_all(model, prompts, greedy(3), chunk_tokens=6)
    equal(model, requests)
    assert fed == 23 + 3 * 3 + 4 * 2


def test_after_an_edit_of_the_weights_nothing_old_is_found():
    model = tiny()
    scheduler, prompt = Scheduler(model, page_size=4), text(20)
    scheduler.submit(prompt, greedy(6))
    finish(scheduler)
    model.model.layers[0].self_attn.k_proj.weight.data.neg_()
    scheduler.cache.forget()
    request = scheduler.submit(prompt, greedy(6))
    finish(scheduler)
    assert request.shared_tokens == 0
    equal(model, [request])


# --- more requests than there is room for ---


@pytest.mark.parametrize("options", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_preempted_requests_go_on_with_the_same_tokens(options):
    model = tiny()
    scheduler = Scheduler(model, max_tokens=32, page_size=4)
    requests = [
        scheduler.submit(text(6, seed), greedy(20, seed=seed, **options)) for seed in range(4)
    ]
    finish(scheduler)
    equal(model, requests)
    assert requests[0].preemptions == 0
    assert sum(request.preemptions for request in requests) >= 2
    again = scheduler.submit(text(3), greedy(3))
    finish(scheduler)
    equal(model, [again])


def test_the_oldest_is_never_preempted_and_the_others_end_in_order():
    scheduler = Scheduler(tiny(), max_tokens=32, page_size=4)
    requests, done = [scheduler.submit(text(6, seed), greedy(20)) for seed in range(4)], []
    while scheduler.running or scheduler.waiting:
        oldest = next(request for request in requests if not request.done)
        times = oldest.preemptions
        scheduler.step()
        assert oldest.preemptions == times
        done += [request for request in requests if request.done and request not in done]
    assert done == requests


def test_a_request_that_fills_the_whole_pool_ends():
    model = tiny()
    scheduler = Scheduler(model, max_tokens=32, page_size=4)
    prompt = text(8)
    one = [scheduler.submit(prompt, greedy(25)) for _ in range(3)]  # 8 + 24 tokens are fed
    exact = scheduler.submit(text(32), greedy(1))
    finish(scheduler)
    again = scheduler.submit(exact.prompt, greedy(1))  # every page is known, and none is free
    finish(scheduler)
    equal(model, [*one, exact, again])
    assert again.shared_tokens == 31
    for too_long in ((9, 25), (33, 1), (1, 33)):
        with pytest.raises(InputError, match="ask for fewer max_new_tokens"):
            scheduler.submit(text(too_long[0]), greedy(too_long[1]))


def test_no_more_requests_are_admitted_than_the_pool_can_hold_for_a_while():
    scheduler = Scheduler(tiny(), max_tokens=64, page_size=4)
    requests = [scheduler.submit(text(24, seed), greedy(4)) for seed in range(3)]
    requests.append(scheduler.submit([1, 2], greedy(4)))  # there is room, but it is not its turn
    scheduler.step()
    assert scheduler.running == requests[:2]
    finish(scheduler)
    assert [request.preemptions for request in requests] == [0] * 4


# --- cancel, failures, interruptions ---


def test_a_request_can_be_canceled_in_every_state():
    model = tiny()
    scheduler = Scheduler(model, max_tokens=64, page_size=4, max_batch_size=2, chunk_tokens=8)
    other = scheduler.submit(text(5, 9), greedy(20))
    waiting, unseen = scheduler.submit(text(4, 1), greedy(9)), scheduler.submit([1], greedy(9))
    scheduler.cancel(unseen)  # before any step
    scheduler.step()
    scheduler.cancel(waiting)  # decoding, but never first
    reading = scheduler.submit(text(30, 2), greedy(9))
    scheduler.step()
    assert reading.table.length == 8
    queued = scheduler.submit(text(4, 3), greedy(9))
    scheduler.step()
    assert (reading.state, queued.state) == ("running", "waiting")
    scheduler.cancel(queued)  # waiting
    scheduler.cancel(reading)  # its prompt half read
    consistent(scheduler.cache)
    assert scheduler.running == [other]
    decoding = scheduler.submit(text(4, 4), greedy(9))
    for _ in range(3):
        scheduler.step()
    scheduler.cancel(decoding)
    consistent(scheduler.cache)
    assert len(decoding.new) == 3
    finish(scheduler)
    equal(model, [other])
    scheduler.cancel(other)  # done: nothing happens
    assert other.state == "finished"
    for request in (unseen, waiting, reading, queued, decoding):
        scheduler.cancel(request)
        assert (request.state, request.table) == ("canceled", None)
        assert request.new == alone(model, request)[: len(request.new)]


def test_a_preempted_request_can_be_canceled():
    model = tiny()
    scheduler = Scheduler(model, max_tokens=32, page_size=4)
    requests = [scheduler.submit(text(6, seed), greedy(20)) for seed in range(4)]
    while not any(request.preemptions for request in requests):
        scheduler.step()
    preempted = next(request for request in requests if request.preemptions)
    assert (preempted.state, preempted.table) == ("waiting", None)
    assert len(preempted.new) > 0
    scheduler.cancel(preempted)
    finish(scheduler)
    equal(model, [request for request in requests if request is not preempted])


def test_a_request_that_fails_leaves_the_others_alone():
    model = tiny()
    scheduler = Scheduler(model)
    sound = [scheduler.submit(text(5, seed), greedy(8)) for seed in (1, 2)]
    bad = scheduler.submit(text(5, 3), greedy(8, repetition_penalty=1e-39))
    worse = scheduler.submit([60, 1, 2], greedy(8))

    def damage(module, args, logits):
        """What one row's numbers overflow to."""
        logits[(args[0] == 60).any(dim=1)] = float("nan")

    with model.register_forward_hook(damage):
        scheduler.step()
    assert (worse.state, worse.new) == ("failed", [])
    assert "not finite at step 0" in str(worse.error)
    assert (bad.state, bad.new) == ("failed", [])
    assert "repetition_penalty is 1e-39" in str(bad.error)
    consistent(scheduler.cache)
    finish(scheduler)
    equal(model, sound)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("step", [0, 1, 4])
def test_after_ctrl_c_the_same_step_is_right(layer, step):
    model = tiny()
    scheduler = Scheduler(model, page_size=4, chunk_tokens=8)
    requests = [scheduler.submit(text(n, n), greedy(6, seed=n, **SAMPLED)) for n in (5, 20, 1)]
    for _ in range(step):
        scheduler.step()

    def interrupt(*_):
        raise KeyboardInterrupt

    with model.model.layers[layer].mlp.register_forward_hook(interrupt):
        with pytest.raises(KeyboardInterrupt):
            scheduler.step()
    finish(scheduler)
    equal(model, requests)


def test_what_is_begun_in_inference_mode_goes_on_outside_of_it():
    model = tiny()
    scheduler = Scheduler(model)
    request = scheduler.submit(text(5), greedy(6))
    with torch.inference_mode():
        scheduler.step()
    finish(scheduler)
    equal(model, [request])


# --- waste ---


def test_less_than_four_percent_of_the_pages_in_use_is_empty():
    """Texts of 100 to 120 tokens that grow by 100 to 130, on pages of 8: half a page each."""
    model, lengths = tiny(max_position_embeddings=512), random.Random(0)
    scheduler, wastes = Scheduler(model, max_tokens=4096, page_size=8, max_batch_size=8), []
    for seed in range(12):
        config = greedy(lengths.randrange(100, 131))
        scheduler.submit(text(lengths.randrange(100, 121), seed), config)
    while scheduler.running or scheduler.waiting:
        scheduler.step()
        wastes.append(scheduler.cache.waste)
    assert wastes.pop() == 0
    assert 0.01 < sum(wastes) / len(wastes) < 0.04


# --- wrong input ---


@pytest.mark.parametrize(("settings", "words"), [
    ({"max_tokens": 0}, "max_tokens is 0"), ({"page_size": 1.5}, r"page_size is 1\.5"),
    ({"max_batch_size": True}, "max_batch_size is True"),
    ({"chunk_tokens": -1}, "chunk_tokens is -1"), ({"chunk_tokens": None}, "chunk_tokens is None"),
    ({"max_tokens": 8, "page_size": 9}, r"page_size is 9; max_tokens \(8\) must"),
    ({"model": None}, "model is None"), ({"model": "x"}, "model is 'x'"),
])  # fmt: skip
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        Scheduler(**{"model": tiny(), **settings})


def test_a_pool_that_would_not_fit_in_memory_is_refused():
    with pytest.raises(MemoryForecastError, match="ask for fewer"):
        Scheduler(tiny(), max_tokens=10**14)


@pytest.mark.parametrize(("prompt", "config", "words"), [
    ([], None, "input_ids has shape"), ("abc", None, "input_ids is 'abc'"),
    ([1, VOCAB], None, "input_ids holds 61"), ([[1], [2]], None, "input_ids has shape"),
    ([1.5], None, "input_ids has dtype"), ([1], {"seed": 1}, "config is {'seed': 1}"),
    ([1], qk.generate, "config is <function"), ([1], greedy(5000), "needs room for 5000"),
])  # fmt: skip
def test_bad_requests_are_refused_and_nothing_is_submitted(prompt, config, words):
    scheduler = Scheduler(tiny())
    with pytest.raises(InputError, match=words):
        scheduler.submit(prompt, config)
    assert scheduler.waiting == []
    assert scheduler.step() == []


def test_a_text_that_dynamic_rope_cannot_take_is_refused_before_it_runs():
    rope = {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0}
    scheduler = Scheduler(tiny(rope_parameters=rope, max_position_embeddings=32))
    scheduler.submit(text(20), greedy(13))
    with pytest.raises(InputError, match="needs room for 33, and there is room for 32"):
        scheduler.submit(text(20), greedy(14))
    finish(scheduler)


@pytest.mark.parametrize("wrong", [None, "x", 3])
def test_only_its_own_requests_can_be_canceled(wrong):
    scheduler = Scheduler(tiny())
    with pytest.raises(InputError, match="is not a request of this scheduler"):
        scheduler.cancel(wrong)
    with pytest.raises(InputError, match="is not a request of this scheduler"):
        scheduler.cancel(Scheduler(tiny()).submit([1]))
