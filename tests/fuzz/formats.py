"""The formats that are fuzzed: valid files of each, what loads them, and what must be equal."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path += [str(HERE.parent), str(HERE.parent / "train"), str(HERE.parent / "lora")]
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import gguf  # noqa: E402
import peft  # noqa: E402
import small  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from edits import ODD  # noqa: E402
from gguf_writing import Kind, gguf_name, write_gguf  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from learned import learned  # noqa: E402
from reference import pair  # noqa: E402
from safetensors.torch import load, load_file  # noqa: E402

import qwenkit as qk  # noqa: E402
from qwenkit.checkpoint import Checkpoint, read_header  # noqa: E402
from qwenkit.cli import main as command  # noqa: E402
from qwenkit.errors import QwenkitError  # noqa: E402
from qwenkit.lora import lora_layers  # noqa: E402
from qwenkit.tokenizer import byte_alphabet  # noqa: E402
from qwenkit.train import run as train_run  # noqa: E402
from qwenkit.widgets import CheckpointBrowser  # noqa: E402

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)
IDS = torch.tensor([[5, 60, 0, 17, 17, 3, 42]])
READY: dict[str, Any] = {}  # what a child makes once


@dataclass
class Format:
    """One kind of file.

    Args:
        make: writes valid files into an empty folder.
        names: which of them are edited.
        ours: reads the folder with qwenkit and returns what it read.
        theirs: says how the reference's result differs from ours, None where it does not; it
            raises where the reference refuses the folder.
        ready: makes what each reading needs, once; it gets an empty folder.
        hints: see `edits.edits`.
        texts: what is inserted and set, besides random JSON.
    """

    make: Callable[[Path], Any]
    names: tuple[str, ...]
    ours: Callable[[Path], Any]
    theirs: Callable[[Path, Any], str | None]
    ready: Callable[[Path], Any] = lambda folder: None
    hints: dict[str, Any] = field(default_factory=dict)
    texts: tuple[str, ...] = ODD


def files(name: str) -> dict[str, bytes]:
    """Return a format's valid files."""
    with tempfile.TemporaryDirectory() as folder:
        FORMATS[name].make(Path(folder))
        return read(Path(folder))


