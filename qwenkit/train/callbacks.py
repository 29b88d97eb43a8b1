"""What happens while a training runs: progress, early stop, the best model."""

import copy
import math
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from qwenkit.errors import shown
from qwenkit.lora import lora_layers, save_adapter
from qwenkit.pretrained import save_pretrained
from qwenkit.tokenizer import Tokenizer
from qwenkit.train._checks import at_least, is_number
from qwenkit.train._stored import refuse_broken_weights, writing
from qwenkit.train.loop import Callback, Metrics, Trainer


class ProgressBar(Callback):
    """A bar with loss, learning rate and tokens per second (tqdm: in a terminal or a notebook)."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._held_out: dict[str, str] = {}  # bits per byte at the last evaluation

    def on_start(self, trainer: Trainer) -> None:
        """Open the bar at the step the run starts from."""
        self._bar = tqdm(total=trainer.settings.steps, initial=trainer.step, unit="step")

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        """Advance it."""
        shown = {"loss": f"{metrics.loss:.3f}", "lr": f"{metrics.learning_rate:.1e}"}
        shown["tok/s"] = f"{metrics.tokens_per_second:,.0f}"
        if metrics.evaluation is not None:
            self._held_out = {"held-out bits/byte": f"{metrics.evaluation.bits_per_byte:.3f}"}
        self._bar.set_postfix(shown | self._held_out, refresh=False)
        self._bar.update()

    def on_end(self, trainer: Trainer) -> None:
        """Close it."""
        if self._bar is not None:  # an error may have come before the bar
            self._bar.close()

    on_error = on_end  # so that the error is on a line of its own


class _Best(Callback):
    """Remembers the lowest held-out loss."""

    best = math.inf

    def _improves(self, metrics: Metrics) -> bool:
        """Tell whether the step's evaluation is the best so far; NaN is not."""
        if metrics.evaluation is None or not metrics.evaluation.loss < self.best:
            return False
        self.best = metrics.evaluation.loss
        return True

    def state(self) -> dict[str, Any]:
        """Return the best loss; None for infinity, which JSON does not have."""
        return {"best": None if math.isinf(self.best) else self.best}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore it."""
        best = state["best"]
        if best is not None and not is_number(best):
            raise ValueError(f"best is {shown(best, 60)}; it must be a finite number")
        self.best = math.inf if best is None else float(best)


class EarlyStop(_Best):
    """Stops after `patience` evaluations in a row that were not better than the best.

    Args:
        patience: at least 1.

    Raises:
        InputError: patience is below 1.
    """

    def __init__(self, patience: int) -> None:
        at_least(1, patience=patience)
        self.patience, self.worse = patience, 0

    def on_start(self, trainer: Trainer) -> None:
        """Stop at once where the run that is resumed was at its end."""
        self._stop_if_due(trainer)

    def _stop_if_due(self, trainer: Trainer) -> None:
        if self.worse >= self.patience:
            trainer.stopping = (
                f"the held-out loss has not fallen below {self.best:.4f} "
                f"in {self.patience} evaluations"
            )

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        """Compare the evaluation with the best so far."""
        if self._improves(metrics):
            self.worse = 0
        elif metrics.evaluation is not None:
            self.worse += 1
            self._stop_if_due(trainer)

    def state(self) -> dict[str, Any]:
        """Return the best loss and how often it was missed."""
        return {**super().state(), "worse": self.worse}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore them."""
        worse = state["worse"]
        if type(worse) is not int or not 0 <= worse < 2**63:
            raise ValueError(f"worse is {shown(worse, 60)}; it must be an integer of at least 0")
        super().load_state(state)
        self.worse = worse


class KeepModel(_Best):
    """Keeps the finished model as a Hugging Face checkpoint: the best one, by the held-out loss.

    Without evaluations it is the last one. Of a model with LoRA it keeps the adapter.

    Args:
        folder: where; made if absent.
        tokenizer: saved next to the weights.
        dtype: of the saved weights.
    """

    def __init__(
        self, folder: str | Path, tokenizer: Tokenizer, dtype: torch.dtype = torch.float32
    ) -> None:
        self.folder, self.tokenizer, self.dtype = Path(folder), tokenizer, dtype

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        """Save the model if it is the best so far."""
        if self._improves(metrics):
            self._save(trainer)

    def on_end(self, trainer: Trainer) -> None:
        """Save the last model of a training without evaluations."""
        if math.isinf(self.best) and trainer.step:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        refuse_broken_weights(trainer)
        with writing(self.folder):
            if lora_layers(trainer.model):
                save_adapter(trainer.model, self.folder)
            else:
                saved = copy.deepcopy(trainer.model).to(self.dtype)  # training keeps its float32
                save_pretrained(saved, self.folder, self.tokenizer)
