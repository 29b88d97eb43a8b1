"""A recipe: everything that decides what a training gives, in one TOML file."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch

from qwenkit.device import DTYPES, has_bfloat16_products
from qwenkit.errors import ConfigError, InputError, few, printable
from qwenkit.files import expanded
from qwenkit.tokenizer.bpe import SMALLEST
from qwenkit.train._checks import at_least, check_types, is_number, one_of, require
from qwenkit.train.schedules import KINDS, Schedule

# More than this is a typing mistake that would fill the memory before anything else could fail.
_MOST_BATCHES, _MOST_TOKENS, _MOST_TIMES = 10_000, 1_000_000, 10


@dataclass(frozen=True)
class Mix:
    """How much of the text is also shown as examples.

    Args:
        fim: how many times the text is shown again as fill-in-the-middle examples (Bavarian et al.
            2022, "Efficient Training of Language Models to Fill in the Middle"), in Qwen's order
            prefix, suffix, middle. 0.5: half of the text; 2: all of it twice, with other gaps.
        repeats: tokens of copying examples per token of text: random tokens, then the same again.
            Only the second half counts in the loss, because the first cannot be predicted. They
            teach the model to look back for what came before (Olsson et al. 2022).
        programs: tokens of generated programs (`qwenkit.programs.generate`) per token of text,
            others in each epoch; a quarter of the programs become infilling examples.
        fim_lengths: of the examples that are cut from the text, up to the context. "log-uniform":
            as many from 50 to 100 characters as from 500 to 1,000; "quadratic": the square of an
            even draw, so that more are long.
    """

    fim: float = 0.0
    repeats: float = 0.0
    programs: float = 0.0
    fim_lengths: str = "log-uniform"

    def __post_init__(self) -> None:
        one_of(("log-uniform", "quadratic"), fim_lengths=self.fim_lengths)
        for name, value in (("fim", self.fim), ("programs", self.programs)):
            fits = is_number(value) and 0.0 <= value <= _MOST_TIMES
            require(fits, name, value, f"a number from 0 to {_MOST_TIMES}")
        fits = is_number(self.repeats) and 0.0 <= self.repeats <= 1.0
        require(fits, "repeats", self.repeats, "a fraction from 0 to 1")


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; independent of the model and the text.

    Args:
        steps: optimizer steps.
        learning_rate: the schedule's peak.
        schedule: "constant", "linear" or "cosine".
        warmup_steps: steps until the peak.
        final: last learning rate as a fraction of the peak.
        weight_decay: of the matrices.
        beta2: decay of AdamW's mean of squared gradients.
        clip: the largest gradient norm; a larger gradient is scaled down. 0: never.
        accumulate: batches whose gradients are summed for one step.
        label_smoothing: fraction of the target that is spread evenly.
        seed: of the initial weights, the order of the text, and the mix.
        autocast: "bfloat16": matrix products in bfloat16, weights and sums in float32; "float32":
            everything in float32; "auto": bfloat16 on a processor with instructions for it, where
            it is faster, else float32. See `products`.
        evaluate_every: steps between evaluations of the held-out text; 0: never.
        patience: stop after this many evaluations in a row without a better one; 0: never.
        save_every: steps between checkpoints; 0: only at the end.
        log_every: steps between rows of metrics.csv.
        dtype: of the finished model's weights; the training itself is in float32.
        master_weights: train float32 copies of the weights of a model that was loaded in bfloat16
            or float16; without them its training is refused, as most small steps round away.
        optimizer: "adamw", or "muon": Muon for the matrices of the layers, AdamW for the rest.
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
    master_weights: bool = False
    optimizer: str = "adamw"

    def __post_init__(self) -> None:
        check_types(self, "training.")
        at_least(1, steps=self.steps, accumulate=self.accumulate, log_every=self.log_every)
        at_least(0, clip=self.clip, weight_decay=self.weight_decay, seed=self.seed)
        at_least(0, evaluate_every=self.evaluate_every, save_every=self.save_every)
        at_least(0, patience=self.patience)
        # A step holds all of its batches.
        rule = f"at most {_MOST_BATCHES:,}"
        require(self.accumulate <= _MOST_BATCHES, "accumulate", self.accumulate, rule)
        require(self.seed < 2**63, "seed", self.seed, "below 2^63")
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        for name, value in (("label_smoothing", self.label_smoothing), ("beta2", self.beta2)):
            require(0.0 <= value < 1.0, name, value, "from 0 to below 1")
        one_of(KINDS, schedule=self.schedule)
        one_of(("auto", "float32", "bfloat16"), autocast=self.autocast)
        one_of(DTYPES, dtype=self.dtype)
        one_of(("adamw", "muon"), optimizer=self.optimizer)
        if self.patience and not self.evaluate_every:
            raise InputError("patience counts evaluations; set evaluate_every too")
        self.rates()

    def rates(self) -> Schedule:
        """Return the learning rate's schedule."""
        return Schedule(
            self.learning_rate, self.steps, self.schedule, self.warmup_steps, self.final
        )

    def products(self, device: torch.device) -> torch.dtype:
        """Return the dtype of matrix products on a device.

        For "auto" that is bfloat16 on a processor with instructions for it, else float32: without
        them products in bfloat16 are slower than in float32.
        """
        if self.autocast != "auto":
            return DTYPES[self.autocast]
        faster = device.type == "cpu" and has_bfloat16_products()
        return torch.bfloat16 if faster else torch.float32


