"""What happens while a training runs: progress, metrics, early stop, checkpoints, best model."""

from __future__ import annotations

import copy
import csv
import math
import re
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from qwenkit.errors import CheckpointError, InputError
from qwenkit.files import clear_leftovers, replacing
from qwenkit.lora import lora_layers, save_adapter
from qwenkit.pretrained import save_pretrained
from qwenkit.tokenizer import Tokenizer
from qwenkit.train.checkpoints import (
    NAME,
    checkpoints,
    refuse_broken_weights,
    save_training,
    writing,
)
from qwenkit.train.loop import Callback, Metrics, Trainer

COLUMNS = (
    "step", "tokens", "loss", "learning_rate", "gradient_norm", "tokens_per_second",
    "evaluation_loss", "evaluation_bits_per_byte",
)  # fmt: skip


class ProgressBar(Callback):
    """A bar with loss, learning rate and tokens a second (tqdm: in a terminal or a notebook)."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.held_out: str | None = None  # bits a byte at the last evaluation

    def on_start(self, trainer: Trainer) -> None:
        """Open the bar at the step the run starts from."""
        self.bar = tqdm(total=trainer.settings.steps, initial=trainer.step, unit="step")

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        """Move it on."""
        shown = {"loss": f"{metrics.loss:.3f}", "lr": f"{metrics.learning_rate:.1e}"}
        shown["tok/s"] = f"{metrics.tokens_per_second:,.0f}"
        if metrics.evaluation is not None:
            self.held_out = f"{metrics.evaluation.bits_per_byte:.3f}"
        if self.held_out is not None:
            shown["held-out bits/byte"] = self.held_out
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()

    def on_end(self, trainer: Trainer) -> None:
        """Close it."""
        self.bar.close()

    def on_error(self, trainer: Trainer) -> None:
        """Close it, so that the error stands on a line of its own."""
        if self.bar is not None:  # the error may have come before the bar
            self.bar.close()


class CsvLog(Callback):
    """Metrics as a table: a row every `log_every` steps and at each evaluation.

    Loss, gradient norm and tokens a second are means over the steps since the row before.

    Args:
        path: of the CSV file. A new training replaces it; a resumed one drops the rows of steps
            that it does again.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.sums: list[float] = [0.0, 0.0, 0.0, 0.0]

    def on_start(self, trainer: Trainer) -> None:
        """Open the file with the rows that still hold."""
        clear_leftovers(self.path.parent, re.escape(self.path.name))
        with writing(self.path):
            rows = self._rows(trainer.step) if self.path.is_file() else []
            text = "\n".join([",".join(COLUMNS), *rows, ""])
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="\n")

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        """Count the step, and write a row if one is due."""
        step = (metrics.loss, metrics.gradient_norm, 1 / metrics.tokens_per_second, 1.0)
        self.sums = [old + new for old, new in zip(self.sums, step, strict=True)]
        last = metrics.step == trainer.settings.steps
        if metrics.step % trainer.settings.log_every and not metrics.evaluation and not last:
            return
        loss, norm, seconds, count = self.sums
        found = metrics.evaluation
        row = [metrics.step, metrics.tokens, f"{loss / count:.5f}", f"{metrics.learning_rate:.4g}"]
        row += [f"{norm / count:.4f}", f"{count / seconds:.0f}"]
        row += [f"{found.loss:.5f}", f"{found.bits_per_byte:.5f}"] if found else ["", ""]
        with writing(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow(row)
        self.sums = [0.0, 0.0, 0.0, 0.0]

    def state(self) -> dict[str, Any]:
        """Return the sums since the last row."""
        return {"sums": self.sums}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        loss, norm, seconds, count = state["sums"]
        self.sums = [float(loss), float(norm), float(seconds), float(count)]

    def _rows(self, step: int) -> list[str]:
        """Return the rows up to a step; half a row, which a crash may leave, is dropped."""
        lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        rows = [line for line in lines if line.count(",") == len(COLUMNS) - 1]
        return [r for r in rows if (n := r.partition(",")[0]).isdecimal() and int(n) <= step]


class EarlyStop(Callback):
    """Stops after `patience` evaluations in a row that were no better than the best.

    Args:
        patience: at least 1.

    Raises:
        InputError: patience is below 1.
    """

    def __init__(self, patience: int) -> None:
        if patience < 1:
            raise InputError(f"patience is {patience}; it must be at least 1")
        self.patience = patience
        self.best, self.worse = math.inf, 0

    def on_start(self, trainer: Trainer) -> None:
        """Stop at once where the run that is resumed was at its end."""
        self._stop_if_due(trainer)

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        """Compare the evaluation with the best so far."""
        if metrics.evaluation is None:
            return
        if metrics.evaluation.loss < self.best:
            self.best, self.worse = metrics.evaluation.loss, 0
            return
        self.worse += 1
        self._stop_if_due(trainer)

    def _stop_if_due(self, trainer: Trainer) -> None:
        if self.worse >= self.patience:
            trainer.stopping = (
                f"the held-out loss has not fallen below {self.best:.4f} "
                f"in {self.patience} evaluations"
            )

    def state(self) -> dict[str, Any]:
        """Return the best loss and how often it was missed."""
        return {"best": None if math.isinf(self.best) else self.best, "worse": self.worse}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.best = _loss(state["best"])
        self.worse = int(state["worse"])


class KeepModel(Callback):
    """Keeps the finished model as a Hugging Face checkpoint: the best one, by the held-out loss.

    Without evaluations it is the last one. Of a model with LoRA it keeps the adapter.

    Args:
        folder: where; made if absent.
        tokenizer: saved beside the weights.
        dtype: of the saved weights.
    """

    def __init__(
        self, folder: str | Path, tokenizer: Tokenizer, dtype: torch.dtype = torch.float32
    ) -> None:
        self.folder, self.tokenizer, self.dtype = Path(folder), tokenizer, dtype
        self.best = math.inf

    def on_start(self, trainer: Trainer) -> None:
        """Remove what a killed run was writing."""
        clear_leftovers(self.folder, r"model|\w+\.json")

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        """Save the model if it is the best so far."""
        found = metrics.evaluation
        if found is not None and found.loss < self.best:
            self.best = found.loss
            self._save(trainer)

    def on_end(self, trainer: Trainer) -> None:
        """Save the last model of a training without evaluations."""
        if math.isinf(self.best) and trainer.step:
            self._save(trainer)

    def state(self) -> dict[str, Any]:
        """Return the best loss."""
        return {"best": None if math.isinf(self.best) else self.best}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.best = _loss(state["best"])

    def _save(self, trainer: Trainer) -> None:
        refuse_broken_weights(trainer)
        if lora_layers(trainer.model):
            with writing(self.folder):
                save_adapter(trainer.model, self.folder)
            return
        saved = copy.deepcopy(trainer.model).to(self.dtype)  # the training keeps its float32
        with writing(self.folder):
            save_pretrained(saved, self.folder, self.tokenizer)


class SaveTraining(Callback):
    """Writes a checkpoint every `save_every` steps, and one when the run ends.

    It must stand last, so that the other callbacks' states are those after the step.

    Args:
        folder: holds the checkpoints.
        keep: how many stay, at least 1.

    Raises:
        InputError: keep is below 1.
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        if keep < 1:
            raise InputError(f"keep is {keep}; it must be at least 1")
        self.folder, self.keep = Path(folder), keep

    def on_start(self, trainer: Trainer) -> None:
        """Remove what a killed run was writing.

        Raises:
            CheckpointError: a new training where another one's checkpoints are.
        """
        clear_leftovers(self.folder, NAME.pattern)
        if trainer.step == 0 and checkpoints(self.folder):
            raise CheckpointError(
                f"{self.folder} holds the checkpoints of an earlier training; resume that, or take "
                "another folder"
            )

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        """Save if it is due."""
        every = trainer.settings.save_every
        if every and metrics.step % every == 0:
            save_training(self.folder, trainer, self.keep)

    def on_end(self, trainer: Trainer) -> None:
        """Save the last state, unless it is saved already or there was no step."""
        saved = checkpoints(self.folder)
        if trainer.step and (not saved or saved[-1][0] != trainer.step):
            save_training(self.folder, trainer, self.keep)


def _loss(saved: float | None) -> float:
    """Return a best loss as it was before JSON, which has no infinity."""
    return math.inf if saved is None else float(saved)
