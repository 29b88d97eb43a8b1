"""A whole training from a recipe: text to tokenizer to model, in one folder.

It holds recipe.toml (what was followed), metrics.csv (the curve), tokenizer/ (learned from the
text), checkpoints/ (to resume from) and model/ (the best so far, as a Hugging Face checkpoint). If
the training started from a model, the tokenizer is that model's, and so is config.json.
"""

import functools
import operator
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType

from qwenkit.config import QwenConfig
from qwenkit.device import DTYPES, free_memory, pick_device
from qwenkit.errors import (
    CheckpointError,
    ConfigError,
    InputError,
    MemoryForecastError,
    SourceError,
)
from qwenkit.files import expanded, format_bytes, replacing, write_json
from qwenkit.model import QwenForCausalLM
from qwenkit.pretrained import accelerate, forecast, load_pretrained, trusted_device
from qwenkit.programs.generator import generate
from qwenkit.progress import stage
from qwenkit.tokenizer import Tokenizer, learn_merges, write_tokenizer
from qwenkit.train._stored import writing
from qwenkit.train.batches import Batches
from qwenkit.train.callbacks import EarlyStop, KeepModel, ProgressBar
from qwenkit.train.checkpoints import SaveTraining, checkpoints, load_training
from qwenkit.train.documents import Document, hold_out, read_documents, read_package
from qwenkit.train.evaluation import Evaluation, evaluate
from qwenkit.train.initial import init_weights
from qwenkit.train.loop import Trainer
from qwenkit.train.metrics import CsvLog
from qwenkit.train.settings import DataSettings, Recipe

_CONFIG = "config.json"  # of the model that a training started from


def train(
    recipe: str | Path,
    out: str | Path,
    *,
    text: str | Path | None = None,
    start: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
) -> Trainer:
    """Follow a recipe, and return the trainer once it has ended.

    Args:
        recipe: a TOML file; see `Recipe`.
        out: the training's folder.
        text: folder of the text; None: the one the recipe names.
        start: a model whose weights and tokenizer to begin with, as `load_pretrained` takes it; the
            recipe then has no [model]. None: an untrained one, of the shape that [model] says.
        resume: continue from the newest checkpoint in `out`.
        device: "auto": MPS where there is one and its numbers are right, else the CPU.

    Raises:
        ConfigError: a recipe that cannot be followed.
        InputError: a start for a training that is resumed, or one that is stored in int8
            or int4.
        SourceError: no text, or no such model to start from.
        CheckpointError: nothing to resume, a training already there, or writing fails.
        TrainingError: the loss is NaN or infinite, or the checkpoint is another training's.
        MemoryForecastError: there is not enough memory, by the forecast or in the middle.
    """
    out, path = expanded(out), expanded(recipe)
    steps = Recipe.from_file(path)
    there = bool(checkpoints(out / "checkpoints"))
    if there != resume:
        full = "a training; continue it with --resume, or choose another --out"
        empty = "no checkpoint to resume; begin without --resume"
        raise CheckpointError(f"{out} holds {full if there else empty}")
    if resume and start is not None:
        raise InputError("a training that is resumed has its weights already; leave start out")
    if (start is None) == (steps.model is None) and not (resume and (out / _CONFIG).exists()):
        both = "its [model] and the start both say what to begin with; leave out one of them"
        none = "it has no [model]; add that table, or name a model to start from (--start)"
        raise ConfigError(f"{path}: {none if start is None else both}")
    with stage("Reading the text"):
        kept, held = read_text(steps.data, text)
    started = None if start is None else _start(start, out)
    if not resume:
        _begin(out, path, steps, kept)
    trainer = _new_trainer(steps, out, kept, held, device, started)
    if resume:
        load_training(out / "checkpoints", trainer)
    with _stop_on_signals(trainer), _lack_of_memory_named():
        trainer.run()
    return trainer


def _begin(out: Path, path: Path, recipe: Recipe, documents: list[Document]) -> None:
    """Write the recipe into the training's folder, and a tokenizer that is learned from the text.

    A training that starts from a model has that one's tokenizer already.
    """
    if recipe.model is not None:
        _learn_tokenizer(out, recipe, documents)
    with writing(out), replacing(out / "recipe.toml") as temporary:  # it may be there already
        shutil.copyfile(path, temporary)


def _start(source: str | Path, out: Path) -> QwenForCausalLM:
    """Load a model to begin with; its tokenizer and its config go into the training's folder."""
    model, tokenizer = load_pretrained(source, device="cpu", dtype="float32")
    with writing(out):
        tokenizer.save(out / "tokenizer")
        write_json(out / _CONFIG, model.config.to_dict())
    return model.requires_grad_(True)  # it is loaded frozen


def _learn_tokenizer(out: Path, recipe: Recipe, documents: list[Document]) -> None:
    texts = [one.text for one in documents]
    if recipe.data.programs:  # as many of them as the model will read
        with stage("Writing programs"):
            texts += _programs(recipe.data.programs * sum(map(len, texts)), recipe.training.seed)
    merges = learn_merges(texts, recipe.data.vocab_size)
    with writing(out):
        write_tokenizer(out / "tokenizer", merges)


