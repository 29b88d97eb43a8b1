"""What a published folder is made of: its tokens, its files, and random weights."""

import json
from pathlib import Path

import torch
from chat_templates import QWEN_TEMPLATE
from safetensors.torch import save_file
from transformers import AutoConfig, Qwen2ForCausalLM

from qwenkit.tokenizer import byte_alphabet
from qwenkit.tokenizer.bpe import SPLIT

MERGES = (Path(__file__).with_name("toy_merges.txt")).read_text("utf-8").split("\n")[1:181]
TOKENS = [*byte_alphabet(), *(merge.replace(" ", "") for merge in MERGES)]
VOCAB = {token: number for number, token in enumerate(TOKENS)}
FIRST = len(VOCAB)  # as 151643 in the published files
BEGIN, END = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
CONTROL = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> "
    "<|box_end|> <|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> "
    "<|image_pad|> <|video_pad|>"
).split()
MARKS = (  # special: false in the published files
    "<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> "
    "<|repo_name|> <|file_sep|>"
).split()
R1 = f"{END} <｜User｜> <｜Assistant｜> {BEGIN} <|EOT|> <think> </think>".split()  # at Qwen's ids
QWEN_TOKENS, R1_TOKENS = (
    {FIRST + n: (name, name in {*CONTROL, END, BEGIN}) for n, name in enumerate([*names, *MARKS])}
    for names in (CONTROL, [*R1, *CONTROL[7:]])
)


def added(content, special=None, normalized=False):
    """Return an AddedToken as transformers writes it."""
    token = {"content": content, "lstrip": False, "normalized": normalized, "rstrip": False,
             "single_word": False}  # fmt: skip
    return token if special is None else {**token, "special": special}


def of(base, changes):
    """Return a file's keys, sorted as transformers sorts them; ... removes one."""
    values = base | changes
    return {name: values[name] for name in sorted(values) if values[name] is not ...}


def config_of(**changes):
    """Return the config.json of Qwen2.5-Coder-0.5B with changes."""
    return of({
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": FIRST,
        "eos_token_id": FIRST, "hidden_act": "silu", "hidden_size": 32, "initializer_range": 0.02,
        "intermediate_size": 48, "max_position_embeddings": 32768, "max_window_layers": 2,
        "model_type": "qwen2", "num_attention_heads": 4, "num_hidden_layers": 2,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "sliding_window": 32768, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "transformers_version": "4.45.1", "use_cache": True, "use_mrope": False,
        "use_sliding_window": False, "vocab_size": 512,
    }, changes)  # fmt: skip


def settings_of(tokens=QWEN_TOKENS, **changes):
    """Return the tokenizer_config.json of Qwen2.5-Coder-0.5B with changes."""
    return of({
        "add_bos_token": False, "add_prefix_space": False,
        "added_tokens_decoder": {str(number): added(*token) for number, token in tokens.items()},
        "additional_special_tokens": CONTROL[1:], "bos_token": None, "chat_template": QWEN_TEMPLATE,
        "clean_up_tokenization_spaces": False, "eos_token": "<|endoftext|>", "errors": "replace",
        "model_max_length": 32768, "pad_token": "<|endoftext|>", "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
    }, changes)  # fmt: skip


def pipeline(tokens, pairs):
    """Return tokenizer.json; its merges are pairs since tokenizers 0.20, strings before."""
    as_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
                "use_regex": False}  # fmt: skip
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": number, "content": name, **flags, "special": special}
                         for number, (name, special) in tokens.items()],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, as_bytes]},
        "post_processor": as_bytes, "decoder": as_bytes,
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False,
                  "byte_fallback": False, "ignore_merges": False, "vocab": VOCAB,
                  "merges": [merge.split(" ") for merge in MERGES] if pairs else MERGES},
    }  # fmt: skip


def write(path, value):
    """Write a text, or JSON as transformers does."""
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def write_folder(
    folder, config, generation, settings, *, tokens=QWEN_TOKENS, pairs=True, slow=True,
    papers=(".gitattributes", "LICENSE", "README.md"), **weights,
):  # fmt: skip
    """Write all of a folder; `slow`: with the files of the tokenizer that is not "fast"."""
    write(folder / "generation_config.json", generation)
    write_tokenizer_files(folder, config, settings, tokens=tokens, pairs=pairs, slow=slow)
    for name in papers:  # they lie next to a model, and are not part of it
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"PK\x03\x04 nobody reads this")
    write_weights(folder, **weights)


def write_tokenizer_files(folder, config, settings, *, tokens=QWEN_TOKENS, pairs=True, slow=True):
    """Write config.json, by which transformers finds the tokenizer's class, and its files."""
    folder.mkdir(exist_ok=True)
    write(folder / "config.json", config)
    write(folder / "tokenizer_config.json", settings)
    write(folder / "tokenizer.json", pipeline(tokens, pairs))
    if slow:
        write(folder / "vocab.json", json.dumps(VOCAB, ensure_ascii=False))
        write(folder / "merges.txt", "\n".join(["#version: 0.2", *MERGES]))
    if pairs:  # transformers 4 saved it
        names = {name: number for number, (name, _) in tokens.items()}
        write(folder / "added_tokens.json", dict(sorted(names.items())))
        named = {name: added(settings[name]) for name in ("eos_token", "pad_token")}
        more = {"additional_special_tokens": CONTROL[1:], **named}
        write(folder / "special_tokens_map.json", more)


def bos_first(token, number):
    """Return the post-processor that puts a BOS before a text, and before the second of a pair."""
    text = [{"Sequence": {"id": name, "type_id": place}} for place, name in enumerate("AB")]
    begin = [{"SpecialToken": {"id": token, "type_id": place}} for place in (0, 1)]
    ids = {token: {"id": token, "ids": [number], "tokens": [token]}}
    return {"type": "TemplateProcessing", "single": [begin[0], text[0]],
            "pair": [begin[0], text[0], begin[1], text[1]], "special_tokens": ids}  # fmt: skip


def write_weights(folder, shards=1, digits=5, counted=False):
    """Write random bfloat16 weights for the folder's config.json, in one file or in shards."""
    torch.manual_seed(0)
    tensors = dict(Qwen2ForCausalLM(AutoConfig.from_pretrained(folder)).named_parameters())
    for name, tensor in tensors.items():
        mean, spread = (1.0, 0.1) if "norm" in name else (0.0, 0.3)
        tensor.data = (mean + spread * torch.randn(tensor.shape)).to(torch.bfloat16)
        if "embed" in name or "lm_head" in name:
            tensor.data[FIRST + 24 :] = 0  # rows of no token: never the most likely
    names, listed = list(tensors), {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:0{digits}}.safetensors"
        file = file if shards > 1 else "model.safetensors"
        part = names[len(names) * shard // shards : len(names) * (shard + 1) // shards]
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
        listed |= dict.fromkeys(part, file)
    if shards > 1:
        sizes = {"total_parameters": sum(t.numel() for t in tensors.values())} if counted else {}
        sizes["total_size"] = sum(t.nbytes for t in tensors.values())
        index = {"metadata": sizes, "weight_map": dict(sorted(listed.items()))}
        write(folder / "model.safetensors.index.json", index)
