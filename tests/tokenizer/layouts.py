"""Tokenizer folders as other tools write them: `plain`, and others as changes of it."""

import json

from folder_parts import (
    CONTROL,
    FIRST,
    QWEN_TOKENS,
    added,
    bos_first,
    config_of,
    settings_of,
    write_tokenizer_files,
)  # fmt: skip
from transformers import AutoTokenizer

from qwenkit.files import write_json

TURNS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ eos_token + '\\n' }}{% endfor %}"
    "{% if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}"
    "{% if enable_thinking is defined and not enable_thinking %}no thoughts{% endif %}"
    "{{ pad_token }}{{ unk_token }}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SETTINGS = {
    "tokenizer_class": "Qwen2Tokenizer", "chat_template": TURNS, "bos_token": None,
    "eos_token": "<|im_end|>", "pad_token": "<|fim_pad|>", "model_max_length": 512, "x": [1, None],
}  # fmt: skip


def edit(path, change):
    """Change a JSON file."""
    data = json.loads(path.read_text("utf-8")) if path.exists() else {}
    change(data)
    write_json(path, data)


def settings(folder, **changes):
    """Change tokenizer_config.json, and return the folder."""
    edit(folder / "tokenizer_config.json", lambda data: data.update(changes))
    return folder


def plain(folder):
    """Write tokenizer.json and few settings; <tool_call> is a token that shows in text."""
    write_tokenizer_files(folder, config_of(), SETTINGS, pairs=False, slow=False)
    return folder


def instruct(folder):
    """Write Qwen2.5-Instruct's file set, as transformers 4 saves it; two files name other pads."""
    write_tokenizer_files(folder, config_of(), settings_of(**SETTINGS))
    edit(folder / "special_tokens_map.json", lambda d: d.update(pad_token="<|endoftext|>"))
    return folder


def distilled(folder):
    """Write R1-Distill's: Llama's class, and a BOS that the post-processor puts first."""
    plain(folder)
    first = bos_first("<|endoftext|>", FIRST)
    edit(folder / "tokenizer.json", lambda d: d.update(post_processor=first))
    bos, eos = ({"__type": "AddedToken", **added(t)} for t in ("<|endoftext|>", "<|im_end|>"))
    return settings(
        folder, tokenizer_class="LlamaTokenizerFast", add_bos_token=True, add_eos_token=False,
        legacy=True, bos_token=bos, eos_token=eos, unk_token=None,
        chat_template="{{ bos_token }}" + TURNS,
    )  # fmt: skip


def legacy(folder):
    """Write an old one: what is special stands only in special_tokens_map.json."""
    instruct(folder)
    moved = ("added_tokens_decoder", "additional_special_tokens", "pad_token", "eos_token")
    edit(folder / "tokenizer_config.json", lambda d: [d.pop(key) for key in moved])
    return folder


def slow(folder):
    """Write vocab.json and merges.txt without tokenizer.json."""
    (instruct(folder) / "tokenizer.json").unlink()
    return folder


def slow_legacy(folder):
    """Write vocab.json, merges.txt and added_tokens.json."""
    (legacy(folder) / "tokenizer.json").unlink()
    return folder


def slow_with_bos(folder):
    """Write vocab.json and merges.txt, and that bos and eos are put around a text."""
    around = {"bos_token": "<|endoftext|>", "add_bos_token": True, "add_eos_token": True}
    return settings(slow(folder), **around)


def settings_alone(folder):
    """Write tokens that stand only in tokenizer_config.json, as fine-tuning tools add them."""
    tokens = QWEN_TOKENS | {FIRST + 22: ("<think>", False)}
    return settings(
        plain(folder), pad_token="<|PAD_TOKEN|>", image_token="<|im_start|>",
        added_tokens_decoder={str(number): added(*token) for number, token in tokens.items()},
        additional_special_tokens=[CONTROL[1], "<|vision|>"],
    )  # fmt: skip


def splitting(folder):
    """Write that special tokens in a text are ordinary text."""
    return settings(plain(folder), split_special_tokens=True)


def truncating(folder):
    """Write a tokenizer.json that was saved after tokenizer(..., truncation=True, padding=...)."""
    cut = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    fill = {
        "strategy": {"Fixed": 40}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 3,
        "pad_type_id": 0, "pad_token": "$",
    }  # fmt: skip
    edit(plain(folder) / "tokenizer.json", lambda d: d.update(truncation=cut, padding=fill))
    return folder


def named_templates(folder):
    """Write two templates in the settings."""
    several = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": TURNS}]
    return settings(plain(folder), chat_template=several)


def saved_by_transformers(folder):
    """Write what the installed transformers makes of several templates."""
    AutoTokenizer.from_pretrained(named_templates(folder)).save_pretrained(folder)
    return folder


LAYOUTS = {
    make.__name__: make
    for make in (
        plain, instruct, distilled, legacy, slow, slow_legacy, slow_with_bos, settings_alone,
        splitting, truncating, named_templates, saved_by_transformers,
    )
}  # fmt: skip
