"""config.json: both of its spellings, missing fields, and keys that must not be dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from qwenkit.config._scaling import DynamicScaling, LinearScaling, RopeScaling, YarnScaling
from qwenkit.errors import ConfigError, few, printable, shown, warn

DTYPES = ("float32", "bfloat16", "float16")
REQUIRED = (
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "max_position_embeddings", "rms_norm_eps",
    "rope_theta",
)  # fmt: skip
# Keys that Hugging Face writes and that change no logit of a trained model.
_HARMLESS = {
    "architectures", "transformers_version", "_name_or_path", "use_cache", "attention_dropout",
    "auto_map", "output_attentions", "output_hidden_states", "return_dict", "id2label", "label2id",
    "problem_type", "chunk_size_feed_forward", "transformers_weights", "_attn_implementation",
    "_attn_implementation_autoset", "pretraining_tp", "pruned_heads", "tie_encoder_decoder",
    "torchscript", "tokenizer_class", "prefix", "model_name", "unsloth_fixed", "unsloth_version",
    # older keys of generation, which are now in generation_config.json
    "do_sample", "max_length", "temperature", "top_k", "top_p", "repetition_penalty",
    # Qwen2 reads neither: its file has biases on q, k and v alone, or does not fit
    "attention_bias", "mlp_bias", "qkv_bias",
}  # fmt: skip
# Keys that would change the result, each with the value (besides null) at which it does not.
_ONLY_WITHOUT_EFFECT = {
    "quantization_config": None, "partial_rotary_factor": 1.0, "use_mrope": False,
    "is_encoder_decoder": False, "add_cross_attention": False,
}  # fmt: skip
_SCALINGS: dict[str, type[RopeScaling]] = {
    kind.rope_type: kind for kind in (LinearScaling, DynamicScaling, YarnScaling)
}
_TRAINED = "original_max_position_embeddings"


def one_spelling(data: Mapping[str, Any]) -> dict[str, Any]:
    """Rewrite the newer spellings (rope_parameters, dtype) and JSON lists to `QwenConfig`'s fields.

    Raises:
        ConfigError: missing fields, two spellings that disagree, or a RoPE that is not known.
    """
    values = dict(data)
    rope, scaling = values.pop("rope_parameters", None), values.get("rope_scaling")
    rope, scaling = {} if rope is None else rope, {} if scaling is None else scaling
    for name, part in (("rope_parameters", rope), ("rope_scaling", scaling)):
        if not isinstance(part, dict):
            raise ConfigError(f"{name} is {shown(part)}; it must be an object or null")
        _merge(values, "rope_theta", part.get("rope_theta"), f"{name}.rope_theta")
    for name in ("dtype", "torch_dtype"):
        if isinstance(values.get(name), str):  # "auto", or one that the weights' file names itself
            plain = values[name].removeprefix("torch.")
            values[name] = plain if plain in DTYPES else None
    _merge(values, "dtype", values.pop("torch_dtype", None), "torch_dtype")
    if values.get("dtype", "") is None:
        del values["dtype"]
    given = [_scaling_alone(part) for part in (rope, scaling)]
    if all(given) and given[0] != given[1]:
        raise ConfigError("rope_parameters and rope_scaling differ; make them agree, or remove one")
    values["rope_scaling"] = _rope_scaling({**rope, **scaling}, values)
    if isinstance(values["rope_scaling"], YarnScaling):
        values.pop(_TRAINED, None)
    own = _own_quantization(values.get("quantization_config"))
    if own:
        del values["quantization_config"]
        values |= own
    _read_tokens(values)
    if values.get("layer_types") is not None:
        if not isinstance(values["layer_types"], list):
            raise ConfigError(f"layer_types is {shown(values['layer_types'])}; it must be a list")
        values["layer_types"] = tuple(values["layer_types"])
    if values.get("num_key_value_heads", 0) is None:
        values["num_key_value_heads"] = values.get("num_attention_heads")
    missing = [name for name in REQUIRED if name not in values]
    if values.get("use_sliding_window") is True:
        needed = ["sliding_window"]
        needed += ["max_window_layers"] if values.get("layer_types") is None else []
        missing += [name for name in needed if name not in values]
    if missing:
        raise ConfigError(f"missing {', '.join(missing)}; every Qwen2 config.json has these fields")
    return values


def quantization_config(kind: str, group_size: int | None) -> dict[str, Any]:
    """Return what config.json says of our own int8 or int4.

    transformers refuses the method as unknown, which it must.
    """
    method = {"quant_method": f"qwenkit-{kind}"}
    return method if group_size is None else {**method, "group_size": group_size}


def _own_quantization(found: Any) -> dict[str, Any]:
    """Return the fields of `QwenConfig` that a `quantization_config` gives; empty: not our own."""
    group_size = found.get("group_size") if isinstance(found, dict) else None
    for kind in ("int8", "int4"):
        if found == quantization_config(kind, group_size):
            return {"quantization": kind, "group_size": group_size}
    return {}


def _read_tokens(values: dict[str, Any]) -> None:
    """Leave out tokens that there are not: -1, as older tools write, and those without a row."""
    none = [None, -1, *without_row(values)]
    eos = values.get("eos_token_id")
    tokens = eos if isinstance(eos, list) else [eos]
    values["eos_token_id"] = tuple(token for token in tokens if token not in none)
    for name, those in (("bos_token_id", none), ("pad_token_id", none[:2])):
        if values.get(name) in those:
            values[name] = None


def without_row(values: Mapping[str, Any]) -> list[int]:
    """Return eos and bos beyond the vocabulary, as of a tokenizer with more tokens than rows."""
    eos, size = values.get("eos_token_id"), values.get("vocab_size")
    tokens = [*(eos if isinstance(eos, list) else [eos]), values.get("bos_token_id")]
    found = [one for one in tokens if type(one) is int and type(size) is int and one >= size]
    return list(dict.fromkeys(found))


def _merge(values: dict[str, Any], name: str, other: Any, other_name: str) -> None:
    """Take a value from its second spelling; refuse two spellings that disagree."""
    if other is None:
        return
    if values.get(name) not in (None, other):
        both = f"{name} is {shown(values[name])} and {other_name} is {shown(other)}"
        raise ConfigError(f"{both}; they must agree")
    values[name] = other


def _scaling_alone(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return how one spelling scales RoPE, with the type under its newer name."""
    given = {n: value for n, value in part.items() if n != "rope_theta" and value is not None}
    return given if "type" not in given else {"rope_type": given.pop("type"), **given}


