"""Rehearsing for MPS what a reader does with a model: all of it would run there."""

import pytest
import torch
from fixtures_toy import toy_of
from train.small import small_model, small_trainer

import qwenkit as qk
from mps import rehearse
from qwenkit import interpret
from qwenkit.generate import Conversation, complete_batch, fill, score_text, stream
from qwenkit.lora import add_lora, merge_lora, unmerge_lora
from qwenkit.model import KVCache
from qwenkit.trace import Trace

VERSION = "2.13.0"  # its known defects: those that the pinned torch has
SHORT = {"max_new_tokens": 3, "stop_ids": ()}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return qk.load_pretrained(toy_of(tmp_path_factory), device="cpu")


def talks(model, tokenizer):
    talk = Conversation(model, tokenizer, system="Be short.")
    talk.say("one", **SHORT)
    talk.say("two", temperature=0.7, seed=1, **SHORT)
    talk.undo()
    talk.say("three", **SHORT)


def streams(model, tokenizer):
    return stream(model, tokenizer, "def f", stop_strings=["\n"], **SHORT)


def fills_in(model, tokenizer):
    fill(model, tokenizer, "def f(", "):", **SHORT)


def scores_a_text(model, tokenizer):
    score_text(model, tokenizer, "def f(x): return x")


def completes_several(model, tokenizer):
    complete_batch(model, tokenizer, ["def f", "x"], temperature=0.9, seed=3, **SHORT)


def trims_and_reorders_a_cache(model, tokenizer):
    ids = tokenizer("def f(x):").to(model.device).expand(2, -1)
    cache = KVCache(model.config, 2, 64)
    model(ids, cache=cache)
    cache.trim(2)
    cache.reorder([1, 1])
    model(ids, cache=cache)
    cache.reset()
    model(ids[:, :1], cache=cache)


def reads_the_stream_early(model, tokenizer):
    interpret.logit_lens(model, tokenizer("def f(x):").to(model.device))


def attributes_a_logit(model, tokenizer):
    interpret.attribute_logit(model, tokenizer("def f(x):").to(model.device))


def switches_heads_off(model, tokenizer):
    ids = tokenizer("def f(x):").to(model.device)
    means = interpret.mean_outputs(model, ids)
    model(ids, trace=Trace(edits=interpret.ablate_heads([(0, 1), (1, 0)], means)))
    interpret.head_effects(model, ids, lambda logits: logits[0, -1, 0], means)


def patches(model, tokenizer):
    clean = tokenizer("def f(x)").to(model.device)
    corrupted = clean.clone()
    corrupted[0, 1] = 5
    for patch in (interpret.patch_residual, interpret.patch_heads):
        patch(model, clean, corrupted, lambda logits: logits[0, -1, 0])


def scores_heads(model, tokenizer):
    interpret.induction_scores(model, length=6, batch_size=2)
    interpret.duplicate_token_scores(model, length=6, batch_size=2)
    ids = interpret.repeated_tokens(model, length=6, batch_size=2)
    interpret.sink_shares(model, ids)
    interpret.attention_entropy(model, ids)


def finds_where_two_runs_part(model, tokenizer):
    ids = tokenizer("def f(x)").to(model.device)
    interpret.divergences(model, model, ids, ids.flip(1))


USES = [
    talks, streams, fills_in, scores_a_text, completes_several, trims_and_reorders_a_cache,
    reads_the_stream_early, attributes_a_logit, switches_heads_off, patches, scores_heads,
    finds_where_two_runs_part,
]  # fmt: skip


@pytest.mark.parametrize("use", USES, ids=[use.__name__ for use in USES])
def test_it_would_run(toy, use):
    report = rehearse(use, *toy, torch_version=VERSION)
    assert report.ok, str(report)
    assert report.operators["aten::embedding"] > 0  # the model did compute on the device


def test_a_step_of_training_lora_with_dropout_would_run():
    model = small_model()
    add_lora(model, rank=3, dropout=0.2, targets=("q_proj", "v_proj", "down_proj"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    trainer = small_trainer(model=model)
    model.train()

    def learns():
        trainer.train_step()
        merge_lora(model)
        unmerge_lora(model)

    report = rehearse(learns, torch_version=VERSION)
    assert report.ok, str(report)
    assert report.operators["aten::bernoulli_.float"] == 3 * 2  # each target, in two layers
    assert trainer.step == 1
