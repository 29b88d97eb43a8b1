"""QwenConfig: counts, spellings, windows, and what is refused with which message."""

import json
import math
import warnings
from dataclasses import replace

import pytest
import torch
from fixtures_toy import PUBLISHED, published
from transformers import Qwen2Config

from qwenkit.config import QwenConfig, YarnScaling
from qwenkit.errors import ConfigError, InputError, QwenkitError
from qwenkit.model import QwenForCausalLM

RAW = {
    "model_type": "qwen2", "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0,
    "hidden_act": "silu", "tie_word_embeddings": True, "use_sliding_window": False,
    "sliding_window": 4, "max_window_layers": 1, "torch_dtype": "bfloat16",
    "eos_token_id": 7, "bos_token_id": 6, "initializer_range": 0.02, "use_cache": True,
    "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0,
    "transformers_version": "4.44.0",
}  # fmt: skip


ABSENT = object()  # a key that is not there
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
YARN_READ = YarnScaling(factor=4.0, original_max_position_embeddings=32)
NEW = {"rope_theta": ABSENT, "torch_dtype": ABSENT, "dtype": "bfloat16"}
FULL, SLIDING = "full_attention", "sliding_attention"


def without_absent(values):
    return {name: value for name, value in values.items() if value is not ABSENT}


def read(**changes):
    return QwenConfig.from_dict(without_absent({**RAW, **changes}))


def refused(**changes):
    """Return the message with which a config is refused."""
    with pytest.raises(ConfigError) as caught:
        read(**changes)
    return str(caught.value)


# --- counts ---


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_of_the_published_sizes(size):
    config, (*_, head_dim, parameters) = published(size), PUBLISHED[size]
    assert (config.head_dim, config.num_parameters) == (head_dim, parameters)
    with torch.device("meta"):
        model = QwenForCausalLM(config)
    assert sum(weight.numel() for weight in model.parameters()) == parameters
    assert {n: tuple(w.shape) for n, w in model.state_dict().items()} == config.tensor_shapes()


def test_cache_bytes_of_a_token():
    config = published("0.5B")  # 2 (k, v) × 24 layers × 2 kv heads × 64 × 2 bytes
    assert config.kv_bytes_per_token() == 12_288
    assert config.kv_bytes_per_token("bfloat16") == config.kv_bytes_per_token("float16") == 12_288
    assert config.kv_bytes_per_token("float32") == 24_576
    assert published("7B").kv_bytes_per_token() == 57_344
    assert config.num_key_value_groups == 7


@pytest.mark.parametrize("count", [QwenConfig.kv_bytes_per_token, QwenConfig.weight_bytes])
@pytest.mark.parametrize("dtype", ["float64", "fp16", 8, ["float32"]])
def test_bytes_in_an_unknown_dtype_are_refused(count, dtype):
    with pytest.raises(InputError, match="it must be one of float32, bfloat16, float16"):
        count(published("0.5B"), dtype)


def test_an_explicit_head_dim_wins():
    config = read(head_dim=10)
    assert config.head_dim == 10
    shapes = {"q_proj.weight": (40, 32), "k_proj.bias": (20,), "o_proj.weight": (32, 40)}
    for name, shape in shapes.items():
        assert config.tensor_shapes()[f"model.layers.2.self_attn.{name}"] == shape
    assert read().head_dim == 8
    assert read(hidden_size=30, head_dim=8).head_dim == 8  # then heads need not divide hidden


# --- spellings ---


@pytest.mark.parametrize("theta", [1e6, 10_000.0, 500_000])
def test_the_older_and_the_newer_spelling_read_the_same(theta):
    config = read(rope_theta=theta)
    assert (config.rope_theta, config.dtype, config.rms_norm_eps) == (theta, "bfloat16", 1e-5)
    assert (config.eos_token_id, config.bos_token_id, config.pad_token_id) == ((7,), 6, None)
    assert config.tie_word_embeddings is True
    rope = {"rope_type": "default", "rope_theta": theta}
    assert read(**NEW, rope_parameters=rope) == config
    both = {"rope_theta": theta, "rope_parameters": rope, "dtype": "bfloat16"}
    assert read(**both) == config  # they agree


