"""Random schedules: each text is right, and each page counted, whatever comes and goes."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import ids, tiny
from serving import alone, consistent, finish

from qwenkit.fast import swap
from qwenkit.generate import GenerationConfig
from qwenkit.serve import PagedCache, Scheduler

MODEL = tiny(num_hidden_layers=2)
BEGINNING = ids(1, 12)[0].tolist()
PROBABLE = settings(max_examples=12, deadline=None, database=None, derandomize=True)

requests = st.fixed_dictionaries({
    "shared": st.integers(0, 12), "own": st.integers(1, 7), "token": st.integers(0, 4),
    "count": st.integers(1, 9), "seed": st.integers(0, 3), "temperature": st.sampled_from((0, 1.0)),
})  # fmt: skip
actions = st.lists(st.one_of(requests, st.sampled_from(["step"] * 4 + ["cancel"])), max_size=25)
pools = st.fixed_dictionaries({
    "max_tokens": st.integers(28, 80), "page_size": st.integers(1, 8),
    "max_batch_size": st.integers(1, 4), "chunk_tokens": st.integers(1, 20),
})  # fmt: skip


def submitted(scheduler, drawn):
    prompt = BEGINNING[: drawn["shared"]] + [drawn["token"]] * drawn["own"]
    config = GenerationConfig(
        max_new_tokens=drawn["count"], seed=drawn["seed"], temperature=drawn["temperature"],
        stop_ids=(5, 6),
    )  # fmt: skip
    room = scheduler.cache.num_pages * scheduler.cache.page_size
    fits = len(prompt) + drawn["count"] - 1 <= room
    return [scheduler.submit(prompt, config)] if fits else []


@pytest.mark.parametrize("model", [MODEL, swap(copy.deepcopy(MODEL))], ids=["taught", "fast"])
@PROBABLE
@given(pool=pools, drawn=actions, choice=st.randoms())
def test_every_request_gets_the_tokens_of_generate(model, pool, drawn, choice):
    scheduler, sent = Scheduler(model, **pool), []
    for action in drawn:
        if action == "step":
            scheduler.step()
        elif action == "cancel" and sent:
            scheduler.cancel(choice.choice(sent))
        elif action != "cancel":
            sent += submitted(scheduler, action)
        consistent(scheduler.cache)
        assert sum(request.table is not None for request in sent) == len(scheduler.cache.tables)
        assert len(scheduler.running) <= scheduler.max_batch_size
    finish(scheduler)
    known = {}
    for request in sent:
        key = (*request.prompt, *vars(request.config).values())
        known[key] = known.get(key) or alone(model, request)
        assert request.state in ("finished", "canceled")
        whole = known[key] if request.state == "finished" else known[key][: len(request.new)]
        assert request.new == whole


steps = st.lists(
    st.tuples(st.sampled_from(["open", "grow", "grow", "close", "forget"]), st.integers(0, 9)),
    min_size=30,
    max_size=60,
)


@settings(PROBABLE, max_examples=100)
@given(pages=st.integers(1, 7), size=st.integers(1, 4), drawn=steps)
def test_pages_are_in_one_place_and_shared_ones_hold_the_same_text(pages, size, drawn):
    """Texts of two tokens, so that many begin alike."""
    cache, texts = PagedCache(MODEL.config, pages, size), {}
    held = {}  # page -> the text up to its end, where a table filled it last
    for action, number in drawn:
        tables = [*texts]
        if action == "open":
            texts[cache.open()] = [number & 1, number >> 1 & 1, number >> 2 & 1]
        elif action == "forget" and number == 0:
            cache.forget()
        elif tables and action == "close":
            table = tables[number % len(tables)]
            cache.close(table)
            del texts[table]
        elif tables:
            table = tables[number % len(tables)]
            text = texts[table] = texts[table] + [number & 1]
            cache.share(table, text)
            whole = len(text) - table.length
            if cache.pages(len(text)) - len(table.pages) + 1 <= cache.room:
                cache.extend(table, whole)
                for index in range(table.length // size, cache.pages(len(text))):
                    held[table.pages[index]] = text[: (index + 1) * size]
                cache.advance(table, text)
        consistent(cache)
        for table, text in texts.items():
            for index, page in enumerate(table.pages):
                end = min((index + 1) * size, table.length)
                assert held[page][:end] == text[:end]
