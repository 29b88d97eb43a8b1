"""A whole training from a recipe: text to tokenizer to model, in one folder.

It holds recipe.toml (what was followed), metrics.csv (the curve), tokenizer/ (learned from the
text), checkpoints/ (to go on from) and model/ (the best so far, as a Hugging Face checkpoint).
"""

from __future__ import annotations

import functools
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType

from qwenkit.config import QwenConfig
from qwenkit.device import DTYPES
from qwenkit.errors import CheckpointError, ConfigError, SourceError
from qwenkit.files import clear_leftovers
from qwenkit.model import QwenForCausalLM
from qwenkit.pretrained import trusted_device
from qwenkit.tokenizer import Tokenizer, learn_merges, write_tokenizer
from qwenkit.train.batches import Batches
from qwenkit.train.callbacks import CsvLog, EarlyStop, KeepModel, ProgressBar, SaveTraining
from qwenkit.train.checkpoints import checkpoints, load_training, writing
from qwenkit.train.documents import Document, hold_out, read_documents, read_package
from qwenkit.train.evaluation import Evaluation, evaluate
from qwenkit.train.initial import init_weights
from qwenkit.train.loop import Trainer
from qwenkit.train.settings import DataSettings, Recipe


def train(
    recipe: str | Path,
    out: str | Path,
    *,
    text: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
) -> Trainer:
    """Follow a recipe, and return the trainer once it has ended.

    Args:
        recipe: a TOML file; see `Recipe`.
        out: the training's folder.
        text: folder of the text; None: the one the recipe names.
        resume: go on from the newest checkpoint in `out`.
        device: "auto": MPS where there is one and its numbers are right, else the CPU.

    Raises:
        ConfigError: a recipe that cannot be followed.
        SourceError: no text.
        CheckpointError: nothing to resume, something there already, or writing fails.
        TrainingError: the loss is no longer a number, or the checkpoint is another training's.
    """
    out, recipe = Path(out).expanduser(), Path(recipe).expanduser()
    steps = Recipe.from_file(recipe)
    there = bool(checkpoints(out / "checkpoints"))
    if there and not resume:
        raise CheckpointError(
            f"{out} holds a training; go on with --resume, or choose another --out"
        )
    if resume and not there:
        raise CheckpointError(f"{out} holds no checkpoint to resume; begin without --resume")
    kept, held = read_text(steps.data, text)
    if not resume:
        merges = learn_merges((one.text for one in kept), steps.data.vocab_size)
        clear_leftovers(out / "tokenizer", r"\w+\.json")
        with writing(out):
            write_tokenizer(out / "tokenizer", merges)
            with suppress(shutil.SameFileError):  # the recipe may lie there already
                shutil.copyfile(recipe, out / "recipe.toml")
    tokenizer = Tokenizer(out / "tokenizer")
    where = trusted_device(device, steps.training.autocast)  # the dtype of its products
    model = new_model(steps, tokenizer).to(where)
    trainer = Trainer(
        model,
        Batches(
            kept,
            tokenizer,
            context=steps.data.context,
            batch_size=steps.data.batch_size,
            seed=steps.training.seed,
            mix=steps.data.mix(),
        ),
        steps.training,
    )
    if held:
        trainer.evaluate = functools.partial(
            _held_out, tokenizer=tokenizer, documents=held, data=steps.data
        )
    stops = [EarlyStop(steps.training.patience)] if steps.training.patience else []
    trainer.callbacks = [
        ProgressBar(),
        CsvLog(out / "metrics.csv"),
        *stops,
        KeepModel(out / "model", tokenizer, DTYPES[steps.training.dtype]),
        SaveTraining(out / "checkpoints"),
    ]
    if resume:
        load_training(out / "checkpoints", trainer)
    with stop_on_signals(trainer):
        trainer.run()
    return trainer


def new_model(recipe: Recipe, tokenizer: Tokenizer) -> QwenForCausalLM:
    """Return an untrained model of the recipe's shape and the tokenizer's vocabulary.

    Raises:
        ConfigError: a shape that no Qwen2 model can have.
    """
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
    model = QwenForCausalLM(QwenConfig.from_dict({**recipe.model, **fixed}, "[model]"))
    init_weights(model, recipe.training.seed)
    return model


@contextmanager
def stop_on_signals(trainer: Trainer) -> Iterator[None]:
    """Let Ctrl-C and a polite kill end a run after the present step; a second Ctrl-C at once.

    Outside the main thread Python gives no signals, and nothing changes.
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
    """Return the documents to train on, and those held out.

    Args:
        data: says which.
        text: a folder in place of the recipe's own.

    Raises:
        SourceError: no text, or as of `read_documents`, `read_package` and `hold_out`.
    """
    folder = text or data.text
    if not folder:
        raise SourceError("no text to train on; name its folder with --text")
    found = read_documents(folder, include=data.include, leave_out=data.leave_out)
    for package in data.packages:
        found += read_package(package, leave_out=data.leave_out)
    return hold_out(found, data.held_out)


def _held_out(
    model: QwenForCausalLM, *, tokenizer: Tokenizer, documents: list[Document], data: DataSettings
) -> Evaluation:
    found = evaluate(
        model, tokenizer, documents, context=data.context, batch_size=data.batch_size
    ).values()
    return functools.reduce(lambda a, b: a + b, found)
