"""A recipe: everything that decides what a training gives, in one TOML file."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from qwenkit.device import DTYPES
from qwenkit.errors import ConfigError, InputError
from qwenkit.tokenizer.bpe import SMALLEST
from qwenkit.train.mix import Mix
from qwenkit.train.schedules import KINDS, Schedule

IN_WORDS = {"int": "a whole number", "float": "a finite number", "str": "a text in quotes"}


@dataclass(frozen=True)
class TrainingSettings:
    """How to train, whatever the model and the text.

    Args:
        steps: optimizer steps.
        learning_rate: the schedule's peak.
        schedule: "constant", "linear" or "cosine".
        warmup_steps: steps until the peak.
        final: last learning rate as a share of the peak.
        weight_decay: of the matrices.
        beta2: AdamW's memory of squared gradients.
        clip: the gradient's norm is cut down to this; 0: never.
        accumulate: batches whose gradients are added up before a step.
        label_smoothing: share of the target that is spread evenly.
        seed: of the initial weights, the order of the text, and the mix.
        autocast: "bfloat16": matrix products in bfloat16, weights and sums in float32, which pays
            where the machine has such products; "float32": no.
        evaluate_every: steps between evaluations of what is held out; 0: never.
        patience: stop after so many evaluations in a row without a better one; 0: never.
        save_every: steps between checkpoints; 0: only at the end.
        log_every: steps between rows of metrics.
        dtype: of the finished model's weights; the training itself is in float32.
    """

    steps: int
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup_steps: int = 0
    final: float = 0.1
    weight_decay: float = 0.1
    beta2: float = 0.95
    clip: float = 1.0
    accumulate: int = 1
    label_smoothing: float = 0.0
    seed: int = 0
    autocast: str = "float32"
    evaluate_every: int = 0
    patience: int = 0
    save_every: int = 0
    log_every: int = 10
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _check_types(self, "training")
        least = {"steps": 1, "accumulate": 1, "log_every": 1, "clip": 0, "weight_decay": 0}
        least |= {"evaluate_every": 0, "patience": 0, "save_every": 0, "seed": 0}
        _check_least(self, least)
        if self.seed >= 2**63:
            raise InputError(f"seed is {self.seed}; it must be below 2^63")
        if self.learning_rate <= 0:
            raise InputError(f"learning_rate is {self.learning_rate}; it must be above 0")
        if self.schedule not in KINDS:
            raise InputError(f"schedule is {self.schedule!r}; it must be one of {', '.join(KINDS)}")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise InputError(
                f"label_smoothing is {self.label_smoothing}; it must be from 0 to below 1"
            )
        if not 0.0 <= self.beta2 < 1.0:
            raise InputError(f"beta2 is {self.beta2}; it must be from 0 to below 1")
        if self.autocast not in ("float32", "bfloat16"):
            raise InputError(f"autocast is {self.autocast!r}; it must be float32 or bfloat16")
        if self.dtype not in DTYPES:
            raise InputError(f"dtype is {self.dtype!r}; it must be one of {', '.join(DTYPES)}")
        if self.patience and not self.evaluate_every:
            raise InputError("patience counts evaluations; set evaluate_every too")
        self.rates()

    def rates(self) -> Schedule:
        """Return the learning rate's schedule."""
        return Schedule(
            self.learning_rate, self.steps, self.schedule, self.warmup_steps, self.final
        )


@dataclass(frozen=True)
class DataSettings:
    """Which text, and how it is cut.

    Args:
        context: tokens in a window.
        batch_size: windows in a batch.
        vocab_size: of the tokenizer that is learned from the text.
        text: a folder, or "stdlib"; empty: the command names it.
        packages: installed packages whose Python files are read as well.
        include: patterns of the folder's files to read.
        leave_out: patterns of those not to read; a package's files begin with its name.
        held_out: patterns of those to evaluate on and never to train on.
        fim: see `Mix`.
        repeats: see `Mix`.
    """

    context: int = 256
    batch_size: int = 16
    vocab_size: int = 2048
    text: str = ""
    packages: tuple[str, ...] = ()
    include: tuple[str, ...] = ("*.py", "*.md", "*.txt")
    leave_out: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    fim: float = 0.0
    repeats: float = 0.0

    def __post_init__(self) -> None:
        _check_types(self, "data")
        _check_least(self, {"context": 1, "batch_size": 1, "vocab_size": SMALLEST})
        if not self.include:
            raise InputError("include is empty; it must hold the patterns of the files to read")
        self.mix()

    def mix(self) -> Mix:
        """Return the mix of text and examples."""
        return Mix(self.fim, self.repeats)


@dataclass(frozen=True)
class Recipe:
    """What `qwenkit train` follows.

    Attributes:
        model: config.json's keys; the vocabulary's size and the special ids come from the text.
        data: the text.
        training: how.
    """

    model: Mapping[str, Any]
    data: DataSettings
    training: TrainingSettings

    @classmethod
    def from_file(cls, path: str | Path) -> Recipe:
        """Read a recipe with the tables [model], [data] and [training].

        Raises:
            ConfigError: no such file, no TOML, or keys and values that no recipe has.
        """
        path = Path(path).expanduser()
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from None
        unknown = sorted(found.keys() - {"model", "data", "training"})
        absent = [name for name in ("model", "training") if name not in found]
        no_tables = [name for name, value in found.items() if not isinstance(value, dict)]
        kinds = (("unknown", unknown), ("missing", absent), ("not a table", no_tables))
        wrong = [f"{kind}: {', '.join(names)}" for kind, names in kinds if names]
        if wrong:
            raise ConfigError(
                f"{path}: a recipe has the tables [model], [data] and [training]; "
                + "; ".join(wrong)
            )
        try:
            data = _build(DataSettings, found.get("data", {}), "[data]")
            training = _build(TrainingSettings, found["training"], "[training]")
        except (InputError, ConfigError) as error:
            raise ConfigError(f"{path}: {error}") from None
        if training.evaluate_every and not data.held_out:
            raise ConfigError(f"{path}: evaluate_every needs text to evaluate on: set held_out")
        return cls(found["model"], data, training)


def _build(kind: Any, values: dict[str, Any], table: str) -> Any:
    """Make the dataclass; lists become tuples, and an unknown key is an error, not ignored."""
    names = {field.name for field in fields(kind)}
    unknown = sorted(values.keys() - names)
    if unknown:
        raise ConfigError(
            f"{table}: unknown: {', '.join(unknown)}; known: {', '.join(sorted(names))}"
        )
    if kind is TrainingSettings and "steps" not in values:
        raise ConfigError(f"{table} needs steps")
    given = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    return kind(**given)


def _check_types(settings: Any, where: str) -> None:
    """Refuse "100" for 100, true for 1, 0.5 where a whole number is wanted, and nan."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.type == "int":
            right = type(value) is int
        elif field.type == "float":
            right = type(value) in (int, float) and math.isfinite(value)
        elif field.type == "str":
            right = isinstance(value, str)
        else:
            right = isinstance(value, tuple) and all(isinstance(one, str) for one in value)
        if not right:
            wanted = IN_WORDS.get(str(field.type), "a list of texts")
            raise InputError(f"{where}.{field.name} is {value!r}; it must be {wanted}")


def _check_least(settings: Any, least: Mapping[str, int]) -> None:
    """Refuse numbers below their least."""
    for name, low in least.items():
        if getattr(settings, name) < low:
            raise InputError(f"{name} is {getattr(settings, name)}; it must be at least {low}")