@dataclass(frozen=True)
class DataSettings:
    """Which text, and how it is cut into windows.

    Args:
        context: tokens in a window.
        batch_size: windows in a batch.
        vocab_size: of the tokenizer that is learned from the text.
        text: a folder, or "stdlib"; empty: named when the training starts.
        packages: installed packages whose Python files are read as well.
        include: patterns of the folder's files to read.
        leave_out: patterns of files not to read; a package's files begin with its name.
        held_out: patterns of files to evaluate on and never to train on.
        fim: see `Mix`.
        repeats: see `Mix`.
        programs: see `Mix`.
        fim_lengths: see `Mix`.
        short_epochs: in so many epochs at the beginning windows have half the context, and a batch
            twice as many of them: attention costs less there.
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
    programs: float = 0.0
    fim_lengths: str = "log-uniform"
    short_epochs: int = 0

    def __post_init__(self) -> None:
        check_types(self, "data.")
        at_least(0, short_epochs=self.short_epochs)
        at_least(1, context=self.context, batch_size=self.batch_size)
        at_least(SMALLEST, vocab_size=self.vocab_size)
        rule = f"at most {_MOST_TOKENS:,} (Qwen2.5 has 151,665)"
        require(self.vocab_size <= _MOST_TOKENS, "vocab_size", self.vocab_size, rule)
        if not self.include:
            raise InputError("include is empty; it must hold the patterns of the files to read")
        self.mix()

    def mix(self) -> Mix:
        """Return the mix of text and examples."""
        return Mix(self.fim, self.repeats, self.programs, self.fim_lengths)


@dataclass(frozen=True)
class Recipe:
    """What `qwenkit train` follows."""

    # config.json's keys; vocabulary and special ids come from the text. None: a start is needed.
    model: Mapping[str, Any] | None
    data: DataSettings
    training: TrainingSettings

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read a recipe with the tables [model], [data] and [training]; [model] may be absent.

        Raises:
            ConfigError: no such file, invalid TOML, or keys or values that a recipe cannot have.
        """
        path = expanded(path)
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
        except RecursionError:
            raise ConfigError(f"{path} is nested too deeply to be a recipe") from None
        except ValueError as error:  # TOML's own, not UTF-8, or a number of thousands of digits
            raise ConfigError(f"{path} is not valid TOML: {error}") from None
        kinds = {
            "unknown": sorted(found.keys() - {"model", "data", "training"}),
            "missing": [] if "training" in found else ["training"],
            "not a table": [name for name, value in found.items() if not isinstance(value, dict)],
        }
        wrong = [
            f"{kind}: {few(printable(one, 60) for one in names)}"
            for kind, names in kinds.items()
            if names
        ]
        if wrong:
            expected = "a recipe has the tables [model], [data] and [training]"
            raise ConfigError(f"{path}: {expected}; {'; '.join(wrong)}")
        try:
            data = _build(DataSettings, found.get("data", {}), "[data]")
            training = _build(TrainingSettings, found["training"], "[training]")
        except (InputError, ConfigError) as error:
            raise ConfigError(f"{path}: {error}") from None
        if training.evaluate_every and not data.held_out:
            raise ConfigError(f"{path}: evaluate_every needs text to evaluate on: set held_out")
        return cls(found.get("model"), data, training)


def _build(kind: Any, values: dict[str, Any], table: str) -> Any:
    """Make the dataclass; lists become tuples, and an unknown key is an error, not ignored."""
    names = {field.name for field in fields(kind)}
    unknown = sorted(values.keys() - names)
    if unknown:
        raise ConfigError(
            f"{table}: unknown: {few(printable(one, 60) for one in unknown)}; known: "
            f"{', '.join(sorted(names))}"
        )
    if kind is TrainingSettings and "steps" not in values:
        raise ConfigError(f"{table} needs steps")
    given = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    return kind(**given)
