"""Recipes: the real one, and tables of those that cannot be followed."""

import dataclasses
import json

import pytest
import torch
from fixtures_toy import ROOT

from qwenkit.errors import ConfigError, InputError
from qwenkit.train import DataSettings, Mix, Recipe, TrainingSettings
from qwenkit.train import settings as settings_file

SHORTEST = "[model]\n[training]\nsteps = 5\n"


def recipe(tmp_path, text):
    """Read a recipe from its text or bytes."""
    file = tmp_path / "recipe.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Recipe.from_file(file)


def test_the_real_recipe_is_read():
    found = Recipe.from_file(ROOT / "data" / "tiny-coder" / "recipe.toml")
    assert (found.model["hidden_size"], found.model["tie_word_embeddings"]) == (256, True)
    data, training, rates = found.data, found.training, found.training.rates()
    assert (data.text, data.include) == ("stdlib", ("*.py",))
    assert "site-packages/*" in data.leave_out
    assert "bisect.py" in data.held_out
    assert (data.context, data.batch_size, data.vocab_size) == (512, 16, 2048)
    assert data.mix() == Mix(data.fim, data.repeats, data.programs, data.fim_lengths)
    assert rates.kind == training.schedule == "linear"
    assert (rates.peak, rates.steps) == (training.learning_rate, training.steps)
    assert (training.autocast, training.dtype, training.seed) == ("auto", "bfloat16", 1)


@pytest.mark.parametrize("able", [True, False])
def test_auto_multiplies_in_bfloat16_where_the_processor_has_instructions_for_it(able, monkeypatch):
    monkeypatch.setattr(settings_file, "has_bfloat16_products", lambda: able)
    found = {
        (autocast, device): TrainingSettings(1, autocast=autocast).products(torch.device(device))
        for autocast in ("auto", "float32", "bfloat16")
        for device in ("cpu", "mps")
    }
    want = {(name, device): getattr(torch, name) for name, device in found if name != "auto"}
    own = torch.bfloat16 if able else torch.float32
    assert found == want | {("auto", "cpu"): own, ("auto", "mps"): torch.float32}


