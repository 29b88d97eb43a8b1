"""A reader's program, checked by mypy in strict mode (`make lint`); it is never run.

`assert_type` says what each result is to a type checker, so that an `Any` cannot slip in.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

from torch import Tensor

import qwenkit as qk
from qwenkit.serve import Request, Scheduler


def load() -> tuple[qk.QwenForCausalLM, qk.Tokenizer]:
    model, tokenizer = qk.load_pretrained(Path("folder"), device="cpu", dtype="float32")
    assert_type(model, qk.QwenForCausalLM)
    assert_type(tokenizer, qk.Tokenizer)
    assert_type(qk.load_model("folder"), qk.QwenForCausalLM)
    assert_type(model.config, qk.QwenConfig)
    assert_type(model.config.num_parameters, int)
    assert_type(qk.resolve(None), Path)
    return model, tokenizer


def look(model: qk.QwenForCausalLM, tokenizer: qk.Tokenizer) -> None:
    ids = tokenizer("def f(x):")
    assert_type(ids, Tensor)
    assert_type(tokenizer.encode("x"), list[int])
    assert_type(tokenizer.decode([1, 2]), str)
    assert_type(tokenizer.token_strings(ids), list[str])
    trace = qk.Trace(keep=["layers.0.attn.pattern"])
    assert_type(model(ids, trace=trace), Tensor)
    assert_type(model(ids, cache=qk.KVCache(model.config, 1, 16)), Tensor)
    assert_type(trace["layers.0.attn.pattern"], Tensor)


def write(model: qk.QwenForCausalLM, tokenizer: qk.Tokenizer) -> None:
    assert_type(qk.complete(model, tokenizer, "x", stream=True, temperature=0.5), str)
    assert_type(qk.fill(model, tokenizer, "def f(", ")"), str)
    assert_type(qk.stream(model, tokenizer, "x"), Iterator[str])
    assert_type(qk.complete_batch(model, tokenizer, ["x", "y"]), list[str])
    for step in qk.generate(model, tokenizer("x"), max_new_tokens=3):
        assert_type(step, qk.Step)
        assert_type(step.token_id, int)
        assert_type(step.probability, float)
    guessed = qk.speculate(model, tokenizer("x"), draft=model, max_new_tokens=3)
    assert_type(guessed, qk.Speculation)
    assert_type(next(guessed), qk.Step)
    assert_type(guessed.accepted, int)
    assert_type(qk.beam_search(model, tokenizer("x"), num_beams=2), list[qk.Beam])
    assert_type(qk.Conversation(model, tokenizer).say("hello"), str)


def serve(model: qk.QwenForCausalLM) -> None:
    scheduler = Scheduler(model, max_tokens=64)
    request = scheduler.submit([1, 2], qk.GenerationConfig(seed=1))
    assert_type(request, Request)
    assert_type(scheduler.step(), list[Request])
    assert_type(request.new, list[int])
    assert_type(scheduler.cache.waste, float)


def change(model: qk.QwenForCausalLM) -> None:
    assert_type(qk.quantize(model), dict[str, float])
    assert_type(qk.quantize(model, "int4", method="awq", text="x"), dict[str, float])
    with qk.plain(model):
        print(qk.explain(model))
    checkpoint = qk.Checkpoint("folder")
    assert_type(checkpoint.problems(), list[str])
    assert_type(checkpoint.load(), dict[str, Tensor])
    qk.save_pretrained(model, "folder")
