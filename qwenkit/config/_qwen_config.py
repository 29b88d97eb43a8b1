"""What a model is made of, read from config.json.

Every field bears the name it has in the file. A `QwenConfig` cannot exist with values that make no
model: it checks itself when it is made and names every problem at once. Counting needs no model:
parameters and cache bytes follow from the shapes alone.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from qwenkit.config._spelling import INT8, one_spelling, refuse_or_warn_of_unread
from qwenkit.errors import ConfigError
from qwenkit.files import read_json_object

BYTES_PER_VALUE = {"float32": 4, "bfloat16": 2, "float16": 2}


_MOST_LAYERS = 10_000  # a damaged number would fill the memory with the names of its tensors


@dataclass(frozen=True)
class YarnScaling:
    """YaRN's settings for contexts longer than the trained one (Peng et al. 2023, section 3).

    Attributes:
        factor: how many times longer than the trained context.
        original_max_position_embeddings: the trained context, in tokens.
        attention_factor: multiplies cos and sin; None: 0.1 ln(factor) + 1.
        beta_fast: pairs that turn at least this often over the trained context keep their
            frequency.
        beta_slow: pairs that turn at most this often are slowed by the whole factor.
    """

    factor: float
    original_max_position_embeddings: int
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0

    def problems(self) -> list[str]:
        """List what is wrong with these values, in words; empty when nothing is."""
        found = [
            _wrong_int(f"rope_scaling.{name}", getattr(self, name))
            for name in ("original_max_position_embeddings",)
        ]
        found += [
            _wrong_float(f"rope_scaling.{name}", getattr(self, name))
            for name in ("factor", "beta_fast", "beta_slow")
        ]
        if self.attention_factor is not None:
            found.append(_wrong_float("rope_scaling.attention_factor", self.attention_factor))
        if not any(found):
            if self.factor < 1:
                found.append(
                    f"rope_scaling.factor is {self.factor}; "
                    "it must be at least 1 (it lengthens the context)"
                )
            if self.beta_fast <= self.beta_slow:
                found.append(
                    f"rope_scaling.beta_fast is {self.beta_fast} and beta_slow {self.beta_slow}; "
                    "beta_fast must be the larger"
                )
        return [problem for problem in found if problem]


@dataclass(frozen=True)
class QwenConfig:
    """The shape of a Qwen2 model: every number its layers are built from.

    Raises:
        ConfigError: naming each field with its value and the rule it breaks.
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
    rope_scaling: YarnScaling | None = None
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
    quantization: str | None = None  # "int8": matrices stored by `quantize`

    def __post_init__(self) -> None:
        """Fill in what follows from other fields, then refuse values that make no model."""
        fill = object.__setattr__  # the dataclass is frozen for everybody else
        if isinstance(self.eos_token_id, int | list):
            eos = self.eos_token_id
            fill(self, "eos_token_id", tuple(eos) if isinstance(eos, list) else (eos,))
        if self.max_window_layers is None:
            fill(self, "max_window_layers", self.num_hidden_layers)
        sizes = (self.hidden_size, self.num_attention_heads)
        derived = self.head_dim is None
        if derived:
            sound = not any(_wrong_int("", size) for size in sizes)
            fill(self, "head_dim", self.hidden_size // self.num_attention_heads if sound else 1)
        problems = self._wrong_types() or self._wrong_relations(derived)
        if problems:
            raise ConfigError("; ".join(problems))

    def _wrong_types(self) -> list[str]:
        """Name fields whose type or sign is wrong."""
        sizes = (
            "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
            "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings",
        )  # fmt: skip
        found = [_wrong_int(name, getattr(self, name)) for name in sizes]
        found.append(_wrong_int("max_window_layers", self.max_window_layers, least=0))
        found += [
            _wrong_float(name, getattr(self, name))
            for name in ("rms_norm_eps", "rope_theta", "initializer_range")
        ]
        for name in ("tie_word_embeddings", "use_sliding_window"):
            if not isinstance(getattr(self, name), bool):
                found.append(f"{name} is {getattr(self, name)!r}; it must be true or false")
        if self.sliding_window is not None:
            found.append(_wrong_int("sliding_window", self.sliding_window))
        tokens = [("eos_token_id", token) for token in self.eos_token_id]
        tokens += [(name, getattr(self, name)) for name in ("bos_token_id", "pad_token_id")]
        found += [_wrong_int(name, token, least=0) for name, token in tokens if token is not None]
        if self.model_type != "qwen2":
            found.append(_wrong_model_type(self.model_type))
        if self.quantization not in (None, "int8"):
            found.append(f"quantization is {self.quantization!r}; it must be 'int8' or null")
        if self.hidden_act != "silu":
            found.append(
                f"hidden_act is {self.hidden_act!r}; it must be 'silu', the activation of SwiGLU"
            )
        if not isinstance(self.dtype, str) or self.dtype not in BYTES_PER_VALUE:
            found.append(f"dtype is {self.dtype!r}; it must be one of {', '.join(BYTES_PER_VALUE)}")
        if self.rope_scaling is not None:
            found += self.rope_scaling.problems()
        return [problem for problem in found if problem]

    def _wrong_relations(self, derived_head_dim: bool) -> list[str]:
        """Name fields that do not go together (every type is right by now)."""
        found = []
        splits = not derived_head_dim or self.hidden_size % self.num_attention_heads == 0
        if not splits:
            found.append(
                f"hidden_size is {self.hidden_size}; it must be divisible by "
                f"num_attention_heads ({self.num_attention_heads}), or head_dim must be given"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            found.append(
                f"num_attention_heads is {self.num_attention_heads}; it must be divisible by "
                f"num_key_value_heads ({self.num_key_value_heads}), so that every kv head serves "
                "equally many query heads"
            )
        if self.num_hidden_layers > _MOST_LAYERS:
            found.append(
                f"num_hidden_layers is {self.num_hidden_layers}; it must be at most {_MOST_LAYERS} "
                "(the largest Qwen2.5-Coder has 64)"
            )
        if self.head_dim % 2 and splits:
            found.append(
                f"head_dim is {self.head_dim}; it must be even, because RoPE turns pairs "
                "of dimensions"
            )
        for name in ("bos_token_id", "pad_token_id", "eos_token_id"):
            value = getattr(self, name)
            for token in value if isinstance(value, tuple) else (value,):
                if token is not None and token >= self.vocab_size:
                    found.append(
                        f"{name} is {token}; it must be below vocab_size ({self.vocab_size})"
                    )
        if self.use_sliding_window and self.sliding_window is None:
            found.append(
                "sliding_window is missing; it must be given where use_sliding_window is true"
            )
        if self.layer_types is not None:
            found += self._wrong_layer_types(self.layer_types)
        return found

    def _wrong_layer_types(self, layer_types: tuple[str, ...]) -> list[str]:
        unknown = sorted(set(map(str, layer_types)) - {"full_attention", "sliding_attention"})
        if unknown:
            return [
                f"layer_types holds {unknown}; it may hold 'full_attention' and 'sliding_attention'"
            ]
        if len(layer_types) != self.num_hidden_layers:
            return [
                f"layer_types has {len(layer_types)} entries; it must have "
                f"num_hidden_layers ({self.num_hidden_layers})"
            ]
        if "sliding_attention" in layer_types and not self.use_sliding_window:
            return [
                "layer_types asks for 'sliding_attention'; then use_sliding_window must be true"
            ]
        return []

    # --- what follows from the fields ---

    @property
    def num_key_value_groups(self) -> int:
        """How many query heads share one kv head."""
        return self.num_attention_heads // self.num_key_value_heads

    def window(self, layer: int) -> int | None:
        """Return how many positions, its own included, a token sees here; None: all before it."""
        if not self.use_sliding_window:
            return None
        if self.layer_types is not None:
            return self.sliding_window if self.layer_types[layer] == "sliding_attention" else None
        return self.sliding_window if layer >= self.max_window_layers else None

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape of a checkpoint's every tensor, in the forward pass's order."""
        hidden, inner = self.hidden_size, self.intermediate_size
        query, key_value = (
            self.num_attention_heads * self.head_dim,
            self.num_key_value_heads * self.head_dim,
        )
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
            "mlp.gate_proj.weight": (inner, hidden),
            "mlp.up_proj.weight": (inner, hidden),
            "mlp.down_proj.weight": (hidden, inner),
        }
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocab_size, hidden)
        }
        for number in range(self.num_hidden_layers):
            shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
        shapes["model.norm.weight"] = (hidden,)
        if not self.tie_word_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, hidden)
        if self.quantization:
            matrices = [name for name, shape in shapes.items() if len(shape) == 2]
            shapes |= {f"{name}_scale": shapes[name][:1] for name in matrices}
        return shapes

    @property
    def num_parameters(self) -> int:
        """The exact number of parameters; a tied head is the embedding and counts once.

        Scales of int8 weights are no parameters: they stand for digits that the weights lost.
        """
        shapes = self.tensor_shapes().items()
        return sum(math.prod(shape) for name, shape in shapes if not name.endswith("_scale"))

    def weight_bytes(self, dtype: str | None = None) -> int:
        """Return the bytes of all weights.

        Args:
            dtype: of what is stored as a float; None: the config's own.
        """
        shapes, size = self.tensor_shapes(), BYTES_PER_VALUE[dtype or self.dtype]
        return sum(
            math.prod(shape) * (1 if f"{name}_scale" in shapes else size)
            for name, shape in shapes.items()
        )

    def kv_bytes_per_token(self, dtype: str | None = None) -> int:
        """Return the cache's bytes for one token: keys and values, all layers, heads unrepeated.

        Args:
            dtype: "float32", "bfloat16" or "float16"; None: the config's own.
        """
        values = 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim
        return values * BYTES_PER_VALUE[dtype or self.dtype]

    # --- from and to config.json ---

    @classmethod
    def from_file(cls, path: str | Path) -> QwenConfig:
        """Read a config.json, or the one in a folder.

        Raises:
            ConfigError: no such file, not JSON, or values that make no model.
        """
        path = Path(path)
        path = path / "config.json" if path.is_dir() else path
        return cls.from_dict(read_json_object(path), where=str(path))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "config") -> QwenConfig:
        """Make a config from the keys of a config.json, in the older or the newer spelling.

        Args:
            data: the parsed JSON object.
            where: what to call it in an error.

        Raises:
            ConfigError: missing fields, or values that make no model.
        """
        try:
            if data.get("model_type", "qwen2") != "qwen2":  # another family: say that first
                raise ConfigError(_wrong_model_type(data["model_type"]))
            values = one_spelling(data)
            names = {field.name for field in fields(cls)}
            unread = {name: value for name, value in values.items() if name not in names}
            refuse_or_warn_of_unread(unread, where)
            if values["rope_scaling"] is not None:
                values["rope_scaling"] = YarnScaling(**values["rope_scaling"])
            return cls(**{name: value for name, value in values.items() if name in names})
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return a config.json's contents that transformers and `from_dict` read alike."""
        data: dict[str, Any] = {"architectures": ["Qwen2ForCausalLM"]}
        data |= {name: value for name, value in asdict(self).items() if value is not None}
        data["torch_dtype"] = data.pop("dtype")
        if data.pop("quantization", None):
            data["quantization_config"] = dict(INT8)
        data["eos_token_id"] = list(self.eos_token_id) or None
        if self.layer_types is not None:
            data["layer_types"] = list(self.layer_types)
        if self.rope_scaling is not None:
            scaling = {
                name: value
                for name, value in asdict(self.rope_scaling).items()
                if value is not None
            }
            data["rope_scaling"] = {"rope_type": "yarn", **scaling}
        return data


def _wrong_model_type(value: Any) -> str:
    return f"model_type is {value!r}; it must be 'qwen2' (Qwen2, Qwen2.5 and Qwen2.5-Coder)"


def _wrong_int(name: str, value: Any, least: int = 1) -> str:
    """Say what is wrong with a size; an empty string when nothing is."""
    if isinstance(value, bool) or not isinstance(value, int):
        return f"{name} is {value!r}; it must be a whole number"
    return f"{name} is {value}; it must be at least {least}" if value < least else ""


def _wrong_float(name: str, value: Any) -> str:
    """Say what is wrong with a positive number; an empty string when nothing is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{name} is {value!r}; it must be a number"
    return (
        ""
        if 0 < value <= sys.float_info.max
        else f"{name} is {value}; it must be greater than 0 and finite"
    )