def test_what_is_not_given_has_a_default_and_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read: No such file"):
        Recipe.from_file(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        Recipe.from_file(tmp_path)
    found = recipe(tmp_path, SHORTEST)
    assert found == Recipe({}, DataSettings(), TrainingSettings(steps=5))
    assert found.data.mix() == Mix()
    assert recipe(tmp_path, SHORTEST.replace("\n", "\r\n")) == found
    more = "final = 0\nevaluate_every = 2\n[data]\nfim = 1\nheld_out = ['a']"
    found = recipe(tmp_path, SHORTEST + more)
    assert (found.training.final, found.data.fim) == (0, 1)  # integers serve as fractions
    assert found.training.evaluate_every == 2


def test_every_key_is_read(tmp_path):
    data = DataSettings(
        64,
        2,
        300,
        "texts",
        ("numpy",),
        ("*.c",),
        ("x",),
        ("y", "z"),
        0.5,
        0.25,
        2.5,
        "quadratic",
        1,
    )
    values = 9, 1e-4, "linear", 3, 0.5, 0.0, 0.9, 0.0, 4, 0.1, 7, "bfloat16", 2, 3, 4, 5, "float16"
    training = TrainingSettings(*values, master_weights=True, optimizer="muon")
    defaults = {**vars(DataSettings()), **vars(TrainingSettings(1))}
    lines = ["[model]", "hidden_size = 8"]
    for table, settings in (("data", data), ("training", training)):
        lines.append(f"[{table}]")
        for key, value in dataclasses.asdict(settings).items():
            assert value != defaults[key], key  # or it would not show that it was read
            lines.append(f"{key} = {json.dumps(value)}")
    assert recipe(tmp_path, "\n".join(lines)) == Recipe({"hidden_size": 8}, data, training)


TRAINING = [
    (f"{'x' * 3000} = 1", r"\[training\]: unknown: x{60}\.\.\.; known"),
    ("lr = 0.1", r"\[training\]: unknown: lr; known: accumulate, .*steps"),
    ("context = 8", r"\[training\]: unknown: context"),
    ("seed = '1'", "training.seed is '1'; it must be an integer"),
    ("accumulate = true", "training.accumulate is True"),
    ("patience = 2.0", "training.patience is 2.0"),
    ("clip = true", "training.clip is True; it must be a finite"),
    ("beta2 = '0.9'", "training.beta2 is '0.9'; it must be a finite"),
    ("dtype = 32", "training.dtype is 32; it must be a string"),
    ("log_every = [1]", r"training.log_every is \(1,\)"), ("log_every = 0", "log_every is 0"),
    ("accumulate = 0", "accumulate is 0; it must be at least 1"),
    ("accumulate = 10001", "accumulate is 10001; it must be at most 10,000"),
    ("clip = -1", "clip is -1; it must be at least 0"), ("save_every = -1", "save_every is -1"),
    ("clip = nan", "clip is nan; it must be a finite number"), ("seed = -1", "seed is -1"),
    ("weight_decay = -0.1", "weight_decay is -0.1"), ("weight_decay = inf", "weight_decay is inf"),
    (f"seed = {2**63}", "seed is .*; it must be below 2"), ("patience = -1", "patience is -1"),
    ("evaluate_every = -1", "evaluate_every is -1"),
    ("patience = 3", "patience counts evaluations; set evaluate_every"),
    ("learning_rate = 0", "learning_rate is 0; it must be above 0"),
    ("learning_rate = nan", "learning_rate is nan"),
    ("schedule = 'step'", "schedule is 'step'; .* constant, linear, cosine"),
    ("warmup_steps = 5", "warmup_steps is 5; .* below the 5 steps"),
    ("final = 2.0", "final is 2.0; it must be a fraction of the peak"),
    ("beta2 = 1.0", "beta2 is 1.0; it must be from 0 to below 1"),
    ("label_smoothing = 1.0", "label_smoothing is 1.0; it must be from 0"),
    ("autocast = 'float16'", "autocast is 'float16'; it must be one of auto, float32, bfloat16"),
    ("dtype = 'int8'", "dtype is 'int8'; it must be one of float32, bfloat16"),
]  # fmt: skip
DATA = [
    ("seed = 1", r"\[data\]: unknown: seed; known: batch_size"),
    ("text = 2020-01-01", "data.text is datetime.date"), ("context = true", "data.context is True"),
    ("include = '*.py'", r"data.include is '\*.py'; it must be a list of strings"),
    ("leave_out = [1]", r"data.leave_out is \(1,\); it must be a list of strings"),
    ("held_out = [['a']]", "data.held_out is"), ("fim = true", "data.fim is True"),
    ("context = 0", "context is 0; it must be at least 1"), ("context = -8", "context is -8"),
    ("batch_size = 0", "batch_size is 0; it must be at least 1"), ("fim = nan", "fim is nan"),
    ("vocab_size = 264", "vocab_size is 264; it must be at least 265"),
    ("vocab_size = 1000001", "vocab_size is 1000001; it must be at most 1,000,000"),
    ("fim = 10.5", "fim is 10.5; it must be a number from 0 to 10"),
    ("repeats = -0.1", "repeats is -0.1"), ("include = []", "include is empty"),
    ("fim_lengths = 'even'", "fim_lengths is 'even'; it must be one of log-uniform, quadratic"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), [
    ("", "missing: training"), ("steps: 5\n", "not valid TOML"),
    (b"[model]\n# caf\xe9\n", "not valid TOML"), (SHORTEST + "steps = 6", "not valid TOML"),
    ("[model]\n", "missing: training$"),
    (SHORTEST + "[Data]\n", r"\[data\] and \[training\]; unknown: Data"),
    ("steps = 5\n" + SHORTEST, "unknown: steps"), ("data = 'x'\n" + SHORTEST, "not a table: data"),
    ("model = 3\n[training]\nsteps = 5\n", "not a table: model"),
    ("[model]\n[[training]]\nsteps = 5\n", "not a table: training"),
    ("[model]\n[training]\nseed = 1\n", r"\[training\] needs steps"),
    ("[model]\n[training]\nsteps = 0\n", "steps is 0; it must be at least 1"),
    (SHORTEST + "evaluate_every = 2", "evaluate_every needs text to evaluate on"),
    *((SHORTEST + line, message) for line, message in TRAINING),
    *((f"{SHORTEST}[data]\n{line}", message) for line, message in DATA),
])  # fmt: skip
def test_a_bad_recipe_is_refused_by_name_and_key(tmp_path, text, message):
    with pytest.raises(ConfigError, match=rf"recipe\.toml.*{message}"):
        recipe(tmp_path, text)


@pytest.mark.parametrize(("name", "value"), [
    ("context", 0), ("batch_size", -1), ("vocab_size", 100), ("include", ["*.py"]),
])  # fmt: skip
def test_settings_made_in_code_are_checked_too_and_the_smallest_are_accepted(name, value):
    with pytest.raises(InputError, match=name):
        DataSettings(**{name: value})
    assert DataSettings(context=1, batch_size=1, vocab_size=265).context == 1
    assert TrainingSettings(steps=1, seed=2**63 - 1, clip=0, weight_decay=0, beta2=0).steps == 1
