"""What a model is made of, read from config.json.

Every field has the name it has in the file. A `QwenConfig` with impossible values cannot exist: it
checks itself when it is made, and names every problem at once. Parameters and cache bytes follow
from the shapes alone, without a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from qwenkit.config._rules import make_floats, wrong, wrong_float, wrong_int
from qwenkit.config._scaling import RopeScaling, YarnScaling
from qwenkit.config._spelling import (
    one_spelling,
    quantization_config,
    refuse_or_warn_of_unread,
    respelled,
    warn_of_tokens,
    without_row,
)
from qwenkit.errors import ConfigError, InputError, few, shown
from qwenkit.files import read_json_object

BYTES_PER_VALUE = {"float32": 4, "bfloat16": 2, "float16": 2}
GROUP = 64  # weights that share a scale; divides the rows of every published Qwen2.5
CACHE_GROUP = 16  # numbers of a key or a value that share a scale in an int8 cache
_SCALE_BYTES = 2  # bfloat16
_MOST_LAYERS = 10_000  # a damaged number would fill the memory with the names of its tensors
FULL, SLIDING = "full_attention", "sliding_attention"  # what layer_types may hold
_QWEN2 = "'qwen2' (Qwen2, Qwen2.5 and Qwen2.5-Coder)"


@dataclass(frozen=True)
class QwenConfig:
    """The shape of a Qwen2 model: every number its layers are built from.

    Raises:
        ConfigError: naming each field with its value and the rule it breaks.

    >>> config = QwenConfig(1000, 64, 128, 2, num_attention_heads=4, num_key_value_heads=2)
    >>> config.head_dim, config.num_parameters, config.kv_bytes_per_token("float32")
    (16, 202304, 512)
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int = None  # type: ignore[assignment]  # None: hidden_size / num_attention_heads
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = False
    use_sliding_window: bool = False
    sliding_window: int | None = None
    max_window_layers: int = None  # type: ignore[assignment]  # None: num_hidden_layers
    layer_types: tuple[str, ...] | None = None
    hidden_act: str = "silu"
    model_type: str = "qwen2"
    initializer_range: float = 0.02
    dtype: str = "bfloat16"
    bos_token_id: int | None = None
    eos_token_id: tuple[int, ...] = ()
    pad_token_id: int | None = None
    quantization: str | None = None  # "int8" or "int4": matrices stored by `quantize`
    group_size: int | None = None  # weights of a row that share a scale; None, in int8: all
    # The config.json it was read from, so that keys that qwenkit does not know are saved again.
    raw: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Fill in what follows from other fields, then refuse values that no model can have."""
        fill = object.__setattr__  # the dataclass is frozen for everyone else
        make_floats(self, "rms_norm_eps", "rope_theta", "initializer_range")
        if isinstance(self.eos_token_id, int | list):
            eos = self.eos_token_id
            fill(self, "eos_token_id", tuple(eos) if isinstance(eos, list) else (eos,))
        if self.max_window_layers is None:
            fill(self, "max_window_layers", self.num_hidden_layers)
        derived = self.head_dim is None
        if derived:
            sizes = (self.hidden_size, self.num_attention_heads)
            valid = not any(wrong_int("", size) for size in sizes)
            fill(self, "head_dim", self.hidden_size // self.num_attention_heads if valid else 1)
        problems = self._wrong_types() or self._wrong_relations(derived)
        if problems:
            raise ConfigError(few(problems, most=20, between="; "))

    def _wrong_types(self) -> list[str]:
        """Name fields whose type or sign is wrong."""
        sizes = (
            "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
            "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings",
        )  # fmt: skip
        found = [wrong_int(name, getattr(self, name)) for name in sizes]
        found.append(wrong_int("max_window_layers", self.max_window_layers, least=0))
        if self.sliding_window is not None:
            found.append(wrong_int("sliding_window", self.sliding_window))
        found += [wrong_int(name, token, least=0) for name, token in self._special_tokens()]
        numbers = ("rms_norm_eps", "rope_theta", "initializer_range")
        found += [wrong_float(name, getattr(self, name)) for name in numbers]
        for name, allowed, rule in (
            ("tie_word_embeddings", (True, False), "true or false"),
            ("use_sliding_window", (True, False), "true or false"),
            ("model_type", ("qwen2",), _QWEN2),
            ("quantization", (None, "int8", "int4"), "'int8', 'int4' or null"),
            (
                "hidden_act",
                ("silu", "swish"),
                "'silu' (or 'swish'), the activation of SwiGLU",
            ),
            ("dtype", tuple(BYTES_PER_VALUE), f"one of {', '.join(BYTES_PER_VALUE)}"),
        ):
            value = getattr(self, name)
            if (type(value), value) not in [(type(one), one) for one in allowed]:  # 1 == True
                found.append(wrong(name, value, rule))
        if self.rope_scaling is not None:
            found += self.rope_scaling.problems()
        if self.quantization == "int4" or (self.quantization and self.group_size is not None):
            found.append(wrong_int("group_size", self.group_size, least=2))
        elif self.group_size is not None:
            found.append(wrong("group_size", self.group_size, "null where nothing is quantized"))
        return [problem for problem in found if problem]

    def _wrong_relations(self, derived_head_dim: bool) -> list[str]:
        """Name fields that contradict one another (every type is right by now)."""
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads
        divides = not derived_head_dim or self.hidden_size % heads == 0
        rules = (
            ("hidden_size", divides,
             f"divisible by num_attention_heads ({heads}), or head_dim must be given"),
            ("num_attention_heads", heads % kv_heads == 0,
             f"divisible by num_key_value_heads ({kv_heads}), so that every kv head serves equally "
             "many query heads"),
            ("num_hidden_layers", self.num_hidden_layers <= _MOST_LAYERS,
             f"at most {_MOST_LAYERS} (the largest Qwen2.5-Coder has 64)"),
            ("head_dim", self.head_dim % 2 == 0 or not divides,
             "even, because RoPE rotates pairs of dimensions"),
            ("group_size", self.group_size is None or not self._undivided(self.group_size),
             "even, and divide the in_features of every matrix (hidden_size, intermediate_size, "
             "num_attention_heads × head_dim); `qwenkit.quantize` takes another group="),
        )  # fmt: skip
        broken = ((name, rule) for name, holds, rule in rules if not holds)
        found = [wrong(name, getattr(self, name), rule) for name, rule in broken]
        if isinstance(self.rope_scaling, YarnScaling) and self.rope_theta == 1:
            found.append(wrong("rope_theta", 1.0, "a number other than 1 where YaRN scales it"))
        rule = f"below vocab_size ({self.vocab_size})"
        tokens = self._special_tokens()
        found += [wrong(name, token, rule) for name, token in tokens if token >= self.vocab_size]
        return found + ([] if self.layer_types is None else self._wrong_kinds(self.layer_types))

    def _undivided(self, group_size: int) -> bool:
        """Tell whether groups of this size do not fill each row of each matrix."""
        sizes = (self.hidden_size, self.intermediate_size, self.num_attention_heads * self.head_dim)
        return group_size % 2 != 0 or any(size % group_size for size in sizes)

    def _wrong_kinds(self, kinds: tuple[str, ...]) -> list[str]:
        layers, unknown = self.num_hidden_layers, set(map(str, kinds)) - {FULL, SLIDING}
        rules = (
            (not unknown,
             f"holds {shown(sorted(unknown))}; it may hold {FULL!r} and {SLIDING!r}"),
            (len(kinds) == layers,
             f"has {len(kinds)} entries; it must have num_hidden_layers ({layers})"),
            (SLIDING not in kinds or (self.use_sliding_window and self.sliding_window is not None),
             f"asks for {SLIDING!r}; use_sliding_window must be true and sliding_window given"),
        )  # fmt: skip
        return [f"layer_types {broken}" for holds, broken in rules if not holds]

    def _special_tokens(self) -> list[tuple[str, int]]:
        tokens: list[tuple[str, int | None]] = [("eos_token_id", one) for one in self.eos_token_id]
        tokens += [("bos_token_id", self.bos_token_id), ("pad_token_id", self.pad_token_id)]
        return [(name, token) for name, token in tokens if token is not None]

    # --- what follows from the fields ---

    @property
    def num_key_value_groups(self) -> int:
        """How many query heads share one kv head."""
        return self.num_attention_heads // self.num_key_value_heads

    def window(self, layer: int) -> int | None:
        """Return how many positions, its own included, a token attends to; None: all up to it."""
        if not self.use_sliding_window:
            return None
        if self.layer_types is not None:
            return self.sliding_window if self.layer_types[layer] == SLIDING else None
        return self.sliding_window if layer >= self.max_window_layers else None

    def quantized(self, kind: str, group_size: int | None = None) -> QwenConfig:
        """Return the config of the same model, stored in "int8" or "int4".

        Args:
            kind: "int8" or "int4".
            group_size: weights of a row that share a scale. None: 64, but in int8 the whole row
                where 64 does not divide each.

        Raises:
            ConfigError: groups of this size do not fill the rows.
        """
        if group_size is None and not (kind == "int8" and self._undivided(GROUP)):
            group_size = GROUP
        return replace(self, quantization=kind, group_size=group_size)

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name -> shape of every tensor in a checkpoint, in the forward pass's order."""
        hidden, intermediate = self.hidden_size, self.intermediate_size
        query = self.num_attention_heads * self.head_dim
        key_value = self.num_key_value_heads * self.head_dim
        layer = {
            "input_layernorm.weight": (hidden,),
            "self_attn.q_proj.weight": (query, hidden),
            "self_attn.q_proj.bias": (query,),
            "self_attn.k_proj.weight": (key_value, hidden),
            "self_attn.k_proj.bias": (key_value,),
            "self_attn.v_proj.weight": (key_value, hidden),
            "self_attn.v_proj.bias": (key_value,),
            "self_attn.o_proj.weight": (hidden, query),
            "post_attention_layernorm.weight": (hidden,),
            "mlp.gate_proj.weight": (intermediate, hidden),
            "mlp.up_proj.weight": (intermediate, hidden),
            "mlp.down_proj.weight": (hidden, intermediate),
        }
        matrix = (self.vocab_size, hidden)
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": matrix}
        for number in range(self.num_hidden_layers):
            shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
        shapes["model.norm.weight"] = (hidden,)
        if not self.tie_word_embeddings:
            shapes["lm_head.weight"] = matrix
        return shapes | self._quantized(shapes)

    def _quantized(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of what quantization stores of each matrix; empty without it.

        Int8 has a scale per group of a row, or per row. Int4 packs two values into a byte, and has
        a scale and a zero point per group; a tied embedding is int8 then, with a scale per row (see
        `qwenkit.fast.int4`).
        """
        int4, found = self.quantization == "int4", dict[str, tuple[int, ...]]()
        tied = "model.embed_tokens.weight" if self.tie_word_embeddings else ""
        for name, shape in shapes.items() if self.quantization else ():
            if len(shape) != 2:
                continue
            whole_rows = self.group_size is None or (int4 and name == tied)
            groups = shape[:1] if whole_rows else (shape[0], shape[1] // (self.group_size or 1))
            found[f"{name}_scale"] = groups
            if int4 and name != tied:
                found |= {name: (shape[0], shape[1] // 2), f"{name}_zero": groups}
        return found

    @property
    def num_parameters(self) -> int:
        """The exact number of parameters; a tied head is the embedding and counts once.

        Quantized or not, it is the same: scales restore digits that the weights lost.
        """
        plain = replace(self, quantization=None, group_size=None)
        return sum(map(math.prod, plain.tensor_shapes().values()))

    @property
    def dtype_with_int8(self) -> str:
        """What quantized matrices are computed in: float32 where floats are, else bfloat16."""
        return "float32" if self.dtype == "float32" else "bfloat16"

    def weight_bytes(self, dtype: str | None = None) -> int:
        """Return the bytes of all weights, with floats in `dtype` (None: the config's own).

        Raises:
            InputError: an unknown dtype.
        """
        shapes, size = self.tensor_shapes(), _value_bytes(dtype or self.dtype)
        return sum(
            math.prod(shape) * (1 if f"{name}_scale" in shapes or name.endswith("_zero") else size)
            for name, shape in shapes.items()
        )

    def kv_bytes_per_token(self, dtype: str | None = None) -> int:
        """Return the cache's bytes per token, all layers, in `dtype` (None: the config's own).

        "int8" is that of an int8 cache (see `qwenkit.fast.Int8Cache`), its scales included.

        Raises:
            InputError: an unknown dtype.
        """
        vectors = 2 * self.num_hidden_layers * self.num_key_value_heads
        if dtype == "int8":
            return vectors * (self.head_dim + self.cache_groups * _SCALE_BYTES)
        return vectors * self.head_dim * _value_bytes(dtype or self.dtype)

    @property
    def cache_groups(self) -> int:
        """Groups of a key or value in an int8 cache; where 16 does not divide head_dim, 1."""
        return 1 if self.head_dim % CACHE_GROUP else self.head_dim // CACHE_GROUP

    # --- from and to config.json ---

    @classmethod
    def from_file(cls, path: str | Path) -> QwenConfig:
        """Read a config.json, or the one in a folder.

        Raises:
            ConfigError: no such file, not JSON, or values that no model can have.
        """
        path = Path(path)
        path = path / "config.json" if path.is_dir() else path
        data = read_json_object(path)
        return replace(cls.from_dict(data, where=str(path)), raw=data)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "config") -> QwenConfig:
        """Make a config from the keys of a config.json, in the older or the newer spelling.

        Args:
            data: the parsed JSON object.
            where: what to call it in an error.

        Raises:
            ConfigError: missing fields, or values that no model can have.
        """
        try:
            if data.get("model_type", "qwen2") != "qwen2":  # another family: say that first
                raise ConfigError(wrong("model_type", data["model_type"], _QWEN2))
            config, unread = cls._read(data)
            refuse_or_warn_of_unread(unread, where)
            warn_of_tokens(without_row(data), config.vocab_size, where)
            return config
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    @classmethod
    def _read(cls, data: Mapping[str, Any]) -> tuple[QwenConfig, dict[str, Any]]:
        """Return the config, and the keys of the file that it does not read."""
        values = one_spelling(data)
        ours = {"quantization", "group_size"}  # named by a quantization_config alone
        names = {field.name for field in fields(cls)} - {"raw"} - (ours & data.keys())
        unread = {name: value for name, value in values.items() if name not in names}
        read = {name: value for name, value in values.items() if name in names}
        return cls(**read), unread

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of a config.json that transformers reads as `from_dict` does."""
        given = asdict(replace(self, raw=None)).items()
        data: dict[str, Any] = {"architectures": ["Qwen2ForCausalLM"]}
        data |= {name: value for name, value in given if value is not None}
        data["torch_dtype"] = data.pop("dtype")
        if self.use_sliding_window:
            data["sliding_window"] = self.sliding_window  # if absent, transformers takes 4096
        group_size = data.pop("group_size", None)
        if kind := data.pop("quantization", None):
            data["quantization_config"] = quantization_config(kind, group_size)
        data["eos_token_id"] = list(self.eos_token_id) or None
        if self.layer_types is not None:
            data["layer_types"] = list(self.layer_types)
        if self.rope_scaling is not None:
            data["rope_scaling"] = self.rope_scaling.to_dict()
        return data

    def to_file(self) -> dict[str, Any]:
        """Return what to save: `to_dict`, or the config.json that this was read from.

        That file is kept key by key, in its own spelling; only fields that were changed since, with
        `dataclasses.replace`, differ.
        """
        if self.raw is None:
            return self.to_dict()
        before, now = self._read(self.raw)[0].to_dict(), self.to_dict()
        changed = {n: now.get(n) for n in before.keys() | now.keys() if before.get(n) != now.get(n)}
        return respelled(self.raw, changed)


def _value_bytes(dtype: str) -> int:
    """Return the bytes of a number."""
    if dtype not in [*BYTES_PER_VALUE]:
        raise InputError(
            f"dtype is {dtype!r}; it must be one of {', '.join(BYTES_PER_VALUE)} "
            "(model.float() converts a model to float32)"
        )
    return BYTES_PER_VALUE[dtype]
