"""The real Qwen2.5-Coder-0.5B against transformers. Needs QWENKIT_MODEL to name its folder."""

import argparse
import json
import math
import os
import textwrap
from pathlib import Path

import pytest
import torch
from fixtures_toy import PEAK_OF_LOAD, python
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, Qwen2ForCausalLM

import qwenkit as qk
from qwenkit.checkpoint import Checkpoint
from qwenkit.lora import lora_layers


def why_not() -> str:
    """Say why these tests cannot run; an empty string when they can."""
    loud = "THE REAL MODEL WAS NOT TESTED: "
    named = os.environ.get("QWENKIT_MODEL")
    if not named:
        return loud + "set QWENKIT_MODEL to the folder of Qwen2.5-Coder-0.5B or its Instruct"
    try:
        config = json.loads((Path(named).expanduser() / "config.json").read_text())
    except (OSError, ValueError) as error:
        return loud + f"QWENKIT_MODEL={named} holds no config.json ({error})"
    found = (config.get("vocab_size"), config.get("num_hidden_layers"))
    if found != (151_936, 24):
        return loud + f"QWENKIT_MODEL={named} is another model (rows, layers: {found})"
    return ""


REASON = why_not()
pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(REASON), reason=REASON)]
CODE = Path(argparse.__file__).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder():
    return Path(os.environ["QWENKIT_MODEL"]).expanduser()


@pytest.fixture(scope="module")
def ours(folder):
    return qk.load_pretrained(folder, dtype="float32")


@pytest.fixture(scope="module")
def theirs(folder):
    return Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_the_checkpoint_is_the_published_one(folder):
    checkpoint = Checkpoint(folder)
    assert checkpoint.problems() == []
    assert checkpoint.config.num_parameters == 494_032_768
    assert checkpoint.nbytes == 2 * 494_032_768
    assert checkpoint.config.rope_theta == 1_000_000
    assert "lm_head.weight" not in checkpoint.tensors


def test_ids_equal_those_of_transformers(folder, ours):
    theirs = AutoTokenizer.from_pretrained(folder)
    tokenizer = ours[1]
    assert tokenizer.num_tokens == 151_665
    for text in (CODE[:8_000], "面積は幅×高さ 🙂 naïve\r\n\t", "<|im_start|>user\nhi<|im_end|>"):
        ids = tokenizer.encode(text)
        assert ids == theirs(text).input_ids
        assert tokenizer.decode(ids) == text
    assert tokenizer.special["<|endoftext|>"] == 151_643
    assert tokenizer.special["<|im_end|>"] == 151_645
    assert tokenizer.special["<|fim_prefix|>"] == 151_659


def test_chat_equals_that_of_transformers(folder, ours):
    if ours[1].chat_template is None:
        pytest.skip("the base model has no chat template")
    theirs = AutoTokenizer.from_pretrained(folder)
    talk = [
        {"role": "user", "content": "Sum a list."},
        {"role": "assistant", "content": "sum(x)"},
        {"role": "user", "content": "Now the mean."},
    ]
    system = [{"role": "system", "content": "You write Python."}]
    parameters = {"type": "object", "properties": {"größe": {"type": "number"}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    for messages in (talk, system + talk):
        for tools in (None, [tool]):
            want = theirs.apply_chat_template(
                messages, tools=tools, tokenize=False, add_generation_prompt=True
            )
            assert ours[1].chat(messages, tools=tools) == want


def test_logits_equal_those_of_transformers_on_code(ours, theirs):
    model, tokenizer = ours
    start = CODE.index("class ArgumentParser(")
    ids = tokenizer(CODE[start : start + 3_000])[:, :300]
    assert ids.shape == (1, 300)
    with torch.no_grad():
        want = theirs(ids).logits
    got = model(ids)
    assert want.std() > 1
    assert (got - want).abs().max() <= 1e-4
    assert torch.equal(got.argmax(-1), want.argmax(-1))
    predicted = (got[0, :-1].argmax(-1) == ids[0, 1:]).float().mean()
    assert predicted > 0.4  # it knows Python: a wrong model that agrees with itself would not


def test_greedy_text_equals_that_of_transformers_over_200_tokens(ours, theirs):
    model, tokenizer = ours
    prompt = textwrap.dedent('''\
        class Matrix:
            """A dense matrix of floats, stored row by row."""

            def __init__(self, rows):
        ''')
    ids = tokenizer(prompt)
    want = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=200, do_sample=False,
        temperature=None, top_k=None, top_p=None, repetition_penalty=1.0,
        eos_token_id=None, pad_token_id=151_643,
    )[0, ids.shape[1] :].tolist()  # fmt: skip
    got = [step.token_id for step in qk.generate(model, ids, 200, stop_ids=())]
    assert tokenizer.decode(got) == tokenizer.decode(want)
    assert got == want
    assert len(got) == 200
    assert "self.rows" in tokenizer.decode(got)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's /proc")
def test_loading_in_bfloat16_costs_the_file_once(folder):
    size = sum(file.stat().st_size for file in Checkpoint(folder).files)
    done = python(PEAK_OF_LOAD, folder, "bfloat16")
    assert done.returncode == 0, done.stderr
    assert 0.9 * size <= int(done.stdout) <= 1.1 * size


def test_int8_chooses_the_same_token_and_foresees_as_well(folder, ours):
    """On code that no model of before 2026 has seen: this repository's own."""
    model, tokenizer = ours
    small, _ = qk.load_pretrained(folder, device="cpu", dtype="int8")
    package = Path(qk.__file__).parent
    folders = ("", "model", "fast", "config", "checkpoint")
    files = [file for name in folders for file in sorted((package / name).glob("*.py"))]
    same = total = 0
    losses = [0.0, 0.0]
    for file in files:
        ids = tokenizer(file.read_text(encoding="utf-8"))[:, :512]
        logits = [one(ids)[0, :-1].float() for one in (model, small)]
        same += int((logits[0].argmax(-1) == logits[1].argmax(-1)).sum())
        total += len(logits[0])
        for number, one in enumerate(logits):
            losses[number] += cross_entropy(one, ids[0, 1:], reduction="sum").item()
    assert total > 10_000
    assert same / total >= 0.98
    perplexity = [math.exp(loss / total) for loss in losses]
    assert perplexity[1] == pytest.approx(perplexity[0], rel=0.02)


def test_an_adapter_gives_the_same_logits_in_peft(ours, theirs, tmp_path):
    model, tokenizer = ours
    ids = torch.tensor([tokenizer.encode(CODE)[:128]])
    plain = model(ids)
    generator = torch.Generator().manual_seed(0)
    qk.add_lora(model, rank=8, targets=("q_proj", "v_proj", "down_proj"))
    try:
        for layer in lora_layers(model).values():  # the size that a few steps of training give
            layer.lora_B.weight.data.normal_(std=1e-3, generator=generator)
        qk.save_adapter(model, tmp_path)
        peft = PeftModel.from_pretrained(theirs, str(tmp_path)).eval()
        with torch.no_grad():
            got, want = model(ids), peft(ids).logits
            qk.merge_lora(model)
            merged = model(ids)
        peft.unload()
    finally:
        qk.unmerge_lora(model)
        qk.remove_lora(model)
    assert (got - plain).abs().max() > 0.1
    assert (got - want).abs().max() <= 1e-3
    assert (got - merged).abs().max() <= 1e-2
    assert torch.equal(model(ids), plain)
