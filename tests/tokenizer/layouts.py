"""Tokenizer folders as other tools write them, of one small vocabulary."""

import json
from pathlib import Path

from transformers import AutoTokenizer

from qwenkit.files import write_json
from qwenkit.tokenizer import write_tokenizer

MERGES = [("d", "e"), ("de", "f"), ("Ġ", "a"), ("r", "e"), ("t", "u"), ("a", "b"), ("Ġ", "Ġ")]
CONFIG = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 300}
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
TURNS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ eos_token + '\\n' }}{% endfor %}"
    "{% if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}"
    "{% if enable_thinking is defined and not enable_thinking %}no thoughts{% endif %}"
    "{{ pad_token }}{{ unk_token }}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def edit(path, change):
    """Change a JSON file."""
    data = json.loads(path.read_text("utf-8")) if path.exists() else {}
    change(data)
    write_json(path, data)


def plain(folder: Path) -> Path:
    """Write tokenizer.json, with <tool_call> as a token that shows in text, and a config."""
    write_tokenizer(folder, MERGES)
    write_json(folder / "config.json", CONFIG)

    def add(data):
        number = data["added_tokens"][-1]["id"] + 1
        data["added_tokens"].append(
            {"id": number, "content": "<tool_call>", **FLAGS, "special": False}
        )

    edit(folder / "tokenizer.json", add)
    settings = {"tokenizer_class": "Qwen2Tokenizer", "chat_template": TURNS}
    settings |= {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|fim_pad|>"}
    write_json(
        folder / "tokenizer_config.json", settings | {"model_max_length": 512, "x": [1, None]}
    )
    return folder


def added_tokens(folder):
    """Return tokenizer.json's added tokens, as in tokenizer_config.json, by id."""
    added = json.loads((folder / "tokenizer.json").read_text("utf-8"))["added_tokens"]
    return {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in added}


def instruct(folder):
    """Write Qwen2.5-Instruct's file set, as transformers 4 saves it."""
    plain(folder)
    model = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    write_json(folder / "vocab.json", model["vocab"])
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", "utf-8")
    added = added_tokens(folder)
    write_json(folder / "added_tokens.json", {t["content"]: int(i) for i, t in added.items()})
    end = {"content": "<|im_end|>", **FLAGS}
    named = {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "eos_token": end}
    write_json(folder / "special_tokens_map.json", named | {"pad_token": "<|endoftext|>"})
    edit(
        folder / "tokenizer_config.json",
        lambda d: d.update(
            added_tokens_decoder=added,
            add_bos_token=False,
            split_special_tokens=False,
            additional_special_tokens=["<|im_start|>", "<|im_end|>"],
            errors="replace",
        ),
    )
    return folder


def distilled(folder):
    """Write R1-Distill's: Llama's class, and a BOS that the post-processor puts first."""
    plain(folder)

    def bos(data):
        at, text = (
            {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
            {"id": "A", "type_id": 0},
        )
        number = next(t["id"] for t in data["added_tokens"] if t["content"] == "<|endoftext|>")
        named = {"id": "<|endoftext|>", "ids": [number], "tokens": ["<|endoftext|>"]}
        data["post_processor"] = {
            "type": "TemplateProcessing", "single": [at, {"Sequence": text}],
            "pair": [at, {"Sequence": text}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|endoftext|>": named},
        }  # fmt: skip

    edit(folder / "tokenizer.json", bos)
    token = {"__type": "AddedToken", **FLAGS}
    edit(
        folder / "tokenizer_config.json",
        lambda d: d.update(
            tokenizer_class="LlamaTokenizerFast",
            add_bos_token=True,
            add_eos_token=False,
            legacy=True,
            bos_token={**token, "content": "<|endoftext|>"},
            eos_token={**token, "content": "<|im_end|>"},
            unk_token=None,
            chat_template="{{ bos_token }}" + TURNS,
        ),
    )
    return folder


def legacy(folder):
    """Write an old one: what is special stands in special_tokens_map.json alone."""
    instruct(folder)
    edit(
        folder / "tokenizer_config.json",
        lambda d: [
            d.pop(k)
            for k in ("added_tokens_decoder", "additional_special_tokens", "pad_token", "eos_token")
        ],
    )
    return folder


def slow(folder):
    """Write vocab.json and merges.txt without tokenizer.json."""
    instruct(folder)
    (folder / "tokenizer.json").unlink()
    return folder


def slow_legacy(folder):
    """Write vocab.json, merges.txt and added_tokens.json."""
    legacy(folder)
    (folder / "tokenizer.json").unlink()
    return folder


def slow_with_bos(folder):
    """Write vocab.json and merges.txt, and that bos and eos are put around a text."""
    slow(folder)
    edit(
        folder / "tokenizer_config.json",
        lambda d: d.update(bos_token="<|endoftext|>", add_bos_token=True, add_eos_token=True),
    )
    return folder


def settings_alone(folder):
    """Write tokens that stand in tokenizer_config.json alone, as fine-tuning tools add them."""
    plain(folder)
    more = {"content": "<think>", **FLAGS, "special": False}
    edit(
        folder / "tokenizer_config.json",
        lambda d: d.update(
            added_tokens_decoder={**added_tokens(folder), "273": more},
            pad_token="<|PAD_TOKEN|>",
            additional_special_tokens=["<|im_start|>", "<|vision|>"],
            image_token="<|im_start|>",
        ),
    )
    return folder


def splitting(folder):
    """Write that special tokens in a text are letters."""
    plain(folder)
    edit(folder / "tokenizer_config.json", lambda d: d.update(split_special_tokens=True))
    return folder


def truncating(folder):
    """Write a tokenizer.json that was saved after tokenizer(..., truncation=True, padding=...)."""
    plain(folder)
    cut = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    fill = {
        "strategy": {"Fixed": 40},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 3,
        "pad_type_id": 0,
        "pad_token": "$",
    }
    edit(folder / "tokenizer.json", lambda d: d.update(truncation=cut, padding=fill))
    return folder


def named_templates(folder):
    """Write two templates in the settings."""
    plain(folder)
    several = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": TURNS}]
    edit(folder / "tokenizer_config.json", lambda d: d.update(chat_template=several))
    return folder


def saved_by_transformers(folder):
    """Write what the installed transformers makes of several templates."""
    named_templates(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder


LAYOUTS = {
    make.__name__: make
    for make in (
        plain,
        instruct,
        distilled,
        legacy,
        slow,
        slow_legacy,
        slow_with_bos,
        settings_alone,
        splitting,
        truncating,
        named_templates,
        saved_by_transformers,
    )
}