def read(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each file below a folder."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def write(folder: Path, content: dict[str, bytes]) -> None:
    """Make a folder that holds these files alone."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def unlike(what: str, ours: torch.Tensor, theirs: torch.Tensor) -> str | None:
    """Say that two tensors differ by more than rounding."""
    limit = 1e-4 * theirs[theirs.isfinite()].abs().max().item() if theirs.isfinite().any() else 0
    same = ours.shape == theirs.shape and torch.allclose(
        ours.float(), theirs.float(), rtol=1e-3, atol=limit, equal_nan=True
    )
    return None if same else f"other {what}"


def write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False))


@contextmanager
def resaved(folder: Path, save: Callable[[Path], None], *names: str) -> Iterator[Path]:
    """Save what was read into another folder; these files must say what they said."""
    with tempfile.TemporaryDirectory() as out:
        save(Path(out))
        for name in names:
            old, new = (said(place / name) for place in (folder, Path(out)))
            assert old == new, f"a save changes {name}"
        yield Path(out)


def said(path: Path) -> Any:
    """Return a file's keys in order, each with its JSON in one spelling; or else its bytes."""
    data = path.read_bytes() if path.exists() else b""
    try:
        return [(key, json.dumps(value, sort_keys=True)) for key, value in json.loads(data).items()]
    except (ValueError, AttributeError, RecursionError):
        return data  # a file that nothing reads


# --- weights ---


def make_model(folder: Path, shard: str = "1GB") -> None:
    pair()[0].save_pretrained(folder, max_shard_size=shard)


def read_tensors(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Read a file by its header; what shows a checkpoint shows this one."""
    path = folder / "model.safetensors"
    data = path.read_bytes() if path.is_file() else b""
    found = {
        info.name: (info.dtype, info.shape, data[info.start : info.start + info.nbytes])
        for info in read_header(path).values()
    }
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with redirect_stdout(printed), redirect_stderr(printed):
        command(["inspect", str(folder), "--tensors"])
        printed.flush()
    text = printed.buffer.getvalue().decode()
    assert all(line.isprintable() for line in text.splitlines()), "unprintable in inspect"
    try:
        view = CheckpointBrowser(folder).view
        json.dumps(view.data()).encode()
        view.alt().encode()
        view.rows()
        first = next(iter(view.checkpoint.tensors))
        view.checked({"asked": [first], "selected": first})
        Checkpoint(folder).load()
    except QwenkitError:
        pass  # the tensors need not fit the config
    return found


def same_tensors(folder: Path, ours: dict[str, Any]) -> str | None:
    theirs = load((folder / "model.safetensors").read_bytes())
    as_bytes = {
        name: (tuple(t.shape), t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, t in theirs.items()
    }
    return None if as_bytes == {n: one[1:] for n, one in ours.items()} else "other tensors"


def same_as_all_shards(folder: Path, ours: dict[str, torch.Tensor]) -> str | None:
    """The index alone is edited: what is accepted has the tensors of the model that was saved."""
    theirs = pair()[0].state_dict()
    same = ours.keys() == theirs.keys() and all(ours[n].equal(t) for n, t in theirs.items())
    return None if same else "other tensors"


def make_shards(folder: Path) -> None:
    make_model(folder, "20KB")


def whole(folder: Path) -> list[str]:
    """Return the index's name if it is complete; a save completes the others."""
    index, names = json.loads((folder / INDEX).read_bytes()), pair()[0].state_dict().keys()
    notes = index.get("metadata") or {}
    has_total = isinstance(notes, dict) and notes.get("total_size") == 109_440
    return [INDEX] if has_total and names <= index["weight_map"].keys() else []


def read_shards(folder: Path) -> dict[str, torch.Tensor]:
    found = Checkpoint(folder).load()
    model = qk.load_model(folder, dtype="float32", device="cpu")
    with resaved(folder, lambda out: qk.save_pretrained(model, out), *whole(folder)) as saved:
        again = Checkpoint(saved).load()
    assert list(found) == list(again), "a save changes the tensors' names"
    assert all(found[name].equal(again[name]) for name in found), "a save changes tensors"
    return found


def logits(folder: Path) -> torch.Tensor:
    model = qk.load_model(folder, dtype="float32", device="cpu")
    found = model(IDS)
    with resaved(folder, lambda out: qk.save_pretrained(model, out), "config.json") as saved:
        again = qk.load_model(saved, dtype="float32", device="cpu")(IDS)
    assert again.equal(found) or not found.isfinite().all(), "a save changes the logits"
    return found


def same_logits(folder: Path, ours: torch.Tensor) -> str | None:
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        return unlike("logits", ours, theirs.eval()(IDS).logits)


# --- GGUF ---

BYTES = sorted(byte_alphabet())[:59]


def make_gguf(folder: Path) -> None:
    """A small file, so that many of its bytes are header."""
    model, tokens = pair(num_hidden_layers=1)[1], [*BYTES, "!!", "<|im_end|>"]
    write_gguf(
        folder / GGUF, model.config, model.state_dict(), Kind.Q8_0, tokenizer__ggml__model="gpt2",
        tokenizer__ggml__pre="qwen2", tokenizer__ggml__tokens=tokens,
        tokenizer__ggml__token_type=[1] * 60 + [3], tokenizer__ggml__merges=["! !"],
        tokenizer__ggml__eos_token_id=60, tokenizer__chat_template="{{ messages }}",
    )  # fmt: skip


def read_gguf(folder: Path) -> dict[str, Any]:
    checkpoint = Checkpoint(folder / GGUF)
    with redirect_stdout(io.StringIO()) as printed, redirect_stderr(printed):
        command(["inspect", str(folder / GGUF), "--tensors"])
    assert all(line.isprintable() for line in printed.getvalue().splitlines())
    tokenizer = qk.Tokenizer(folder)
    tokenizer.encode("!! a<|im_end|>")
    tensors = checkpoint.load(torch.float32)
    model = qk.load_model(folder, dtype="float32", device="cpu")
    with resaved(folder, lambda out: qk.save_pretrained(model, out, tokenizer)) as saved:
        config = qk.load_model(saved, device="cpu").config
        assert config == replace(model.config, dtype="float32"), "a save changes the config"
        assert qk.Tokenizer(saved).special == tokenizer.special, "a save changes special tokens"
    return {
        "layers": checkpoint.config.num_hidden_layers, "eps": checkpoint.config.rms_norm_eps,
        "theta": checkpoint.config.rope_theta, "special": tokenizer.special, "tensors": tensors,
    }  # fmt: skip


def same_gguf(folder: Path, ours: dict[str, Any]) -> str | None:
    reader = gguf.GGUFReader(folder / GGUF)
    said = {name: one.contents() for name, one in reader.fields.items()}
    kinds = said["tokenizer.ggml.token_type"]
    special = {t: n for n, t in enumerate(said["tokenizer.ggml.tokens"]) if kinds[n] in (3, 4)}
    eps = said["qwen2.attention.layer_norm_rms_epsilon"]
    theta = said.get("qwen2.rope.freq_base", 10_000.0)
    facts = (said["qwen2.block_count"], special)
    if (ours["layers"], ours["special"]) != facts:
        return "other metadata"
    if torch.tensor([ours["eps"], ours["theta"]]).tolist() != [eps, theta]:
        return "other metadata"
    values = {
        one.name: torch.from_numpy(gguf.quants.dequantize(one.data, one.tensor_type).copy())
        for one in reader.tensors
    }
    for name, tensor in ours["tensors"].items():
        theirs = values[gguf_name(name)].reshape(tensor.shape)
        if not torch.allclose(tensor, theirs, rtol=0, atol=0, equal_nan=True):
            return "other tensors"
    return None


# --- generation_config.json ---

GENERATION = {
    "bos_token_id": 2, "do_sample": True, "eos_token_id": [3, 4], "pad_token_id": 3,
    "repetition_penalty": 1.1, "temperature": 0.7, "top_k": 20, "top_p": 0.8,
}  # fmt: skip


def make_generation(folder: Path) -> None:
    make_model(folder)
    write_json(folder / "generation_config.json", GENERATION)


def read_generation(folder: Path) -> tuple[list[int], Any]:
    """Return what ends a text, and what a save keeps of the file."""
    model = qk.load_model(folder, dtype="float32", device="cpu")
    with tempfile.TemporaryDirectory() as saved:
        qk.save_pretrained(model, saved)
        kept = Path(saved) / "generation_config.json"
        return list(model.stop_ids), json.loads(kept.read_text()) if kept.exists() else {}


def same_generation(folder: Path, ours: tuple[list[int], Any]) -> str | None:
    stops, kept = ours
    path = folder / "generation_config.json"
    there = json.loads(path.read_text()) if path.exists() else {}
    if path.exists() and json.dumps(kept, sort_keys=True) != json.dumps(there, sort_keys=True):
        return "a save changes generation_config.json"
    found = transformers.GenerationConfig.from_pretrained(folder).eos_token_id
    theirs = [found] if isinstance(found, int) else found
    if theirs in (None, [-1]):  # here config.json's, and transformers has none
        return None
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    return None if [i for i in theirs if i < size] == stops else "other stop tokens"


# --- tokenizers and templates ---

CHAT = """\
{%- if tools %}<|im_start|>system
# Tools
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}<|im_end|>
{% endif -%}
{%- for message in messages -%}
{%- if loop.first and message.role != 'system' %}{{ bos_token }}{% endif -%}
<|im_start|>{{ message['role'] }}
{{ message.content | trim }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
"""
JINJA = (
    "{{ messages }}", "{{ tools | tojson(indent=2) }}", "{{ eos_token }}", "{{ x }}", "{{ 1 / 0 }}",
    "{% for i in range(10**9) %}x{% endfor %}", "{% for i in range(999) %}{{ messages }}"
    "{% endfor %}", "{% set x = 'ab' * 10**9 %}", "{% set x = messages[0].content * 99999 %}",
    "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}", "{{ 9**9**9 }}",
    "{{ 'x' | center(10**10) }}", "{{ 'x' | wordwrap(10**12) }}", "{{ '%0999999999d' % 1 }}",
    "{{ 'x'.ljust(10**10) }}", "{% set x = namespace(a=[1]) %}", "{% set x.a = x.a + x.a %}",
    "{{ ''.__class__.__mro__ }}", "{{ cycler.__init__.__globals__ }}", "{{ lipsum(n=9) | length }}",
    "{{ raise_exception('no') }}", "{{ strftime_now('%Y') }}", "{% include 'x' %}", "{# x #}",
    "{% break %}", "{% generation %}x{% endgeneration %}", "{% if true %}", "{% endif %}", "{{",
    "}}", "{%", "{{ [1, 2] | join(messages) }}", "{{ messages | map(attribute='role') | list }}",
    "{{ messages[-1].tool_calls }}", "{{ 'é\\ud800' }}", "\ud800", "\0", "'" * 3, "(" * 5000,
    "{{ dict(a=1) | xmlattr }}", "{{ namespace }}", "{{ messages.append(1) }}", "{{ self }}",
    "{{ '{}'.format(messages) }}", "{{ 'a,b'.split(',')[1] }}", "{{ [3, 1] | sort | sum }}",
    "{{ {'b': 1, 'a': '<é'} | tojson }}", "{{ 1.5 | tojson }}", "{{ none }}", "{{ '\\n' | e }}",
)  # fmt: skip
TEXTS = (
    "def f(x):\n    return x  # né",
    "<|im_start|>user\n1234 <tool>a</tool>",
    "",
    " \t\r\n\n ",
    "e\u0301 日本 \U0001f600 \u200b",
    "width height <|endoftext|> <tool>",
)
MESSAGES = [{"role": "user", "content": " what is <é>? "}, {"role": "assistant", "content": "1"}]
TOOLS = [{"type": "function", "function": {"name": "zähle", "parameters": {"b": [1], "a": "<"}}}]


def make_tokenizer(folder: Path) -> None:
    small.tokenizer().save(folder)
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    last = data["added_tokens"][-1]
    data["added_tokens"].append(
        {**last, "id": last["id"] + 1, "content": "<tool>", "special": False}
    )
    write_json(path, data)
    added = {str(one.pop("id")): one for one in json.loads(path.read_text())["added_tokens"]}
    (folder / "tokenizer_config.json").unlink()
    write_json(folder / "tokenizer_config.json", {
        "add_prefix_space": False, "added_tokens_decoder": added, "bos_token": None,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "chat_template": CHAT,
        "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace",
        "model_max_length": 2048, "pad_token": "<|endoftext|>", "split_special_tokens": False,
        "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": None,
    })  # fmt: skip
    write_json(folder / "special_tokens_map.json", {
        "eos_token": {"content": "<|im_end|>", "lstrip": False, "normalized": False,
                      "rstrip": False, "single_word": False}, "pad_token": "<|endoftext|>",
    })  # fmt: skip
    write_json(folder / "added_tokens.json", {one["content"]: int(n) for n, one in added.items()})


def read_tokenizer(folder: Path) -> tuple[Any, ...]:
    tokenizer = qk.Tokenizer(folder)
    ids = [tokenizer.encode(text) for text in TEXTS]
    for text in TEXTS:
        tokenizer.encode(text, special=False)
    tokenizer.token_strings(ids[0])
    with resaved(folder, tokenizer.save, *TOKENIZER_FILES) as saved:
        again = qk.Tokenizer(saved)
    assert [again.encode(text) for text in TEXTS] == ids, "a save changes the ids"
    for name in ("bos_id", "eos_id", "pad_id", "special"):
        assert getattr(again, name) == getattr(tokenizer, name), f"a save changes {name}"
    try:
        text = tokenizer.chat(MESSAGES, tools=TOOLS)
    except QwenkitError:
        text = None
    return ids, [tokenizer.decode(one) for one in ids], text


def same_text(folder: Path, ours: tuple[Any, ...]) -> str | None:
    ids, texts, chat = ours
    # The file's own pipeline; Qwen2's class, which AutoTokenizer takes, reads some flags otherwise.
    for reader in (transformers.PreTrainedTokenizerFast, transformers.Qwen2Tokenizer):
        hf = reader.from_pretrained(folder)
        if [hf(text).input_ids for text in TEXTS] == ids:
            break
    else:
        return "other ids"
    how = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    if [hf.decode(one, **how) for one in ids] != texts:
        return "other text"
    return None if chat is None else same_chat(folder, chat)


def make_template(folder: Path) -> None:
    make_tokenizer(folder)
    (folder / "chat_template.jinja").write_text(CHAT)


def read_chat(folder: Path) -> str:
    tokenizer = qk.Tokenizer(folder)
    text = tokenizer.chat(MESSAGES, tools=TOOLS)
    with resaved(folder, tokenizer.save) as saved:
        assert (saved / TEMPLATE).read_bytes() == (folder / TEMPLATE).read_bytes()
    return text


def same_chat(folder: Path, ours: str) -> str | None:
    hf = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    how = {"tools": TOOLS, "add_generation_prompt": True, "tokenize": False}
    theirs = hf.apply_chat_template(MESSAGES, **how)
    if "<class '" in theirs or " at 0x" in theirs:  # names of its own code, places in memory
        raise ValueError("not comparable")
    return None if theirs == ours else "another chat"


# --- adapters ---


def make_adapter(folder: Path) -> None:
    targets = ["q_proj", "v_proj", "down_proj"]
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=targets, task_type="CAUSAL_LM")
    learned(peft.get_peft_model(pair()[0], config)).save_pretrained(folder)
    (folder / "README.md").unlink()


def ready_adapter(folder: Path) -> None:
    READY["theirs"], model = pair()
    READY["model"], READY["plain"] = model, model(IDS)


def read_adapter(folder: Path) -> torch.Tensor:
    model = READY["model"]
    try:
        qk.load_adapter(model, folder)
    except QwenkitError:
        assert not lora_layers(model), "a refused adapter is in the model"
        assert model(IDS).equal(READY["plain"]), "a refused adapter changed the model"
        raise
    try:
        found = model(IDS)
        with resaved(folder, lambda out: qk.save_adapter(model, out), ADAPTER) as saved:
            old, new = (load_file(f / "adapter_model.safetensors") for f in (folder, saved))
            # Those that the config excludes have no effect, and are not saved.
            assert all(old[name].dtype == tensor.dtype for name, tensor in new.items())
            qk.remove_lora(model)
            qk.load_adapter(model, saved)
            assert model(IDS).equal(found), "a save changes the logits"
        return found
    finally:
        qk.remove_lora(model)


def same_adapter(folder: Path, ours: torch.Tensor) -> str | None:
    model = peft.PeftModel.from_pretrained(READY["theirs"], str(folder)).eval()
    try:
        with torch.no_grad():
            return unlike("logits", ours, model(IDS).logits)
    finally:
        READY["theirs"] = model.unload()


# --- training checkpoints and recipes ---


def trainer_in(folder: Path) -> Any:
    early, log = qk.train.EarlyStop(3), qk.train.CsvLog(folder / "metrics.csv")
    return small.small_trainer(log, early, evaluate=small.held_out_loss, evaluate_every=1)


def make_training(folder: Path) -> None:
    trainer = trainer_in(folder)
    for _ in range(2):
        metrics = trainer.train_step()
        trainer.callbacks[1].on_step(trainer, metrics)
    qk.train.save_training(folder, trainer)


def state_of(trainer: Any) -> tuple[Any, ...]:
    weights = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    callbacks = [one.state() for one in trainer.callbacks]
    return weights, (trainer.step, trainer.tokens, trainer.batches.position), callbacks


def read_training(folder: Path) -> Any:
    with tempfile.TemporaryDirectory() as empty:
        trainer = trainer_in(Path(empty))
        weights, *rest = state_of(trainer)
        try:
            qk.train.load_training(folder, trainer)
        except QwenkitError:
            now, *others = state_of(trainer)
            assert others == rest, "a refused checkpoint changed the training"
            assert all(value.equal(weights[name]) for name, value in now.items())
            assert not trainer.optimizer.state
            raise
        found = state_of(trainer)
        callback = trainer.callbacks[1]
        callback.on_start(trainer)
        callback.on_step(trainer, trainer.train_step())
        return found


def same_training(folder: Path, ours: Any) -> str | None:
    weights, place, callbacks = ours
    step = folder / "step-000002"
    stored = load_file(step / "model.safetensors")
    state = json.loads((step / "state.json").read_text())
    if not all(weights[name].equal(value) for name, value in stored.items()):
        return "other weights"
    if place != (state["step"], state["tokens"], state["position"]):
        return "another position"
    kept = state["callbacks"]
    same = "EarlyStop" not in kept or callbacks[1]["best"] == float(kept["EarlyStop"]["best"])
    return None if same else "another state of a callback"


def make_recipe(folder: Path) -> None:
    small.write_recipe(folder, evaluate_every=5, schedule="linear")


def read_recipe(folder: Path) -> Any:
    """Take a recipe's first step."""
    with tempfile.TemporaryDirectory() as out:
        trainer = qk.train.train(folder / "recipe.toml", out, text=folder / "texts", device="cpu")
        return trainer


def ready_recipe(folder: Path) -> None:
    """A step shows what a recipe of many would."""
    train_run.Trainer.run = lambda trainer: trainer.train_step()


def same_recipe(folder: Path, trainer: Any) -> str | None:
    recipe = tomllib.loads((folder / "recipe.toml").read_text())
    of_training = {n: getattr(trainer.settings, n) for n in recipe["training"]}
    of_model = {n: getattr(trainer.model.config, n) for n in recipe["model"]}
    same = of_training == recipe["training"] and of_model == recipe["model"]
    return None if same else "other settings than the recipe's"


# --- all of them ---

TENSORS, INDEX, STEP = "model.safetensors", "model.safetensors.index.json", "step-000002"
GGUF = "model.gguf"
ADAPTER, TOKENIZER, TEMPLATE = "adapter_config.json", "tokenizer.json", "chat_template.jinja"
TOKENIZER_FILES = (
    TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
FORMATS = {
    "safetensors": Format(make_model, (TENSORS,), read_tensors, same_tensors),
    "index": Format(make_shards, (INDEX,), read_shards, same_as_all_shards),
    "config": Format(make_model, ("config.json",), logits, same_logits),
    "gguf": Format(make_gguf, (GGUF,), read_gguf, same_gguf),
    "generation": Format(
        make_generation, ("generation_config.json",), read_generation, same_generation
    ),
    "tokenizer": Format(
        make_tokenizer,
        (TOKENIZER, *TOKENIZER_FILES), read_tokenizer, same_text,
    ),
    "template": Format(
        make_template, (TEMPLATE,), read_chat, same_chat, texts=JINJA,
        hints={TEMPLATE: st.lists(st.sampled_from(JINJA), max_size=5).map("".join)},
    ),
    "adapter": Format(
        make_adapter, (ADAPTER, ADAPTER, "adapter_model.safetensors"), read_adapter, same_adapter,
        ready_adapter,
    ),
    "training": Format(
        make_training,
        (f"{STEP}/state.json", f"{STEP}/state.json", f"{STEP}/optimizer.safetensors",
         f"{STEP}/{TENSORS}", f"{STEP}/config.json"),
        read_training, same_training,
    ),
    "recipe": Format(make_recipe, ("recipe.toml",), read_recipe, same_recipe, ready_recipe),
}  # fmt: skip
for line in (HERE / "hints.txt").read_text().splitlines()[1:]:
    kind, place, values = line.split(": ", 2)
    FORMATS[kind].hints[place] = tuple(map(json.dumps, json.loads(values)))
