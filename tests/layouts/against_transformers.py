"""One folder opened by qwenkit and by transformers, and what differs between two folders."""

import json
from functools import cached_property

import torch
from fixtures_toy import same_bits
from safetensors import safe_open
from transformers import AutoTokenizer, Qwen2ForCausalLM

import qwenkit as qk

INDEX = "model.safetensors.index.json"
# What a checkpoint consists of, next to its weights; papers and a trainer's files do not belong.
PARTS = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "chat_template.jinja", "additional_chat_templates",
)  # fmt: skip
TEXTS = (
    "", " ", "\n\n\t x  \r\n", "def add(a, b):\n    return a + b  # 12345\n", "I'll say it's naïve",
    "Å and A\u030a are one in NFC", "面積は幅×高さ 🙂\u200d↔️\x00\ufeff",
    "<|im_start|>user\nhi<|im_end|>\n", "<|im_end", "<reason>because<|pad|>", "<|vision_pad|> a",
    "<tool_call>{}</tool_call><|fim_prefix|>a<|fim_suffix|>b",
    "<think>x</think><｜User｜>hi<|EOT|>", "<｜begin▁of▁sentence｜>a<｜end▁of▁sentence｜>",
)  # fmt: skip
TOOL = {"type": "function", "function": {
    "name": "area", "description": "A <rectangle>'s area in m² & more",
    "parameters": {"type": "object", "properties": {"w": {"type": "number"}}, "required": ["w"]},
}}  # fmt: skip
CALL = {"type": "function", "function": {"name": "area", "arguments": {"w": 2, "text": "é<"}}}
TALKS = {
    "one message": [{"role": "user", "content": "Wie groß? <b>"}],
    "a system message": [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "<think>hm</think>yes"}, {"role": "user", "content": ""},
    ],
    "calls and replies": [
        {"role": "user", "content": "area?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]},
        {"role": "tool", "content": "4"}, {"role": "tool", "content": "5"},
    ],
}  # fmt: skip


class Both:
    """A folder, and what qwenkit and transformers make of it, each part once it is asked for."""

    def __init__(self, folder):
        self.folder = folder

    @cached_property
    def tokenizer(self):
        return qk.Tokenizer(self.folder)

    @cached_property
    def hf_tokenizer(self):
        return AutoTokenizer.from_pretrained(self.folder)

    @cached_property
    def model(self):
        return qk.load_pretrained(self.folder, dtype="float32")[0]

    @cached_property
    def hf_model(self):
        return Qwen2ForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()

    def chats(self, talk):
        """Yield each chat's text by transformers, and by qwenkit."""
        for tools in (None, [TOOL]):
            for prompt in (True, False):
                yield (
                    self.hf_tokenizer.apply_chat_template(
                        TALKS[talk], tools=tools, add_generation_prompt=prompt, tokenize=False
                    ),
                    self.tokenizer.chat(TALKS[talk], prompt, tools),
                )


def resaved(folder, to, change=lambda model, tokenizer: None, dtype="bfloat16"):
    """Load a folder, change something, and save it."""
    model, tokenizer = qk.load_pretrained(folder, dtype=dtype)
    change(model, tokenizer)
    qk.save_pretrained(model, to, tokenizer)
    return to


def parts(folder):
    """Return the names of the files that a checkpoint consists of."""
    names = {file.name for file in folder.iterdir()}
    return {name for name in names if name in PARTS or "safetensors" in name}


def changed(before, after):
    """List what differs: files, keys of JSON and their order, bytes of the tokenizer's, tensors."""
    found = sorted(parts(before) ^ parts(after))  # lost, or new
    for name in sorted(parts(before) & parts(after)):
        old, new = (folder / name for folder in (before, after))
        if name.endswith(".safetensors") or old.read_bytes() == new.read_bytes():
            continue
        keys = _changed_keys(name, old, new) if name.endswith(".json") else []
        by_key = name in ("config.json", "generation_config.json", INDEX)  # the rest by bytes
        found += keys if by_key else keys or [name]
    old, new = tensors(before), tensors(after)
    differs = [name for name in old.keys() & new.keys() if not same_bits(old[name], new[name])]
    return found + sorted([*differs, *(old.keys() ^ new.keys())])


def _changed_keys(name, old, new):
    was, now = (json.loads(file.read_text(encoding="utf-8")) for file in (old, new))
    keys = [key for key in {**was, **now} if was.get(key, ...) != now.get(key, ...)]
    kept = [[key for key in one if key in other] for one, other in ((was, now), (now, was))]
    return [f"{name}: {key}" for key in keys] + ([] if kept[0] == kept[1] else [f"{name}: order"])


def tensors(folder):
    """Return every tensor of a folder's safetensors files; each must say that torch wrote it."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            assert file.metadata() == {"format": "pt"}
            found |= {name: file.get_tensor(name) for name in file.keys()}
    return found
