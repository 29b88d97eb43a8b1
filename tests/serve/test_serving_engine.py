"""The engine: texts from another thread, in pieces, and an end for each of them."""

import threading

import pytest
from http_asking import PATIENCE, until
from serving import consistent
from speaking import says

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.generate import GenerationConfig
from qwenkit.generate.text import TextWriter
from qwenkit.serve.engine import BusyError, ClosedError, Engine, Job


class Told:
    """Collects what is told of a job."""

    def __init__(self):
        self.pieces, self.threads, self.ended = [], set(), threading.Event()

    def __call__(self, job, piece):
        assert not self.ended.is_set(), "the end comes last, and once"
        self.pieces.append(piece)
        self.threads.add(threading.current_thread().name)
        if job.reason:
            self.ended.set()

    def text(self):
        assert self.ended.wait(PATIENCE)
        return "".join(self.pieces)


@pytest.fixture
def engine(coder):
    """An engine that runs tiny-coder."""
    engine = Engine(coder[0], max_jobs=4, max_tokens=256, max_batch_size=2)
    engine.start()
    yield engine
    engine.close()
    assert not engine._thread.is_alive()
    assert not engine._live
    assert not engine._jobs
    assert engine.scheduler.cache.used == 0
    consistent(engine.scheduler.cache)


@pytest.fixture
def job(coder):
    """Give a function that makes a job."""

    def make(prompt="def add(a, b):\n    return", stops=(), **options):
        _, tokenizer = coder
        config = GenerationConfig(**{"max_new_tokens": 6, **options})
        return Job(tokenizer.encode(prompt), config, TextWriter(tokenizer, stops), Told())

    return make


def test_the_text_is_that_of_complete_and_comes_from_the_engines_thread(coder, engine, job):
    asked = [
        ("def add(a, b):\n    return", {"max_new_tokens": 3}, "length"),
        ("def add(a, b):\n    return", {"max_new_tokens": 60}, "stop"),
        ("import", {"max_new_tokens": 3}, "length"),
        ("x = [", {"max_new_tokens": 2, "temperature": 1.0, "seed": 3}, "length"),
    ]
    want = [qk.complete(*coder, prompt, **options) for prompt, options, _ in asked]
    jobs = [job(prompt, **options) for prompt, options, _ in asked]
    engine.submit(jobs)
    assert [one.told.text() for one in jobs] == want
    assert [one.reason for one in jobs] == [reason for *_, reason in asked]
    assert {name for one in jobs for name in one.told.threads} == {"qwenkit-engine"}
    assert len(jobs[0].new) == 3


def test_a_stop_string_ends_a_text_and_no_more_tokens_are_computed(coder, engine, job):
    free = qk.complete(*coder, "def add(a, b):\n    return", 6)
    one = job(stops=["+ b"], max_new_tokens=60)
    engine.submit([one])
    assert one.told.text() == free.partition("+ b")[0]
    assert one.reason == "stop"
    assert 0 < len(one.new) < 6


def test_a_character_is_whole_and_a_stop_token_is_not_text(coder, engine, job, monkeypatch):
    model, tokenizer = coder
    said = tokenizer.encode("é😀a")
    assert len(said) == 7  # a byte each
    says(model, monkeypatch, [*said, model.stop_ids[0]])
    one = job(max_new_tokens=20)
    engine.submit([one])
    assert one.told.text() == "é😀a"
    assert one.told.pieces == ["é", "😀", "a", ""]
    assert (one.reason, len(one.new)) == ("stop", 8)


def test_a_job_that_is_canceled_ends_at_once_and_others_go_on(engine, job):
    long, other = job(stop_ids=(), max_new_tokens=200), job()
    engine.submit([long, other])
    until(lambda: long.new)
    engine.cancel([long])
    assert long.told.ended.wait(PATIENCE)
    assert (long.reason, len(long.new) < 200) == ("canceled", True)
    assert other.told.text()
    engine.cancel([long, other])  # nothing changes for those that have ended
    again = job()
    engine.submit([again])
    assert again.told.text() == other.told.text()
    assert (long.reason, other.reason) == ("canceled", "stop")


def test_too_many_jobs_are_refused_all_or_none(engine, job):
    jobs = [job(stop_ids=(), max_new_tokens=100) for _ in range(3)]
    engine.submit(jobs)
    more = [job(), job()]
    with pytest.raises(BusyError, match="3 texts are being written or wait, and 2 more"):
        engine.submit(more)
    engine.submit(more[:1])
    assert not more[1].told.pieces
    assert all(one.told.text() for one in (*jobs, more[0]))
    engine.submit(more[1:])
    assert more[1].told.text()


def test_closing_ends_every_job(coder, job):
    engine = Engine(coder[0], max_tokens=256, max_batch_size=1)
    engine.start()
    jobs = [job(stop_ids=(), max_new_tokens=200) for _ in range(3)]
    engine.submit(jobs)
    until(lambda: jobs[0].new)
    engine.close()
    assert [one.reason for one in jobs] == ["canceled"] * 3
    assert all(one.told.ended.is_set() for one in jobs)
    with pytest.raises(ClosedError):
        engine.submit([job()])
    engine.close()  # nothing more happens
    Engine(coder[0], max_tokens=64).close()  # one that never ran


def test_what_goes_wrong_ends_the_jobs_it_concerns_and_the_engine_goes_on(coder, monkeypatch, job):
    model, _ = coder
    engine = Engine(model, max_tokens=256)
    engine.start()
    broken = job()
    with monkeypatch.context() as patch:
        patch.setattr(model, "forward", lambda *_, **__: 1 / 0)
        engine.submit([broken])
        assert broken.told.ended.wait(PATIENCE)
    assert broken.reason == "failed"
    assert isinstance(broken.error, ZeroDivisionError)
    with monkeypatch.context() as patch:
        forward = model.forward
        patch.setattr(model, "forward", lambda *a, **k: forward(*a, **k) * float("nan"))
        nan = job()
        engine.submit([nan])
        assert nan.told.ended.wait(PATIENCE)
    assert (nan.reason, type(nan.error)) == ("failed", InputError)
    sound = job()
    engine.submit([sound])
    assert sound.told.text()
    engine.close()
    assert engine.scheduler.cache.used == 0


@pytest.mark.parametrize(("prompt", "count", "message"), [
    ([5] * 40, 25, "a prompt of 40 tokens with 25 new ones is longer than the context of 64"),
    ([5] * 65, 1, "longer than the context of 64"),
    ([10**6], 1, "ids must lie between"),
    ([], 1, "at least one id"),
])  # fmt: skip
def test_a_prompt_that_is_none_or_could_become_too_long_is_refused(coder, prompt, count, message):
    engine = Engine(coder[0], max_tokens=64)
    engine.check([5] * 40, 24)
    with pytest.raises(InputError, match=message):
        engine.check(prompt, count)
    assert Engine(coder[0], max_tokens=8192).context == coder[0].config.max_position_embeddings
    with pytest.raises(InputError, match="max_jobs is 0"):
        Engine(coder[0], max_jobs=0)