def _programs(characters: float, seed: int) -> list[str]:
    """Return generated programs that have so many characters together."""
    drawn = generate(seed)
    texts: list[str] = []
    while characters > 0:
        texts.append(next(drawn).code)
        characters -= len(texts[-1])
    return texts


def _new_trainer(
    recipe: Recipe,
    out: Path,
    kept: list[Document],
    held: list[Document],
    device: str,
    started: QwenForCausalLM | None,
) -> Trainer:
    """Return a trainer of the first model that evaluates what is held out, and saves."""
    tokenizer, data, training = Tokenizer(out / "tokenizer"), recipe.data, recipe.training
    where = trusted_device(device, training.products(pick_device(device)))
    config = _config(recipe, tokenizer, out)
    _refuse_what_cannot_fit(config, data)
    model = _new_model(config, training.seed) if started is None else started
    model = accelerate(model.to(where))
    sizes = {"context": data.context, "batch_size": data.batch_size}
    with stage("Tokenizing the text" + " and writing programs" * bool(data.programs)):
        batches = Batches(
            kept, tokenizer, **sizes, seed=training.seed, mix=data.mix(),
            short_epochs=data.short_epochs,
        )  # fmt: skip

    def held_out(model: QwenForCausalLM) -> Evaluation:
        found = evaluate(model, tokenizer, held, **sizes).values()
        return functools.reduce(operator.add, found)

    stops = [EarlyStop(training.patience)] if training.patience else []
    keep = KeepModel(out / "model", tokenizer, DTYPES[training.dtype])
    log, save = CsvLog(out / "metrics.csv"), SaveTraining(out / "checkpoints")
    callbacks = [ProgressBar(), log, *stops, keep, save]
    evaluation = held_out if held else None
    return Trainer(model, batches, training, evaluate=evaluation, callbacks=callbacks)


def _config(recipe: Recipe, tokenizer: Tokenizer, out: Path) -> QwenConfig:
    """Return the shape that the recipe says, with the tokenizer's vocabulary, or the start's."""
    if recipe.model is None:
        return QwenConfig.from_file(out / _CONFIG)
    end = tokenizer.special_id("<|endoftext|>")
    fixed = {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "vocab_size": tokenizer.num_tokens,
        "bos_token_id": end,
        "eos_token_id": [end, tokenizer.special_id("<|im_end|>")],
        "pad_token_id": end,
    }
    again = sorted(fixed.keys() & recipe.model.keys())
    if again:
        raise ConfigError(f"[model] sets {', '.join(again)}; that comes from the text")
    return QwenConfig.from_dict({**recipe.model, **fixed}, "[model]")


def _new_model(config: QwenConfig, seed: int) -> QwenForCausalLM:
    model = QwenForCausalLM(config)
    init_weights(model, seed)
    return model


def _refuse_what_cannot_fit(config: QwenConfig, data: DataSettings) -> None:
    """Refuse a training that would not fit in the free memory, before allocating any of it."""
    need = forecast(config, "float32", data.context, data.batch_size)
    # Each weight has a gradient and AdamW's two moments; the activations are those of a forward
    # alone, so this is the least that it takes.
    least, free = 4 * need.weights + need.activations, free_memory()
    if least > free:
        raise MemoryForecastError(
            f"this training needs at least {format_bytes(least)} (weights, gradients and moments "
            f"{format_bytes(4 * need.weights)}, the rest for a batch of {data.batch_size:,} × "
            f"{data.context:,} tokens) and {format_bytes(free)} is free; make the model, context "
            "or batch_size smaller"
        )


@contextmanager
def _lack_of_memory_named() -> Iterator[None]:
    """Say in our words that torch got no memory: a forecast knows only the least that is needed."""
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in ("can't allocate memory", "out of memory")):
            raise
        raise MemoryForecastError(
            "this training needs more memory than is free; what was saved is whole. Make the "
            "model, context or batch_size smaller"
        ) from None


@contextmanager
def _stop_on_signals(trainer: Trainer) -> Iterator[None]:
    """Let Ctrl-C or SIGTERM end a run after the present step; a second Ctrl-C at once.

    Outside the main thread Python delivers no signals, and nothing changes.
    """
    if current_thread() is not main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        trainer.interrupted = True
        trainer.stopping = f"stopped by {signal.Signals(number).name}"
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def read_text(
    data: DataSettings, text: str | Path | None = None
) -> tuple[list[Document], list[Document]]:
    """Return the documents to train on, and those held out; `text` replaces the recipe's folder.

    Raises:
        SourceError: no text, or as in `read_documents`, `read_package` and `hold_out`.
    """
    folder = text or data.text
    if not folder:
        raise SourceError("no text to train on; name its folder with --text")
    found = read_documents(folder, include=data.include, leave_out=data.leave_out)
    for package in data.packages:
        found += read_package(package, leave_out=data.leave_out)
    return hold_out(found, data.held_out)