def _rope_scaling(given: dict[str, Any], config: Mapping[str, Any]) -> RopeScaling | None:
    """Read how RoPE is scaled; None: it is plain."""
    found = {n: value for n, value in given.items() if n != "rope_theta" and value is not None}
    kinds = {str(found.pop(name)) for name in ("rope_type", "type") if name in found}
    kinds = kinds or {"default"}
    if len(kinds) > 1 or not kinds <= {"default", *_SCALINGS}:
        both = " and ".join(map(shown, sorted(kinds)))
        known = ", ".join(map(repr, ("default", *_SCALINGS)))
        raise ConfigError(f"rope type is {both}; it must be one of {known}")
    kind = _SCALINGS.get(kinds.pop())
    names = () if kind is None else [field.name for field in fields(kind)]
    unread = {name: value for name, value in found.items() if name not in names}
    refuse_or_warn_of_unread(unread, "rope_parameters" if kind is None else "rope_scaling")
    if kind is None:
        return None
    read = {name: value for name, value in found.items() if name in names}
    if kind is YarnScaling:
        read = _as_yarn(read, given, config)
    if "factor" not in read:
        raise ConfigError(f"rope_scaling.factor is missing; {kind.rope_type!r} needs it")
    return kind(**read)


def _as_yarn(
    read: dict[str, Any], given: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
    """Fill in what transformers does where YaRN's keys are absent, null or 0."""
    longest = config.get("max_position_embeddings")
    read = {_TRAINED: longest, **read}
    if config.get(_TRAINED) is not None:  # outside rope_scaling it has the last word
        read[_TRAINED] = config[_TRAINED]
    trained = read[_TRAINED]
    if "factor" in given and "factor" not in read and type(longest) is type(trained) is int:
        read["factor"] = longest / max(trained, 1)
    if given.get("truncate", True) is None:
        read["truncate"] = False
    optional = ("beta_fast", "beta_slow", "mscale", "mscale_all_dim")
    return {n: value for n, value in read.items() if n not in optional or value != 0}


def respelled(raw: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json with some fields changed, each under the name that it has there.

    Args:
        raw: the file's contents.
        changed: key, as `QwenConfig.to_dict` spells it, -> new value; None: no longer given.
    """
    data, changed = dict(raw), dict(changed)
    if "dtype" in data and "torch_dtype" in changed:
        changed["dtype"] = changed["torch_dtype"]
        if "torch_dtype" not in data:
            del changed["torch_dtype"]
    rope = data.get("rope_parameters")
    if rope is not None and not data.get("rope_scaling") and "rope_scaling" in changed:
        theta = {"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}
        rope = {**(changed.pop("rope_scaling") or {"rope_type": "default"}), **theta}
    if rope is not None and "rope_theta" in rope and "rope_theta" in changed:
        rope = {**rope, "rope_theta": changed["rope_theta"]}
        if "rope_theta" not in data:
            del changed["rope_theta"]
    data |= {} if rope is None else {"rope_parameters": rope}
    for name, value in changed.items():
        if value is None and data.get(name) is not None:
            del data[name]
        elif value is not None:
            data[name] = value
    return data


def refuse_or_warn_of_unread(unread: Mapping[str, Any], where: str) -> None:
    """Refuse keys that would change the result, and warn about unknown ones."""
    for name, without_effect in _ONLY_WITHOUT_EFFECT.items():
        if unread.get(name) not in (None, without_effect):
            raise ConfigError(
                f"{name} is {shown(unread[name])}, which qwenkit does not implement; "
                "use a checkpoint without it (for a quantized one: the unquantized checkpoint)"
            )
    unknown = sorted(set(unread) - set(_ONLY_WITHOUT_EFFECT) - _HARMLESS)
    if unknown:
        names = few(map(printable, unknown), most=20)
        warn(f"{where}: qwenkit does not know and ignores {names}")


def warn_of_tokens(lost: Sequence[int], vocab_size: int, where: str) -> None:
    """Say which tokens the model never writes, because it has no row for them."""
    if lost:
        warn(
            f"{where}: bos or eos are the tokens {shown(lost)}, which the vocabulary of "
            f"{vocab_size} has no row for; the model never writes them"
        )
