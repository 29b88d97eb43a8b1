"""Rehearsing what a reader does with a model: all of it would run on MPS."""

from collections import Counter

import pytest
import torch
from fixtures_toy import toy_of
from reference import VARIANTS, ids, left_padding, tiny
from torch.utils.checkpoint import checkpoint
from train.small import held_out_loss, small_model, small_trainer

import qwenkit as qk
from mps import rehearse
from qwenkit import interpret
from qwenkit.fast import swap
from qwenkit.generate import score_text
from qwenkit.model import MLP, Attention, DecoderLayer, RMSNorm, RotaryEmbedding
from qwenkit.model.mask import attention_mask

DTYPES = (torch.float32, torch.bfloat16)
VERSION = "2.13.0"  # its known defects: those that the pinned torch has
FUSED = "aten::_scaled_dot_product_attention_math_for_mps"
SHORT = {"max_new_tokens": 3, "stop_ids": ()}
SAMPLED = {**SHORT, "temperature": 0.9}


def no_problems(fn, *inputs):
    report = rehearse(fn, *inputs, torch_version=VERSION)
    assert report.ok, str(report)
    return report


def accelerated(**overrides):
    """Return a tiny model as it would be on MPS, where each is accelerated."""
    return swap(tiny(**overrides))


def files(syncs):
    """Return how often each file waits with each operator."""
    return Counter({(one.operator, one.where.rpartition(":")[0]): one.count for one in syncs})


def test_a_plain_model_meets_the_defect_of_a_product_with_a_bias():
    report = rehearse(tiny(), ids(2, 6), torch_version=VERSION)
    assert [(one.operator, one.count) for one in report.problems] == [("F.linear", 3)] * 3
    assert all("#192934" in one.message for one in report.problems)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_parts_of_the_model_would_run(dtype):
    config = tiny().config
    x = torch.randn(2, 5, config.hidden_size, dtype=dtype)
    rotary = RotaryEmbedding(config)
    rope = rotary(torch.arange(5)[None], dtype)
    for part, others in (
        (RMSNorm(config.hidden_size), ()),
        (MLP(config), ()),
        (Attention(config, 0), (rope, None)),
        (DecoderLayer(config, 0), (rope, attention_mask(5, 0))),
        (DecoderLayer(config, 0), (rope, attention_mask(5, 0, window=2))),
    ):
        no_problems(swap(part).to(dtype), x, *others)
    assert no_problems(rotary, torch.arange(5)[None], dtype).operators["aten::cos"] == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_of_the_model_would_run(variant, dtype):
    model = accelerated(**VARIANTS[variant], dtype=dtype)
    report = no_problems(model, ids(2, 6))
    assert report.operators[FUSED] == model.config.num_hidden_layers
    note = "bfloat16 was used: on MPS it needs macOS 14 or newer"
    assert report.notes == [note] * (dtype == torch.bfloat16)


@pytest.mark.parametrize("home", ["cpu", "meta"])
@pytest.mark.parametrize("variant", ["gqa", "sliding", "yarn"])
def test_padding_and_the_cache_would_run_with_values_and_without(variant, home):
    model = accelerated(**VARIANTS[variant]).to(home)
    prompt, mask = ids(2, 6).to(home), left_padding([6, 4], 6).to(home)
    report = no_problems(model, prompt)
    assert report.operators[FUSED] == 3
    assert bool(report.syncs) == (home == "cpu")  # without values nothing is waited for
    no_problems(lambda: model(prompt, attention_mask=mask))
    cache = qk.KVCache(model.config, 2, 16)
    for length in (6, 3, 1):  # the prompt, a chunk, one token
        no_problems(lambda x: model(x, cache=cache), ids(2, length).to(home))
    assert cache.length == 10


