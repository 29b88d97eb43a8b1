"""Continuous against static batching, on texts of mixed lengths.

    QWENKIT_MODEL=folder python tests/bench/batching.py [--rounds N] [--requests N] [--slots N]
                                                        [--dtype D]

"unlike" and "four each": the model ends its texts itself, mostly soon; every prompt is another one,
or each comes four times. "mixed": each text goes on for so many tokens as were drawn for it, from
SHORTEST to MOST, each doubling of the length as likely as the next.

All sides sample the same continuations of the same prompts, with the same seeds. A static batch
takes so many prompts as there are slots, and runs until its longest text is done (notebook 18). A
shrinking one (`generate_batch`) drops a text that is done, and takes no other in its place. Sides
take turns, and the ratio is taken within each round. "empty" is the proportion of the token slots
that are allocated and hold no token: the mean over all steps for pages; at the end of each batch
for the others. Then comes a request that is alone, next to `generate`. Last comes the proportion of
a decode step of the taught model in which pages are written and gathered, by the length of the
texts; the compiled kernels read pages where they lie.
"""

import argparse
import math
import time
from functools import partial
from random import Random
from unittest import mock

import torch

import qwenkit as qk
from qwenkit.generate import row_seed
from qwenkit.model import PageBatch
from qwenkit.programs import generate_tasks
from qwenkit.serve import Request, Scheduler
from rows import apart, ratio, spread
from timing import others_share, seconds, take_turns

PAGE_SIZES = (16, 8, 4)
SHORTEST, MOST = 8, 256  # new tokens
LENGTHS = (64, 256, 512)  # tokens per text, for the cost of the gather
STEPS = 10
Found = tuple[float, int, float]  # seconds, new tokens, proportion of empty slots