@pytest.mark.parametrize(("key", "changes"), [
    ("rope_scaling", {}), ("rope_scaling", {"rope_type": "yarn"}),
    ("rope_parameters", {"rope_theta": 1e6}),
    ("rope_parameters", {"type": ABSENT, "rope_type": "yarn", "rope_theta": 1e6}),
])  # fmt: skip
def test_yarn_in_every_spelling(key, changes):
    rope = {key: without_absent({**YARN, **changes})}
    assert read(**(NEW if key == "rope_parameters" else {}), **rope).rope_scaling == YARN_READ


def test_yarn_settings_and_defaults():
    newer = {**YARN, "rope_type": YARN["type"], "type": None, "rope_theta": 1e6}
    for both in ({"rope_theta": 1e6}, YARN, newer, {}):
        assert read(rope_scaling=YARN, rope_parameters=both).rope_scaling == YARN_READ
    given = {**YARN, "attention_factor": 0.9, "beta_fast": 16, "beta_slow": 2}
    assert read(rope_scaling=given).rope_scaling == YarnScaling(4.0, 32, 0.9, 16, 2)
    bare = {"type": "yarn", "factor": 2.0}
    assert read(rope_scaling=bare).rope_scaling == YarnScaling(2.0, 128)  # the model's own context
    absent = {**YARN, "beta_fast": 0, "beta_slow": None, "mscale": 0.0}
    assert read(rope_scaling=absent).rope_scaling == YARN_READ
    derived = {**YARN, "factor": None}
    assert read(rope_scaling=derived).rope_scaling == YARN_READ  # 128 / 32
    outside = {"rope_scaling": bare, "original_max_position_embeddings": 32}
    assert read(**outside).rope_scaling == YarnScaling(2.0, 32)
    for off in (None, {"type": "default"}):
        assert read(rope_scaling=off).rope_scaling is None


def test_an_activation_by_its_other_name_and_a_window_of_null_read_as_in_transformers():
    assert read(hidden_act="swish").tensor_shapes() == read().tensor_shapes()
    config = read(use_sliding_window=True, sliding_window=None)
    assert [config.window(layer) for layer in range(3)] == [None] * 3  # all attention is full
    theirs = Qwen2Config(**config.to_dict())
    assert set(theirs.layer_types) == {"full_attention"}


def test_unknown_keys_of_rope_scaling_are_ignored_with_a_warning():
    unknown = {**YARN, "attn_factor": 0.8, "finetuned": True}
    with pytest.warns(UserWarning, match="rope_scaling: .* ignores attn_factor, finetuned"):
        assert read(rope_scaling=unknown).rope_scaling == YARN_READ
    many = {**YARN, **{f"k{i}": 1 for i in range(10**5)}}
    with pytest.warns(UserWarning, match="k0") as heard:
        read(rope_scaling=many)
    assert len(str(heard[0].message)) < 12_000


def test_stop_tokens_become_a_tuple_and_null_kv_heads_are_as_many_as_heads():
    for eos, want in ((ABSENT, ()), (None, ()), (7, (7,)), ([7, 9], (7, 9)), ([], ())):
        assert read(eos_token_id=eos).eos_token_id == want
    for form in (5, [5], (5,)):
        assert QwenConfig(61, 32, 48, 3, 4, 2, eos_token_id=form).eos_token_id == (5,)
    assert read(num_key_value_heads=None).num_key_value_heads == 4


# --- sliding window ---