def test_a_traced_and_edited_model_would_run():
    model = accelerated()
    trace = qk.Trace(keep=None, edits={"layers.1.mlp.out": lambda x: x * 0.5})
    report = no_problems(lambda x: model(x, trace=trace), ids(2, 6))
    assert report.operators["aten::_softmax"] == 3
    assert FUSED not in report.operators
    no_problems(interpret.previous_token_scores, model, ids(1, 6))


def test_generating_waits_once_a_token_for_the_logits_and_once_a_forward_to_check_the_ids():
    model = accelerated()
    report = no_problems(lambda x: qk.generate(model, x, max_new_tokens=4, stop_ids=()), ids(1, 6))
    found = files(report.syncs)
    assert found["Tensor.cpu", "qwenkit/generate/steps.py"] == 4
    assert found["Tensor.tolist", "qwenkit/model/inputs.py"] == 4 + 1  # and the prompt, before
    assert "aten::argmax" not in report.operators  # choosing is done on the host


def test_every_way_of_generating_would_run():
    model = accelerated()
    chosen = {"temperature": 0.8, "top_k": 9, "top_p": 0.9, "repetition_penalty": 1.3, "seed": 1}
    no_problems(lambda x: qk.generate(model, x, **chosen, **SHORT), ids(1, 6))
    no_problems(lambda: qk.generate_batch(model, [[1, 2, 3], [4]], seed=1, **SHORT))
    no_problems(lambda x: qk.speculate(model, x, model, **chosen, **SHORT), ids(1, 6))
    no_problems(lambda x: qk.beam_search(model, x, num_beams=2, max_new_tokens=3), ids(1, 6))


def test_a_quantized_model_would_run():
    model = tiny(intermediate_size=96)  # torch's int8 product takes multiples of 32 alone
    qk.quantize(model)  # 64 does not divide 96: by rows
    swap(model)
    report = no_problems(model, ids(1, 1))
    assert report.operators["aten::_weight_int8pack_mm"] == 7 * 3  # not the head, in float32
    no_problems(model, ids(2, 20))  # dequantized in chunks
    no_problems(lambda x: qk.generate(model, x, max_new_tokens=2, stop_ids=()), ids(1, 6))


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_quantized_in_groups_would_run(tied, dtype):
    model = tiny(tie_word_embeddings=tied)
    qk.quantize(model, dtype, group=16)
    no_problems(model, ids(2, 20))  # dequantized whole
    swap(model)
    no_problems(model, ids(2, 20))  # in chunks
    no_problems(lambda x: qk.generate(model, x, max_new_tokens=2, stop_ids=()), ids(1, 6))


@pytest.mark.parametrize("autocast", ["float32", "bfloat16"])
def test_a_training_step_would_run(autocast):
    settings = {"label_smoothing": 0.1, "accumulate": 2, "clip": 0.5, "evaluate_every": 1}
    trainer = small_trainer(
        model=swap(small_model()), autocast=autocast, evaluate=held_out_loss, **settings
    )
    report = no_problems(trainer.train_step)
    assert trainer.step == 1
    done = report.operators
    assert done["aten::_fused_adamw_"] == 2  # matrices, and what does not decay
    assert done["aten::_softmax_backward_data"] > 0  # eager attention, as on MPS
    assert not [name for name in done if "flash" in name]
    assert done["aten::_foreach_norm.Scalar"] == 0  # on MPS each gradient's norm is its own
    assert bool(report.notes) == (autocast == "bfloat16")
    assert {file.removeprefix("qwenkit/") for _, file in files(report.syncs)} == {
        "device.py", "model/inputs.py", "train/evaluation.py", "train/losses.py", "train/loop.py",
    }  # fmt: skip


def test_what_is_computed_again_in_the_backward_pass_would_run():
    model = accelerated().requires_grad_(True)
    layer = model.model.layers[0]
    rope = model.model.rotary_emb(torch.arange(5)[None])
    x = torch.randn(2, 5, model.config.hidden_size, requires_grad=True)

    again = no_problems(
        lambda x: checkpoint(layer, x, rope, None, use_reentrant=False).sum().backward(), x
    )
    once = no_problems(lambda x: torch.autograd.grad(layer(x, rope, None).sum(), x), x)
    assert again.operators["aten::rsqrt"] == 2 * once.operators["aten::rsqrt"] == 4


