"""Requests are decoded by the compiled kernels, from their pages."""

import random
import time
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from interruptions import interrupted
from kernel_runs import late_thread, threads
from reference import ids, tiny
from serving import alone, finish

import qwenkit as qk
from qwenkit.fast import decode_step, swap
from qwenkit.fast._machine import kernels_problem
from qwenkit.generate import GenerationConfig, steps
from qwenkit.serve import Scheduler

pytestmark = pytest.mark.skipif(kernels_problem() is not None, reason=str(kernels_problem()))
PROMPT = ids(1, 7)[0].tolist()


def made(dtype):
    """Return an accelerated model; int8 and int4 ones compute in float32."""
    model = tiny(num_hidden_layers=2, max_position_embeddings=256)
    if dtype in ("int8", "int4"):
        qk.quantize(model, dtype, group=8)
    return swap(model.bfloat16() if dtype == "bfloat16" else model.float())


def greedy(count, **options):
    return GenerationConfig(max_new_tokens=count, stop_ids=(), **options)


@contextmanager
def watched():
    """Collect how many texts each forward pass is for, and whether the kernels ran it."""
    passes = []

    def watch(model, input_ids, *given):
        found = decode_step(model, input_ids, *given)
        passes.append((len(input_ids), found is not None))
        return found

    with mock.patch.object(steps, "decode_step", watch):
        yield passes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("size", [1, 3, 16])
def test_each_token_after_the_first_is_the_kernels(size, dtype):
    model = made(dtype)
    for options in ({}, {"temperature": 1.0, "seed": 3, "repetition_penalty": 1.2}):
        scheduler = Scheduler(model, max_tokens=96, page_size=size)
        request = scheduler.submit(PROMPT, greedy(40, **options))
        with watched() as passes:
            finish(scheduler)
        assert passes == [(1, False)] + [(1, True)] * 39
        assert request.new == alone(model, request)


@pytest.mark.parametrize("dtype", ["float32", "int8", "int4"])
def test_mixed_lengths_and_shared_beginnings_give_the_tokens_of_single_generation(dtype):
    model, lengths = made(dtype), random.Random(0)
    scheduler = Scheduler(model, max_tokens=160, page_size=3, max_batch_size=3, chunk_tokens=9)
    requests = []
    with watched() as passes:
        for seed in range(8):
            prompt = PROMPT[: lengths.randrange(8)] + ids(1, 5, seed=seed)[0].tolist()
            options = {"temperature": 1.0, "seed": seed} if seed % 2 else {}
            config = greedy(lengths.randrange(2, 20), **options)
            requests.append(scheduler.submit(prompt, config))
            for _ in range(lengths.randrange(15)):
                scheduler.step()
        finish(scheduler)
    for request in requests:
        assert request.new == alone(model, request)
    assert any(request.shared_tokens for request in requests)
    assert {(1, True), (1, False), (2, True), (3, True)} <= set(passes)


def test_the_kernels_read_a_prompt_in_the_forward_pass_of_those_that_decode():
    """A step with too much for them, or an edited model, is as before: a pass for each kind."""
    for edit, prompt, want in (
        (None, 9, [(3, True)]),
        (None, 170, [(3, False), (2, True), (1, False)]),
        (add_hook, 9, [(3, False), (2, False), (1, False)]),
    ):
        model = made("float32")
        if edit is not None:
            edit(model)
        scheduler = Scheduler(model, page_size=3, chunk_tokens=170)
        requests = [scheduler.submit(PROMPT[:length], greedy(30)) for length in (4, 6)]
        while not all(request.new for request in requests):
            scheduler.step()
        late = scheduler.submit(ids(1, prompt, seed=1)[0].tolist(), greedy(12, seed=2))
        with watched() as passes:
            got = scheduler.step()
        assert passes == want
        assert got == [*requests, late]  # each has a new token
        finish(scheduler)
        assert all(request.new == alone(model, request) for request in [*requests, late])


def add_hook(model):
    model.model.layers[1].mlp.register_forward_hook(lambda module, given, out: -out)


def renew(model):
    part = model.model.layers[0].self_attn.v_proj
    part.weight = torch.nn.Parameter(-part.weight, requires_grad=False)


@pytest.mark.parametrize(("edit", "served"), [(add_hook, False), (renew, True)])
def test_an_edit_in_the_middle_of_a_text_is_seen_by_the_next_token(edit, served):
    model, tokens = made("float32"), []
    scheduler = Scheduler(model, page_size=3)
    request = scheduler.submit(PROMPT, greedy(30))
    for _ in range(10):
        scheduler.step()
    edit(model)
    with watched() as passes:
        finish(scheduler)
    assert passes == [(1, served)] * 20
    model = made("float32")
    for step in qk.generate(model, PROMPT, 30, stop_ids=()):
        tokens.append(step.token_id)
        if len(tokens) == 10:
            edit(model)
    assert request.new == tokens
    assert request.new != alone(made("float32"), request)  # or the edit would not show


def test_with_the_plain_model_the_taught_forward_runs():
    model = made("float32")
    scheduler = Scheduler(model)
    request = scheduler.submit(PROMPT, greedy(5))
    with qk.plain(model), watched() as passes:
        finish(scheduler)
    assert passes == [(1, False)] * 5
    assert request.new == alone(model, request)


def test_after_ctrl_c_at_any_line_the_same_step_is_right():
    model = made("float32")
    want = [step.token_id for step in qk.generate(model, PROMPT, 3, stop_ids=())]
    for at in range(1, 100_000, 101):
        scheduler = Scheduler(model, page_size=3)
        request = scheduler.submit(PROMPT, greedy(3))
        scheduler.step()
        came = interrupted(scheduler.step, at)
        finish(scheduler)
        assert request.new == want, at
        if not came:
            break
    assert at > 500


def test_a_page_is_given_to_the_next_text_only_when_no_late_thread_reads_it():
    """Each text takes the pages of the one before; what the other thread takes, it does late."""
    model = swap(tiny(hidden_size=512, intermediate_size=2048, num_hidden_layers=3))
    scheduler = Scheduler(model, max_tokens=12, page_size=3)
    prompts = [ids(1, 4, seed=seed)[0].tolist() for seed in range(4)]
    want = [[s.token_id for s in qk.generate(model, p, 6, stop_ids=())] for p in prompts]
    with threads(2), late_thread() as (late, inside):
        for number in range(400):
            request = scheduler.submit(prompts[number % 4], greedy(6))
            while not request.done:
                scheduler.step()
                assert not inside
                held = [*scheduler.cache.keys, *scheduler.cache.values]
                before = [pool.clone() for pool in held]
                time.sleep(1e-3)
                assert all(map(torch.equal, held, before))
            scheduler.cache.forget()
            assert request.new == want[number % 4]
            if sum(late) > 5:
                break