@pytest.mark.parametrize(("changes", "windows"), [
    ({}, [None, None, None]),  # sliding_window means nothing while use_sliding_window is false
    ({"use_sliding_window": True}, [None, 4, 4]),
    ({"use_sliding_window": True, "max_window_layers": 0}, [4, 4, 4]),
    ({"use_sliding_window": True, "max_window_layers": 3}, [None, None, None]),
    ({"use_sliding_window": True, "layer_types": [SLIDING, FULL, SLIDING]}, [4, None, 4]),
    ({"layer_types": [FULL] * 3}, [None, None, None]),
    ({"sliding_window": None}, [None, None, None]),
])  # fmt: skip
def test_which_layers_slide(changes, windows):
    config = read(**changes)
    assert [config.window(layer) for layer in range(3)] == windows


# --- what is refused ---

NAN, INF = math.nan, math.inf
AT_LEAST_1 = (
    "vocab_size", "hidden_size", "intermediate_size", "num_attention_heads",
    "num_key_value_heads", "head_dim", "max_position_embeddings",
)  # fmt: skip
BAD = [  # field, values, what the message says besides field and value, other changes
    *((name, [0], "at least 1") for name in AT_LEAST_1),
    ("num_hidden_layers", [0, -3], "at least 1"),
    ("intermediate_size", [True, 48.0, "48", [48], None], "integer"),
    ("max_position_embeddings", [False, 1e4, {}, None], "integer"),
    ("num_attention_heads", ["4"], "integer"), ("hidden_size", [32.0], "integer"),
    ("head_dim", [8.0], "integer"), ("max_window_layers", [-1], "at least 0"),
    ("max_window_layers", ["1"], "integer"),
    ("hidden_size", [30], "divisible by num_attention_heads (4), or head_dim must be given"),
    ("num_attention_heads", [4], "divisible by num_key_value_heads (3)", "num_key_value_heads", 3),
    ("num_attention_heads", [4], "divisible by num_key_value_heads (8)", "num_key_value_heads", 8),
    ("num_hidden_layers", [10**9], "at most"),  # it would fill the memory with names
    ("head_dim", [7], "must be even"),
    ("rms_norm_eps", [0, -1e-6, NAN, INF, -INF], "greater than 0 and finite"),
    ("rope_theta", [0.0, -1e6, NAN, INF, 10**400], "greater than 0 and finite"),
    ("rms_norm_eps", ["1e-6", True, None, [1e-6]], "must be a number"),
    ("rope_theta", ["1000000", False, None], "must be a number"),
    ("initializer_range", [0], "greater than 0"),
    ("model_type", ["llama", "qwen3", None, 2], "must be 'qwen2'"),
    ("hidden_act", ["gelu", "relu", None], "must be 'silu'"),
    ("torch_dtype", [["float32"], 32], "float32, bfloat16, float16"),
    ("tie_word_embeddings", [1, "false", None], "true or false"),
    ("use_sliding_window", ["yes"], "true or false"), ("sliding_window", [0], "at least 1"),
    ("sliding_window", ["4096"], "integer"),
    ("eos_token_id", ["end", True], "integer"), ("bos_token_id", [-2], "at least 0"),
    ("pad_token_id", [61], "below vocab_size (61)"), ("pad_token_id", [1.0], "integer"),
    ("layer_types", [FULL], "must be a list"),
    ("rope_scaling", ["yarn", [], 0, ""], "must be an object or null"),
    ("rope_parameters", [[1], "yarn", [], 0, ""], "must be an object or null"),
    ("quantization_config", [{"bits": 4}], "the unquantized checkpoint"),
    ("partial_rotary_factor", [0.5], "does not implement"),
    *((name, [2**63], "at most 9223372036854775807 (64 bits)") for name in (
        *AT_LEAST_1, "num_hidden_layers", "max_window_layers", "sliding_window")),
    ("use_mrope", [True], "does not implement"),
]  # fmt: skip
BAD_VALUES = [(row[0], value, row[2], row[3:]) for row in BAD for value in row[1]]