def test_lora_that_is_added_inside_and_a_step_of_training_it_with_dropout_would_run():
    model = accelerated()
    no_problems(lambda x: (qk.add_lora(model, rank=2, dropout=0.1), model(x)), ids(1, 6))
    model = swap(small_model())
    qk.add_lora(model, rank=3, dropout=0.2, targets=("q_proj", "v_proj", "down_proj"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    trainer = small_trainer(model=model)
    model.train()
    report = no_problems(
        lambda: (trainer.train_step(), qk.merge_lora(model), qk.unmerge_lora(model))
    )
    assert report.operators["aten::bernoulli_.float"] == 3 * 2  # each target, in two layers
    assert trainer.step == 1


# --- with the tokenizer ---


def talks(model, tokenizer):
    talk = qk.Conversation(model, tokenizer, system="Be short.")
    talk.say("one", **SHORT)
    talk.say("two", temperature=0.7, seed=1, **SHORT)
    talk.undo()
    talk.say("three", **SHORT)


def trims_and_reorders_a_cache(model, tokenizer):
    text = tokenizer("def f(x):").to(model.device).expand(2, -1)
    cache = qk.KVCache(model.config, 2, 64)
    model(text, cache=cache)
    cache.trim(2)
    cache.reorder([1, 1])
    model(text, cache=cache)
    cache.reset()
    model(text[:, :1], cache=cache)


def switches_heads_off(model, tokenizer):
    text = tokenizer("def f(x):").to(model.device)
    means = interpret.mean_outputs(model, text)
    model(text, trace=qk.Trace(edits=interpret.ablate_heads([(0, 1), (1, 0)], means)))
    interpret.head_effects(model, text, lambda logits: logits[0, -1, 0], means)


def patches(model, tokenizer):
    clean = tokenizer("def f(x)").to(model.device)
    corrupted = clean.clone()
    corrupted[0, 1] = 5
    for patch in (interpret.patch_residual, interpret.patch_heads):
        patch(model, clean, corrupted, lambda logits: logits[0, -1, 0])


def scores_heads(model, tokenizer):
    text = interpret.repeated_tokens(model, length=6, batch_size=2)
    for score in (interpret.induction_scores, interpret.duplicate_token_scores):
        score(model, length=6, batch_size=2)
    for score in (interpret.sink_scores, interpret.attention_entropy):
        score(model, text)


USES = {
    "talks": talks, "streams": lambda m, t: qk.stream(m, t, "def f", stop_strings=["\n"], **SHORT),
    "fills_in": lambda m, t: qk.fill(m, t, "def f(", "):", **SHORT),
    "scores_a_text": lambda m, t: score_text(m, t, "def f(x): return x"),
    "completes_several": lambda m, t: qk.complete_batch(m, t, ["def f", "x"], seed=3, **SAMPLED),
    "trims_and_reorders_a_cache": trims_and_reorders_a_cache,
    "reads_the_stream_early": lambda m, t: interpret.logit_lens(m, t("def f(x):").to(m.device)),
    "attributes_a_logit": lambda m, t: interpret.attribute_logit(m, t("def f(x):").to(m.device)),
    "switches_heads_off": switches_heads_off, "patches": patches,
    "scores_heads": scores_heads,
    "finds_where_two_runs_part": lambda m, t: interpret.divergences(
        m, m, (text := t("def f(x)").to(m.device)), text.flip(1)
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    model, tokenizer = qk.load_pretrained(toy_of(tmp_path_factory), device="cpu")
    return swap(model), tokenizer


@pytest.mark.parametrize("use", USES)
def test_it_would_run(toy, use):
    report = no_problems(USES[use], *toy)
    assert report.operators["aten::embedding"] > 0  # the model did compute on the device
