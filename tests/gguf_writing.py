"""GGUF files for tests: written by the gguf library as llama.cpp's converter does, or by hand."""

import json
import struct
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind

from qwenkit.checkpoint import Checkpoint

NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip
OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}  # fmt: skip


def gguf_name(name):
    """Return llama.cpp's name of a tensor."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, _, number, rest = name.split(".", 3)
    part, _, ending = rest.rpartition(".")
    return f"blk.{number}.{NAMES[part]}.{ending}"


def metadata_of(config):
    """Return the metadata that the converter writes for a config, as key -> value."""
    end = config.eos_token_id[0] if config.eos_token_id else None
    return {
        "general.type": "model", "general.name": "toy", "general.quantization_version": 2,
        "qwen2.block_count": config.num_hidden_layers,
        "qwen2.context_length": config.max_position_embeddings,
        "qwen2.embedding_length": config.hidden_size,
        "qwen2.feed_forward_length": config.intermediate_size,
        "qwen2.attention.head_count": config.num_attention_heads,
        "qwen2.attention.head_count_kv": config.num_key_value_heads,
        "qwen2.rope.freq_base": config.rope_theta,
        "qwen2.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "tokenizer.ggml.eos_token_id": end, "tokenizer.ggml.bos_token_id": config.bos_token_id,
        "tokenizer.ggml.padding_token_id": config.pad_token_id,
        **({"tokenizer.ggml.eot_token_id": config.eos_token_id[1]}
           if len(config.eos_token_id) > 1 else {}),
    }  # fmt: skip


def tokenizer_metadata(folder, size):
    """Return the metadata of a folder's tokenizer; rows of no token are called [PAD...]."""
    data = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    tokens, kinds = [f"[PAD{number}]" for number in range(size)], [5] * size
    for token, number in data["model"]["vocab"].items():
        tokens[number], kinds[number] = token, 1
    for entry in data["added_tokens"]:
        looks = entry["content"].startswith("<|") and entry["content"].endswith("|>")
        tokens[entry["id"]] = entry["content"]
        kinds[entry["id"]] = 3 if entry["special"] or looks else 4
    merges = [one if isinstance(one, str) else " ".join(one) for one in data["model"]["merges"]]
    return {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges, "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": settings.get("chat_template"),
    }  # fmt: skip


def stored(values, kind):
    """Return an array as a type stores it; vectors and what does not fit its blocks stay float32.

    `kind` may be a function of the array instead, that returns bytes and their type.
    """
    if callable(kind):
        return kind(values)
    block = gguf.GGML_QUANT_SIZES[kind][0]
    if kind == Kind.F32 or values.ndim < 2 or values.shape[-1] % block:
        return values, Kind.F32
    return gguf.quants.quantize(values, kind), kind


def write_gguf(path, config, tensors, kind=Kind.F32, **changes):
    """Write a GGUF file by the library.

    Args:
        path: the file.
        config: gives the metadata.
        tensors: name in the model -> torch tensor.
        kind: of the matrices, as for `stored`.
        changes: metadata, with __ instead of a dot; None: without this entry.
    """
    writer = gguf.GGUFWriter(path, "qwen2")
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    for key, value in {**metadata_of(config), **changes}.items():
        if key == "general.architecture":
            writer.kv_data[0][key].value = value
        elif isinstance(value, list):
            writer.add_array(key, value)
        elif value is not None:
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32,
                   str: writer.add_string}[type(value)]  # fmt: skip
            add(key, value)
    for name, tensor in tensors.items():
        data, used = stored(tensor.detach().float().numpy(), kind)
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(data), raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)


def convert(folder, path, kind=Kind.F32, **changes):
    """Write a checkpoint folder, with its tokenizer, as GGUF."""
    checkpoint = Checkpoint(folder)
    config, more = checkpoint.config, tokenizer_metadata(folder, checkpoint.config.vocab_size)
    return write_gguf(path, config, checkpoint.load(torch.float32), kind, **(more | changes))


# --- by hand ---

SCALARS = {"u8": (0, "B"), "u16": (2, "H"), "u32": (4, "I"), "i32": (5, "i"), "f32": (6, "f"),
           "bool": (7, "?"), "u64": (10, "Q"), "f64": (12, "d")}  # fmt: skip


def text(value):
    """Return a string as the format has it."""
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key, value, kind="u32"):
    """Return a metadata entry; of a str or bytes, or of a number of one of `SCALARS`."""
    if isinstance(value, str | bytes):
        return text(key) + struct.pack("<I", 8) + text(value)
    number, code = SCALARS[kind]
    return text(key) + struct.pack(f"<I{code}", number, value)


def tensor(name, sizes=(4,), kind=0, offset=0, dimensions=None):
    """Return a tensor's entry; the innermost size comes first."""
    count = len(sizes) if dimensions is None else dimensions
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", count, *sizes, kind, offset)


def pack(entries=(), tensors=(), data=b"", *, magic=b"GGUF", version=3, counts=None, align=32):
    """Return a file of these entries, tensors and data."""
    count, more = counts or (len(tensors), len(entries))
    head = magic + struct.pack("<IQQ", version, count, more) + b"".join([*entries, *tensors])
    return head + bytes(-len(head) % align) + data