@pytest.mark.parametrize(
    ("field", "value", "rule", "more"),
    BAD_VALUES,
    ids=[f"{field}={str(value)[:20]!r} {more}" for field, value, _, more in BAD_VALUES],
)
def test_a_bad_value_is_refused_with_field_value_and_rule(field, value, rule, more):
    message = refused(**{field: value}, **dict([more] if more else []))
    assert message.startswith("config: ")
    assert rule in message
    if value != [7, 61]:  # of which the second alone is wrong
        assert f"{field.removeprefix('torch_')} is {value!r}" in message


EVERY = "every Qwen2 config.json has"
RELATED_BAD = [
    ({"use_sliding_window": True, "sliding_window": None, "layer_types": [SLIDING] * 3},
     "asks for 'sliding_attention'; use_sliding_window must be true and sliding_window given"),
    ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": ABSENT},
     "missing max_window_layers"),
    ({"use_sliding_window": True, "sliding_window": ABSENT}, "missing sliding_window"),
    ({"layer_types": [FULL]}, "layer_types has 1 entries; it must have num_hidden_layers (3)"),
    ({"layer_types": [FULL, "linear_attention", FULL]},
     "layer_types holds ['linear_attention']; it may hold 'full_attention'"),
    ({"layer_types": [SLIDING] * 3},
     "asks for 'sliding_attention'; use_sliding_window must be true"),
    ({"rope_parameters": {"rope_theta": 10000.0}},
     "rope_theta is 1000000.0 and rope_parameters.rope_theta is 10000.0; they must agree"),
    ({"rope_parameters": {**YARN, "factor": 2.0}, "rope_scaling": YARN},
     "rope_parameters and rope_scaling differ"),
    ({"rope_parameters": {"rope_type": "default"}, "rope_scaling": YARN},
     "rope_parameters and rope_scaling differ"),
    ({"rope_scaling": {**YARN, "rope_theta": 100.0}},
     "rope_theta is 1000000.0 and rope_scaling.rope_theta is 100.0; they must agree"),
    ({"dtype": "float32"}, "dtype is 'float32' and torch_dtype is 'bfloat16'; they must agree"),
    *(({name: ABSENT}, f"missing {name}; {EVERY}") for name in (
        "model_type", "num_hidden_layers", "rms_norm_eps", "rope_theta",
        *(name for name in AT_LEAST_1 if name != "head_dim"))),
    ({**NEW, "rope_parameters": {"rope_type": "default"}}, "missing rope_theta"),
    ({"vocab_size": ABSENT, "rope_theta": ABSENT}, f"missing vocab_size, rope_theta; {EVERY}"),
    # Every problem is named at once; sizes that do not divide hide no other one.
    ({"vocab_size": 0, "rms_norm_eps": NAN, "hidden_act": "gelu", "head_dim": True},
     "vocab_size is 0", "rms_norm_eps is nan", "'gelu'", "head_dim is True"),
    ({"num_key_value_heads": 3, "head_dim": 7}, "num_key_value_heads", "head_dim is 7"),
    ({"hidden_size": 30, "vocab_size": 0}, "vocab_size is 0"),
    ({"layer_types": [SLIDING, "odd"]}, "holds ['odd']", "has 2 entries", "asks for"),
]  # fmt: skip
TRAINED = "original_max_position_embeddings"
ROPE_TYPES = "'default', 'linear', 'dynamic', 'yarn'"
YARN_BAD = [
    *(({"type": wrong}, f"rope type is '{wrong}'; it must be one of {ROPE_TYPES}")
      for wrong in ("llama3", "longrope", 3)),
    ({"factor": ABSENT}, "rope_scaling.factor is missing"),
    ({"factor": 0.5}, "rope_scaling.factor is 0.5; it must be at least 1"),
    ({"factor": "4"}, "rope_scaling.factor is '4'; it must be a number"),
    ({"factor": NAN}, "rope_scaling.factor is nan; it must be greater than 0 and finite"),
    ({"original_max_position_embeddings": 0}, "embeddings is 0; it must be at least 1"),
    ({"original_max_position_embeddings": 32.0}, "is 32.0; it must be an integer"),
    ({"beta_fast": 1.0, "beta_slow": 2.0}, "beta_fast is 1.0; it must be larger than beta_slow"),
    ({"factor": 0.5, "beta_fast": 1.0}, "factor is 0.5", "beta_fast is 1.0"),
    ({"attention_factor": -1}, "rope_scaling.attention_factor is -1; it must be greater than 0"),
    ({"mscale": "2"}, "rope_scaling.mscale is '2'; it must be a number"),
    ({"truncate": 1}, "rope_scaling.truncate is 1; it must be true or false"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5, which qwenkit does not"),
    ({"type": ["yarn"]}, f"it must be one of {ROPE_TYPES}"),
    ({"type": "linear", "factor": 0.5, TRAINED: ABSENT},
     "rope_scaling.factor is 0.5; it must be at least 1"),
    ({"type": "dynamic", "factor": ABSENT, TRAINED: ABSENT},
     "rope_scaling.factor is missing; 'dynamic' needs it"),
    *(({name: wrong}, f"rope_scaling.{name} is {wrong}; it must be between 1e-30 and 1e+30")
      for name in ("factor", "beta_fast") for wrong in (1e31, 1e308)),
    *(({name: 1e-31}, f"rope_scaling.{name} is 1e-31; it must be between 1e-30 and 1e+30")
      for name in ("attention_factor", "beta_slow")),
    ({"original_max_position_embeddings": 10**30}, "at most 9223372036854775807"),
    ({"rope_type": "default"}, "rope type is 'default' and 'yarn'; it must be"),
]  # fmt: skip
RELATED_BAD.append(
    ({"rope_theta": 1, "rope_scaling": YARN}, "rope_theta is 1.0; it must be a number other")
)
RELATED_BAD += [({"rope_scaling": without_absent({**YARN, **bad})}, *say) for bad, *say in YARN_BAD]


@pytest.mark.parametrize("row", RELATED_BAD, ids=[str(row[-1]) for row in RELATED_BAD])
def test_fields_that_contradict_each_other_are_refused(row):
    changes, *fragments = row
    message = refused(**changes)
    for fragment in fragments:
        assert fragment in message


IDS = torch.arange(5)[None]
EXTREME = [
    {"rms_norm_eps": 10**30}, {"rope_theta": 10**30}, {"rope_theta": 1}, {"rope_theta": 10**300},
    {"rope_scaling": {**YARN, "factor": 10**30}}, {"use_sliding_window": True, "sliding_window":
     2**63 - 1}, {"rope_scaling": {**YARN, "original_max_position_embeddings": 2**63 - 1}},
    {"rope_scaling": {**YARN, "beta_fast": 1e30, "beta_slow": 1e-30}}, {"rope_theta": 1e-300},
    {"rope_scaling": {**YARN, "attention_factor": 10**20}}, {"max_position_embeddings": 2**63 - 1},
]  # fmt: skip


@pytest.mark.parametrize("changes", EXTREME, ids=str)
def test_extreme_numbers_compute(changes):
    """An integer where a float is meant must not reach torch, which takes 64 bits."""
    config = read(**changes)
    assert QwenForCausalLM(config)(IDS).shape == (1, 5, 61)
    assert all(type(getattr(config, n)) is float for n in ("rope_theta", "rms_norm_eps"))


@pytest.mark.parametrize("changes", [
    {"model_type": "x" * 10**6}, {"hidden_act": ["y" * 100] * 10**4}, {"rope_theta": "1" * 10**6},
    {"eos_token_id": ["a"] * 10**5}, {"layer_types": list(map(str, range(10**5)))},
    {"rope_scaling": {"type": "z" * 10**6}}, {"quantization_config": {"bits": "4" * 10**6}},
    {"dtype": ["q" * 10**6]},
], ids=lambda changes: next(iter(changes)))  # fmt: skip
def test_a_message_is_short_whatever_was_in_the_file(changes):
    message = refused(**changes)
    assert len(message) < 12_000
    assert next(iter(changes)) in message.replace("rope type", "rope_scaling")


def test_a_warning_is_short_and_shows_names_escaped():
    with pytest.warns(UserWarning, match=r"a\\x1b, k0, .* and 99,981 more") as caught:
        read(**{"a\x1b": 1}, **{f"k{i}": 1 for i in range(10**5)})
    assert len(str(caught[0].message)) < 1_000


def test_made_by_hand_it_checks_itself_too():
    config = QwenConfig(61, 32, 48, 3, 4, 2)
    assert config.rope_theta == 1_000_000
    with pytest.raises(ConfigError, match="divisible by num_key_value_heads"):
        QwenConfig(61, 32, 48, 3, 4, 3)
    with pytest.raises(AttributeError):
        config.hidden_size = 64  # frozen


def test_unknown_keys_warn_and_known_harmless_ones_do_not():
    with pytest.warns(UserWarning, match="does not know and ignores flux, zeta") as caught:
        config = read(zeta=1, flux="x")
    assert len(caught) == 1
    assert config == read()  # read() alone: a warning would be an error
    with pytest.warns(UserWarning, match="ignores foo"):
        read(rope_parameters={"rope_type": "default", "rope_theta": 1e6, "foo": 2})
    no_effect = {"quantization_config": None, "attention_bias": False, "partial_rotary_factor": 1.0}
    assert read(**no_effect, use_mrope=False, mlp_bias=True) == read()


def test_an_eos_or_bos_without_a_row_never_comes_and_is_left_out_with_a_warning():
    with pytest.warns(UserWarning, match=r"tokens \[61, 99\], which the vocabulary of 61 has no"):
        config = QwenConfig.from_dict({**RAW, "eos_token_id": [7, 61], "bos_token_id": 99})
    assert (config.eos_token_id, config.bos_token_id) == ((7,), None)


@pytest.mark.parametrize(("changes", "field", "value"), [
    ({"pad_token_id": -1}, "pad_token_id", None), ({"bos_token_id": -1}, "bos_token_id", None),
    ({"eos_token_id": -1}, "eos_token_id", ()), ({"eos_token_id": [7, -1]}, "eos_token_id", (7,)),
    ({"torch_dtype": "torch.float16"}, "dtype", "float16"),
    ({"dtype": "auto"}, "dtype", "bfloat16"), ({"torch_dtype": "float64"}, "dtype", "bfloat16"),
    ({"dtype": "float16", "torch_dtype": "auto"}, "dtype", "float16"),
])  # fmt: skip
def test_other_spellings_of_none_and_of_a_dtype_are_read_and_kept(changes, field, value):
    raw = {key: one for key, one in {**RAW, **changes}.items() if key != "torch_dtype"} | changes
    config = QwenConfig.from_dict(raw)
    assert getattr(config, field) == value
    assert replace(config, raw=raw).to_file() == raw


# --- files ---


def test_a_file_and_its_folder_read_alike(tmp_path):
    path = tmp_path / "config.json"
    for where in (tmp_path, path):
        with pytest.raises(ConfigError, match=r"config\.json does not exist; a checkpoint folder"):
            QwenConfig.from_file(where)
    path.write_text(json.dumps(RAW), encoding="utf-8")
    assert QwenConfig.from_file(path) == QwenConfig.from_file(str(tmp_path)) == read()


BAD_FILES = [
    (b'{"vocab_size": 61,', "not valid JSON", "line 1, column"),
    (b"", "not valid JSON", "line 1, column 1"), (b"[1, 2]", "JSON list", "must hold an object"),
    (b"3", "JSON int", "must hold an object"), (b"null", "JSON NoneType", "must hold an object"),
    (b'{"a": "\xe9"}', "not UTF-8", "byte 7"),
    ('{"a": 1}'.encode("utf-16"), "not UTF-8", "byte 0"),
    (b'{"a":' + b"[" * 200_000, "nested too deeply"),
    (b'{"vocab_size": ' + b"9" * 5000 + b"}", "not valid JSON"),
    *((json.dumps(RAW).replace("1e-05", number).encode(),  # JSON for Python alone
       f"rms_norm_eps is {value}; it must be greater than 0 and finite") for number, value in (
        ("NaN", "nan"), ("Infinity", "inf"), ("-Infinity", "-inf"), ("1e999", "inf"))),
]  # fmt: skip


@pytest.mark.parametrize("row", BAD_FILES, ids=[str(row[1:]) for row in BAD_FILES])
def test_a_bad_file_is_refused(row, tmp_path):
    content, *fragments = row
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        QwenConfig.from_file(path)
    assert isinstance(caught.value, QwenkitError)
    assert isinstance(caught.value, ValueError)
    for fragment in (str(path), *fragments):
        assert fragment in str(caught.value)


# --- back to config.json ---

ROUND_TRIPS = {
    "plain": {}, "untied": {"tie_word_embeddings": False},
    "head_dim": {"head_dim": 10}, "yarn": {"rope_scaling": {**YARN, "attention_factor": 0.9}},
    "linear": {"rope_scaling": {"type": "linear", "factor": 4}},
    "dynamic": {"rope_scaling": {"type": "dynamic", "factor": 2.5}},
    "truncate": {"rope_scaling": {**YARN, "truncate": False, "attention_factor": 0.9}},
    "sliding": {"use_sliding_window": True},
    "layer types": {"use_sliding_window": True, "layer_types": [SLIDING, FULL, FULL]},
    "stop tokens": {"eos_token_id": [7, 9], "pad_token_id": 9},
    "no stop tokens": {"eos_token_id": None},
}  # fmt: skip


@pytest.mark.parametrize("changes", ROUND_TRIPS.values(), ids=ROUND_TRIPS)
def test_to_dict_round_trips_and_transformers_reads_the_same(changes):
    config = read(**changes)
    written = json.loads(json.dumps(config.to_dict()))
    assert QwenConfig.from_dict(written) == config
    theirs = Qwen2Config(**written)
    for name in (
        *AT_LEAST_1, "num_hidden_layers", "rms_norm_eps", "tie_word_embeddings", "hidden_act",
        "use_sliding_window", "max_window_layers", "initializer_range", "bos_token_id",
        "pad_token_id",
    ):  # fmt: skip
        assert getattr(theirs, name) == getattr(config, name), name
    assert theirs.rope_parameters["rope_theta"] == config.rope_theta
    assert theirs.dtype == torch.bfloat16
    eos = theirs.eos_token_id
    assert (tuple(eos) if isinstance(eos, list) else eos) == (config.eos_token_id or None)
    slides = [config.window(layer) is not None for layer in range(3)]
    assert [kind == "sliding_attention" for kind in theirs.layer_types] == slides
    if config.rope_scaling is not None:
        for name in {"rope_type", *vars(config.rope_scaling)} - {"mscale", "mscale_all_dim"}:
            got = theirs.rope_parameters.get(name, True)  # truncate is written where it is false
            assert got == getattr(config.rope_scaling, name)


@pytest.mark.parametrize("changes", ROUND_TRIPS.values(), ids=ROUND_TRIPS)
def test_what_transformers_writes_reads_the_same(changes, tmp_path):
    config = read(**changes)
    Qwen2Config(**config.to_dict()).save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no key of theirs is unknown
        again = QwenConfig.from_file(tmp_path)
    assert all(config.window(layer) == again.window(layer) for layer in range(3))
    assert again.tensor_shapes() == config.tensor_shapes()
    for name in ("rope_theta", "rope_scaling", "rms_norm_eps", "eos_token_id", "dtype"):
        assert getattr(again, name) == getattr(config, name), name
