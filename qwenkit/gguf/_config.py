"""The metadata of a GGUF file as the config.json and generation_config.json of a Qwen2 model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qwenkit.errors import CheckpointError, ConfigError, few, shown
from qwenkit.gguf._header import GgufFile
from qwenkit.gguf._types import QUANTIZED

ARCHITECTURE = "qwen2"
# Metadata, after "qwen2." -> the key of config.json.
_KEYS = {
    "block_count": "num_hidden_layers", "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size", "attention.head_count": "num_attention_heads",
    "context_length": "max_position_embeddings",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    # absent in some files
    "attention.head_count_kv": "num_key_value_heads", "attention.key_length": "head_dim",
    "rope.freq_base": "rope_theta", "vocab_size": "vocab_size",
}  # fmt: skip
_REQUIRED = list(_KEYS)[:6]
_ROPE_THETA = 10_000.0  # where the metadata have none, as in llama.cpp and transformers
_YARN = {  # after "qwen2.rope.scaling." -> the key of rope_scaling
    "original_context_length": "original_max_position_embeddings",
    "yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow",
}  # fmt: skip
_SCALING = ("rope.scaling.type", "rope.scaling.factor", "rope.scale_linear",
            *(f"rope.scaling.{name}" for name in _YARN))  # fmt: skip
# What would change the result, each with the values at which it does not.
_ONLY_WITHOUT_EFFECT: dict[str, tuple[object, ...]] = {
    "attention.causal": (True,), "rope.scaling.attn_factor": (1.0,),
    "rope.scaling.yarn_attn_factor": (1.0,), "rope.scaling.yarn_ext_factor": (1.0, -1.0),
    "expert_count": (0,),
}  # fmt: skip
_HEAD_DIMS = ("attention.value_length", "rope.dimension_count")  # must be head_dim
_HARMLESS = {"rope.scaling.finetuned", "tensor_data_layout"}
_NONE = 2**32 - 1  # -1, as some tools write for a token that there is not
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
_STOPS = ("eos_token_id", "eot_token_id", "eom_token_id")
_END, _CONTROL = "<|endoftext|>", 3
_KINDS = {
    "adapter": "a LoRA adapter and no model; merge it into its model (llama-export-lora), or load "
    "the model and then the adapter's folder in PEFT's format with load_adapter",
    "mmproj": "the vision part of another model; name the file of the language model",
    "imatrix": "statistics for quantizing and no model; name the file of the model",
    "vocab": "a vocabulary and no model; name the file of the model",
}


def refuse_other_kinds(file: GgufFile) -> None:
    """Refuse a file that is not one whole Qwen2 model.

    Raises:
        CheckpointError: saying what it is instead.
    """
    parts = file.metadata.get("split.count", 1)
    if type(parts) is not int or parts > 1:
        raise CheckpointError(
            f"{file.path} is one of {shown(parts)} parts of a model; join them first: "
            "llama-gguf-split --merge FIRST_PART WHOLE.gguf, of llama.cpp"
        )
    kind = file.metadata.get("general.type", "model")
    if kind != "model":
        what = _KINDS.get(str(kind), f"{shown(kind)}; qwenkit reads models")
        raise CheckpointError(f"{file.path} holds {what}")
    found = file.metadata.get("general.architecture")
    if found != ARCHITECTURE:
        raise CheckpointError(
            f"{file.path} holds a model of the architecture {shown(found)}; it must be "
            f"{ARCHITECTURE!r} (Qwen2, Qwen2.5 and Qwen2.5-Coder)"
        )
    if not file.tensors:
        raise CheckpointError(f"{file.path} holds no tensors; name the file of the model")
    version = file.metadata.get("general.quantization_version", 2)
    if version != 2 and any(one.type in QUANTIZED for one in file.tensors.values()):
        raise CheckpointError(
            f"{file.path} is quantized by version {shown(version)} of llama.cpp's formats; qwenkit "
            "reads version 2, which is since May 2023: fetch a newer file of the model"
        )


def config_dict(file: GgufFile) -> dict[str, Any]:
    """Return the keys of config.json that the metadata stand for.

    Keys of the model that are not known keep their names, so that reading the config warns of them.

    Raises:
        ConfigError: one is missing, or would change the result in a way that is not implemented.
    """
    prefix = f"{ARCHITECTURE}."
    given = {
        key.removeprefix(prefix): value
        for key, value in file.metadata.items()
        if key.startswith(prefix)
    }
    where, missing = str(file.path), [prefix + name for name in _REQUIRED if name not in given]
    if missing:
        raise ConfigError(f"{where}: missing {few(missing)}; the metadata of a model have these")
    lists = [key for key, value in given.items() if not isinstance(value, int | float | str)]
    if lists:
        raise ConfigError(f"{where}: {prefix}{lists[0]} is a list; it must be one value")
    data: dict[str, Any] = {"model_type": ARCHITECTURE, "rope_theta": _ROPE_THETA}
    data |= {name: given[key] for key, name in _KEYS.items() if key in given}
    data.setdefault("num_key_value_heads", data["num_attention_heads"])
    data.setdefault("vocab_size", _vocab_size(file))
    data["tie_word_embeddings"] = "output.weight" not in file.tensors
    data["torch_dtype"] = _dtype(file)
    data["rope_scaling"] = _rope_scaling(given)
    data |= {name: number for name, number in _token_ids(file).items() if name in _TOKENS}
    _refuse_effects(given, data, where)
    known = {*_KEYS, *_SCALING, *_ONLY_WITHOUT_EFFECT, *_HARMLESS, *_HEAD_DIMS}
    return data | {prefix + key: value for key, value in given.items() if key not in known}


def generation_dict(file: GgufFile) -> dict[str, Any]:
    """Return generation_config.json: what stops generation.

    As in llama.cpp these are the ends of a text, of a turn and of a message that the metadata name,
    and `<|endoftext|>`.
    """
    found = _token_ids(file)
    stops = [found[name] for name in _STOPS if name in found]
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    kinds = file.metadata.get("tokenizer.ggml.token_type")
    if isinstance(tokens, list) and _END in tokens and isinstance(kinds, np.ndarray):
        number = tokens.index(_END)
        stops += [number] if list(kinds[number : number + 1]) == [_CONTROL] else []
    return {"eos_token_id": list(dict.fromkeys(stops))} if stops else {}


def _token_ids(file: GgufFile) -> dict[str, int]:
    """Return name, as in config.json -> id of the tokens that the metadata name."""
    found = {}
    for name in (*_TOKENS, *_STOPS[1:]):
        key = "padding_token_id" if name == "pad_token_id" else name
        number = file.metadata.get(f"tokenizer.ggml.{key}")
        if type(number) is int and 0 <= number != _NONE:
            found[name] = number
    return found


def _vocab_size(file: GgufFile) -> int:
    """Return how many rows the embedding has: all tokens, and usually some padding."""
    embedding = file.tensors.get("token_embd.weight")
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if embedding is not None and len(embedding.shape) == 2:
        return embedding.shape[0]
    return len(tokens) if isinstance(tokens, list) else 0


def _dtype(file: GgufFile) -> str:
    """Return the dtype that most weights are stored in; of quantized ones: bfloat16."""
    sizes: dict[str, int] = {}
    for one in file.tensors.values():
        sizes[one.type] = sizes.get(one.type, 0) + one.nbytes
    largest = max(sizes, key=lambda name: sizes[name], default="")
    return {"F32": "float32", "F16": "float16"}.get(largest, "bfloat16")


def _rope_scaling(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return how RoPE is scaled; None: it is plain."""
    factor = given.get("rope.scaling.factor", given.get("rope.scale_linear"))
    kind = given.get("rope.scaling.type", "none" if factor in (None, 0, 1) else "linear")
    if kind == "none" or (kind == "linear" and factor in (None, 0, 1)):
        return None
    more = {name: given.get(f"rope.scaling.{key}") for key, name in _YARN.items()}
    found = {"factor": factor, **(more if kind == "yarn" else {})}
    return {"rope_type": kind} | {n: value for n, value in found.items() if value is not None}


def _refuse_effects(given: Mapping[str, Any], data: Mapping[str, Any], where: str) -> None:
    """Refuse what would change the result in a way that is not implemented."""
    heads, hidden = data["num_attention_heads"], data["hidden_size"]
    if type(heads) is type(hidden) is int and heads > 0:
        head_dim = data.get("head_dim", hidden // heads)
        wanted = _ONLY_WITHOUT_EFFECT | dict.fromkeys(_HEAD_DIMS, (head_dim,))
    else:  # QwenConfig refuses them
        wanted = _ONLY_WITHOUT_EFFECT
    for key, values in wanted.items():
        if key in given and given[key] not in values:
            raise ConfigError(
                f"{where}: {ARCHITECTURE}.{key} is {shown(given[key])}, which qwenkit does not "
                f"implement; it must be {values[0]} or absent"
            )