def prompts_of(tokenizer: qk.Tokenizer, count: int, samples: int = 1) -> list[list[int]]:
    """Return beginnings of functions, each so many times in a row."""
    tasks = generate_tasks(count // samples, "family", seed=5)
    return [tokenizer.encode(one.prompt) for one in tasks for _ in range(samples)]


def drawn(count: int) -> list[int]:
    """Return so many lengths."""
    random, doublings = Random(0), math.log2(MOST / SHORTEST)
    return [round(SHORTEST * 2 ** random.uniform(0, doublings)) for _ in range(count)]


def lengths_of(
    model: qk.QwenForCausalLM, prompts: list[list[int]], slots: int
) -> tuple[list[int], float]:
    """Continue prompts in batches that shrink; return how many tokens each got, and the seconds."""
    new: list[list[int]] = []

    def batches() -> None:
        for seed in range(0, len(prompts), slots):
            group = prompts[seed : seed + slots]
            new.extend(
                qk.generate_batch(model, group, seed=seed, temperature=1.0, max_new_tokens=MOST)
            )

    took = seconds(batches)
    return [*map(len, new)], took


def empty_of(prompts: list[list[int]], slots: int, lengths: list[int]) -> float:
    """Return the proportion of empty slots where each batch has room for its longest text."""
    reserved = 0
    for start in range(0, len(prompts), slots):
        group = prompts[start : start + slots]
        reserved += len(group) * (max(map(len, group)) + MOST)
    return 1 - (sum(map(len, prompts)) + sum(lengths)) / reserved


def shrinking(
    model: qk.QwenForCausalLM, prompts: list[list[int]], slots: int, lengths: list[int]
) -> Found:
    """Continue prompts in batches that shrink."""
    found, took = lengths_of(model, prompts, slots)
    if found != lengths:
        raise AssertionError("the same seeds gave other texts")
    return took, sum(lengths), empty_of(prompts, slots, lengths)


def static(
    model: qk.QwenForCausalLM, prompts: list[list[int]], slots: int, lengths: list[int]
) -> Found:
    """Continue prompts in batches whose texts all run on until the longest of them is done."""

    def batches() -> None:
        for seed in range(0, len(prompts), slots):
            group, most = prompts[seed : seed + slots], max(lengths[seed : seed + slots])
            options = {"temperature": 1.0, "max_new_tokens": most, "stop_ids": ()}
            qk.generate_batch(model, group, seed=seed, **options)

    return seconds(batches), sum(lengths), empty_of(prompts, slots, lengths)


def continuous(
    model: qk.QwenForCausalLM,
    prompts: list[list[int]],
    slots: int,
    page_size: int,
    lengths: list[int] | None = None,
) -> Found:
    """Continue prompts as slots become free, each by as many tokens as are given for it."""

    def submitted() -> tuple[Scheduler, list[Request]]:
        scheduler = Scheduler(model, slots * 2 * MOST, page_size, slots)
        requests = []
        for place, prompt in enumerate(prompts):
            seed = row_seed(place // slots * slots, place % slots)
            own = {"max_new_tokens": MOST}
            if lengths is not None:
                own = {"max_new_tokens": lengths[place], "stop_ids": ()}
            config = qk.GenerationConfig(temperature=1.0, seed=seed, **own)
            requests.append(scheduler.submit(prompt, config))
        return scheduler, requests

    scheduler, requests = submitted()
    took = seconds(scheduler.run)
    again, _ = submitted()  # step by step, to look at its pages
    empty = []
    while again.running or again.waiting:
        again.step()
        empty.append(again.cache.waste)
    return took, sum(len(one.new) for one in requests), sum(empty) / len(empty)


def single(model: qk.QwenForCausalLM, prompt: list[int]) -> Found:
    """Continue one prompt by `generate`."""
    options = {"temperature": 1.0, "max_new_tokens": MOST, "seed": row_seed(0, 0)}
    new: list[object] = []
    return seconds(lambda: new.extend(qk.generate(model, prompt, **options))), len(new), 0.0


def gathering(model: qk.QwenForCausalLM, slots: int, length: int) -> float:
    """Return the proportion of decode steps that pages take, with texts of about this length."""
    spent, update = [], PageBatch.update

    def timed(*args: object) -> object:
        start = time.perf_counter()
        found = update(*args)
        spent.append(time.perf_counter() - start)
        return found

    scheduler = Scheduler(model, slots * (length + 64), max_batch_size=slots, chunk_tokens=512)
    config = qk.GenerationConfig(max_new_tokens=64, stop_ids=())
    texts = torch.randint(model.num_tokens, (slots, length), generator=torch.manual_seed(0))
    requests = [scheduler.submit(text, config) for text in texts]
    while not all(request.new for request in requests):  # until every prompt is read
        scheduler.step()
    with qk.plain(model), mock.patch.object(PageBatch, "update", timed):
        took = seconds(lambda: [scheduler.step() for _ in range(STEPS)])
    return sum(spent) / took


def show(name: str, found: dict[str, list[Found]], than: str = "static") -> None:
    """Print each side's speed, and how many times that of one side it is."""
    speeds = {side: [count / took for took, count, _ in rounds] for side, rounds in found.items()}
    for side, rounds in found.items():
        _, count, empty = rounds[0]
        times = ratio(speeds[side], speeds[than])
        print(
            f"{name:<10}{side:<16}{spread(speeds[side]).median:7.0f} tokens/s   "
            f"= {times.median:.2f}{apart(times)} × {than}   {count} tokens, {empty:.1%} empty",
            flush=True,
        )


def main() -> None:
    """Print the rows of each workload."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=128)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    model, tokenizer = qk.load_pretrained(dtype=options.dtype)
    with others_share() as others:
        for name, samples in (("unlike", 1), ("four each", 4)):
            prompts = prompts_of(tokenizer, options.requests, samples)
            work = model, prompts, options.slots
            lengths, _ = lengths_of(*work)
            sides = {
                "static": partial(static, *work, lengths),
                "shrinking": partial(shrinking, *work, lengths),
            } | {f"pages of {size}": partial(continuous, *work, size) for size in PAGE_SIZES}
            show(name, take_turns(sides, options.rounds))
        prompts = prompts_of(tokenizer, options.requests)
        lengths = drawn(len(prompts))
        work = model, prompts, options.slots
        sides = {"static": partial(static, *work, lengths)} | {
            f"pages of {size}": partial(continuous, *work, size, lengths) for size in PAGE_SIZES
        }
        show("mixed", take_turns(sides, options.rounds))
        prompts = prompts_of(tokenizer, 1)
        sides = {"generate": partial(single, model, prompts[0])} | {
            f"pages of {size}": partial(continuous, model, prompts, 1, size) for size in PAGE_SIZES
        }
        show("alone", take_turns(sides, options.rounds), than="generate")
        for length in LENGTHS:
            found = [gathering(model, options.slots, length) for _ in range(options.rounds)]
            each = spread(found)
            print(
                f"pages take {each.median:.0%} ({each.lowest:.0%} to {each.highest:.0%}) of a "
                f"decode step of {options.slots} texts of {length} tokens"
            )
    print(f"{torch.get_num_threads()} threads; others took {others.share:.0%} of the cores")


if __name__ == "__main__":
    main()
